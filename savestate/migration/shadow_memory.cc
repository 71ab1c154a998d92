// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/migration/shadow_memory.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace ferrybus::migration {
namespace {

constexpr BasisId kBasis = 1;

absl::Status CheckRange(uint64_t offset, uint64_t size, uint64_t all) {
  if (offset <= all && size <= all - offset) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(size, " bytes at ", offset, " of ", all));
}

}  // namespace

ShadowMemory::ShadowMemory(uint32_t segment, absl::Span<std::byte> memory)
    : segment_(segment), memory_(memory) {}

absl::Status ShadowMemory::Read(uint64_t offset_bytes,
                                absl::Span<std::byte> out) {
  absl::Status status = CheckRange(offset_bytes, out.size(), memory_.size());
  if (!status.ok()) return status;
  absl::ReaderMutexLock lock(&mutex_);
  const std::byte* from = is_tracked_ ? copy_.data() : memory_.data();
  std::memcpy(out.data(), from + offset_bytes, out.size());
  return absl::OkStatus();
}

absl::Status ShadowMemory::Write(uint64_t offset_bytes,
                                 absl::Span<const std::byte> data) {
  absl::Status status = CheckRange(offset_bytes, data.size(), memory_.size());
  if (!status.ok()) return status;
  std::memcpy(memory_.data() + offset_bytes, data.data(), data.size());
  return absl::OkStatus();
}

absl::StatusOr<BasisId> ShadowMemory::CreateBasis(
    uint32_t segment, absl::Span<const MemoryRange> ranges) {
  absl::MutexLock lock(&mutex_);
  if (segment != segment_ || ranges.size() != 1 ||
      ranges[0] != MemoryRange{0, memory_.size()}) {
    return absl::InvalidArgumentError(absl::StrCat("a basis is all of segment ",
                                                   segment_, ": ",
                                                   memory_.size(), " bytes"));
  }
  if (has_basis_) return absl::ResourceExhaustedError("one basis");
  has_basis_ = true;
  return kBasis;
}

absl::Status ShadowMemory::CheckBasis(BasisId basis) const {
  if (has_basis_ && basis == kBasis) return absl::OkStatus();
  return absl::NotFoundError(absl::StrCat("basis ", basis));
}

absl::Status ShadowMemory::DestroyBasis(BasisId basis) {
  absl::MutexLock lock(&mutex_);
  absl::Status status = CheckBasis(basis);
  if (!status.ok()) return status;
  if (is_tracked_) return absl::FailedPreconditionError("it is tracked");
  has_basis_ = false;
  return absl::OkStatus();
}

absl::Status ShadowMemory::StartTracking(BasisId basis) {
  absl::MutexLock lock(&mutex_);
  absl::Status status = CheckBasis(basis);
  if (!status.ok()) return status;
  if (is_tracked_) return absl::FailedPreconditionError("it is tracked");
  copy_.assign(memory_.begin(), memory_.end());
  is_tracked_ = true;
  return absl::OkStatus();
}

absl::Status ShadowMemory::StopTracking(BasisId basis) {
  absl::MutexLock lock(&mutex_);
  absl::Status status = CheckBasis(basis);
  if (!status.ok()) return status;
  if (!is_tracked_) return absl::FailedPreconditionError("it is not tracked");
  is_tracked_ = false;
  copy_ = {};
  return absl::OkStatus();
}

absl::Status ShadowMemory::Query(BasisId basis, const DirtyQuery& query,
                                 absl::Span<std::byte> bits) {
  absl::MutexLock lock(&mutex_);
  absl::Status status = CheckBasis(basis);
  if (!status.ok()) return status;
  if (!is_tracked_) return absl::FailedPreconditionError("it is not tracked");
  const bool is_whole = query.size_bytes == 0;
  const uint64_t begin = is_whole ? 0 : query.offset_bytes;
  const uint64_t size = is_whole ? memory_.size() : query.size_bytes;
  const uint64_t pages = size / kPageSizeMin;
  if ((!is_whole && query.range_index != 0) ||
      (begin | size) % kPageSizeMin != 0 ||
      !CheckRange(begin, size, memory_.size()).ok() ||
      bits.size() < (pages + 7) / 8) {
    return absl::InvalidArgumentError(
        absl::StrCat("query of ", size, " bytes at ", begin, " into ",
                     bits.size(), " bytes"));
  }
  std::fill_n(bits.begin(), (pages + 7) / 8, std::byte{0});
  for (uint64_t page = 0; page < pages; ++page) {
    const uint64_t offset = begin + page * kPageSizeMin;
    std::byte* copy = copy_.data() + offset;
    if (std::memcmp(copy, memory_.data() + offset, kPageSizeMin) == 0) {
      continue;
    }
    bits[page / 8] |= std::byte{1} << (page % 8);
    if (query.clear) {
      std::memcpy(copy, memory_.data() + offset, kPageSizeMin);
    }
  }
  return absl::OkStatus();
}

}  // namespace ferrybus::migration
