// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/virtual_function/accelerator_world.h"

#include <algorithm>

#include "ferrybus/savestate/size_negotiation.h"

namespace ferrybus::vsp {
namespace {

using migration::Role;
using savestate::SizingDialect;

template <typename T>
void WriteTable(MsixTable& table, uint64_t offset, T value) {
  (void)table.WriteTable(
      offset, absl::MakeConstSpan(reinterpret_cast<const std::byte*>(&value),
                                  sizeof(value)));
}

std::vector<std::vector<std::byte>> NewMemory(
    const AcceleratorHostOptions& options) {
  std::vector<std::vector<std::byte>> memory;
  for (uint64_t size : options.sizes) memory.emplace_back(size);
  return memory;
}

}  // namespace

AcceleratorHost::AcceleratorHost(uint64_t number,
                                 const AcceleratorHostOptions& options)
    : options(options),
      memory(NewMemory(options)),
      interrupts(number, options.vectors),
      table({.vectors = options.vectors}, &interrupts, &interrupts),
      dirty(DirtySegments()),
      config(&table),
      accelerator({.segments = Segments()}, &table, &dirty),
      migratable(options.migratable, {.accelerator = &accelerator,
                                      .interrupts = &table,
                                      .dirty = &dirty,
                                      .config = &config}) {
  if (options.has_port) accelerator.SetPort(&port);
}

std::vector<AcceleratorSegment> AcceleratorHost::Segments() {
  std::vector<AcceleratorSegment> segments;
  for (uint32_t i = 0; i < memory.size(); ++i) {
    segments.push_back({i + 1, options.pages[i], absl::MakeSpan(memory[i])});
  }
  return segments;
}

std::vector<migration::DirtySegment> AcceleratorHost::DirtySegments() const {
  std::vector<migration::DirtySegment> segments;
  for (uint32_t i = 0; i < options.sizes.size(); ++i) {
    segments.push_back({i + 1, options.sizes[i], options.pages[i]});
  }
  return segments;
}

void AcceleratorHost::StartInterrupts() {
  (void)table.Resume();
  for (uint32_t i = 0; i < table.vectors(); ++i) {
    const uint64_t offset = uint64_t{i} * 16;
    WriteTable<uint64_t>(table, offset, kInterruptRange + offset);
    WriteTable<uint32_t>(table, offset + 8, 0x40 + i);
    Mask(i, false);
  }
  (void)table.WriteControl(MsixTable::kEnable);
}

void AcceleratorHost::Mask(uint32_t vector, bool is_masked) {
  WriteTable<uint32_t>(table, vector * 16 + 12, is_masked ? 1 : 0);
}

uint64_t AcceleratorHost::SentOf(uint32_t vector) const {
  return static_cast<uint64_t>(
      std::count_if(interrupts.sent.begin(), interrupts.sent.end(),
                    [&](const auto& sent) { return sent.first == vector; }));
}

absl::StatusOr<std::string> SaveImmutableOf(AcceleratorMigratable& migratable) {
  return savestate::NegotiateSize(
      {.dialect = SizingDialect::kGpuP, .immutable = true}, "immutable data",
      [&](absl::Span<std::byte> out) { return migratable.SaveImmutable(out); });
}

absl::StatusOr<std::string> SaveMutableOf(AcceleratorMigratable& migratable) {
  return savestate::NegotiateSize(
      {.dialect = SizingDialect::kGpuP}, "mutable data",
      [&](absl::Span<std::byte> out) { return migratable.SaveMutable(out); });
}

// -- A move -------------------------------------------------------------------

absl::Status AcceleratorMove::Begin() {
  if (absl::Status status = source_->migratable.Prepare(Role::kSource);
      !status.ok()) {
    return status;
  }
  if (absl::Status status = target_->migratable.Prepare(Role::kTarget);
      !status.ok()) {
    return status;
  }
  const absl::StatusOr<std::string> blob = SaveImmutableOf(source_->migratable);
  if (!blob.ok()) return blob.status();
  if (absl::Status status =
          target_->migratable.RestoreImmutable(BlobBytes(*blob));
      !status.ok()) {
    return status;
  }
  for (const migration::Segment& segment : source_->migratable.segments()) {
    const auto basis = source_->dirty.CreateBasis(segment.id, segment.ranges);
    if (!basis.ok()) return basis.status();
    if (absl::Status status = source_->dirty.StartTracking(*basis);
        !status.ok()) {
      return status;
    }
    bases_[segment.id] = *basis;
    const uint64_t pages = SegmentSizeBytes(segment) / segment.page_size_bytes;
    for (uint64_t i = 0; i < pages; ++i) pending_.insert({segment.id, i});
  }
  return absl::OkStatus();
}

absl::Status AcceleratorMove::CopyDirty(size_t pages_max) {
  const std::vector<migration::Segment> segments =
      source_->migratable.segments();
  for (const migration::Segment& segment : segments) {
    const uint64_t pages = SegmentSizeBytes(segment) / segment.page_size_bytes;
    std::vector<std::byte> bits((pages + 7) / 8);
    if (absl::Status status = source_->dirty.Query(
            bases_[segment.id], {.clear = true}, absl::MakeSpan(bits));
        !status.ok()) {
      return status;
    }
    for (uint64_t i = 0; i < pages; ++i) {
      if ((bits[i / 8] >> (i % 8) & std::byte{1}) != std::byte{0}) {
        pending_.insert({segment.id, i});
      }
    }
  }
  while (!pending_.empty() && pages_max-- > 0) {
    const Page page = *pending_.begin();
    pending_.erase(pending_.begin());
    const uint64_t size = segments[page.segment - 1].page_size_bytes;
    std::vector<std::byte> bytes(size);
    if (absl::Status status = source_->migratable.ReadMemory(
            page.segment, page.number * size, absl::MakeSpan(bytes));
        !status.ok()) {
      return status;
    }
    if (absl::Status status = target_->migratable.WriteMemory(
            page.segment, page.number * size, bytes);
        !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

absl::Status AcceleratorMove::StopTracking() {
  absl::Status status;
  for (const auto& [segment, basis] : bases_) {
    status.Update(source_->dirty.StopTracking(basis));
    status.Update(source_->dirty.DestroyBasis(basis));
  }
  bases_.clear();
  return status;
}

absl::Status AcceleratorMove::Finish() {
  const absl::StatusOr<bool> is_paused = source_->migratable.Pause();
  if (!is_paused.ok()) return is_paused.status();
  if (absl::Status status = CopyDirty(~size_t{0}); !status.ok()) return status;
  const absl::StatusOr<std::string> blob = SaveMutableOf(source_->migratable);
  if (!blob.ok()) return blob.status();
  for (const auto& step :
       {+[](AcceleratorMove*move, const std::string&saved) {
          return move->target_->migratable.RestoreMutable(BlobBytes(saved));
        },
        +[](AcceleratorMove*move, const std::string&) {
          return move->target_->migratable.RewriteInterrupts();
        },
        +[](AcceleratorMove*move, const std::string&) {
          return move->source_->migratable.Confirm();
        }}) {
    if (absl::Status status = step(this, *blob); !status.ok()) return status;
  }
  source_->migratable.Retire();
  source_->migratable.End();
  target_->migratable.End();
  target_->migratable.Resume();
  return StopTracking();
}

absl::Status AcceleratorMove::Cancel() {
  source_->migratable.Resume();
  source_->migratable.End();
  target_->migratable.End();
  return StopTracking();
}

}  // namespace ferrybus::vsp
