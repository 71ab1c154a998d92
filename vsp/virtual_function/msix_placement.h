// SPDX-License-Identifier: MIT
//
// Where a function's MSI-X table and pending bit array lie: the capability that
// says so to the guest, the pages whose accesses have to be intercepted, and
// which of the accesses there are the table's.
//
// The documents' drivers declare such pages as "mitigated", each with the BAR,
// its first page and how many there are.  They are intercepted for reads and
// writes from the guest's start to its end, not only while it moves.
//
// Thread safety: values and pure functions; MsixBars as its table.
// Trust: the placement is the device's author's; accesses are the guest's.
//
// Source: PCI Local Bus 3.0, 6.8.2; SRIOV_MITIGATED_RANGES_OUTPUT.

#ifndef FERRYBUS_VSP_VIRTUAL_FUNCTION_MSIX_PLACEMENT_H_
#define FERRYBUS_VSP_VIRTUAL_FUNCTION_MSIX_PLACEMENT_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/vsp/virtual_function/msix_table.h"

namespace ferrybus::vsp {

struct MsixRegion {
  uint32_t bar = 0;           // 0 to 5
  uint32_t offset_bytes = 0;  // in the BAR, a multiple of 8
};

struct MsixPlacement {
  uint32_t vectors = 1;
  MsixRegion table;
  MsixRegion pending;
};

// InvalidArgument: no BAR, not aligned, beyond 4 GiB, or one over the other.
absl::Status CheckPlacement(const MsixPlacement& placement);

inline constexpr uint8_t kMsixCapabilityId = 0x11;
// The capability at reset.  REQUIRES: CheckPlacement() is OK.
std::array<uint8_t, 12> MsixCapability(const MsixPlacement& placement,
                                       uint8_t next_capability);

// Pages of 4096 bytes; reads and writes are intercepted.
struct MsixMitigatedRange {
  uint32_t bar;
  uint64_t base_page;
  uint32_t pages;

  friend bool operator==(const MsixMitigatedRange&,
                         const MsixMitigatedRange&) = default;
};
// One or two.  REQUIRES: CheckPlacement() is OK.
std::vector<MsixMitigatedRange> MitigatedRanges(const MsixPlacement& placement);

// Accesses to BARs, for a table.
class MsixBars {
 public:
  // The table outlives it.  InvalidArgument: see CheckPlacement(), or not as
  // many vectors as the table has.
  static absl::StatusOr<MsixBars> Make(const MsixPlacement& placement,
                                       MsixTable* table);

  // nullopt: neither the table nor the pending bits; it is the device's.
  std::optional<MsixAccess> Read(uint32_t bar, uint64_t offset,
                                 absl::Span<std::byte> out) const;
  std::optional<MsixAccess> Write(uint32_t bar, uint64_t offset,
                                  absl::Span<const std::byte> bytes) const;

 private:
  struct Target {
    bool is_table;
    uint64_t offset;
  };

  MsixBars(const MsixPlacement& placement, MsixTable* table)
      : placement_(placement), table_(table) {}
  std::optional<Target> Find(uint32_t bar, uint64_t offset,
                             uint64_t size_bytes) const;

  MsixPlacement placement_;
  MsixTable* table_;
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_VIRTUAL_FUNCTION_MSIX_PLACEMENT_H_
