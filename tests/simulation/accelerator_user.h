// SPDX-License-Identifier: MIT
//
// What runs in the simulated guest on the accelerator: random commands, each
// answer compared with the guest's own computation, in the order of sending.
//
// An opening begins without knowledge: it writes all of the device's memory,
// then asks for the registers.  They say how many commands were ever executed:
// those that the device took, also from openings that ended, each once.
//
// Ownership: borrows context, oracle and pages.  Thread safety: none.

#ifndef FERRYBUS_TESTS_SIMULATION_ACCELERATOR_USER_H_
#define FERRYBUS_TESTS_SIMULATION_ACCELERATOR_USER_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>

#include "ferrybus/channel/protocols/accelerator.h"
#include "ferrybus/tests/simulation/context.h"
#include "ferrybus/tests/simulation/function_oracle.h"
#include "ferrybus/vsc/accelerator/accelerator_model.h"
#include "ferrybus/vsc/client_channel.h"
#include "ferrybus/vsc/guest_pages.h"

namespace ferrybus::simulation {

class AcceleratorUser final : public vsc::Driver {
 public:
  AcceleratorUser(Context* context, FunctionOracle* oracle,
                  vsc::GuestPages* pages);

  bool is_open() const { return channel_ != nullptr; }
  size_t busy() const { return flights_.size(); }
  // At most `count` more, if there is room.
  void Ask(uint64_t count);
  // Asks for all of its memory and its registers; true: all was begun.
  bool Verify(uint64_t* step);
  void Flush() {
    if (channel_ != nullptr) channel_->Flush();
  }

  // vsc::Driver.
  void OnOpened(vsc::ClientChannel& channel) override;
  void OnCompletion(uint64_t tag, absl::Span<const std::byte> reply) override;
  void OnClosed() override;

 private:
  static constexpr size_t kDepth = 6;
  static constexpr uint32_t kSlotBytes = 2048;
  // Of an opening: a register, each segment, all registers.
  static constexpr uint64_t kLearnSteps = 2 + kFunctionSegments;

  struct Flight {
    vsc::RandomCommand asked;
    vsc::ExpectedReply expected;
  };

  bool Send(vsc::RandomCommand asked);
  vsc::RandomCommand LearnCommand(uint64_t step) const;
  vsc::RandomCommand DrawCommand();
  absl::Span<std::byte> Slot(uint64_t sequence) const;
  void Learn(absl::Span<const std::byte> data);
  std::string Difference(const Flight& flight, const accelerator::Reply& got,
                         absl::Span<const std::byte> data) const;
  void CheckInterrupts();

  Context* const context_;
  FunctionOracle* const oracle_;
  vsc::GuestPages* const pages_;
  const vsc::PageRun slots_;
  vsc::ClientChannel* channel_ = nullptr;
  uint64_t learn_step_ = 0;
  // What the device must be like, from the end of learning on.
  std::optional<vsc::AcceleratorModel> model_;
  std::deque<Flight> flights_;
};

}  // namespace ferrybus::simulation

#endif  // FERRYBUS_TESTS_SIMULATION_ACCELERATOR_USER_H_
