// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/migration/host/incoming_migration.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "ferrybus/savestate/steady_clock.h"

namespace ferrybus::migration {
namespace {

constexpr absl::Duration kPollTime = absl::Milliseconds(50);
constexpr absl::Duration kClosePatience = absl::Seconds(2);
constexpr absl::Duration kAskAgainMin = absl::Milliseconds(100);
constexpr absl::Duration kAskAgainMax = absl::Seconds(5);

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

// They are the target's now.
std::vector<int> Release(LinkMessage& message) {
  std::vector<int> descriptors;
  for (savestate::UniqueFd& each : message.descriptors) {
    descriptors.push_back(each.Release());
  }
  return descriptors;
}

}  // namespace

IncomingMigration::IncomingMigration(const TargetOptions& options,
                                     const std::string& migration_id,
                                     TargetHost* host, OwnershipLedger* ledger)
    : options_(options),
      migration_id_(migration_id),
      target_(options, host, ledger) {}

bool IncomingMigration::IsServed() const {
  return !target_.is_finished() && target_.phase() != TargetPhase::kUndecided;
}

void IncomingMigration::Serve(ControlLink& link, LinkMessage hello) {
  {
    absl::MutexLock lock(&mutex_);
    link_ = &link;
  }
  target_.OnMessage(AsBytes(hello.bytes), Release(hello),
                    savestate::SteadyNow());
  bool is_connected = true;
  while (true) {
    while (std::optional<std::string> reply = target_.TakeMessage()) {
      link.Send({.bytes = *std::move(reply)});
    }
    if (!IsServed()) break;
    if (!is_connected) {
      absl::SleepFor(kPollTime);
    } else if (std::optional<LinkMessage> message = link.Receive(kPollTime)) {
      target_.OnMessage(AsBytes(message->bytes), Release(*message),
                        savestate::SteadyNow());
    } else if (link.is_ended()) {
      is_connected = false;
      target_.OnDisconnected(absl::UnavailableError("the source is gone"),
                             savestate::SteadyNow());
    }
    Heed(TakeWishes());
    target_.Poll(savestate::SteadyNow());
  }
  link.Close(std::min(kClosePatience, options_.silence_max));
  absl::MutexLock lock(&mutex_);
  link_ = nullptr;
}

void IncomingMigration::Heed(const Wishes& wishes) {
  if (wishes.cancel) target_.Cancel();
  // Without its blocks nothing is lost once all pages are here.
  if (wishes.is_stream_broken && phase() == TargetPhase::kReceiving) {
    target_.OnDisconnected(absl::UnavailableError("a stream of blocks broke"),
                           savestate::SteadyNow());
  }
  if (wishes.stop) {
    target_.OnDisconnected(absl::UnavailableError("the target's host stops"),
                           savestate::SteadyNow());
  }
}

absl::Status IncomingMigration::Recover(const OwnershipRecord& record) {
  return target_.Recover(record, savestate::SteadyNow());
}

void IncomingMigration::Settle(const DecisionAsker& ask) {
  absl::Duration again = kAskAgainMin;
  while (!target_.is_finished()) {
    const Wishes wishes = TakeWishes();
    if (wishes.stop) return;
    if (wishes.decision.has_value()) {
      target_.OnDecision(*wishes.decision, savestate::SteadyNow());
    } else if (phase() == TargetPhase::kUndecided) {
      absl::StatusOr<Decision> decision =
          ask(options_.peer, options_.machine, migration_id_);
      absl::Status asked = decision.status();
      if (decision.ok()) {
        target_.OnDecision(*decision, savestate::SteadyNow());
        if (*decision == Decision::kUndecided) {
          asked = absl::UnavailableError("it has not decided yet");
        }
      }
      absl::MutexLock lock(&mutex_);
      asked_ = asked;
    }
    target_.Poll(savestate::SteadyNow());
    if (target_.is_finished()) return;
    absl::MutexLock lock(&mutex_);
    auto is_due = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return wishes_.stop || wishes_.decision.has_value();
    };
    mutex_.AwaitWithTimeout(absl::Condition(&is_due), again);
    again = std::min(2 * again, kAskAgainMax);
  }
}

// ---- Blocks

void IncomingMigration::OnBlock(const std::string& bytes) {
  target_.OnBlock(AsBytes(bytes), savestate::SteadyNow());
  // It may have been the last one of the pass, or a bad one.
  absl::MutexLock lock(&mutex_);
  Poke();
}

absl::Status IncomingMigration::AddStream(const CancelStream* stream) {
  absl::MutexLock lock(&mutex_);
  if (link_ == nullptr) return absl::UnavailableError("the migration is over");
  if (streams_.size() >= kStreamsMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat("at most ", kStreamsMax, " streams of blocks"));
  }
  streams_.push_back(stream);
  return absl::OkStatus();
}

void IncomingMigration::RemoveStream(const CancelStream* stream,
                                     bool is_broken) {
  absl::MutexLock lock(&mutex_);
  streams_.erase(std::remove(streams_.begin(), streams_.end(), stream),
                 streams_.end());
  wishes_.is_stream_broken |= is_broken;
  Poke();
}

void IncomingMigration::CancelStreams() {
  absl::MutexLock lock(&mutex_);
  for (const CancelStream* stream : streams_) (*stream)();
}

// ---- Others

void IncomingMigration::Poke() {
  if (link_ != nullptr) link_->Poke();
}

IncomingMigration::Wishes IncomingMigration::TakeWishes() {
  absl::MutexLock lock(&mutex_);
  Wishes taken = std::exchange(wishes_, {});
  wishes_.stop = taken.stop;
  return taken;
}

void IncomingMigration::Decide(Decision decision) {
  absl::MutexLock lock(&mutex_);
  wishes_.decision = decision;
}

void IncomingMigration::Stop() {
  absl::MutexLock lock(&mutex_);
  wishes_.stop = true;
  Poke();
}

void IncomingMigration::RequestCancel() {
  absl::MutexLock lock(&mutex_);
  wishes_.cancel = true;
  Poke();
}

MigrationReport IncomingMigration::Report() const {
  const TargetPhase phase = target_.phase();
  MigrationReport report = {.migration_id = migration_id_,
                            .machine = options_.machine,
                            .peer = options_.peer,
                            .role = MigrationRole::kTarget,
                            .phase = std::string(TargetPhaseName(phase)),
                            .is_finished = target_.is_finished(),
                            .is_handed_over = phase == TargetPhase::kStarting ||
                                              phase == TargetPhase::kRunning,
                            .status = target_.status()};
  absl::MutexLock lock(&mutex_);
  if (phase == TargetPhase::kUndecided && !asked_.ok()) {
    report.status = absl::Status(
        asked_.code(), absl::StrCat(report.status.message(), "; asked ",
                                    options_.peer, ": ", asked_.message()));
  }
  return report;
}

}  // namespace ferrybus::migration
