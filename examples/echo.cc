// SPDX-License-Identifier: MIT
//
// The smallest whole program: a device, a driver, and a move with requests in
// flight.  Everything in one process; examples/demo has the same over several.

#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "ferrybus/channel/guest_memory.h"
#include "ferrybus/channel/transport/port.h"
#include "ferrybus/vsc/bus.h"
#include "ferrybus/vsc/guest_port.h"
#include "ferrybus/vsp/bus.h"
#include "ferrybus/vsp/host_port.h"

namespace {

constexpr ferrybus::Guid kEcho =
    ferrybus::GuidLiteral("6c7a1f6e-2f7d-4a53-9d38-0c1f5a7d0e01");

// Answers a request with its own bytes; holds the first ones back for a while.
class Echo final : public ferrybus::vsp::Device {
 public:
  explicit Echo(size_t hold) : hold_(hold) {}
  void ProcessPacket(ferrybus::IncomingPacket packet) override {
    held_.push_back(std::move(packet));
    if (held_.size() > hold_) AnswerAll();
  }
  void OnClosed() override { held_.clear(); }
  ferrybus::vsp::IncomingPolicy incoming_policy() const override {
    return ferrybus::vsp::IncomingPolicy::kReissue;
  }

 private:
  void AnswerAll() {
    for (ferrybus::IncomingPacket& packet : held_) {
      const std::vector<std::byte> reply(packet.payload().begin(),
                                         packet.payload().end());
      packet.Complete(reply);
    }
    held_.clear();
  }

  const size_t hold_;
  std::vector<ferrybus::IncomingPacket> held_;
};

class Driver final : public ferrybus::vsc::Driver {
 public:
  void OnOpened(ferrybus::vsc::ClientChannel& channel) override {
    for (uint64_t i = 0; i < 8; ++i) {
      const std::string text = "request " + std::to_string(i);
      (void)channel.Send(
          {.payload = {reinterpret_cast<const std::byte*>(text.data()),
                       text.size()},
           .buffers = {},
           .tag = i});
    }
    channel.Flush();
  }
  void OnCompletion(uint64_t tag, absl::Span<const std::byte> reply) override {
    std::printf("answer to %d: %.*s\n", static_cast<int>(tag),
                static_cast<int>(reply.size()),
                reinterpret_cast<const char*>(reply.data()));
    ++answers;
  }
  int answers = 0;
};

template <typename T>
T Must(absl::StatusOr<T> value) {
  if (!value.ok()) {
    std::fprintf(stderr, "%s\n", value.status().ToString().c_str());
    std::exit(1);
  }
  return *std::move(value);
}

}  // namespace

int main() {
  // The guest: RAM, a port, a bus with a driver.
  auto memory = Must(ferrybus::MemfdGuestMemory::Create(1 << 20));
  ferrybus::vsc::GuestPages pages(memory.get());
  ferrybus::PortPair port = Must(ferrybus::CreatePort(memory->file()));
  auto guest_port = Must(ferrybus::vsc::GuestPort::Open(std::move(port.guest)));
  ferrybus::vsc::Bus guest({}, memory.get(), &pages, guest_port->doorbell());
  Driver driver;
  guest.AddDriver(kEcho, &driver);
  if (!guest.Connect().ok()) return 1;

  // The host: the other ends of the port, a bus, a device.
  ferrybus::OfferParams offer;
  offer.interface_type = offer.interface_instance = kEcho;
  auto host_port = Must(
      ferrybus::vsp::HostPort::Open(Must(ferrybus::DuplicatePort(port.host))));
  Echo first(/*hold=*/100);
  auto host = std::make_unique<ferrybus::vsp::Bus>(
      ferrybus::vsp::BusOptions(), host_port->memory(), host_port->doorbell());
  Must(host->Offer(offer, &first));
  for (int i = 0; i < 20; ++i) {
    guest_port->Pump(guest);
    host_port->Pump(*host);
  }
  std::printf("%d requests are in flight; the host moves\n",
              static_cast<int>(host->in_flight().incoming));

  // The move.  The guest is not told.
  host->Suspend();
  host->Freeze();
  const std::string saved = Must(host->Save());
  host.reset();
  Echo second(/*hold=*/0);
  auto next_port = Must(ferrybus::vsp::HostPort::Open(std::move(port.host)));
  const ferrybus::vsp::DeviceOffer devices[] = {{offer, &second}};
  host = Must(ferrybus::vsp::Bus::Restore(
      {reinterpret_cast<const std::byte*>(saved.data()), saved.size()}, {},
      next_port->memory(), next_port->doorbell(), devices));
  host->Start();
  for (int i = 0; i < 20; ++i) {
    next_port->Pump(*host);
    guest_port->Pump(guest);
  }
  return driver.answers == 8 ? 0 : 1;
}
