// SPDX-License-Identifier: MIT
//
// The guest that the kit plays: posts channel messages, owns RAM, reads and
// writes the rings of its channels.
//
// What it is: the steps that rules are made of.  Each step that has an answer
// checks it (type, exact size, fields) and fails the trial when it is wrong;
// once a trial is over, steps do nothing and give back empty values.
//
// Ownership: Trial owns it.  Channels live as long as the guest.
// Thread safety: one thread.

#ifndef FERRYBUS_TESTS_CONFORMANCE_GUEST_H_
#define FERRYBUS_TESTS_CONFORMANCE_GUEST_H_

#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "ferrybus/channel/guest_memory.h"
#include "ferrybus/channel/message_codec.h"
#include "ferrybus/tests/conformance/device_protocol.h"
#include "ferrybus/tests/conformance/endpoint.h"
#include "ferrybus/tests/conformance/guest_ring.h"
#include "ferrybus/tests/conformance/rule.h"

namespace ferrybus::conformance {

// A message of the host, with its bytes.
struct HostBytes {
  Bytes bytes;

  // The value at an offset; 0 beyond the end.
  template <typename T>
  T At(size_t offset) const {
    T value{};
    if (offset + sizeof(T) <= bytes.size()) {
      std::memcpy(&value, bytes.data() + offset, sizeof(T));
    }
    return value;
  }
  MessageType type() const { return MessageType{At<uint32_t>(0)}; }
};

struct GuestChannel {
  uint32_t relid = 0;
  uint32_t gpadl = 0;
  std::vector<uint64_t> pages;
  uint32_t downstream_offset = 0;
  GuestRing out;  // to the host
  GuestRing in;
  RingWriter writer;
  RingReader reader;
  bool is_open = false;
  bool reads = true;  // takes packets in Settle()
  uint64_t next_id = 0x1122334400000001;
  std::deque<ReceivedPacket> received;
};

// A payload: a header and data.
Bytes Payload(Command command, uint32_t argument = 0, uint64_t number = 0,
              absl::Span<const std::byte> data = {});
DeviceHeader HeaderOf(const ReceivedPacket& packet);
Bytes Pattern(size_t bytes, uint64_t seed);
template <typename T>
Bytes BytesOf(const T& value) {
  Bytes bytes(sizeof(T));
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}

class Guest {
 public:
  Guest(Trial* trial, const MemfdGuestMemory* memory);
  ~Guest();

  // -- Messages
  // ----------------------------------------------------------------

  void Post(absl::Span<const std::byte> payload, uint32_t connection = 1);
  void Post(const EncodedMessage& message) { Post(message.bytes()); }
  // Both sides work until nothing is left to do.
  void Settle();
  // The next message of the host; nullopt: none.
  std::optional<HostBytes> TakeMessage();
  // It has this type and exactly this size.
  HostBytes Expect(MessageType type, size_t size);
  void ExpectNoMessage(const std::string& when);
  // Whether the host signalled the channel since the last call.
  bool TakeSignal(const GuestChannel& channel);
  void Signal(const GuestChannel& channel);

  void PostContact(ProtocolVersion version, uint32_t features = 0);
  // False: the endpoint does not have this version.
  bool TryConnect(ProtocolVersion version, uint32_t features = 0);
  // At 5.3 and with all offers.
  void Connect();
  // Offers up to ALLOFFERS_DELIVERED, noted for relid().
  std::vector<HostBytes> RequestOffers(size_t offer_size = 196);
  uint32_t relid(uint32_t device);

  // -- GPADLs and channels
  // -----------------------------------------------------

  std::vector<uint64_t> NewPages(uint32_t count);
  std::byte* page(uint64_t number) const;
  const MemfdGuestMemory& memory() const { return *memory_; }
  uint32_t NewGpadlId() { return next_gpadl_++; }
  // All of its messages.
  void PostGpadl(uint32_t relid, uint32_t gpadl,
                 absl::Span<const uint64_t> pages);
  // True: GPADL_CREATED says success.
  bool ExpectCreated(uint32_t relid, uint32_t gpadl);
  uint32_t MakeGpadl(uint32_t relid, absl::Span<const uint64_t> pages);
  void PostTeardown(uint32_t relid, uint32_t gpadl);
  void ExpectTorndown(uint32_t gpadl);

  // A channel with fresh rings, up to its GPADL.
  GuestChannel& Prepare(uint32_t device, uint32_t data_pages = 1);
  void PostOpen(const GuestChannel& channel, uint32_t open_id = 0x77,
                uint8_t user_data = 0);
  // The status of OPENCHANNEL_RESULT.
  uint32_t ExpectOpenResult(uint32_t relid, uint32_t open_id = 0x77);
  GuestChannel& Open(uint32_t device, uint32_t data_pages = 1);
  void PostClose(GuestChannel& channel);
  void Close(GuestChannel& channel);  // and tears its GPADL down

  // -- Packets
  // -----------------------------------------------------------------

  // Writes, publishes, signals if that is due.
  void Send(GuestChannel& channel, const RawPacket& packet);
  // The next transaction id; what it asks is up to the rule.
  RawPacket Request(GuestChannel& channel, Command command,
                    uint32_t argument = 0, uint64_t number = 0,
                    absl::Span<const std::byte> data = {});
  // Request and Send; its transaction id.
  uint64_t Ask(GuestChannel& channel, Command command, uint32_t argument = 0,
               uint64_t number = 0, absl::Span<const std::byte> data = {});
  // Settles; the next packet from the host, which must be there.
  ReceivedPacket Take(GuestChannel& channel);
  // ... and be the completion of this transaction.
  ReceivedPacket ExpectAnswer(GuestChannel& channel, uint64_t id);
  // Ask and ExpectAnswer.
  ReceivedPacket Do(GuestChannel& channel, Command command,
                    uint32_t argument = 0, uint64_t number = 0,
                    absl::Span<const std::byte> data = {});
  // Completes a request of the host.
  void Complete(GuestChannel& channel, const ReceivedPacket& request);
  void ExpectNoPacket(GuestChannel& channel, const std::string& when);
  // A request goes there and back with its bytes.
  void ExpectAlive(GuestChannel& channel);
  // The host stopped this channel: it takes nothing more, though its ring is
  // right again; `other` works; after a reopening so does this one.
  void ExpectFaultedAlone(GuestChannel& channel, GuestChannel& other);

 private:
  bool ReadRings();

  Trial* const trial_;
  const MemfdGuestMemory* const memory_;
  uint64_t next_page_ = 1;
  uint32_t next_gpadl_ = 0xe1e10;
  std::deque<HostBytes> inbox_;
  std::set<uint32_t> signalled_;
  std::map<uint32_t, uint32_t> relids_;  // by device
  std::deque<GuestChannel> channels_;
  uint64_t echoes_ = 0;
};

}  // namespace ferrybus::conformance

#endif  // FERRYBUS_TESTS_CONFORMANCE_GUEST_H_
