// SPDX-License-Identifier: MIT

#include "ferrybus/tests/simulation/migration_run.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "ferrybus/savestate/migration/migration_messages.h"

namespace ferrybus::simulation {
namespace {

using migration::Decision;
using migration::MigrationSource;
using migration::MigrationTarget;
using migration::TargetPhase;

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

std::string Id(absl::string_view kind, uint64_t number) {
  std::string id = absl::StrCat(kind, number);
  id.resize(migration::kIdSizeBytes, '.');
  return id;
}

}  // namespace

void MigrationRun::Begin(int from, bool is_hurried) {
  from_ = from;
  is_under_way_ = true;
  ++number_;
  network_.Connect();
  Random& random = context_->random;
  migration::SourceOptions options;
  options.machine = "machine";
  options.migration_id = Id("move", number_);
  options.peer = "there";
  options.quick = random.OneIn(6);
  options.compress = random.OneIn(2);
  options.block_bytes = 4096 * random.Between(4, 24);
  options.downtime_limit = absl::Milliseconds(random.Between(1, 40));
  options.passes_max = static_cast<uint32_t>(random.Between(2, 8));
  options.silence_max = absl::Seconds(5);
  if (is_hurried) {
    options.timeout = absl::Milliseconds(random.Between(1, 300));
    options.on_timeout = random.OneIn(2) ? migration::OnTimeout::kForce
                                         : migration::OnTimeout::kCancel;
  }
  SimulatedHost& here = source_host();
  here.source = std::make_unique<MigrationSource>(
      options, here.PrepareToLeave(), &here.ledger());
  target_host().target = std::make_unique<MigrationTarget>(
      migration::TargetOptions{.machine = "machine",
                               .session = Id("session", number_),
                               .peer = "here",
                               .silence_max = absl::Seconds(5)},
      hosts_[1 - from_], &target_host().ledger());
  here.source->Start(context_->now());
}

void MigrationRun::Step(uint64_t what) {
  switch (what % kSteps) {
    case 0:
    case 1:
      StepSource();
      break;
    case 2:
      ToTarget();
      break;
    case 3:
      StepTarget();
      break;
    case 4:
      ToSource();
      break;
    case 5:
    case 6:
      TakeBlock();
      break;
    default:
      GiveBlock(what % kSteps - 7);
      break;
  }
  FinishIfOver();
}

void MigrationRun::StepSource() {
  MigrationSource* const source = source_host().source.get();
  if (source == nullptr) return;
  source_host().Enter();
  if (network_.TakeDisconnect(0)) {
    source->OnDisconnected(absl::UnavailableError("cut"), context_->now());
  }
  source->Poll(context_->now());
  while (auto message = source->TakeMessage()) {
    network_.Send(VirtualNetwork::kToTarget, std::move(message->bytes));
  }
  context_->trace.Add(static_cast<uint64_t>(source->progress().phase));
}

void MigrationRun::ToTarget() {
  MigrationTarget* const target = target_host().target.get();
  if (target == nullptr) return;
  const auto bytes = network_.Receive(VirtualNetwork::kToTarget);
  if (!bytes.has_value()) return;
  target_host().Enter();
  target->OnMessage(AsBytes(*bytes), {}, context_->now());
}

void MigrationRun::StepTarget() {
  MigrationTarget* const target = target_host().target.get();
  if (target == nullptr) return;
  if (target_host().has_bus()) target_host().Enter();
  if (network_.TakeDisconnect(1)) {
    target->OnDisconnected(absl::UnavailableError("cut"), context_->now());
  }
  target->Poll(context_->now());
  while (auto message = target->TakeMessage()) {
    network_.Send(VirtualNetwork::kToSource, *std::move(message));
  }
  context_->trace.Add(static_cast<uint64_t>(target->phase()));
}

void MigrationRun::ToSource() {
  MigrationSource* const source = source_host().source.get();
  if (source == nullptr) return;
  const auto bytes = network_.Receive(VirtualNetwork::kToSource);
  if (!bytes.has_value()) return;
  source_host().Enter();
  source->OnMessage(AsBytes(*bytes), context_->now());
}

void MigrationRun::TakeBlock() {
  MigrationSource* const source = source_host().source.get();
  const size_t stream = VirtualNetwork::kFirstStream +
                        context_->random.Below(VirtualNetwork::kStreams);
  if (source == nullptr || network_.waiting(stream) > 2) return;
  source_host().Enter();
  auto next = source->TakeBlock(encoder_, context_->now());
  if (!next.bytes.empty()) network_.Send(stream, std::move(next.bytes));
}

void MigrationRun::GiveBlock(size_t stream) {
  MigrationTarget* const target = target_host().target.get();
  if (target == nullptr) return;
  const auto bytes = network_.Receive(VirtualNetwork::kFirstStream + stream);
  if (bytes.has_value()) target->OnBlock(AsBytes(*bytes), context_->now());
}

void MigrationRun::FinishIfOver() {
  SimulatedHost& here = source_host();
  SimulatedHost& there = target_host();
  if (!is_under_way_ || !here.is_up() || !there.is_up()) return;
  if (here.source != nullptr && !here.source->is_finished()) return;
  if (there.target != nullptr && !there.target->is_finished()) {
    // A target that never heard anything does not know that it is over.
    if (there.target->phase() != TargetPhase::kNew) return;
  }
  if (there.undecided().has_value()) return;
  is_under_way_ = false;
  const bool is_moved = there.has_bus();
  ++(is_moved ? context_->totals.moves : context_->totals.moves_failed);
  if (is_moved && here.has_bus()) {
    context_->Fail("two-owners", "both hosts have the machine");
  }
  here.ForgetMigration();
  there.ForgetMigration();
}

void MigrationRun::Ask() {
  for (int i = 0; i < 2; ++i) {
    SimulatedHost& asks = *hosts_[i];
    SimulatedHost& answers = *hosts_[1 - i];
    if (!asks.is_up() || !answers.is_up()) continue;
    const bool is_target_undecided =
        asks.target != nullptr &&
        asks.target->phase() == TargetPhase::kUndecided;
    if (!is_target_undecided && !asks.undecided().has_value()) continue;
    const std::string running = answers.source == nullptr
                                    ? std::string()
                                    : answers.source->running_id();
    auto record = answers.ledger().Load();
    if (!record.ok()) continue;
    const std::string id = asks.undecided().has_value()
                               ? asks.undecided()->migration_id
                               : asks.target->migration_id();
    const Decision decision = migration::Decide(*record, id, running);
    context_->trace.Add(static_cast<uint64_t>(decision));
    asks.Enter();
    if (asks.undecided().has_value()) {
      asks.OnDecision(decision);
    } else {
      asks.target->OnDecision(decision, context_->now());
    }
  }
  FinishIfOver();
}

}  // namespace ferrybus::simulation
