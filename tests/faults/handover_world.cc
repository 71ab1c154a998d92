// SPDX-License-Identifier: MIT

#include "ferrybus/tests/faults/handover_world.h"

#include <errno.h>
#include <sys/socket.h>

#include <random>

#include "ferrybus/channel/transport/unique_fd.h"
#include "gtest/gtest.h"

namespace ferrybus::testing {
namespace {

// Small, so that not many limits are to be tried.
constexpr uint64_t kRamBytes = 128 * 4096;
constexpr int kRoundsMax = 1000;
constexpr int kIdleRounds = 20;

OfferParams Params() {
  OfferParams params;
  params.interface_type = {{1, 2, 3}};
  params.interface_instance = {{4, 5, 6}};
  return params;
}

}  // namespace

absl::StatusOr<std::unique_ptr<HandoverWorld>> HandoverWorld::Create() {
  absl::StatusOr<std::unique_ptr<MemfdGuestMemory>> memory =
      MemfdGuestMemory::Create(kRamBytes);
  if (!memory.ok()) return memory.status();
  std::unique_ptr<HandoverWorld> world(new HandoverWorld(*std::move(memory)));
  absl::StatusOr<PortPair> port = CreatePort(world->memory_->file());
  if (!port.ok()) return port.status();
  world->host_ends_ = std::move(port->host);
  absl::StatusOr<std::unique_ptr<vsc::GuestPort>> guest_port =
      vsc::GuestPort::Open(std::move(port->guest));
  if (!guest_port.ok()) return guest_port.status();
  world->guest_port_ = *std::move(guest_port);
  world->pages_ = std::make_unique<vsc::GuestPages>(world->memory_.get());
  vsc::BusOptions options;
  options.ring_data_pages = 4;
  world->guest_ = std::make_unique<vsc::Bus>(options, world->memory_.get(),
                                             world->pages_.get(),
                                             world->guest_port_->doorbell());
  return world;
}

std::unique_ptr<PiledDevice> HandoverWorld::NewDevice() {
  return std::make_unique<PiledDevice>(vsp::IncomingPolicy::kResume, &traffic_);
}

absl::Status HandoverWorld::Connect() {
  absl::StatusOr<Port> port = DuplicatePort(host_ends_);
  if (!port.ok()) return port.status();
  absl::StatusOr<std::unique_ptr<vsp::HostPort>> host_port =
      vsp::HostPort::Open(*std::move(port));
  if (!host_port.ok()) return host_port.status();
  host_port_ = *std::move(host_port);
  device_ = NewDevice();
  host_ = std::make_unique<vsp::Bus>(vsp::BusOptions(), host_port_->memory(),
                                     host_port_->doorbell(), this);
  absl::Status status = host_->Offer(Params(), device_.get()).status();
  if (!status.ok()) return status;
  guest_->AddDriver(Params().interface_type, &driver_);
  status = guest_->Connect();
  if (!status.ok()) return status;
  Pump();
  return refused_.ok() ? guest_->status() : refused_;
}

void HandoverWorld::AskAndSave() {
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(driver_.SendRequest(100));
  driver_.Flush();
  Pump();
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(device_->SendRequest(0));
  device_->Flush();
  host_->Suspend();
  host_->Freeze();
  const absl::StatusOr<std::string> saved = host_->Save();
  ASSERT_TRUE(saved.ok()) << saved.status();
  saved_ = *saved;
  DropHost();
}

absl::Status HandoverWorld::TakeOver() {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
    return absl::ErrnoToStatus(errno, "the test's own sockets");
  }
  const UniqueFd here(pair[0]);
  const UniqueFd there(pair[1]);
  absl::Status status = SendPort(here.get(), host_ends_);
  if (!status.ok()) return status;
  absl::StatusOr<Port> port = ReceivePort(there.get());
  if (!port.ok()) return port.status();
  absl::StatusOr<std::unique_ptr<vsp::HostPort>> host_port =
      vsp::HostPort::Open(*std::move(port));
  if (!host_port.ok()) return host_port.status();
  std::unique_ptr<PiledDevice> device = NewDevice();
  const vsp::DeviceOffer devices[] = {{Params(), device.get()}};
  absl::StatusOr<std::unique_ptr<vsp::Bus>> bus = vsp::Bus::Restore(
      {reinterpret_cast<const std::byte*>(saved_.data()), saved_.size()}, {},
      (*host_port)->memory(), (*host_port)->doorbell(), devices, this);
  std::mt19937_64 random(1);
  if (!bus.ok()) {
    EXPECT_FALSE(device->AnswerOne(random)) << "a packet was left behind";
    return bus.status();
  }
  host_port_ = *std::move(host_port);
  device_ = std::move(device);
  host_ = *std::move(bus);
  host_->Start();
  return absl::OkStatus();
}

void HandoverWorld::Finish() {
  std::mt19937_64 random(1);
  for (int i = 0; i < 100 && !traffic_.IsEven(); ++i) {
    while (device_->AnswerOne(random)) {
    }
    Pump();
  }
  EXPECT_EQ(traffic_.guest.answered(), 5u);
  EXPECT_EQ(traffic_.host.answered(), 3u);
  EXPECT_EQ(traffic_.doubled(), 0u);
}

void HandoverWorld::DropHost() {
  host_.reset();
  device_.reset();
  host_port_.reset();
}

// Neither says whether there were messages: some rounds more than an opening
// has.
void HandoverWorld::Pump() {
  for (int i = 0, idle = 0; i < kRoundsMax && idle < kIdleRounds; ++i) {
    bool more = guest_port_->Pump(*guest_);
    more |= host_port_->Pump(*host_);
    idle = more ? 0 : idle + 1;
  }
}

void HandoverWorld::OnOpenRefused(const vsp::ServerChannel& channel,
                                  const absl::Status& why) {
  (void)channel;
  refused_ = why;
}

absl::Status OpenBothEnds() {
  const auto world = HandoverWorld::Create();
  if (!world.ok()) return world.status();
  const absl::Status status = (*world)->Connect();
  if (status.ok()) (*world)->AskAndSave();
  return status;
}

void Takeovers::Renew() {
  world_ = *HandoverWorld::Create();
  ASSERT_TRUE(world_->Connect().ok());
  world_->AskAndSave();
}

absl::Status Takeovers::TakeOver() {
  const absl::Status status = world_->TakeOver();
  if (!status.ok()) return status;
  world_->Finish();
  world_->DropHost();
  return status;
}

void Takeovers::Look(const absl::Status& status) {
  if (!status.ok()) {
    EXPECT_TRUE(TakeOver().ok());
  }
  Renew();
}

}  // namespace ferrybus::testing
