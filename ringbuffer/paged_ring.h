// SPDX-License-Identifier: MIT
//
// A ring whose pages cannot be mapped in a row: the fallback when RingMapping
// is not possible, since only a pointer for each page exists (guest RAM that
// was mapped once, by someone else) or the process has no mappings left.
//
// What it is: an access policy under the same BasicRingProducer and
// BasicRingConsumer, so that there is one implementation of all checks.  To
// them the data area looks twice mapped as always; but the addresses are only
// reserved, and PagedAccess finds the page behind each.  Code that goes around
// the policy crashes at once instead of touching something else.
//
// Ownership: PagedRing owns the reserved addresses and the list of pages, not
// the pages.  Handles and packets made from it die with it; it may be moved
// meanwhile.
//
// Thread safety: constant after Create().  Handles: as ring_producer.h and
// ring_consumer.h say.
//
// Memory ordering: that of the policy inside; the control words are its own.
//
// Trust: the pages belong to the peer as well; each shared byte is fetched
// once (memory_access.h).  The list of pages is private.
//
// Cost: one mapping without memory per ring (2 * data_bytes of addresses), 8
// bytes of heap per page, at Create() only.  Each copy looks up the address of
// each page that it touches: a small packet, written and read, takes two to
// three times as long as over a contiguous mapping (some 25 ns more), one of
// 4 KiB a third more.  No Reserve(): packets are copied in.  PacketView grows
// by 48 bytes.
//
//   PagedRing ring;
//   if (int error = PagedRing::Create(pages, &ring); error != 0) return error;
//   PagedRingProducer producer(ring.view(), ring.access());

#ifndef FERRYBUS_RINGBUFFER_PAGED_RING_H_
#define FERRYBUS_RINGBUFFER_PAGED_RING_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "ferrybus/ringbuffer/memory_access.h"
#include "ferrybus/ringbuffer/ring_consumer.h"
#include "ferrybus/ringbuffer/ring_producer.h"
#include "ferrybus/ringbuffer/ring_view.h"
#include "ferrybus/ringbuffer/wire.h"

namespace ferrybus::ringbuffer {

// `Inner` gets the addresses of the pages, one copy for each page.
template <class Inner = ProductionAccess>
class BasicPagedAccess : public Inner {
 public:
  BasicPagedAccess() = default;
  // `data_pages`: in the ring's order, view.data_bytes / 4096 of them; they
  // and the list stay where they are while the policy is used.
  BasicPagedAccess(const RingView& view, std::byte* const* data_pages,
                   Inner inner = Inner())
      : Inner(inner),
        base_(view.data),
        data_bytes_(view.data_bytes),
        data_pages_(data_pages) {}

  static constexpr bool kInPlace = false;

  void CopyFrom(void* to, const std::byte* shared, size_t bytes) const {
    auto* const out = static_cast<std::byte*>(to);
    if (bytes == 8 || bytes == 16) {
      // A word or a descriptor: 8-aligned, so that no word is in two pages.
      for (size_t at = 0; at < bytes; at += 8) {
        Inner::CopyFrom(out + at, Locate(shared + at), 8);
      }
      return;
    }
    ForEachPage(shared, bytes, [&](std::byte* page, size_t at, size_t size) {
      Inner::CopyFrom(out + at, page, size);
    });
  }
  void CopyTo(std::byte* shared, const void* from, size_t bytes) const {
    const auto* const in = static_cast<const std::byte*>(from);
    ForEachPage(shared, bytes, [&](std::byte* page, size_t at, size_t size) {
      Inner::CopyTo(page, in + at, size);
    });
  }
  void PrefetchForRead(const std::byte* shared) const {
    Inner::PrefetchForRead(Locate(shared));
  }
  void PrefetchForWrite(const std::byte* shared) const {
    Inner::PrefetchForWrite(Locate(shared));
  }

 private:
  std::byte* Locate(const std::byte* shared) const {
    size_t index = static_cast<size_t>(shared - base_);
    if (index >= data_bytes_) index -= data_bytes_;
    return data_pages_[index / kPageBytes] + index % kPageBytes;
  }

  // Calls `copy(address, offset, size)` for the part of [shared,
  // shared + bytes) in each page.
  template <class Copy>
  void ForEachPage(const std::byte* shared, size_t bytes, Copy copy) const {
    for (size_t at = 0; at < bytes;) {
      const size_t index = static_cast<size_t>(shared + at - base_);
      const size_t size =
          std::min<size_t>(bytes - at, kPageBytes - index % kPageBytes);
      copy(Locate(shared + at), at, size);
      at += size;
    }
  }

  const std::byte* base_ = nullptr;
  size_t data_bytes_ = 0;
  std::byte* const* data_pages_ = nullptr;
};

using PagedAccess = BasicPagedAccess<>;
using PagedRingProducer = BasicRingProducer<PagedAccess>;
using PagedRingConsumer = BasicRingConsumer<PagedAccess>;
using PagedPacketView = BasicPacketView<PagedAccess>;

class PagedRing {
 public:
  PagedRing() = default;
  PagedRing(PagedRing&& other) noexcept
      : data_pages_(std::move(other.data_pages_)),
        view_(std::exchange(other.view_, RingView())) {}
  PagedRing& operator=(PagedRing&& other) noexcept;
  ~PagedRing();

  // `pages`: the address of each page of the ring, the control page first;
  // multiples of 4096, readable and writable, there until the ring ends.
  // Returns 0, or an errno (EINVAL: fewer than two pages, or too many, or an
  // address that cannot be; ENOMEM: no addresses to reserve).
  [[nodiscard]] static int Create(absl::Span<std::byte* const> pages,
                                  PagedRing* ring);

  // The control page itself, and a data area that only access() can touch.
  const RingView& view() const { return view_; }
  PagedAccess access() const { return {view_, data_pages_.data()}; }

 private:
  std::vector<std::byte*> data_pages_;
  RingView view_;
};

}  // namespace ferrybus::ringbuffer

#endif  // FERRYBUS_RINGBUFFER_PAGED_RING_H_
