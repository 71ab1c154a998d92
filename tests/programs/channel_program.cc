// SPDX-License-Identifier: MIT

#include "ferrybus/tests/programs/channel_program.h"

#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ferrybus/savestate/fault_points.h"

namespace ferrybus::testing {
namespace {

constexpr uint64_t kRamBytes = 4 << 20;
// Rings, pages of the connection, and more.
constexpr uint32_t kHostileWords = 128 * 1024;
constexpr int kFinishRounds = 200;
// Of a hostile guest nothing has to come.
constexpr int kHostileFinishRounds = 10;
// A host that drains waits for answers that only the program can give.
constexpr int kSaveRounds = 20;

MoveHarness::Options SmallOptions() {
  MoveHarness::Options options;
  options.ram_bytes = kRamBytes;
  options.save_rounds = kSaveRounds;
  options.guest.ring_data_pages = 1;
  options.guest.endpoint.max_awaiting = 40;
  options.host.endpoint.max_in_flight = 12;
  options.host.endpoint.max_awaiting = 20;
  options.host.endpoint.max_queued = 24;
  options.host.poll_budget = 5;
  return options;
}

// Fails the step-th point that is passed.
class FailingStep final : public savestate::FaultHook {
 public:
  explicit FailingStep(uint32_t step) : left_(step), installed_(this) {}
  absl::Status OnFaultPoint(savestate::FaultPoint) override {
    return left_-- == 0 ? absl::AbortedError("the program's step")
                        : absl::OkStatus();
  }

 private:
  uint32_t left_;
  const savestate::ScopedFaultHook installed_;
};

}  // namespace

ChannelProgram::ChannelProgram(vsp::IncomingPolicy policy)
    : policy_(policy), harness_(SmallOptions()), driver_(&traffic_) {
  harness_.guest().AddDriver(kTestInterface, &driver_);
  device_ = std::make_unique<PiledDevice>(policy_, &traffic_);
  harness_.StartHost(device_.get());
  const absl::Status status = harness_.guest().Connect();
  if (!status.ok()) wrong_ = status.ToString();
  harness_.Pump();
}

void ChannelProgram::GuestSends(uint32_t packets, uint32_t bytes) {
  while (packets-- > 0 && driver_.SendRequest(bytes)) {
  }
}

void ChannelProgram::HostSends(uint32_t packets, uint32_t bytes) {
  while (packets-- > 0 && device_->SendRequest(bytes)) {
  }
}

void ChannelProgram::GuestRuns(uint32_t rounds) {
  while (rounds-- > 0) harness_.PumpGuest();
}

void ChannelProgram::HostRuns(uint32_t rounds) {
  while (rounds-- > 0) harness_.PumpHost();
}

void ChannelProgram::HostAnswers(uint32_t packets, uint32_t seed) {
  std::mt19937_64 random(seed);
  while (packets-- > 0 && device_->AnswerOne(random)) {
  }
}

absl::StatusOr<std::string> ChannelProgram::Save() {
  absl::StatusOr<std::string> saved = harness_.Save();
  if (saved.ok()) return saved;
  harness_.host().Thaw();
  // A device that drains has to answer first.
  if (!absl::IsFailedPrecondition(saved.status())) {
    wrong_ = absl::StrCat("save: ", saved.status().ToString());
  }
  return saved;
}

absl::Status ChannelProgram::Restore(const std::string& saved) {
  harness_.DropHost();
  device_ = std::make_unique<PiledDevice>(policy_, &traffic_);
  return harness_.RestoreHost(saved, device_.get());
}

void ChannelProgram::Moves() {
  const absl::StatusOr<std::string> saved = Save();
  if (!saved.ok()) return;
  const absl::Status status = Restore(*saved);
  if (!status.ok()) wrong_ = absl::StrCat("restore: ", status.ToString());
}

void ChannelProgram::SavesAndThaws() {
  if (Save().ok()) harness_.host().Thaw();
}

void ChannelProgram::MovesAtSecondTry(uint32_t step) {
  const absl::StatusOr<std::string> saved = Save();
  if (!saved.ok()) return;
  {
    const FailingStep failing(step);
    if (Restore(*saved).ok()) return;
  }
  const absl::Status status = Restore(*saved);
  if (!status.ok()) wrong_ = absl::StrCat("2nd restore: ", status.ToString());
}

void ChannelProgram::GuestWrites(uint32_t word, uint32_t value) {
  is_hostile_ = true;
  const absl::Span<std::byte> bytes =
      harness_.memory().Translate(uint64_t{word % kHostileWords} * 4, 4);
  std::atomic_ref<uint32_t>(*reinterpret_cast<uint32_t*>(bytes.data()))
      .store(value, std::memory_order_relaxed);
}

std::string ChannelProgram::Finish() {
  const int rounds = is_hostile_ ? kHostileFinishRounds : kFinishRounds;
  for (int i = 0; i < rounds && wrong_.empty(); ++i) {
    HostAnswers(1000, 1);
    HostFlushes();
    GuestFlushes();
    harness_.Pump(20);
    if (traffic_.IsEven()) break;
  }
  if (!wrong_.empty() || is_hostile_) return wrong_;
  if (!harness_.faults().empty()) return harness_.faults()[0];
  if (traffic_.IsEven() && traffic_.doubled() == 0) return {};
  return absl::StrCat("of the guest's ", traffic_.guest.asked(), " requests ",
                      traffic_.guest.answered(),
                      " were answered, of the host's ", traffic_.host.asked(),
                      " ", traffic_.host.answered(),
                      "; answers too many: ", traffic_.doubled());
}

}  // namespace ferrybus::testing
