// SPDX-License-Identifier: MIT
//
// A ring as the kit's guest sees it: bytes in guest pages, written and read by
// code of its own, so that the kit does not measure an endpoint with the
// endpoint's ruler.
//
// What it is: GuestRing is the raw ring, both directions.  RingWriter and
// RingReader are a correct producer and a strict consumer on top of it; a rule
// that wants broken bytes writes them through GuestRing.
//
// Ownership: borrows guest RAM.  Thread safety: one thread; the other side may
// run at the same time in another process.
// Source: docs/WIRE_FORMAT.md, "Rings".

#ifndef FERRYBUS_TESTS_CONFORMANCE_GUEST_RING_H_
#define FERRYBUS_TESTS_CONFORMANCE_GUEST_RING_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "ferrybus/channel/guest_memory.h"
#include "ferrybus/tests/conformance/endpoint.h"

namespace ferrybus::conformance {

// Offsets of the control words.
inline constexpr uint32_t kWriteIndex = 0;
inline constexpr uint32_t kReadIndex = 4;
inline constexpr uint32_t kInterruptMask = 8;
inline constexpr uint32_t kPendingSend = 12;
inline constexpr uint32_t kFeatureBits = 64;

// Types of packets.
inline constexpr uint16_t kInBand = 6;
inline constexpr uint16_t kTransferPages = 7;
inline constexpr uint16_t kGpaDirect = 9;
inline constexpr uint16_t kCompletionPacket = 11;
inline constexpr uint16_t kWantsCompletion = 1;

class GuestRing {
 public:
  GuestRing() = default;
  // The first page is the control page.
  GuestRing(const GuestMemory& memory, absl::Span<const uint64_t> pages);

  // Control words 0, the data area full of 0xa5: what the host does not write
  // shows.
  void Initialise();

  uint32_t data_bytes() const {
    return static_cast<uint32_t>(pages_.size() - 1) * 4096;
  }
  uint32_t Load(uint32_t word) const;
  void Store(uint32_t word, uint32_t value);
  // `at` below data_bytes(); wraps.
  void Write(uint32_t at, absl::Span<const std::byte> bytes);
  Bytes Read(uint32_t at, uint32_t count) const;
  uint32_t Advance(uint32_t at, uint32_t count) const {
    return (at + count) % data_bytes();
  }
  // Bytes from `read` to `write`.
  uint32_t Used(uint32_t write, uint32_t read) const {
    return (write + data_bytes() - read) % data_bytes();
  }
  uint32_t Free(uint32_t write, uint32_t read) const {
    return data_bytes() - Used(write, read);
  }
  // Control page and data, for a comparison.
  Bytes Snapshot() const;

 private:
  std::vector<std::byte*> pages_;
};

// A packet as raw fields; what a rule does not set is right.
struct RawPacket {
  uint16_t type = kInBand;
  uint16_t flags = kWantsCompletion;
  uint64_t transaction_id = 0;
  Bytes extension = {};
  Bytes payload = {};
  std::optional<uint16_t> offset8 = std::nullopt;
  std::optional<uint16_t> length8 = std::nullopt;
  uint64_t trailer_xor = 0;
};

// With padding and trailer, as it lies in a ring at `at`.
Bytes EncodePacket(const RawPacket& packet, uint32_t at);

class RingWriter {
 public:
  RingWriter() = default;
  explicit RingWriter(GuestRing* ring) : ring_(ring) {}

  // False: no room.  Nothing is visible before Publish().
  bool Write(const RawPacket& packet);
  bool Fits(uint32_t bytes) const {
    return bytes < ring_->Free(write_, ring_->Load(kReadIndex));
  }
  // True: the consumer is to be signalled.
  bool Publish();

  uint32_t write_index() const { return write_; }
  void set_write_index(uint32_t index) { write_ = published_ = index; }

 private:
  GuestRing* ring_ = nullptr;
  uint32_t write_ = 0;
  uint32_t published_ = 0;
};

struct ReceivedPacket {
  uint16_t type = 0;
  uint16_t flags = 0;
  uint64_t transaction_id = 0;
  uint32_t at = 0;
  uint64_t trailer = 0;
  Bytes payload;  // with padding
};

class RingReader {
 public:
  RingReader() = default;
  explicit RingReader(GuestRing* ring) : ring_(ring) {}

  // The next packet; nullopt: there is none, or `broken` says what is wrong
  // with it.
  std::optional<ReceivedPacket> Next(std::string* broken);
  // Makes the room visible.  True: the producer is to be signalled.
  bool Release();
  uint32_t read_index() const { return read_; }
  void set_read_index(uint32_t index) { read_ = released_ = index; }

 private:
  GuestRing* ring_ = nullptr;
  uint32_t read_ = 0;
  uint32_t released_ = 0;
};

}  // namespace ferrybus::conformance

#endif  // FERRYBUS_TESTS_CONFORMANCE_GUEST_RING_H_
