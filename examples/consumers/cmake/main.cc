// SPDX-License-Identifier: MIT
//
// Both ends of a channel in one process: a device that answers with the
// request's own bytes, and a driver that asks once.

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/channel/guest_memory.h"
#include "ferrybus/channel/transport/port.h"
#include "ferrybus/vsc/bus.h"
#include "ferrybus/vsc/guest_port.h"
#include "ferrybus/vsp/bus.h"
#include "ferrybus/vsp/host_port.h"

namespace {

constexpr ferrybus::Guid kEcho =
    ferrybus::GuidLiteral("0f3f3d52-94f0-4f0e-8f0b-5d3a1c7e2a11");

class Echo final : public ferrybus::vsp::Device {
  void ProcessPacket(ferrybus::IncomingPacket packet) override {
    const std::vector<std::byte> reply(packet.payload().begin(),
                                       packet.payload().end());
    packet.Complete(reply);
  }
};

class Driver final : public ferrybus::vsc::Driver {
 public:
  void OnOpened(ferrybus::vsc::ClientChannel& channel) override {
    const std::string text = "hello, channel!!";
    const absl::Span<const char> chars(text);
    (void)channel.Send(
        {.payload = {reinterpret_cast<const std::byte*>(chars.data()),
                     chars.size()},
         .buffers = {}});
  }
  void OnCompletion(uint64_t, absl::Span<const std::byte> reply) override {
    answer.assign(reinterpret_cast<const char*>(reply.data()), reply.size());
  }
  std::string answer;
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
  const auto memory = Must(ferrybus::MemfdGuestMemory::Create(1 << 20));
  ferrybus::PortPair port = Must(ferrybus::CreatePort(memory->file()));

  ferrybus::vsc::GuestPages pages(memory.get());
  const auto guest_port =
      Must(ferrybus::vsc::GuestPort::Open(std::move(port.guest)));
  ferrybus::vsc::Bus guest({}, memory.get(), &pages, guest_port->doorbell());
  Driver driver;
  guest.AddDriver(kEcho, &driver);
  if (!guest.Connect().ok()) return 1;

  const auto host_port =
      Must(ferrybus::vsp::HostPort::Open(std::move(port.host)));
  ferrybus::vsp::Bus host({}, host_port->memory(), host_port->doorbell());
  Echo echo;
  ferrybus::OfferParams offer;
  offer.interface_type = offer.interface_instance = kEcho;
  Must(host.Offer(offer, &echo));

  for (int i = 0; i < 100 && driver.answer.empty(); ++i) {
    guest_port->Pump(guest);
    host_port->Pump(host);
  }
  std::printf("answer: %s\n", driver.answer.c_str());
  return driver.answer == "hello, channel!!" ? 0 : 1;
}
