// SPDX-License-Identifier: MIT
//
// Two PacketEndpoints on one pair of rings, and what their tests look at.
//
// Ownership: EndpointPair owns memory, both endpoints and their events.
// Thread safety: doorbell and work counts from any thread, the rest from one.

#ifndef FERRYBUS_CHANNEL_ENDPOINT_TEST_UTIL_H_
#define FERRYBUS_CHANNEL_ENDPOINT_TEST_UTIL_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ferrybus/channel/packet_endpoint.h"

namespace ferrybus::testing {

std::string ToString(absl::Span<const std::byte> bytes);
// The bytes of `text`, which must outlive the span.
absl::Span<const std::byte> ToBytes(std::string_view text);
// `number` as 8 bytes, so that payloads need no padding.
std::string Numbered(uint64_t number);
uint64_t NumberIn(absl::Span<const std::byte> bytes);
// The extension of a GPA-direct packet with one range of whole pages.
std::string PageList(const std::vector<uint64_t>& pages);

// The seed of a random test; prints how to repeat it.
uint64_t AnnouncedSeed(const char* target);

class CountingDoorbell final : public Doorbell {
 public:
  void Ring(uint32_t channel_id) override;

  std::atomic<uint64_t> rings{0};
  std::atomic<uint32_t> last_channel{0};
  std::function<void()> on_ring;
};

class RecordingEvents final : public EndpointEvents {
 public:
  void OnPacket(IncomingPacket packet) override;
  void OnCompletion(uint64_t tag, absl::Span<const std::byte> reply) override;
  void OnBatchEnd(size_t packets) override { batches.push_back(packets); }
  void OnRoom() override;
  void OnWork() override;

  // Instead of keeping the packet in `held`.
  std::function<void(IncomingPacket)> on_packet;
  std::function<void()> on_completion;
  std::function<void()> on_room;
  std::function<void()> on_work;
  std::deque<IncomingPacket> held;
  std::vector<std::pair<uint64_t, std::string>> completions;
  std::vector<size_t> batches;
  int rooms = 0;
  std::atomic<uint64_t> works{0};
};

// One end: an endpoint, its doorbell to the peer, its events.
struct EndpointEnd {
  void Create(EndpointSide side, const EndpointLimits& limits,
              const GuestMemory* memory);
  // Polls until there is nothing more to do; returns how often.
  int PollDry();
  // Sends `payload`; with a tag, asks for a completion.
  SendStatus Send(std::string_view payload);
  SendStatus Request(std::string_view payload, uint64_t tag);

  CountingDoorbell doorbell;
  RecordingEvents events;
  std::unique_ptr<PacketEndpoint> endpoint;
};

struct EndpointPairOptions {
  uint32_t data_pages = 1;  // of each ring
  EndpointLimits host;
  EndpointLimits guest;
};

class EndpointPair {
 public:
  static constexpr uint32_t kChannel = 3;

  explicit EndpointPair(const EndpointPairOptions& options = {});
  // Packets that are still held end first.
  ~EndpointPair();

  // The rings, mapped once more: for a second owner or a hostile peer.
  RingPair MapRings();
  // Ends the host's endpoint as a kill would, and makes a detached one.
  void ReplaceHost();
  // Polls both ends until neither has anything to do.
  void Settle();

  std::atomic<uint32_t>& GuestToHostWord(uint32_t offset);
  std::atomic<uint32_t>& HostToGuestWord(uint32_t offset);

  EndpointPairOptions options;
  std::unique_ptr<MemfdGuestMemory> memory;
  EndpointEnd host;
  EndpointEnd guest;
};

// A guest that writes what it likes, beside the well-behaved endpoint.
class RawGuest {
 public:
  explicit RawGuest(EndpointPair& pair)
      : rings_(pair.MapRings()), producer_(rings_.guest_to_host.view()) {}

  // False: the ring is full.
  bool Write(ringbuffer::PacketType type, uint16_t flags,
             uint64_t transaction_id, std::string_view extension,
             std::string_view payload);
  bool Request(uint64_t transaction_id, std::string_view payload) {
    return Write(ringbuffer::PacketType::kDataInBand, 1, transaction_id, "",
                 payload);
  }

 private:
  RingPair rings_;
  ringbuffer::RingProducer producer_;
};

}  // namespace ferrybus::testing

#endif  // FERRYBUS_CHANNEL_ENDPOINT_TEST_UTIL_H_
