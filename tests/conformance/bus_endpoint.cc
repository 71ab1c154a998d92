// SPDX-License-Identifier: MIT

#include "ferrybus/tests/conformance/bus_endpoint.h"

#include <poll.h>

namespace ferrybus::conformance {
namespace {

constexpr int kRoundsMax = 10000;

bool IsReadable(int fd) {
  pollfd ready = {fd, POLLIN, 0};
  return poll(&ready, 1, 0) == 1;
}

}  // namespace

absl::Status BusEndpoint::Start() {
  host_ = std::make_unique<ReferenceHost>(&ram_, doorbell());
  return host_->Start();
}

void BusEndpoint::Post(uint32_t connection_id,
                       absl::Span<const std::byte> payload) {
  messages_in_.emplace_back(connection_id,
                            Bytes(payload.begin(), payload.end()));
}

absl::Status BusEndpoint::Run() {
  if (host_ == nullptr) return absl::FailedPreconditionError("none serves");
  vsp::Bus& bus = *host_->bus();
  for (int i = 0; i < kRoundsMax; ++i) {
    while (!messages_in_.empty() && bus.can_accept_message()) {
      const auto& [connection, payload] = messages_in_.front();
      // What it refuses, it refuses.
      (void)bus.HandleMessage(payload, connection);
      messages_in_.pop_front();
    }
    for (const uint32_t channel : std::exchange(signals_in_, {})) {
      bus.Signal(channel);
    }
    if (!bus.Poll() && !IsReadable(bus.wake_fd())) return absl::OkStatus();
  }
  return absl::DeadlineExceededError("the bus polls for ever");
}

std::vector<Bytes> BusEndpoint::TakeMessages() {
  std::vector<Bytes> messages;
  if (host_ == nullptr) return messages;
  vsp::Bus& bus = *host_->bus();
  while (bus.has_outgoing()) {
    const absl::Span<const std::byte> front = bus.outgoing_front();
    messages.emplace_back(front.begin(), front.end());
    bus.PopOutgoing();
  }
  return messages;
}

std::vector<uint32_t> BusEndpoint::TakeSignals() {
  const std::set<uint32_t> signals = std::exchange(signals_out_, {});
  return {signals.begin(), signals.end()};
}

absl::Status BusEndpoint::Restore(const std::string& saved) {
  auto host = std::make_unique<ReferenceHost>(&ram_, doorbell());
  const absl::Status status = host->Restore(saved);
  if (status.ok()) host_ = std::move(host);
  return status;
}

}  // namespace ferrybus::conformance
