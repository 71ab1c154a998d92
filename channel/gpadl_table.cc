// SPDX-License-Identifier: MIT
#include "ferrybus/channel/gpadl_table.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/message_codec.h"

namespace ferrybus {
namespace {

constexpr size_t kPageNumberSizeBytes = sizeof(uint64_t);

// What stands before the page numbers of a range.
struct RangeHeader {
  uint32_t byte_count = 0;
  uint32_t byte_offset = 0;
};
static_assert(sizeof(RangeHeader) == 8);

std::string Name(GpadlId id) {
  return absl::StrCat("GPADL 0x", absl::Hex(static_cast<uint32_t>(id)));
}

}  // namespace

absl::Status CheckRingGeometry(const GpadlView& gpadl,
                               uint32_t downstream_page_offset,
                               uint32_t ring_pages_max) {
  const uint64_t page_count = gpadl.pages.size();
  if (gpadl.byte_offset != 0 ||
      gpadl.byte_count != page_count * kGpadlPageSizeBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        Name(gpadl.id), " of ", gpadl.byte_count, " bytes at offset ",
        gpadl.byte_offset, " is not whole pages, as rings must be"));
  }
  if (page_count > ring_pages_max) {
    return absl::ResourceExhaustedError(
        absl::StrCat(Name(gpadl.id), " has ", page_count,
                     " pages; rings may have ", ring_pages_max));
  }
  // A ring is a control page and at least one data page.
  if (downstream_page_offset < 2 || page_count < 4 ||
      downstream_page_offset > page_count - 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("downstream page offset ", downstream_page_offset,
                     " splits the ", page_count, " pages of ", Name(gpadl.id),
                     " so that a ring has less than two"));
  }
  std::vector<uint64_t> sorted(gpadl.pages.begin(), gpadl.pages.end());
  std::sort(sorted.begin(), sorted.end());
  const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
  if (twice != sorted.end()) {
    return absl::InvalidArgumentError(absl::StrCat("page 0x", absl::Hex(*twice),
                                                   " is twice in the rings of ",
                                                   Name(gpadl.id)));
  }
  return absl::OkStatus();
}

absl::Status GpadlTable::CheckRoom(uint32_t page_count,
                                   bool in_progress) const {
  if (gpadls_.size() >= limits_.count_max) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the guest has ", gpadls_.size(), " GPADLs; at most ",
                     limits_.count_max, " allowed"));
  }
  if (in_progress && in_progress_count_ >= limits_.in_progress_max) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the guest has ", in_progress_count_, " unfinished GPADLs; at most ",
        limits_.in_progress_max, " allowed"));
  }
  if (page_count > limits_.pages_max - page_count_) {
    return absl::ResourceExhaustedError(
        absl::StrCat("GPADLs of ", page_count_, " pages and ", page_count,
                     " more; at most ", limits_.pages_max, " allowed"));
  }
  return absl::OkStatus();
}

absl::StatusOr<GpadlState> GpadlTable::Begin(
    const GpadlHeaderMessage& header, absl::Span<const std::byte> range_bytes) {
  if (gpadls_.contains(header.gpadl_id)) {
    return absl::AlreadyExistsError(
        absl::StrCat(Name(header.gpadl_id), " exists already"));
  }
  const size_t size_bytes = header.range_buffer_size_bytes;
  if (header.range_count != 1 || range_bytes.size() < sizeof(RangeHeader)) {
    return absl::InvalidArgumentError(
        absl::StrCat(Name(header.gpadl_id), " has ", header.range_count,
                     " ranges; exactly one, in the first message, allowed"));
  }
  RangeHeader range;
  std::memcpy(&range, range_bytes.data(), sizeof(range));
  const uint32_t page_count =
      GpadlPageCount(range.byte_count, range.byte_offset);
  if (page_count == 0 ||
      size_bytes != sizeof(range) + page_count * kPageNumberSizeBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(Name(header.gpadl_id), " of ", range.byte_count,
                     " bytes at offset ", range.byte_offset,
                     " does not fit a range buffer of ", size_bytes, " bytes"));
  }
  range_bytes.remove_prefix(sizeof(range));
  const bool in_progress =
      range_bytes.size() < page_count * kPageNumberSizeBytes;
  absl::Status room = CheckRoom(page_count, in_progress);
  if (!room.ok()) return room;

  Gpadl gpadl{.id = header.gpadl_id,
              .channel_id = header.channel_id,
              .byte_count = range.byte_count,
              .byte_offset = range.byte_offset,
              .page_count = page_count};
  gpadl.pages.reserve(page_count);
  absl::Status appended = AppendPages(gpadl, range_bytes);
  if (!appended.ok()) return appended;

  const GpadlState state = gpadl.state;
  if (state == GpadlState::kInProgress) ++in_progress_count_;
  page_count_ += page_count;
  const GpadlKey key = gpadl.key();
  gpadls_.emplace(key, std::move(gpadl));
  return state;
}

