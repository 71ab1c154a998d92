// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/migration/pending_pages.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"

namespace ferrybus::migration {

static_assert(kMigratedPageSizeMax <= kBlockBytesMax);

PendingPages::PendingPages(Migratable* device)
    : device_(device),
      always_tracks_(device->capabilities().performant_tracking) {}

absl::StatusOr<std::unique_ptr<PendingPages>> PendingPages::Create(
    Migratable* device, MemoryOrigin origin) {
  auto pages = absl::WrapUnique(new PendingPages(device));
  for (Segment& segment : device->segments()) {
    Memory memory;
    memory.size_bytes = SegmentSizeBytes(segment);
    if (!std::has_single_bit(segment.page_size_bytes) ||
        segment.page_size_bytes < kPageSizeMin ||
        segment.page_size_bytes > kMigratedPageSizeMax ||
        memory.size_bytes == 0 ||
        memory.size_bytes % segment.page_size_bytes != 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          device->name(), ": segment ", segment.id, " of ", memory.size_bytes,
          " bytes in pages of ", segment.page_size_bytes));
    }
    memory.pages = memory.size_bytes / segment.page_size_bytes;
    const uint64_t words = (memory.pages + 63) / 64;
    memory.pending.resize(words);
    if (pages->always_tracks_) {
      memory.ever.resize(words,
                         origin == MemoryOrigin::kUnknown ? ~uint64_t{0} : 0);
    }
    memory.segment = std::move(segment);
    pages->memories_.push_back(std::move(memory));
  }
  absl::Status status = pages->CreateBases();
  if (status.ok() && pages->always_tracks_) status = pages->StartTracking();
  if (!status.ok()) return status;
  return pages;
}

PendingPages::~PendingPages() {
  if (is_tracking_) StopTracking();
  for (const Memory& memory : memories_) {
    if (memory.basis == 0) continue;
    // Only a bug of the device's can refuse this.
    (void)device_->dirty_tracking()->DestroyBasis(memory.basis);
  }
}

absl::Status PendingPages::CreateBases() {
  DirtyTracking* const tracking = device_->dirty_tracking();
  const Capabilities capabilities = device_->capabilities();
  if (!capabilities.live_migration && !always_tracks_) {
    return absl::OkStatus();
  }
  for (Memory& memory : memories_) {
    if (tracking == nullptr) {
      return absl::FailedPreconditionError(
          absl::StrCat(device_->name(),
                       ": live migration without dirty tracking of segment ",
                       memory.segment.id));
    }
    absl::StatusOr<BasisId> basis =
        tracking->CreateBasis(memory.segment.id, memory.segment.ranges);
    if (!basis.ok()) {
      return absl::FailedPreconditionError(
          absl::StrCat(device_->name(), ": segment ", memory.segment.id,
                       " is not tracked: ", basis.status().message()));
    }
    memory.basis = *basis;
  }
  return absl::OkStatus();
}

absl::Status PendingPages::StartTracking() {
  for (const Memory& memory : memories_) {
    if (memory.is_excluded) continue;
    absl::Status status =
        device_->dirty_tracking()->StartTracking(memory.basis);
    if (status.ok()) {
      is_tracking_ = true;
      continue;
    }
    StopTracking();  // of those before; the others refuse, which is right
    return status;
  }
  return absl::OkStatus();
}

void PendingPages::StopTracking() {
  for (const Memory& memory : memories_) {
    (void)device_->dirty_tracking()->StopTracking(memory.basis);
  }
  is_tracking_ = false;
}

absl::Status PendingPages::Begin(bool track) {
  if (always_tracks_) {
    {
      absl::MutexLock lock(&mutex_);
      for (Memory& memory : memories_) Add(memory.ever, memory);
    }
    return Collect();
  }
  // Before the first page is read: what is written meanwhile is sent again.
  if (track) {
    absl::Status status = StartTracking();
    if (!status.ok()) return status;
  }
  absl::MutexLock lock(&mutex_);
  for (Memory& memory : memories_) SetAll(memory);
  return absl::OkStatus();
}

