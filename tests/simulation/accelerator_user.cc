// SPDX-License-Identifier: MIT

#include "ferrybus/tests/simulation/accelerator_user.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/check.h"

namespace ferrybus::simulation {
namespace {

using accelerator::Op;
using accelerator::Reply;
using accelerator::Status;
using vsc::RandomCommand;

// The slots do not begin on a page.
constexpr uint64_t kFirstByte = 100;
constexpr uint64_t kInlineBytesMax = 800;

// For segments that are smaller than by default: what moves costs time.
vsc::RandomCommandsOptions DrawOptions(uint32_t guest_bytes_max) {
  vsc::RandomCommandsOptions options;
  for (uint32_t i = 0; i < kFunctionSegments; ++i) {
    options.segments.push_back({i + 1, kFunctionBytes[i]});
  }
  options.vectors = kFunctionVectors;
  options.size_bytes_max = 10000;
  options.matrix_side_max = 6;
  options.guest_bytes_max = guest_bytes_max;
  return options;
}

vsc::PageRun Allocate(vsc::GuestPages* pages, uint64_t bytes) {
  auto run = pages->Allocate((kFirstByte + bytes + 4095) / 4096);
  FERRYBUS_CHECK(run.ok(), "the guest's memory is too small");
  return *run;
}

}  // namespace

AcceleratorUser::AcceleratorUser(Context* context, FunctionOracle* oracle,
                                 vsc::GuestPages* pages)
    : context_(context),
      oracle_(oracle),
      pages_(pages),
      slots_(Allocate(pages, kDepth * kSlotBytes)) {}

void AcceleratorUser::OnOpened(vsc::ClientChannel& channel) {
  channel_ = &channel;
  oracle_->may_fault = false;
  learn_step_ = 0;
  model_.reset();
}

void AcceleratorUser::OnClosed() {
  channel_ = nullptr;
  flights_.clear();
}

// ---- Asking

absl::Span<std::byte> AcceleratorUser::Slot(uint64_t sequence) const {
  // Commands end in order: those in flight have different ones.
  return pages_->bytes(slots_).subspan(
      kFirstByte + sequence % kDepth * kSlotBytes, kSlotBytes);
}

RandomCommand AcceleratorUser::LearnCommand(uint64_t step) const {
  RandomCommand learn;
  accelerator::Command& command = learn.command;
  if (step == 0) {
    command.op = Op::kSetRegister;
    command.columns = accelerator::kFillMask;
  } else if (step <= kFunctionSegments) {
    command.op = Op::kFill;
    command.target.segment = static_cast<uint32_t>(step);
    command.size_bytes = kFunctionBytes[step - 1];
  } else {
    command.op = Op::kQuery;
  }
  return learn;
}

RandomCommand AcceleratorUser::DrawCommand() {
  static const vsc::RandomCommandsOptions& options =
      *new vsc::RandomCommandsOptions(DrawOptions(kSlotBytes));
  vsc::RandomCommands commands(context_->random.Next(), options);
  for (;;) {
    RandomCommand next = commands.Next();
    const Op op = next.command.op;
    const bool is_transfer = op == Op::kRead || op == Op::kWrite;
    // The rings are small.
    if (!is_transfer || next.has_guest_buffers() ||
        next.command.size_bytes <= kInlineBytesMax) {
      return next;
    }
  }
}

bool AcceleratorUser::Send(RandomCommand asked) {
  if (channel_ == nullptr || flights_.size() == kDepth) return false;
  const uint64_t sequence = oracle_->next_sequence;
  asked.command.sequence = sequence;
  const auto* const bytes = reinterpret_cast<const std::byte*>(&asked.command);
  std::vector<std::byte> payload(bytes, bytes + sizeof(asked.command));
  std::vector<vsc::GuestBuffer> buffers;
  if (asked.has_guest_buffers()) {
    const absl::Span<std::byte> slot = Slot(sequence);
    std::fill(slot.begin(), slot.end(), std::byte{0xcc});
    std::copy(asked.data.begin(), asked.data.end(), slot.begin());
    buffers.push_back(
        {slots_.gpa() + kFirstByte + sequence % kDepth * kSlotBytes,
         static_cast<uint32_t>(asked.command.size_bytes)});
  } else {
    payload.insert(payload.end(), asked.data.begin(), asked.data.end());
  }
  if (channel_->Send(
          {.payload = payload, .buffers = buffers, .tag = sequence}) !=
      vsc::SendResult::kOk) {
    return false;
  }
  ++oracle_->next_sequence;
  Flight flight;
  if (model_.has_value()) flight.expected = model_->Execute(asked);
  flight.asked = std::move(asked);
  flights_.push_back(std::move(flight));
  return true;
}

void AcceleratorUser::Ask(uint64_t count) {
  for (; count > 0; --count) {
    if (model_.has_value()) {
      if (!Send(DrawCommand())) break;
    } else {
      if (learn_step_ == kLearnSteps) break;
      if (!Send(LearnCommand(learn_step_))) break;
      ++learn_step_;
    }
  }
  if (context_->random.OneIn(2)) Flush();
}

bool AcceleratorUser::Verify(uint64_t* step) {
  if (!model_.has_value()) {
    Ask(kLearnSteps);
    return false;
  }
  for (; *step <= kFunctionSegments; ++*step) {
    RandomCommand next;
    next.command.op = Op::kQuery;
    if (*step < kFunctionSegments) {
      next.command.op = Op::kHash;
      next.command.source.segment = static_cast<uint32_t>(*step + 1);
      next.command.size_bytes = kFunctionBytes[*step];
    }
    if (!Send(std::move(next))) return false;
  }
  Flush();
  return true;
}

// ---- Answers

void AcceleratorUser::Learn(absl::Span<const std::byte> data) {
  std::array<uint64_t, accelerator::kRegisters> registers;
  if (data.size() != sizeof(registers)) {
    return context_->Fail("wrong-data", "the registers have another size");
  }
  std::memcpy(registers.data(), data.data(), sizeof(registers));
  const uint64_t executed = registers[accelerator::kCompleted] + 1;
  if (executed != oracle_->submitted) {
    context_->Fail("accelerator-count",
                   absl::StrCat("it took ", oracle_->submitted,
                                " commands and executed ", executed));
  }
  model_.emplace(DrawOptions(0).segments, kFunctionVectors);
  model_->AdoptRegisters(registers);
  (void)model_->Execute(flights_.front().asked);
}

std::string AcceleratorUser::Difference(
    const Flight& flight, const Reply& got,
    absl::Span<const std::byte> data) const {
  const vsc::ExpectedReply& expected = flight.expected;
  if (got != expected.reply) {
    return absl::StrCat(
        "status ", static_cast<uint32_t>(got.status), ", value ", got.value,
        ", completed ", got.completed, ", accumulator ", got.accumulator,
        ", random ", got.random, "; expected ",
        static_cast<uint32_t>(expected.reply.status), ", ",
        expected.reply.value, ", ", expected.reply.completed, ", ",
        expected.reply.accumulator, ", ", expected.reply.random);
  }
  if (flight.asked.has_guest_buffers()) {
    data = Slot(flight.asked.command.sequence);
  }
  const size_t size = expected.data.size();
  if (data.size() < size ||
      !std::equal(expected.data.begin(), expected.data.end(), data.begin())) {
    return "other data";
  }
  return {};
}

// Each goes out before the answer is seen: none is under way.
void AcceleratorUser::CheckInterrupts() {
  const uint64_t raised = model_->registers()[accelerator::kInterrupts];
  if (oracle_->interrupts == raised) return;
  context_->Fail("accelerator-interrupts",
                 absl::StrCat(oracle_->interrupts,
                              " interrupts arrived, raised were ", raised));
}

void AcceleratorUser::OnCompletion(uint64_t tag,
                                   absl::Span<const std::byte> reply) {
  context_->trace.Add(tag);
  if (flights_.empty() || flights_.front().asked.command.sequence != tag) {
    return context_->Fail(
        "accelerator-order",
        absl::StrCat(
            "an answer to command ", tag, ", due is ",
            flights_.empty() ? 0 : flights_.front().asked.command.sequence));
  }
  Reply got = {};
  if (reply.size() >= sizeof(got)) {
    std::memcpy(&got, reply.data(), sizeof(got));
    reply.remove_prefix(sizeof(got));
  }
  context_->trace.Add(got.accumulator);
  ++context_->totals.commands;
  const Flight& flight = flights_.front();
  if (model_.has_value()) {
    const std::string difference = Difference(flight, got, reply);
    if (!difference.empty()) {
      context_->Fail(
          "accelerator-answer",
          absl::StrCat("command ", tag, " (op ",
                       static_cast<uint32_t>(flight.asked.command.op),
                       "): ", difference));
    }
  } else if (got.status != Status::kOk || got.sequence != tag) {
    context_->Fail("accelerator-answer",
                   absl::StrCat("command ", tag, " ended with ",
                                static_cast<uint32_t>(got.status)));
  } else if (flight.asked.command.op == Op::kQuery) {
    Learn(reply);
  }
  flights_.pop_front();
  if (model_.has_value() && flights_.empty()) CheckInterrupts();
}

}  // namespace ferrybus::simulation
