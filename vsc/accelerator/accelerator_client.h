// SPDX-License-Identifier: MIT
//
// A guest that uses an accelerator, and believes nothing: a stream of random
// commands, each reply compared with the guest's own computation
// (accelerator_model.h).
//
// It begins with a new device, and counts what a move must never cause:
// commands without an answer, answers without a command, in another order, or
// with other bytes.  One wrong bit in the device's registers or memory makes
// all answers after it wrong.
//
// Ownership: borrows the guest memory; the channel borrows it.
// Thread safety: one thread, the one that calls vsc::Bus::Poll().
// Trust: the host may be hostile: replies are compared, never interpreted.
//
//   AcceleratorClient client({.seed = 1, .commands = 1000, ...});
//   bus.AddDriver(accelerator::kInterface, &client);
//   while (!client.is_done()) { port.Pump(bus); client.Send(); }
//   EXPECT_TRUE(client.is_clean()) << client.first_difference();

#ifndef FERRYBUS_VSC_ACCELERATOR_ACCELERATOR_CLIENT_H_
#define FERRYBUS_VSC_ACCELERATOR_ACCELERATOR_CLIENT_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "ferrybus/vsc/accelerator/accelerator_model.h"
#include "ferrybus/vsc/client_channel.h"

namespace ferrybus::vsc {

struct AcceleratorClientOptions {
  uint64_t seed = 1;
  uint64_t commands = ~uint64_t{0};  // then it is done
  uint32_t depth = 32;               // 1 to kCommandsMax
  RandomCommandsOptions random = {};
  // Guest memory for commands with guest buffers, `depth` times
  // random.guest_bytes_max: `gpa` and the same bytes mapped here.  Without
  // bytes, all data is inline.
  GuestBuffer buffers = {};
  std::byte* buffer_memory = nullptr;
  // An answer was as it must be, and its command raised this vector.
  std::function<void(uint32_t vector)> on_interrupt_due = {};
};

struct AcceleratorClientCounters {
  uint64_t sent = 0;
  uint64_t answered = 0;
  uint64_t lost = 0;     // the channel closed before the answer
  uint64_t doubled = 0;  // an answer to nothing
  uint64_t out_of_order = 0;
  uint64_t wrong = 0;
};

class AcceleratorClient final : public Driver {
 public:
  explicit AcceleratorClient(const AcceleratorClientOptions& options);
  AcceleratorClient(const AcceleratorClient&) = delete;
  AcceleratorClient& operator=(const AcceleratorClient&) = delete;

  // Fills the queue up to its depth; also done for each answer.
  void Send();
  // No more are sent, until Go().
  void Stop() { is_stopped_ = true; }
  void Go() {
    is_stopped_ = false;
    Send();
  }

  size_t in_flight() const { return in_flight_.size(); }
  // All was sent and answered.
  bool is_done() const {
    return in_flight_.empty() && counters_.sent == options_.commands;
  }
  bool is_clean() const {
    return counters_.lost + counters_.doubled + counters_.out_of_order +
               counters_.wrong ==
           0;
  }
  const AcceleratorClientCounters& counters() const { return counters_; }
  // Of the first wrong answer.
  const std::string& first_difference() const { return first_difference_; }
  const AcceleratorModel& model() const { return model_; }

  // -- Driver --------------------------------------------------------------
  void OnOpened(ClientChannel& channel) override;
  void OnStarted() override { Send(); }
  void OnCompletion(uint64_t tag, absl::Span<const std::byte> reply) override;
  void OnClosed() override;
  void OnRoom() override { Send(); }

 private:
  struct Flight {
    uint64_t tag = 0;
    uint32_t slot = 0;  // of the guest buffers
    RandomCommand asked;
    ExpectedReply expected;
  };

  bool SendOne();
  GuestBuffer BufferOf(uint32_t slot, uint64_t bytes) const;
  std::byte* BufferMemory(uint32_t slot) const;
  std::string Difference(const Flight& flight,
                         absl::Span<const std::byte> reply) const;

  const AcceleratorClientOptions options_;
  AcceleratorModel model_;
  RandomCommands commands_;
  ClientChannel* channel_ = nullptr;
  bool is_stopped_ = false;
  // Made and computed, but the channel had no room yet.
  std::deque<Flight> waiting_;
  std::deque<Flight> in_flight_;
  std::vector<uint32_t> free_slots_;
  uint64_t next_tag_ = 1;
  AcceleratorClientCounters counters_;
  std::string first_difference_;
};

}  // namespace ferrybus::vsc

#endif  // FERRYBUS_VSC_ACCELERATOR_ACCELERATOR_CLIENT_H_
