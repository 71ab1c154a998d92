// SPDX-License-Identifier: MIT
//
// A guest's and a host's bus in one process without a port between them, a
// device that echoes and a driver that asks it.
//
// Ownership: borrows devices and drivers.
// Thread safety: Pump() is for one thread.  Else the guest's bus may be polled
// on one thread and the host's on another, once no message is under way.

#ifndef FERRYBUS_TESTS_TESTING_BUS_PAIR_H_
#define FERRYBUS_TESTS_TESTING_BUS_PAIR_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "ferrybus/channel/check.h"
#include "ferrybus/channel/doorbell.h"
#include "ferrybus/channel/guest_memory.h"
#include "ferrybus/vsc/bus.h"
#include "ferrybus/vsp/bus.h"

namespace ferrybus::testing {

// Answers each request with its own bytes.
class EchoDevice final : public vsp::Device {
 public:
  void ProcessPacket(IncomingPacket packet) override {
    (void)packet.Complete(packet.payload());
  }
};

// Checks that what comes back is the number that was sent.
class EchoDriver final : public vsc::Driver {
 public:
  void OnOpened(vsc::ClientChannel& opened) override { channel = &opened; }
  void OnClosed() override { channel = nullptr; }
  void OnCompletion(uint64_t tag, absl::Span<const std::byte> reply) override {
    uint64_t number = ~tag;
    if (reply.size() >= sizeof(number)) {
      std::memcpy(&number, reply.data(), sizeof(number));
    }
    if (number != tag) ++wrong;
    ++answers;
  }

  // Sends `count` requests of `payload`, whose first word becomes the number.
  void Request(absl::Span<std::byte> payload, uint64_t count) {
    for (uint64_t i = 0; i < count; ++i, ++requests) {
      std::memcpy(payload.data(), &requests, sizeof(requests));
      FERRYBUS_CHECK(
          channel->Send({.payload = payload, .buffers = {}, .tag = requests}) ==
              vsc::SendResult::kOk,
          "a request was refused");
    }
    channel->Flush();
  }

  vsc::ClientChannel* channel = nullptr;
  uint64_t requests = 0;
  uint64_t answers = 0;
  uint64_t wrong = 0;
};

// The offer of echo device number `instance`.
inline OfferParams EchoOffer(uint32_t instance) {
  OfferParams params;
  params.interface_type.bytes[0] = 0x7e;
  std::memcpy(params.interface_instance.bytes.data(), &instance,
              sizeof(instance));
  return params;
}

class BusPair {
 public:
  explicit BusPair(uint64_t ram_pages,
                   const vsc::BusOptions& options = vsc::BusOptions(),
                   const vsp::BusOptions& host_options = vsp::BusOptions())
      : host_options_(host_options),
        memory(*MemfdGuestMemory::Create(ram_pages * 4096)),
        pages(memory.get()),
        host(
            std::make_unique<vsp::Bus>(host_options, memory.get(), &to_guest_)),
        guest(options, memory.get(), &pages, &to_host_) {
    to_guest_.peer = &guest;
    to_host_.peer = host.get();
  }

  // A host from saved bytes, in place of one that has ended.
  absl::Status RestoreHost(absl::Span<const std::byte> saved,
                           absl::Span<const vsp::DeviceOffer> devices) {
    FERRYBUS_CHECK(host == nullptr, "the last host is still there");
    auto restored = vsp::Bus::Restore(saved, host_options_, memory.get(),
                                      &to_guest_, devices);
    if (!restored.ok()) return restored.status();
    host = *std::move(restored);
    to_host_.peer = host.get();
    host->Start();
    return absl::OkStatus();
  }

  void Connect() {
    FERRYBUS_CHECK(guest.Connect().ok(), "connect");
    Pump();
  }

  // Carries messages and signals both ways until neither side has more.
  void Pump() {
    bool more = true;
    while (more) {
      more = CarryToHost();
      more |= host->Poll();
      while (host->has_outgoing()) {
        FERRYBUS_CHECK(guest.HandleMessage(host->outgoing_front()).ok(),
                       "the guest refused a message");
        host->PopOutgoing();
        // An offer that is opened at once takes many messages.
        (void)CarryToHost();
        more = true;
      }
      more |= guest.Poll();
      more |= to_guest_.TakeRung();
      more |= to_host_.TakeRung();
    }
  }

 private:
  template <class Bus>
  class PeerDoorbell final : public Doorbell {
   public:
    void Ring(uint32_t channel_id) override {
      peer->Signal(channel_id);
      is_rung_ = true;
    }
    bool TakeRung() { return std::exchange(is_rung_, false); }
    Bus* peer = nullptr;

   private:
    bool is_rung_ = false;  // of the ringing side's thread
  };

  bool CarryToHost() {
    bool more = false;
    while (guest.has_outgoing() && host->can_accept_message()) {
      FERRYBUS_CHECK(host->HandleMessage(guest.outgoing_front(),
                                         guest.message_connection())
                         .ok(),
                     "the host refused a message");
      guest.PopOutgoing();
      more = true;
    }
    return more;
  }

  // Apart: each side may run on a processor of its own.
  alignas(128) PeerDoorbell<vsc::Bus> to_guest_;
  alignas(128) PeerDoorbell<vsp::Bus> to_host_;
  const vsp::BusOptions host_options_;

 public:
  const std::unique_ptr<MemfdGuestMemory> memory;
  vsc::GuestPages pages;
  std::unique_ptr<vsp::Bus> host;
  alignas(128) vsc::Bus guest;
};

}  // namespace ferrybus::testing

#endif  // FERRYBUS_TESTS_TESTING_BUS_PAIR_H_
