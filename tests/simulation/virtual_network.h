// SPDX-License-Identifier: MIT
//
// The link between two simulated hosts, for one migration: messages in order,
// each way, and streams of blocks that overtake each other.
//
// Thread safety: none.

#ifndef FERRYBUS_TESTS_SIMULATION_VIRTUAL_NETWORK_H_
#define FERRYBUS_TESTS_SIMULATION_VIRTUAL_NETWORK_H_

#include <array>
#include <cstddef>
#include <deque>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "ferrybus/tests/simulation/context.h"

namespace ferrybus::simulation {

class VirtualNetwork {
 public:
  static constexpr size_t kStreams = 3;
  // Queues: the messages to the target, those to the source, the streams.
  static constexpr size_t kToTarget = 0;
  static constexpr size_t kToSource = 1;
  static constexpr size_t kFirstStream = 2;
  static constexpr size_t kQueues = kFirstStream + kStreams;

  explicit VirtualNetwork(Context* context) : context_(context) {}

  void Connect();
  void Cut();
  bool is_connected() const { return is_connected_; }
  // Once for each side (0: source) after a cut: it hears of it now.
  bool TakeDisconnect(size_t side);

  void Send(size_t queue, std::string bytes);
  std::optional<std::string> Receive(size_t queue);
  size_t waiting(size_t queue) const { return queues_[queue].size(); }

  void Delay(size_t queue, absl::Duration time);
  void CorruptNext() { corrupt_next_ = true; }
  // No more faults; delays end.
  void Heal();

 private:
  Context* const context_;
  bool is_connected_ = false;
  bool corrupt_next_ = false;
  std::array<bool, 2> disconnect_due_ = {};
  std::array<std::deque<std::string>, kQueues> queues_;
  std::array<absl::Time, kQueues> not_before_ = {};
};

}  // namespace ferrybus::simulation

#endif  // FERRYBUS_TESTS_SIMULATION_VIRTUAL_NETWORK_H_
