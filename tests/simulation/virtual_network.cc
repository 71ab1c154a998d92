// SPDX-License-Identifier: MIT

#include "ferrybus/tests/simulation/virtual_network.h"

#include <utility>

namespace ferrybus::simulation {

void VirtualNetwork::Connect() {
  is_connected_ = true;
  corrupt_next_ = false;
  disconnect_due_ = {};
  for (auto& queue : queues_) queue.clear();
  not_before_.fill(absl::InfinitePast());
}

void VirtualNetwork::Cut() {
  if (!is_connected_) return;
  is_connected_ = false;
  disconnect_due_ = {true, true};
  for (auto& queue : queues_) queue.clear();
}

bool VirtualNetwork::TakeDisconnect(size_t side) {
  return std::exchange(disconnect_due_[side], false);
}

void VirtualNetwork::Send(size_t queue, std::string bytes) {
  context_->trace.Add(queue);
  context_->trace.Add(bytes);
  if (is_connected_) queues_[queue].push_back(std::move(bytes));
}

std::optional<std::string> VirtualNetwork::Receive(size_t queue) {
  if (queues_[queue].empty() || context_->now() < not_before_[queue]) {
    return std::nullopt;
  }
  std::string bytes = std::move(queues_[queue].front());
  queues_[queue].pop_front();
  if (std::exchange(corrupt_next_, false)) {
    Random& random = context_->random;
    bytes[random.Below(bytes.size())] ^=
        static_cast<char>(1 << random.Below(8));
  }
  return bytes;
}

void VirtualNetwork::Delay(size_t queue, absl::Duration time) {
  not_before_[queue] = context_->now() + time;
}

void VirtualNetwork::Heal() {
  corrupt_next_ = false;
  not_before_.fill(absl::InfinitePast());
}

}  // namespace ferrybus::simulation
