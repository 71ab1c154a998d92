// SPDX-License-Identifier: MIT
//
// Host and guest joined by hand, without a socket or a thread, as a hypervisor
// joins them in its exits: messages and signals are function calls.

#include <cstddef>
#include <cstdint>
#include <cstdio>

#include "absl/types/span.h"
#include "ferrybus/channel/doorbell.h"
#include "ferrybus/channel/guest_memory.h"
#include "ferrybus/vsc/bus.h"
#include "ferrybus/vsp/bus.h"

namespace {

constexpr ferrybus::Guid kCounter =
    ferrybus::GuidLiteral("5b0c7d3a-7c0e-4f4b-9a52-8d2f6e1b9c01");

class Counter final : public ferrybus::vsp::Device {
 public:
  void ProcessPacket(ferrybus::IncomingPacket packet) override {
    ++packets;
    packet.Complete();
  }
  int packets = 0;
};

class Driver final : public ferrybus::vsc::Driver {
 public:
  void OnOpened(ferrybus::vsc::ClientChannel& channel) override {
    for (uint64_t tag = 0; tag < 5; ++tag) {
      (void)channel.Send({.payload = {}, .buffers = {}, .tag = tag});
    }
  }
  void OnCompletion(uint64_t, absl::Span<const std::byte>) override {
    ++completions;
  }
  int completions = 0;
};

// An interrupt for the other side.
template <class Bus>
class Interrupt final : public ferrybus::Doorbell {
 public:
  void Ring(uint32_t channel_id) override { bus->Signal(channel_id); }
  Bus* bus = nullptr;
};

}  // namespace

int main() {
  const auto memory = ferrybus::MemfdGuestMemory::Create(1 << 20);
  if (!memory.ok()) return 1;
  ferrybus::vsc::GuestPages pages(memory->get());
  Interrupt<ferrybus::vsp::Bus> to_host;
  Interrupt<ferrybus::vsc::Bus> to_guest;
  ferrybus::vsp::Bus host({}, memory->get(), &to_guest);
  ferrybus::vsc::Bus guest({}, memory->get(), &pages, &to_host);
  to_host.bus = &host;
  to_guest.bus = &guest;

  Counter counter;
  Driver driver;
  ferrybus::OfferParams offer;
  offer.interface_type = offer.interface_instance = kCounter;
  guest.AddDriver(kCounter, &driver);
  if (!host.Offer(offer, &counter).ok() || !guest.Connect().ok()) return 1;

  for (int i = 0; i < 100 && driver.completions < 5; ++i) {
    for (; guest.has_outgoing(); guest.PopOutgoing()) {
      (void)host.HandleMessage(guest.outgoing_front(),
                               guest.message_connection());
    }
    for (; host.has_outgoing(); host.PopOutgoing()) {
      (void)guest.HandleMessage(host.outgoing_front());
    }
    host.Poll();
    guest.Poll();
  }
  std::printf("%d packets, %d completions\n", counter.packets,
              driver.completions);
  return counter.packets == 5 && driver.completions == 5 ? 0 : 1;
}
