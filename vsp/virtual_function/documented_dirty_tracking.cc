// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/virtual_function/documented_dirty_tracking.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "ferrybus/savestate/migration/memory_ranges.h"
#include "ferrybus/vsp/virtual_function/documented_status.h"

namespace ferrybus::vsp {
namespace {

using migration::BasisId;
using migration::DirtyQuery;
using migration::MemoryRange;
using migration::Segment;

// Behind the buffer that a driver gets: it must not write there.
constexpr size_t kGuardBytes = 16;
constexpr std::byte kGuard{0xA7};
// In the buffer: what the driver does not answer was written, for all we know.
constexpr std::byte kUnanswered{0xFF};

}  // namespace

absl::StatusOr<BasisId> DocumentedDirtyTracking::CreateBasis(
    uint32_t segment, absl::Span<const MemoryRange> ranges) {
  const auto found =
      std::find_if(segments_.begin(), segments_.end(),
                   [&](const Segment& s) { return s.id == segment; });
  if (found == segments_.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("segment ", segment, " does not exist"));
  }
  if (ranges.size() > kRangesMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat(ranges.size(), " ranges; at most ", kRangesMax));
  }
  if (auto status = migration::CheckBasisRanges(found->ranges,
                                                found->page_size_bytes, ranges);
      !status.ok()) {
    return status;
  }
  // The structure and its array, as one block that is aligned for both.
  static_assert(sizeof(DXGKARG_CREATEMEMORYBASIS) == sizeof(DXGK_MEMORYRANGE));
  std::vector<DXGK_MEMORYRANGE> block(1 + ranges.size());
  auto* args = reinterpret_cast<DXGKARG_CREATEMEMORYBASIS*>(block.data());
  args->SegmentId = segment;
  args->RangeCount = ranges.size();
  for (size_t i = 0; i < ranges.size(); ++i) {
    block[1 + i] = {ranges[i].offset_bytes, ranges[i].size_bytes};
  }
  absl::MutexLock lock(&mutex_);
  if (is_broken_) return absl::InternalError("the driver failed before");
  if (bases_.size() >= kBasesMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat(kBasesMax, " bases, which is the limit; destroy one"));
  }
  void* const handle = functions_.create_memory_basis(functions_.context, args);
  if (handle == nullptr) {
    return absl::ResourceExhaustedError(
        "DxgkDdiCreateMemoryBasis of the driver gave no handle");
  }
  Basis& basis = bases_[++last_id_];
  basis.handle = handle;
  basis.page_size_bytes = found->page_size_bytes;
  basis.ranges.assign(ranges.begin(), ranges.end());
  return last_id_;
}

absl::Status DocumentedDirtyTracking::DestroyBasis(BasisId basis) {
  absl::MutexLock lock(&mutex_);
  const auto found = Find(basis, false);
  if (!found.ok()) return found.status();
  const NTSTATUS status =
      functions_.destroy_memory_basis(functions_.context, (*found)->handle);
  bases_.erase(basis);
  if (status == STATUS_SUCCESS) return absl::OkStatus();
  is_broken_ = true;
  return absl::InternalError(absl::StrCat(
      "DxgkDdiDestroyMemoryBasis of the driver gave status 0x",
      absl::Hex(status, absl::kZeroPad8), ": it does not know its own basis"));
}

absl::Status DocumentedDirtyTracking::StartTracking(BasisId basis) {
  absl::MutexLock lock(&mutex_);
  const auto found = Find(basis, false);
  if (!found.ok()) return found.status();
  absl::Status status = ToFinalStatus(
      functions_.start_dirty_tracking(functions_.context, (*found)->handle),
      "DxgkDdiStartDirtyTracking");
  (*found)->is_tracked = status.ok();
  return status;
}

absl::Status DocumentedDirtyTracking::StopTracking(BasisId basis) {
  absl::MutexLock lock(&mutex_);
  const auto found = Find(basis, true);
  if (!found.ok()) return found.status();
  // Also when that fails: nobody may ask any more.
  (*found)->is_tracked = false;
  return ToFinalStatus(
      functions_.stop_dirty_tracking(functions_.context, (*found)->handle),
      "DxgkDdiStopDirtyTracking");
}

absl::Status DocumentedDirtyTracking::Query(BasisId basis,
                                            const DirtyQuery& query,
                                            absl::Span<std::byte> bits) {
  absl::ReaderMutexLock lock(&mutex_);
  const auto found = Find(basis, true);
  if (!found.ok()) return found.status();
  const auto pages = migration::CheckQuery(
      query, (*found)->ranges, (*found)->page_size_bytes, bits.size());
  if (!pages.ok()) return pages.status();
  const size_t bytes = (*pages + 7) / 8;
  std::vector<std::byte> buffer(bytes, kUnanswered);
  buffer.resize(bytes + kGuardBytes, kGuard);
  DXGKARG_QUERYDIRTYBITDATA args = {};
  args.MemoryBasis = (*found)->handle;
  if (query.size_bytes != 0) {
    args.SubrangeIndex = query.range_index;
    args.SubrangeOffset = query.offset_bytes;
    args.SubrangeSize = query.size_bytes;
  }
  args.Buffer = buffer.data();
  args.BufferSize = bytes;
  if (query.clear) args.Flags = DXGKARG_QUERYDIRTYBITDATAFLAGS_CLEARDATA;
  if (auto status = ToFinalStatus(
          functions_.query_dirty_bit_data(functions_.context, &args),
          "DxgkDdiQueryDirtyBitData");
      !status.ok()) {
    return status;
  }
  if (!std::all_of(buffer.begin() + bytes, buffer.end(),
                   [](std::byte byte) { return byte == kGuard; })) {
    return absl::InternalError(
        absl::StrCat("DxgkDdiQueryDirtyBitData of the driver wrote beyond the ",
                     bytes, " bytes of ", *pages, " pages"));
  }
  if (*pages % 8 != 0) buffer[bytes - 1] &= std::byte(0xFF >> (8 - *pages % 8));
  std::memcpy(bits.data(), buffer.data(), bytes);
  return absl::OkStatus();
}

absl::StatusOr<DocumentedDirtyTracking::Basis*> DocumentedDirtyTracking::Find(
    BasisId basis, bool is_tracked) {
  if (is_broken_) return absl::InternalError("the driver failed before");
  const auto found = bases_.find(basis);
  if (found == bases_.end()) {
    return absl::NotFoundError(
        absl::StrCat("basis ", basis, " does not exist"));
  }
  if (found->second.is_tracked == is_tracked) return &found->second;
  return absl::FailedPreconditionError(absl::StrCat(
      "basis ", basis, is_tracked ? " is not" : " is", " tracked"));
}

}  // namespace ferrybus::vsp
