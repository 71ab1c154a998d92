// SPDX-License-Identifier: MIT

#include "ferrybus/channel/endpoint_test_util.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

#include "ferrybus/channel/check.h"

namespace ferrybus::testing {

std::string ToString(absl::Span<const std::byte> bytes) {
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

absl::Span<const std::byte> ToBytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

std::string Numbered(uint64_t number) {
  std::string text(sizeof(number), '\0');
  std::memcpy(text.data(), &number, sizeof(number));
  return text;
}

uint64_t NumberIn(absl::Span<const std::byte> bytes) {
  uint64_t number = ~uint64_t{0};
  if (bytes.size() >= sizeof(number)) {
    std::memcpy(&number, bytes.data(), sizeof(number));
  }
  return number;
}

std::string PageList(const std::vector<uint64_t>& pages) {
  const uint32_t words[4] = {0, 1, static_cast<uint32_t>(pages.size() * 4096),
                             0};
  std::string list(sizeof(words) + pages.size() * 8, '\0');
  std::memcpy(list.data(), words, sizeof(words));
  std::memcpy(list.data() + sizeof(words), pages.data(), pages.size() * 8);
  return list;
}

uint64_t AnnouncedSeed(const char* target) {
  const char* const given = std::getenv("FERRYBUS_SEED");
  const uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10)
                                         : std::random_device()();
  std::printf(
      "seed %llu; repeat: FERRYBUS_SEED=%llu bazel test "
      "--test_env=FERRYBUS_SEED %s\n",
      static_cast<unsigned long long>(seed),
      static_cast<unsigned long long>(seed), target);
  return seed;
}

void CountingDoorbell::Ring(uint32_t channel_id) {
  ++rings;
  last_channel = channel_id;
  if (on_ring) on_ring();
}

void RecordingEvents::OnPacket(IncomingPacket packet) {
  if (on_packet) {
    on_packet(std::move(packet));
  } else {
    held.push_back(std::move(packet));
  }
}

void RecordingEvents::OnCompletion(uint64_t tag,
                                   absl::Span<const std::byte> reply) {
  completions.emplace_back(tag, ToString(reply));
  if (on_completion) on_completion();
}

void RecordingEvents::OnRoom() {
  ++rooms;
  if (on_room) on_room();
}

void RecordingEvents::OnWork() {
  ++works;
  if (on_work) on_work();
}

void EndpointEnd::Create(EndpointSide side, const EndpointLimits& limits,
                         const GuestMemory* memory) {
  endpoint = std::make_unique<PacketEndpoint>(side, limits, memory, &doorbell,
                                              &events);
}

int EndpointEnd::PollDry() {
  int polls = 1;
  while (endpoint->Poll(64)) ++polls;
  return polls;
}

SendStatus EndpointEnd::Send(std::string_view payload) {
  OutgoingPacket packet;
  packet.payload = ToBytes(payload);
  packet.may_queue = true;
  return endpoint->Send(packet);
}

SendStatus EndpointEnd::Request(std::string_view payload, uint64_t tag) {
  OutgoingPacket packet;
  packet.payload = ToBytes(payload);
  packet.may_queue = true;
  packet.wants_completion = true;
  packet.tag = tag;
  return endpoint->Send(packet);
}

EndpointPair::EndpointPair(const EndpointPairOptions& options)
    : options(options) {
  // Page 0 and the last 16 pages are for buffers.
  const uint64_t pages = 2 * (uint64_t{options.data_pages} + 1);
  memory = *MemfdGuestMemory::Create((1 + pages + 16) * 4096);
  host.Create(EndpointSide::kHost, options.host, memory.get());
  guest.Create(EndpointSide::kGuest, options.guest, memory.get());
  for (EndpointEnd* end : {&guest, &host}) {
    FERRYBUS_CHECK(end->endpoint->Attach(MapRings(), kChannel).ok(), "attach");
    end->endpoint->Start();
  }
}

EndpointPair::~EndpointPair() {
  for (EndpointEnd* end : {&guest, &host}) {
    if (end->endpoint != nullptr) {
      PacketEndpoint::Retire(std::move(end->endpoint));
    }
  }
}

RingPair EndpointPair::MapRings() {
  const uint32_t downstream = options.data_pages + 1;
  std::vector<uint64_t> pages;
  for (uint64_t i = 0; i < 2ull * downstream; ++i) pages.push_back(1 + i);
  return *RingPair::Map(*memory, pages, downstream);
}

void EndpointPair::ReplaceHost() {
  PacketEndpoint::Retire(std::move(host.endpoint));
  host.events.held.clear();
  host.Create(EndpointSide::kHost, options.host, memory.get());
}

void EndpointPair::Settle() {
  for (int i = 0; i < 10000; ++i) {
    const uint64_t rings = host.doorbell.rings + guest.doorbell.rings;
    const uint64_t works = host.events.works + guest.events.works;
    bool more = host.endpoint->Poll(64);
    more |= guest.endpoint->Poll(64);
    if (!more && rings == host.doorbell.rings + guest.doorbell.rings &&
        works == host.events.works + guest.events.works) {
      return;
    }
  }
}

std::atomic<uint32_t>& EndpointPair::GuestToHostWord(uint32_t offset) {
  std::byte* const page = memory->Translate(4096, 4096).data();
  return *reinterpret_cast<std::atomic<uint32_t>*>(page + offset);
}

std::atomic<uint32_t>& EndpointPair::HostToGuestWord(uint32_t offset) {
  const uint64_t gpa = uint64_t{options.data_pages + 2} * 4096;
  std::byte* const page = memory->Translate(gpa, 4096).data();
  return *reinterpret_cast<std::atomic<uint32_t>*>(page + offset);
}

bool RawGuest::Write(ringbuffer::PacketType type, uint16_t flags,
                     uint64_t transaction_id, std::string_view extension,
                     std::string_view payload) {
  const ringbuffer::WriteResult result = producer_.Write(
      {type, flags, transaction_id}, ToBytes(extension), ToBytes(payload));
  (void)producer_.Publish();
  return result == ringbuffer::WriteResult::kOk;
}

}  // namespace ferrybus::testing
