// SPDX-License-Identifier: MIT

#include "ferrybus/tests/testing/move_harness.h"

#include <poll.h>

#include <cstdio>
#include <utility>
#include <vector>

#include "ferrybus/channel/check.h"

namespace ferrybus::testing {
namespace {

template <typename T>
T Must(absl::StatusOr<T> value) {
  if (!value.ok())
    std::fprintf(stderr, "%s\n", value.status().ToString().c_str());
  FERRYBUS_CHECK(value.ok(), "the test harness could not be set up");
  return *std::move(value);
}

}  // namespace

OfferParams MoveHarness::Params() {
  OfferParams params;
  params.interface_type = kTestInterface;
  params.interface_instance = kTestInterface;
  return params;
}

MoveHarness::MoveHarness(const Options& options) : options_(options) {
  memory_ = Must(MemfdGuestMemory::Create(options.ram_bytes));
  OpenGuest();
}

void MoveHarness::OpenGuest() {
  pages_ = std::make_unique<vsc::GuestPages>(memory_.get());
  PortPair port = Must(CreatePort(memory_->file()));
  host_ends_ = std::move(port.host);
  guest_port_ = Must(vsc::GuestPort::Open(std::move(port.guest)));
  guest_ = std::make_unique<vsc::Bus>(options_.guest, memory_.get(),
                                      pages_.get(), guest_port_->doorbell());
}

void MoveHarness::RestartGuest() {
  DropHost();
  guest_.reset();
  guest_port_.reset();
  OpenGuest();
}

void MoveHarness::OpenHostPort() {
  host_port_ = Must(vsp::HostPort::Open(Must(DuplicatePort(host_ends_))));
}

void MoveHarness::StartHost(vsp::Device* device) {
  OpenHostPort();
  host_ = std::make_unique<vsp::Bus>(options_.host, host_port_->memory(),
                                     host_port_->doorbell(), this);
  offer_ = Must(host_->Offer(Params(), device));
}

absl::StatusOr<std::string> MoveHarness::Save() {
  host_->Suspend();
  for (int i = 0; i < options_.save_rounds && !host_->IsQuiescent(); ++i) {
    PumpHost();
  }
  host_->Freeze();
  return host_->Save();
}

absl::Status MoveHarness::RestoreHost(const std::string& saved,
                                      vsp::Device* device, bool start) {
  DropHost();
  OpenHostPort();
  const vsp::DeviceOffer devices[] = {{Params(), device}};
  absl::StatusOr<std::unique_ptr<vsp::Bus>> bus = vsp::Bus::Restore(
      {reinterpret_cast<const std::byte*>(saved.data()), saved.size()},
      options_.host, host_port_->memory(), host_port_->doorbell(), devices,
      this);
  if (!bus.ok()) {
    host_port_.reset();
    return bus.status();
  }
  host_ = *std::move(bus);
  if (start) host_->Start();
  return absl::OkStatus();
}

bool MoveHarness::Pump(int rounds) {
  for (int i = 0; i < rounds; ++i) {
    bool more = guest_port_->Pump(*guest_);
    if (host_ != nullptr) more |= host_port_->Pump(*host_);
    if (!more && !AnythingToRead()) return true;
  }
  return false;
}

bool MoveHarness::AnythingToRead() const {
  std::vector<pollfd> fds;
  for (const int fd : guest_port_->wait_fds()) fds.push_back({fd, POLLIN, 0});
  if (host_ != nullptr) {
    for (const int fd : host_port_->wait_fds()) fds.push_back({fd, POLLIN, 0});
    fds.push_back({host_->wake_fd(), POLLIN, 0});
  }
  return poll(fds.data(), fds.size(), 0) > 0;
}

void MoveHarness::OnChannelFault(const vsp::ServerChannel& channel,
                                 const std::string& reason) {
  (void)channel;
  faults_.push_back(reason);
}

}  // namespace ferrybus::testing
