// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/virtual_function/accelerator.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/check.h"

namespace ferrybus::vsp {
namespace {

using accelerator::Command;
using accelerator::Op;
using accelerator::Reply;
using accelerator::Status;

void CheckSegments(absl::Span<const AcceleratorSegment> segments) {
  FERRYBUS_CHECK(
      !segments.empty() && segments.size() <= kAcceleratorSegmentsMax,
      "an accelerator has 1 to 16 segments");
  for (const AcceleratorSegment& segment : segments) {
    FERRYBUS_CHECK(
        segment.id != 0 && FindSegment(segments, segment.id) == &segment,
        "segments have different ids, from 1");
    FERRYBUS_CHECK(std::has_single_bit(segment.page_size_bytes) &&
                       segment.page_size_bytes >= migration::kPageSizeMin,
                   "a page size is a power of two, at least 4096");
    FERRYBUS_CHECK(!segment.memory.empty() &&
                       segment.memory.size() % segment.page_size_bytes == 0,
                   "a segment has whole pages, at least one");
  }
}

absl::Status Corrupt(absl::string_view what) {
  return absl::DataLossError(absl::StrCat("accelerator state: ", what,
                                          ": the saved state is corrupt"));
}

absl::Status CheckRegisters(const AcceleratorRegisters& registers) {
  if (registers[accelerator::kRandom] == 0) {
    return Corrupt("register random is 0, which it never is");
  }
  if (registers[accelerator::kFailed] > registers[accelerator::kCompleted]) {
    return Corrupt(absl::StrCat(
        registers[accelerator::kFailed], " commands failed of ",
        registers[accelerator::kCompleted], " that were answered"));
  }
  for (uint32_t i = accelerator::kWritten + 1; i < accelerator::kFirstWritable;
       ++i) {
    if (registers[i] != 0) {
      return Corrupt(
          absl::StrCat("register ", i, " is ", registers[i], ", must be 0"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

Accelerator::Accelerator(const AcceleratorOptions& options,
                         MsixTable* interrupts, migration::DirtyBitmap* dirty)
    : options_(options), interrupts_(interrupts), dirty_(dirty) {
  CheckSegments(options_.segments);
  state_.is_powered = options.is_powered;
}

// -- Commands -----------------------------------------------------------------

void Accelerator::SetPort(AcceleratorPort* port) {
  absl::MutexLock lock(&mu_);
  port_ = port;
  NotifyWork();
}

void Accelerator::RemovePort(const AcceleratorPort* port) {
  absl::MutexLock lock(&mu_);
  if (port_ == port) port_ = nullptr;
}

bool Accelerator::Submit(const Command& command, uint64_t data_bytes,
                         absl::FunctionRef<void(uint64_t)> accepted) {
  absl::MutexLock lock(&mu_);
  if (is_retired_ || state_.queue.size() >= accelerator::kCommandsMax) {
    return false;
  }
  accepted(state_.registers[accelerator::kCompleted] + state_.queue.size());
  state_.queue.push_back({command, data_bytes});
  ++changes_;
  NotifyWork();
  return true;
}

bool Accelerator::CanRun() const {
  return holds_ == 0 && !is_retired_ && state_.is_powered && port_ != nullptr &&
         !state_.queue.empty();
}

void Accelerator::NotifyWork() const {
  if (CanRun() && options_.on_work) options_.on_work();
}

bool Accelerator::has_work() const {
  absl::MutexLock lock(&mu_);
  return CanRun();
}

bool Accelerator::IsQueued(uint64_t ticket) const {
  absl::MutexLock lock(&mu_);
  const uint64_t first = state_.registers[accelerator::kCompleted];
  return ticket >= first && ticket - first < state_.queue.size();
}

uint32_t Accelerator::Run(uint32_t steps) {
  for (uint32_t done = 0; done < steps; ++done) {
    // Others take their turn between two steps.
    absl::MutexLock lock(&mu_);
    if (!CanRun()) return done;
    DoStep();
  }
  return steps;
}

Status Accelerator::CheckFirst() const {
  const AcceleratorQueueEntry& entry = state_.queue.front();
  return CheckCommand(entry.command, entry.data_bytes, segments(), vectors());
}

void Accelerator::DoStep() {
  const Command command = state_.queue.front().command;
  Status status = CheckFirst();
  if (status == Status::kOk) {
    const uint64_t left = AcceleratorWork(command) - state_.progress;
    const uint64_t work = std::min(left, AcceleratorStepWork(command));
    status = ExecuteStep(command, work);
    state_.progress += work;
    if (status == Status::kOk && work < left) return;
  }
  const auto bytes = [](const void* data, size_t size_bytes) {
    return absl::MakeConstSpan(static_cast<const std::byte*>(data), size_bytes);
  };
  if (status != Status::kOk) {
    Finish(status, {});
  } else if (command.op == Op::kQuery) {
    const AcceleratorRegisters registers = state_.registers;
    Finish(status, bytes(registers.data(), sizeof(registers)));
  } else if (command.op == Op::kRead &&
             (command.flags & accelerator::kGuestBuffers) == 0) {
    Finish(status,
           bytes(FindMemory(segments(), command.source, command.size_bytes),
                 command.size_bytes));
  } else {
    Finish(status, {});
  }
}

void Accelerator::Finish(Status status, absl::Span<const std::byte> data) {
  const Command command = state_.queue.front().command;
  const bool is_hash = status == Status::kOk && command.op == Op::kHash;
  AcceleratorRegisters& registers = state_.registers;
  const uint64_t ticket = registers[accelerator::kCompleted]++;
  Reply reply = {};
  reply.status = status;
  reply.data_bytes = static_cast<uint32_t>(data.size());
  reply.sequence = command.sequence;
  reply.value = is_hash ? state_.partial_value : 0;
  if (status != Status::kOk) ++registers[accelerator::kFailed];
  registers[accelerator::kAccumulator] =
      accelerator::Accumulate(registers[accelerator::kAccumulator], status,
                              command.sequence, reply.value);
  registers[accelerator::kRandom] =
      accelerator::NextRandom(registers[accelerator::kRandom]);
  const bool raises = (command.flags & accelerator::kInterrupt) != 0 &&
                      command.vector < vectors();
  if (raises) ++registers[accelerator::kInterrupts];
  reply.completed = registers[accelerator::kCompleted];
  reply.accumulator = registers[accelerator::kAccumulator];
  reply.random = registers[accelerator::kRandom];
  state_.queue.pop_front();
  state_.progress = 0;
  state_.partial_value = 0;
  // Whoever is interrupted finds the answer.
  if (port_ != nullptr) port_->OnDone(ticket, reply, data);
  if (raises) (void)interrupts_->Raise(command.vector);
}

// -- Whether it runs ----------------------------------------------------------

void Accelerator::SetHold(Hold hold, bool is_held) {
  absl::MutexLock lock(&mu_);
  holds_ = static_cast<uint8_t>(is_held ? holds_ | hold : holds_ & ~hold);
  NotifyWork();
}

bool Accelerator::is_held(Hold hold) const {
  absl::MutexLock lock(&mu_);
  return (holds_ & hold) != 0;
}

void Accelerator::SetPower(bool is_on) {
  absl::MutexLock lock(&mu_);
  if (state_.is_powered == is_on) return;
  state_.is_powered = is_on;
  ++changes_;
  NotifyWork();
}

void Accelerator::Reset() {
  absl::MutexLock lock(&mu_);
  if (is_retired_) return;
  ++changes_;
  while (!state_.queue.empty()) Finish(Status::kReset, {});
  // Tickets go on: a packet of before must not be taken for another.
  const uint64_t completed = state_.registers[accelerator::kCompleted];
  state_.registers = InitialRegisters();
  state_.registers[accelerator::kCompleted] = completed;
}

void Accelerator::Retire() {
  absl::MutexLock lock(&mu_);
  is_retired_ = true;
}

// -- Moving -------------------------------------------------------------------

uint64_t Accelerator::changes() const {
  absl::MutexLock lock(&mu_);
  return changes_;
}

bool Accelerator::is_new() const { return changes() == 0; }

absl::StatusOr<AcceleratorState> Accelerator::Save() const {
  absl::MutexLock lock(&mu_);
  if ((holds_ & kMigration) == 0 || is_retired_) {
    return absl::FailedPreconditionError(
        "accelerator: it may still change: pause it, then save it");
  }
  return state_;
}

absl::Status Accelerator::CheckState(const AcceleratorState& state) const {
  if (absl::Status status = CheckRegisters(state.registers); !status.ok()) {
    return status;
  }
  if (state.queue.size() > accelerator::kCommandsMax) {
    return Corrupt(absl::StrCat(state.queue.size(), " commands, at most ",
                                accelerator::kCommandsMax));
  }
  if (state.progress == 0) {
    if (state.partial_value == 0) return absl::OkStatus();
    return Corrupt("a value of a command that did not begin");
  }
  if (state.queue.empty()) return Corrupt("progress without a command");
  const AcceleratorQueueEntry& entry = state.queue.front();
  const Command& command = entry.command;
  if (CheckCommand(command, entry.data_bytes, segments(), vectors()) !=
      Status::kOk) {
    return Corrupt("progress of a command that is not executed");
  }
  if (state.progress >= AcceleratorWork(command) ||
      state.progress % AcceleratorStepWork(command) != 0) {
    return Corrupt(absl::StrCat("progress is ", state.progress,
                                ", must be below ", AcceleratorWork(command),
                                " and steps of ",
                                AcceleratorStepWork(command)));
  }
  if (state.partial_value != 0 && command.op != Op::kHash) {
    return Corrupt("a hash value of a command that makes none");
  }
  return absl::OkStatus();
}

absl::Status Accelerator::Restore(const AcceleratorState& state) {
  absl::MutexLock lock(&mu_);
  if ((holds_ & kMigration) == 0 || changes_ != 0 || is_retired_) {
    return absl::FailedPreconditionError(
        "accelerator: a state is restored once, into a new device that is "
        "paused");
  }
  if (absl::Status status = CheckState(state); !status.ok()) return status;
  state_ = state;
  ++changes_;
  return absl::OkStatus();
}

absl::Status Accelerator::CheckRange(uint32_t segment, uint64_t offset_bytes,
                                     size_t size_bytes) const {
  if (FindMemory(segments(), {segment, 0, offset_bytes}, size_bytes) !=
      nullptr) {
    return absl::OkStatus();
  }
  const AcceleratorSegment* found = FindSegment(segments(), segment);
  return absl::OutOfRangeError(absl::StrCat(
      "accelerator: ", size_bytes, " bytes at ", offset_bytes, " of segment ",
      segment, ", which has ", found == nullptr ? 0 : found->memory.size()));
}

absl::Status Accelerator::ReadMemory(uint32_t segment, uint64_t offset_bytes,
                                     absl::Span<std::byte> out) const {
  if (absl::Status status = CheckRange(segment, offset_bytes, out.size());
      !status.ok()) {
    return status;
  }
  // Several read at once; steps are between.
  absl::ReaderMutexLock lock(&mu_);
  std::copy_n(FindMemory(segments(), {segment, 0, offset_bytes}, out.size()),
              out.size(), out.data());
  return absl::OkStatus();
}

absl::Status Accelerator::WriteMemory(uint32_t segment, uint64_t offset_bytes,
                                      absl::Span<const std::byte> data) {
  if (absl::Status status = CheckRange(segment, offset_bytes, data.size());
      !status.ok()) {
    return status;
  }
  absl::MutexLock lock(&mu_);
  std::copy(data.begin(), data.end(),
            FindMemory(segments(), {segment, 0, offset_bytes}, data.size()));
  if (dirty_ != nullptr) {
    dirty_->MarkWritten(segment, offset_bytes, data.size());
  }
  return absl::OkStatus();
}

}  // namespace ferrybus::vsp
