// SPDX-License-Identifier: MIT
#ifndef FERRYBUS_CHANNEL_GPADL_TABLE_H_
#define FERRYBUS_CHANNEL_GPADL_TABLE_H_

// The GPADLs (guest buffers, as lists of page numbers) of one connection.
//
// A guest describes a buffer in a GPADL_HEADER message and as many GPADL_BODY
// messages as the page list needs; several GPADLs may be under way at once.
// The table assembles them, and keeps a finished one for as long as the guest
// does not tear it down, or longer: a GPADL that a device has pinned, or that
// holds the ring of an open channel, is never removed under its user.
//
// Thread safety: none; the owner locks.
// Trust: all input comes from the guest.  Ids are unique over the connection,
// page numbers are inside guest RAM, the number of GPADLs and of pages is
// capped before memory is taken.  Two GPADLs may name the same page.

#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/channel/messages.h"

namespace ferrybus {

struct GpadlLimits {
  size_t count_max = 4096;
  size_t in_progress_max = 256;
  // Over all GPADLs; 2^20 pages are 4 GiB of buffers, 8 MiB of page numbers.
  uint64_t pages_max = uint64_t{1} << 20;
  // One past the highest page number of guest RAM.
  uint64_t ram_page_count = 0;
};

// A finished GPADL, borrowed from the table.
struct GpadlView {
  GpadlId id{};
  ChannelId channel_id{};
  uint32_t byte_count = 0;
  uint32_t byte_offset = 0;  // into the first page, < 4096
  absl::Span<const uint64_t> pages;
};

enum class GpadlState {
  kInProgress,  // more GPADL_BODY messages are to come
  kCreated,
  kTearingDown,  // torn down by the guest, still in use here
};

// How the table finds a GPADL.  Those of reserved channels stay when their
// connection ends, and the next guest may give the same id to another: they are
// kept apart by channel.
struct GpadlKey {
  GpadlKey(GpadlId gpadl, ChannelId kept = {})  // NOLINT: an id is a key
      : kept_for(kept), id(gpadl) {}

  ChannelId kept_for{};  // 0: a GPADL of the connection that there is now
  GpadlId id{};

  friend auto operator<=>(const GpadlKey&, const GpadlKey&) = default;
};

struct Gpadl {
  GpadlId id{};
  ChannelId channel_id{};
  GpadlState state = GpadlState::kInProgress;
  uint32_t byte_count = 0;
  uint32_t byte_offset = 0;
  uint32_t page_count = 0;  // when finished
  std::vector<uint64_t> pages = {};
  uint32_t pin_count = 0;
  bool is_ring = false;  // of a channel that is open, opening or closing
  bool is_kept = false;  // of a reserved channel of a connection that ended

  GpadlKey key() const { return {id, is_kept ? channel_id : ChannelId{}}; }
  bool in_use() const { return pin_count != 0 || is_ring; }
  GpadlView view() const {
    return {id, channel_id, byte_count, byte_offset, pages};
  }
};

// Whether a GPADL can hold the two rings of a channel: whole pages, each page
// once, and for both rings a control page and at least one data page.
absl::Status CheckRingGeometry(const GpadlView& gpadl,
                               uint32_t downstream_page_offset,
                               uint32_t ring_pages_max);

class GpadlTable {
 public:
  explicit GpadlTable(const GpadlLimits& limits) : limits_(limits) {}

  // Starts a GPADL from the GPADL_HEADER message.  The result may already be
  // finished (kCreated).
  //
  // InvalidArgument: not one well-formed range, or a bad page number.
  // AlreadyExists: the id is taken.  ResourceExhausted: over a limit.
  // On error nothing changed.
  absl::StatusOr<GpadlState> Begin(const GpadlHeaderMessage& header,
                                   absl::Span<const std::byte> range_bytes);

  // Adds the page numbers of a GPADL_BODY message; those beyond the end are
  // ignored.
  //
  // NotFound: no such GPADL.  FailedPrecondition: it is finished; it stays as
  // it is.  InvalidArgument: a bad page number, or none at all; the GPADL,
  // which was in progress, is dropped.
  absl::StatusOr<GpadlState> Append(GpadlId id,
                                    absl::Span<const std::byte> range_bytes);

  // nullptr if there is none.  Valid until the GPADL is removed.
  const Gpadl* Find(GpadlKey key) const;

  // Marks a created GPADL as torn down by the guest.  The owner removes it
  // once it is not in use.  REQUIRES: it is created.
  void MarkTearingDown(GpadlKey key);

  // Keep a GPADL from being removed; pins count, the ring flag does not.
  // REQUIRES: the GPADL exists; Unpin has a Pin.
  void Pin(GpadlKey key);
  void Unpin(GpadlKey key);
  void SetIsRing(GpadlKey key, bool is_ring);

  // REQUIRES: none of the removed is in use.
  void Remove(GpadlKey key);
  void RemoveAllOfChannel(ChannelId channel_id);
  // The connection ends: finished GPADLs of the reserved channels are kept,
  // with those that are kept already; all others go.
  void EndConnection(const std::set<ChannelId>& reserved);

  // Takes over a GPADL from checked saved state.
  // REQUIRES: the id is free; the GPADL obeys the limits.
  void Restore(Gpadl gpadl);

  // In order of key, so that what is derived from it is reproducible.
  const std::map<GpadlKey, Gpadl>& gpadls() const { return gpadls_; }
  size_t tearing_down_count() const { return tearing_down_count_; }
  uint64_t page_count() const { return page_count_; }

 private:
  absl::Status CheckRoom(uint32_t page_count, bool in_progress) const;
  absl::Status AppendPages(Gpadl& gpadl,
                           absl::Span<const std::byte> range_bytes) const;

  GpadlLimits limits_;
  std::map<GpadlKey, Gpadl> gpadls_;
  size_t in_progress_count_ = 0;
  size_t tearing_down_count_ = 0;
  uint64_t page_count_ = 0;  // over all, unfinished ones counted whole
};

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_GPADL_TABLE_H_
