// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/migration/host/arrivals.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "ferrybus/savestate/migration/host/random_id.h"
#include "ferrybus/savestate/steady_clock.h"

namespace ferrybus::migration {
namespace {

constexpr absl::Duration kPollTime = absl::Milliseconds(100);
constexpr absl::Duration kClosePatience = absl::Seconds(2);

}  // namespace

absl::StatusOr<Hello> ReadHello(const std::string& bytes,
                                const MessageLimits& limits) {
  absl::StatusOr<Message> message = ParseMessage(
      {reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()}, limits);
  if (!message.ok()) return message.status();
  if (!std::holds_alternative<Hello>(*message)) {
    return absl::InvalidArgumentError(
        absl::StrCat("it begins with ", MessageName(*message)));
  }
  return std::get<Hello>(*std::move(message));
}

// ---- A machine comes

absl::Status Arrivals::Serve(ControlLink& link, const std::string& peer,
                             const std::string& ticket) {
  absl::StatusOr<LinkMessage> first = FirstMessage(link);
  absl::Status status = first.status();
  Incoming incoming;
  if (status.ok()) {
    absl::StatusOr<Hello> hello = ReadHello(first->bytes, options_.limits);
    status = hello.status();
    if (status.ok()) {
      status =
          CheckSharedMemory(*hello, first->descriptors, options_.shared_memory);
    }
    if (status.ok()) {
      absl::StatusOr<Incoming> begun =
          Begin({.machine = hello->machine,
                 .session = NewRandomId(),
                 .peer = peer,
                 .silence_max = options_.silence_max,
                 .limits = options_.limits},
                hello->migration_id, ticket);
      status = begun.status();
      if (begun.ok()) incoming = *std::move(begun);
    }
  }
  if (!status.ok()) {
    link.Send({.bytes = SerializeMessage(Abort{.reason = status})});
    link.Close(std::min(kClosePatience, options_.silence_max));
    return status;
  }
  incoming->Serve(link, *std::move(first));
  EndOrSettle(incoming, ticket);
  return absl::OkStatus();
}

absl::StatusOr<LinkMessage> Arrivals::FirstMessage(ControlLink& link) const {
  const absl::Time until = savestate::SteadyNow() + options_.silence_max;
  while (savestate::SteadyNow() < until && !link.is_ended() && !is_stopping_) {
    if (std::optional<LinkMessage> first = link.Receive(kPollTime)) {
      return *std::move(first);
    }
  }
  return absl::DeadlineExceededError("no hello came");
}

absl::StatusOr<Arrivals::Incoming> Arrivals::Begin(
    const TargetOptions& options, const std::string& migration_id,
    const std::string& ticket) {
  absl::MutexLock lock(&mutex_);
  if (is_stopping_) return absl::UnavailableError("this host stops");
  if (incoming_.size() >= static_cast<size_t>(options_.arrivals_max)) {
    return absl::ResourceExhaustedError(
        absl::StrCat("at most ", options_.arrivals_max, " machines at a time"));
  }
  for (const auto& [unused, other] : incoming_) {
    if (other->machine() != options.machine) continue;
    return absl::FailedPreconditionError(absl::StrCat(
        options.machine, " is coming from ", other->Report().peer, " already"));
  }
  absl::StatusOr<MachineRegistry::Arrival> arrival =
      registry_->BeginArrival(options.machine);
  if (!arrival.ok()) return arrival.status();
  auto incoming = std::make_shared<IncomingMigration>(
      options, migration_id, arrival->host, arrival->ledger);
  absl::Status status = book_->Begin(options.machine, incoming.get());
  if (!status.ok()) {
    registry_->EndArrival(options.machine, /*is_running=*/false);
    return status;
  }
  incoming_[ticket] = incoming;
  return incoming;
}

void Arrivals::EndOrSettle(const Incoming& incoming,
                           const std::string& ticket) {
  incoming->CancelStreams();
  if (incoming->phase() != TargetPhase::kUndecided) {
    return End(incoming, ticket);
  }
  absl::MutexLock lock(&mutex_);
  if (is_stopping_) return;  // its devices are the host's to end
  JoinFinished();
  Settler& settler = settlers_.emplace_back();
  settler.thread = std::thread([this, incoming, ticket, &settler] {
    incoming->Settle(options_.ask);
    if (incoming->phase() != TargetPhase::kUndecided) End(incoming, ticket);
    absl::MutexLock ended(&mutex_);
    settler.is_over = true;
  });
}

void Arrivals::JoinFinished() {
  settlers_.remove_if([](Settler& settler) {
    if (settler.is_over) settler.thread.join();
    return settler.is_over;
  });
}

void Arrivals::End(const Incoming& incoming, const std::string& ticket) {
  book_->End(incoming.get());
  registry_->EndArrival(incoming->machine(),
                        incoming->phase() == TargetPhase::kRunning);
  absl::MutexLock lock(&mutex_);
  incoming_.erase(ticket);
}

Arrivals::Incoming Arrivals::Find(const std::string& ticket) const {
  absl::MutexLock lock(&mutex_);
  auto found = incoming_.find(ticket);
  return found == incoming_.end() ? nullptr : found->second;
}

// ---- One that left

absl::StatusOr<Decision> Arrivals::Decide(const std::string& machine,
                                          const std::string& migration_id) {
  absl::StatusOr<OwnershipLedger*> ledger = registry_->FindLedger(machine);
  if (!ledger.ok()) return ledger.status();
  // Before the record is read: it is final once the migration is not under way
  // any more.  While it is, the record may hold a decision that is not stored
  // for good, and is taken back.
  if (book_->IsUndecided(migration_id)) return Decision::kUndecided;
  absl::StatusOr<OwnershipRecord> record = (*ledger)->Load();
  if (!record.ok()) return record.status();
  if (record->state == Ownership::kNone) {
    // Whoever was the source has a record.
    return absl::NotFoundError(
        absl::StrCat("this host has no record of having owned ", machine));
  }
  return migration::Decide(*record, migration_id, {});
}

// ---- Undecided machines

absl::Status Arrivals::Recover(const std::string& machine) {
  absl::StatusOr<OwnershipLedger*> ledger = registry_->FindLedger(machine);
  if (!ledger.ok()) return ledger.status();
  absl::StatusOr<OwnershipRecord> record = (*ledger)->Load();
  if (!record.ok()) return record.status();
  const std::string ticket = NewRandomId();
  absl::StatusOr<Incoming> incoming =
      Begin({.machine = machine,
             .session = NewRandomId(),
             .peer = record->peer,
             .silence_max = options_.silence_max,
             .limits = options_.limits},
            record->migration_id, ticket);
  if (!incoming.ok()) return incoming.status();
  absl::Status status = (*incoming)->Recover(*record);
  if (!status.ok()) {
    End(*incoming, ticket);
    return status;
  }
  EndOrSettle(*incoming, ticket);
  return absl::OkStatus();
}

absl::Status Arrivals::Settle(const std::string& machine, Decision decision) {
  absl::MutexLock lock(&mutex_);
  for (const auto& [unused, incoming] : incoming_) {
    if (incoming->machine() != machine) continue;
    if (incoming->phase() != TargetPhase::kUndecided) break;
    incoming->Decide(decision);
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      absl::StrCat(machine, " is not undecided here"));
}

void Arrivals::Stop() {
  is_stopping_ = true;
  std::list<Settler> settlers;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [unused, incoming] : incoming_) incoming->Stop();
    settlers.swap(settlers_);
  }
  for (Settler& settler : settlers) settler.thread.join();
}

}  // namespace ferrybus::migration
