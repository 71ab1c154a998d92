// SPDX-License-Identifier: MIT
//
// Puts a Linux kernel into guest RAM as a boot loader would, by the "64-bit
// boot protocol" (Documentation/x86/boot.rst).
//
// Trust: the files may be anything; what is not a kernel is refused.

#ifndef FERRYBUS_EXAMPLES_HYPERVISOR_BOOT_LINUX_H_
#define FERRYBUS_EXAMPLES_HYPERVISOR_BOOT_LINUX_H_

#include <linux/kvm.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace ferrybus::hypervisor {

struct LinuxImage {
  std::string kernel_path;  // a bzImage
  std::string initrd_path;  // may be empty
  std::string command_line;
};

// Where the first processor starts.
struct BootEntry {
  uint64_t rip = 0;
  uint64_t boot_params = 0;
};

// RAM is one piece from address 0.  NotFound, InvalidArgument,
// ResourceExhausted: the text names the file and what is wrong with it.
absl::StatusOr<BootEntry> LoadLinux(const LinuxImage& image, uint64_t acpi_rsdp,
                                    absl::Span<std::byte> ram);

// The registers for it: long mode, the first 4 GiB mapped one to one.
kvm_regs BootRegisters(const BootEntry& entry);
void SetBootSegments(kvm_sregs* registers);

}  // namespace ferrybus::hypervisor

#endif  // FERRYBUS_EXAMPLES_HYPERVISOR_BOOT_LINUX_H_