absl::Status PendingPages::Collect() {
  if (!is_tracking_) return absl::OkStatus();
  for (Memory& memory : memories_) {
    // Bits that are not asked for stay with the device.
    if (memory.is_excluded) continue;
    absl::Status status = CollectSegment(memory);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status PendingPages::CollectSegment(Memory& memory) {
  // Bits of little-endian words are bits of bytes, in the same order.
  static_assert(std::endian::native == std::endian::little);
  std::vector<uint64_t> bits(memory.pending.size());
  absl::Status status = device_->dirty_tracking()->Query(
      memory.basis, {.clear = true},
      absl::MakeSpan(reinterpret_cast<std::byte*>(bits.data()),
                     bits.size() * sizeof(uint64_t)));
  if (!status.ok()) {
    // What was cleared by then is not known: all may have been written.
    absl::MutexLock lock(&mutex_);
    SetAll(memory);
    std::fill(memory.ever.begin(), memory.ever.end(), ~uint64_t{0});
    return status;
  }
  absl::MutexLock lock(&mutex_);
  for (size_t i = 0; i < memory.ever.size(); ++i) memory.ever[i] |= bits[i];
  Add(bits, memory);
  return absl::OkStatus();
}

void PendingPages::Exclude(uint32_t segment) {
  absl::MutexLock lock(&mutex_);
  for (Memory& memory : memories_) {
    if (memory.segment.id != segment) continue;
    memory.is_excluded = true;
    Clear(memory);
  }
}

void PendingPages::Clear(Memory& memory) {
  std::fill(memory.pending.begin(), memory.pending.end(), 0);
  memory.pending_pages = 0;
}

void PendingPages::SetAll(Memory& memory) {
  if (memory.is_excluded) return;
  std::fill(memory.pending.begin(), memory.pending.end(), ~uint64_t{0});
  memory.pending_pages = memory.pages;
  if (memory.pages % 64 != 0) {
    memory.pending.back() = (uint64_t{1} << (memory.pages % 64)) - 1;
  }
  memory.cursor = 0;
}

void PendingPages::Add(absl::Span<const uint64_t> bits, Memory& memory) {
  if (memory.is_excluded) return;
  uint64_t pages = 0;
  for (size_t i = 0; i < bits.size(); ++i) {
    uint64_t& word = memory.pending[i];
    word |= bits[i];
    // Bits beyond the last page are nobody's.
    if (i + 1 == bits.size() && memory.pages % 64 != 0) {
      word &= (uint64_t{1} << (memory.pages % 64)) - 1;
    }
    pages += static_cast<uint64_t>(std::popcount(word));
  }
  memory.pending_pages = pages;
  memory.cursor = 0;
}

std::optional<PageBatch> PendingPages::Take(uint64_t bytes_max) {
  absl::MutexLock lock(&mutex_);
  for (Memory& memory : memories_) {
    if (memory.pending_pages == 0) continue;
    const uint64_t page_size = memory.segment.page_size_bytes;
    uint64_t room = std::max<uint64_t>(1, bytes_max / page_size);
    PageBatch batch = {
        .segment = memory.segment.id, .page_size_bytes = page_size, .runs = {}};
    while (room > 0 && memory.pending_pages > 0) {
      uint64_t& word = memory.pending[memory.cursor];
      if (word == 0) {
        ++memory.cursor;
        continue;
      }
      const auto bit = static_cast<uint64_t>(std::countr_zero(word));
      const auto ones = static_cast<uint64_t>(std::countr_one(word >> bit));
      const uint64_t pages = std::min(ones, room);
      const uint64_t first = memory.cursor * 64 + bit;
      word &=
          ~((pages == 64 ? ~uint64_t{0} : (uint64_t{1} << pages) - 1) << bit);
      if (!batch.runs.empty() &&
          batch.runs.back().first_page + batch.runs.back().pages == first) {
        batch.runs.back().pages += pages;
      } else {
        batch.runs.push_back({first, pages});
      }
      room -= pages;
      memory.pending_pages -= pages;
    }
    return batch;
  }
  return std::nullopt;
}

uint64_t PendingPages::pending_bytes() const {
  absl::MutexLock lock(&mutex_);
  uint64_t bytes = 0;
  for (const Memory& memory : memories_) {
    bytes += memory.pending_pages * memory.segment.page_size_bytes;
  }
  return bytes;
}

void PendingPages::End() {
  if (is_tracking_ && !always_tracks_) StopTracking();
  absl::MutexLock lock(&mutex_);
  for (Memory& memory : memories_) {
    memory.is_excluded = false;
    Clear(memory);
  }
}

}  // namespace ferrybus::migration