absl::Status GpadlTable::AppendPages(
    Gpadl& gpadl, absl::Span<const std::byte> range_bytes) const {
  const size_t missing = gpadl.page_count - gpadl.pages.size();
  const size_t count =
      std::min(missing, range_bytes.size() / kPageNumberSizeBytes);
  for (size_t i = 0; i < count; ++i) {
    uint64_t page = 0;
    std::memcpy(&page, range_bytes.data() + i * kPageNumberSizeBytes,
                sizeof(page));
    // Page 0 holds the firmware's tables; no guest makes a buffer of it.
    if (page == 0 || page >= limits_.ram_page_count) {
      return absl::InvalidArgumentError(absl::StrCat(
          Name(gpadl.id), " names page 0x", absl::Hex(page),
          "; guest RAM has 1...0x", absl::Hex(limits_.ram_page_count - 1)));
    }
    gpadl.pages.push_back(page);
  }
  if (gpadl.pages.size() == gpadl.page_count) {
    gpadl.state = GpadlState::kCreated;
  }
  return absl::OkStatus();
}

absl::StatusOr<GpadlState> GpadlTable::Append(
    GpadlId id, absl::Span<const std::byte> range_bytes) {
  const auto found = gpadls_.find(id);
  if (found == gpadls_.end()) {
    return absl::NotFoundError(
        absl::StrCat("GPADL_BODY for ", Name(id), ", which has no header"));
  }
  Gpadl& gpadl = found->second;
  if (gpadl.state != GpadlState::kInProgress) {
    return absl::FailedPreconditionError(
        absl::StrCat("GPADL_BODY for ", Name(id), ", which is complete"));
  }
  absl::Status appended =
      range_bytes.empty()
          ? absl::InvalidArgumentError(absl::StrCat("GPADL_BODY for ", Name(id),
                                                    " carries no page numbers"))
          : AppendPages(gpadl, range_bytes);
  if (!appended.ok()) {
    Remove(id);
    return appended;
  }
  if (gpadl.state == GpadlState::kCreated) --in_progress_count_;
  return gpadl.state;
}

const Gpadl* GpadlTable::Find(GpadlKey key) const {
  const auto found = gpadls_.find(key);
  return found == gpadls_.end() ? nullptr : &found->second;
}

void GpadlTable::MarkTearingDown(GpadlKey key) {
  gpadls_.at(key).state = GpadlState::kTearingDown;
  ++tearing_down_count_;
}

void GpadlTable::Pin(GpadlKey key) { ++gpadls_.at(key).pin_count; }

void GpadlTable::Unpin(GpadlKey key) { --gpadls_.at(key).pin_count; }

void GpadlTable::SetIsRing(GpadlKey key, bool is_ring) {
  gpadls_.at(key).is_ring = is_ring;
}

void GpadlTable::Remove(GpadlKey key) {
  const auto found = gpadls_.find(key);
  if (found == gpadls_.end()) return;
  const Gpadl& gpadl = found->second;
  if (gpadl.state == GpadlState::kInProgress) --in_progress_count_;
  if (gpadl.state == GpadlState::kTearingDown) --tearing_down_count_;
  page_count_ -= gpadl.page_count;
  gpadls_.erase(found);
}

void GpadlTable::RemoveAllOfChannel(ChannelId channel_id) {
  for (auto next = gpadls_.begin(); next != gpadls_.end();) {
    const auto here = next++;
    if (here->second.channel_id == channel_id) Remove(here->first);
  }
}

void GpadlTable::EndConnection(const std::set<ChannelId>& reserved) {
  for (auto next = gpadls_.begin(); next != gpadls_.end();) {
    const auto here = next++;
    const Gpadl& gpadl = here->second;
    if (gpadl.is_kept) continue;
    if (gpadl.state == GpadlState::kInProgress ||
        !reserved.contains(gpadl.channel_id)) {
      Remove(here->first);
      continue;
    }
    Gpadl kept = std::move(here->second);
    gpadls_.erase(here);
    kept.is_kept = true;
    const GpadlKey key = kept.key();
    gpadls_.emplace(key, std::move(kept));
  }
}

void GpadlTable::Restore(Gpadl gpadl) {
  if (gpadl.state == GpadlState::kInProgress) ++in_progress_count_;
  if (gpadl.state == GpadlState::kTearingDown) ++tearing_down_count_;
  page_count_ += gpadl.page_count;
  gpadl.pages.reserve(gpadl.page_count);
  const GpadlKey key = gpadl.key();
  gpadls_.emplace(key, std::move(gpadl));
}

}  // namespace ferrybus
