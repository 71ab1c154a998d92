// SPDX-License-Identifier: MIT
//
// The ACPI tables that a Linux guest needs here: processors, the I/O APIC, how
// to power off, and the device "VMBus", without which hv_vmbus does not begin.

#ifndef FERRYBUS_EXAMPLES_HYPERVISOR_ACPI_TABLES_H_
#define FERRYBUS_EXAMPLES_HYPERVISOR_ACPI_TABLES_H_

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"

namespace ferrybus::hypervisor {

// The ports of the power management block.
inline constexpr uint16_t kAcpiEventPort = 0x600;    // status: no event ever
inline constexpr uint16_t kAcpiEnablePort = 0x602;   // kept, and that is all
inline constexpr uint16_t kAcpiControlPort = 0x604;  // 2 bytes
inline constexpr uint16_t kAcpiPowerOff = 5 << 10 | 1 << 13;  // S5, enable
inline constexpr uint16_t kAcpiEnabled = 1;

// Writes the tables into the BIOS's area below 1 MiB.  The address of the
// root pointer.  REQUIRES: at least 1 MiB.
uint64_t WriteAcpiTables(uint32_t vp_count, absl::Span<std::byte> ram);

}  // namespace ferrybus::hypervisor

#endif  // FERRYBUS_EXAMPLES_HYPERVISOR_ACPI_TABLES_H_
