// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/virtual_function/msix_placement.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "ferrybus/vsp/virtual_function/msix_state.h"

namespace ferrybus::vsp {
namespace {

constexpr uint64_t kPageBytes = 4096;
constexpr uint32_t kBars = 6;

struct Extent {
  uint32_t bar;
  uint64_t begin;
  uint64_t end;

  bool Overlaps(const Extent& other) const {
    return bar == other.bar && begin < other.end && other.begin < end;
  }
};

Extent TableExtent(const MsixPlacement& placement) {
  const uint64_t begin = placement.table.offset_bytes;
  return {placement.table.bar, begin,
          begin + uint64_t{placement.vectors} * sizeof(MsixEntry)};
}

Extent PendingExtent(const MsixPlacement& placement) {
  const uint64_t begin = placement.pending.offset_bytes;
  return {placement.pending.bar, begin,
          begin + (uint64_t{placement.vectors} + 63) / 64 * 8};
}

Extent WholePages(const Extent& extent) {
  return {extent.bar, extent.begin / kPageBytes,
          (extent.end + kPageBytes - 1) / kPageBytes};
}

absl::Status CheckExtent(const char* what, const Extent& extent) {
  if (extent.bar < kBars && extent.begin % 8 == 0 && extent.end <= 1ull << 32) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(what, ": BAR ", extent.bar, ", bytes 0x",
                   absl::Hex(extent.begin), " to 0x", absl::Hex(extent.end),
                   ": must be in BAR 0 to 5, at a multiple of 8, below 4 GiB"));
}

void Put32(uint32_t value, uint8_t* at) {
  for (int i = 0; i < 4; ++i) at[i] = static_cast<uint8_t>(value >> (8 * i));
}

MsixMitigatedRange ToRange(const Extent& pages) {
  return {pages.bar, pages.begin,
          static_cast<uint32_t>(pages.end - pages.begin)};
}

}  // namespace

absl::Status CheckPlacement(const MsixPlacement& placement) {
  if (placement.vectors < 1 || placement.vectors > kMsixVectorsMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("interrupt table: ", placement.vectors,
                     " vectors, must be 1 to ", kMsixVectorsMax));
  }
  const Extent table = TableExtent(placement);
  const Extent pending = PendingExtent(placement);
  if (absl::Status status = CheckExtent("interrupt table", table);
      !status.ok()) {
    return status;
  }
  if (absl::Status status = CheckExtent("pending bits", pending);
      !status.ok()) {
    return status;
  }
  if (table.Overlaps(pending)) {
    return absl::InvalidArgumentError(
        absl::StrCat("BAR ", table.bar, ": the interrupt table at 0x",
                     absl::Hex(table.begin), " and the pending bits at 0x",
                     absl::Hex(pending.begin), " overlap: move one of them"));
  }
  return absl::OkStatus();
}

std::array<uint8_t, 12> MsixCapability(const MsixPlacement& placement,
                                       uint8_t next_capability) {
  std::array<uint8_t, 12> bytes = {kMsixCapabilityId, next_capability};
  bytes[2] = static_cast<uint8_t>(placement.vectors - 1);
  bytes[3] = static_cast<uint8_t>((placement.vectors - 1) >> 8);
  Put32(placement.table.offset_bytes | placement.table.bar, &bytes[4]);
  Put32(placement.pending.offset_bytes | placement.pending.bar, &bytes[8]);
  return bytes;
}

std::vector<MsixMitigatedRange> MitigatedRanges(
    const MsixPlacement& placement) {
  Extent table = WholePages(TableExtent(placement));
  const Extent pending = WholePages(PendingExtent(placement));
  if (!table.Overlaps(pending)) return {ToRange(table), ToRange(pending)};
  table.begin = std::min(table.begin, pending.begin);
  table.end = std::max(table.end, pending.end);
  return {ToRange(table)};
}

absl::StatusOr<MsixBars> MsixBars::Make(const MsixPlacement& placement,
                                        MsixTable* table) {
  if (absl::Status status = CheckPlacement(placement); !status.ok()) {
    return status;
  }
  if (placement.vectors != table->vectors()) {
    return absl::InvalidArgumentError(
        absl::StrCat("interrupt table: placed for ", placement.vectors,
                     " vectors, the table has ", table->vectors()));
  }
  return MsixBars(placement, table);
}

std::optional<MsixBars::Target> MsixBars::Find(uint32_t bar, uint64_t offset,
                                               uint64_t size_bytes) const {
  // An access that only touches a region is the region's to refuse: the
  // difference then wraps to an offset that is far outside.
  const uint64_t room = ~uint64_t{0} - offset;
  const Extent access = {bar, offset, offset + std::min(size_bytes, room)};
  const Extent table = TableExtent(placement_);
  if (access.Overlaps(table)) return Target{true, offset - table.begin};
  const Extent pending = PendingExtent(placement_);
  if (access.Overlaps(pending)) return Target{false, offset - pending.begin};
  return std::nullopt;
}

std::optional<MsixAccess> MsixBars::Read(uint32_t bar, uint64_t offset,
                                         absl::Span<std::byte> out) const {
  const std::optional<Target> target = Find(bar, offset, out.size());
  if (!target.has_value()) return std::nullopt;
  return target->is_table ? table_->ReadTable(target->offset, out)
                          : table_->ReadPending(target->offset, out);
}

std::optional<MsixAccess> MsixBars::Write(
    uint32_t bar, uint64_t offset, absl::Span<const std::byte> bytes) const {
  const std::optional<Target> target = Find(bar, offset, bytes.size());
  if (!target.has_value()) return std::nullopt;
  return target->is_table ? table_->WriteTable(target->offset, bytes)
                          : table_->WritePending(target->offset, bytes);
}

}  // namespace ferrybus::vsp
