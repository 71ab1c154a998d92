// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/migration/migration_source.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "ferrybus/savestate/fault_points.h"
#include "ferrybus/savestate/size_negotiation.h"

namespace ferrybus::migration {
namespace {

using savestate::FaultPoint;
using savestate::MarkFaultPoint;
using savestate::PassFaultPoint;

constexpr absl::Duration kStoreAgainAfter = absl::Seconds(1);

}  // namespace

absl::string_view SourcePhaseName(SourcePhase phase) {
  static constexpr absl::string_view kNames[] = {
      "new",       "connecting", "validating", "copying", "pausing", "blackout",
      "preparing", "unsettled",  "committed",  "done",    "failed"};
  return kNames[static_cast<size_t>(phase)];
}

MigrationSource::MigrationSource(const SourceOptions& options,
                                 absl::Span<PendingPages* const> devices,
                                 OwnershipLedger* ledger,
                                 OutputListener* listener)
    : options_(options),
      devices_(devices.begin(), devices.end()),
      ledger_(ledger),
      listener_(listener) {}

// ---- Beginning

void MigrationSource::Start(absl::Time now) {
  now_ = started_ = last_heard_ = phase_began_ = now;
  SetPhase(SourcePhase::kConnecting);
  absl::StatusOr<OwnershipRecord> record = ledger_->Load();
  if (!record.ok()) return Fail(record.status(), false);
  if (record->state != Ownership::kOwner) {
    return Fail(
        absl::FailedPreconditionError(absl::StrCat(
            options_.machine, " cannot leave: this host's record says: ",
            OwnershipName(record->state))),
        false);
  }
  before_ = *std::move(record);
  for (PendingPages* pages : devices_) {
    Migratable& device = pages->device();
    if (!options_.quick && !device.capabilities().live_migration) {
      return Fail(absl::FailedPreconditionError(absl::StrCat(
                      device.name(), " moves only while it is paused")),
                  false);
    }
    absl::Status status = PassFaultPoint(FaultPoint::kLeavePrepare);
    if (status.ok()) status = device.Prepare(Role::kSource);
    if (!status.ok()) return Fail(OfDevice(device, "prepare", status), false);
    ++prepared_devices_;
  }
  SendHello();
}

void MigrationSource::SendHello() {
  Hello hello = {.migration_id = options_.migration_id,
                 .machine = options_.machine,
                 .epoch = before_.epoch,
                 .devices = {}};
  std::vector<int> descriptors;
  uint64_t memory_bytes = 0;
  for (PendingPages* pages : devices_) {
    Migratable& device = pages->device();
    DeviceDescription description = {
        .name = device.name(),
        .creation_parameters = device.CreationParameters(),
        .segments = {}};
    for (const Segment& segment : device.segments()) {
      const int shared =
          options_.share_memory ? device.SharedMemory(segment.id) : -1;
      if (shared >= 0) {
        descriptors.push_back(shared);
        pages->Exclude(segment.id);
      }
      description.segments.push_back(
          {.id = segment.id,
           .page_size_bytes = segment.page_size_bytes,
           .size_bytes = SegmentSizeBytes(segment),
           .is_shared = shared >= 0});
      memory_bytes += description.segments.back().size_bytes;
    }
    hello.devices.push_back(std::move(description));
  }
  {
    absl::MutexLock lock(&mutex_);
    progress_.memory_bytes = memory_bytes;
  }
  Send(std::move(hello), std::move(descriptors));
}

void MigrationSource::Handle(const HelloReply& reply) {
  if (!CheckPhase(SourcePhase::kConnecting, "HelloReply")) return;
  if (reply.version != kProtocolVersion) {
    return Fail(absl::UnimplementedError(absl::StrCat(
                    "the target chose protocol version ", reply.version,
                    ", offered was ", kProtocolVersion)),
                true);
  }
  {
    absl::MutexLock lock(&mutex_);
    pass_.session = reply.session;
  }
  SetPhase(SourcePhase::kValidating);
  for (uint32_t i = 0; i < devices_.size(); ++i) {
    absl::StatusOr<std::string> blob = Save(true, devices_[i]->device());
    if (!blob.ok()) return Fail(blob.status(), true);
    Send(ImmutableData{.device = i, .data = *std::move(blob)});
  }
}

void MigrationSource::Handle(const ImmutableAccepted&) {
  if (!CheckPhase(SourcePhase::kValidating, "ImmutableAccepted")) return;
  if (options_.quick) return BeginPause();
  SetPhase(SourcePhase::kCopying);
  has_begun_pages_ = true;
  for (PendingPages* pages : devices_) {
    absl::Status status = PassFaultPoint(FaultPoint::kLeaveTrack);
    if (status.ok()) status = pages->Begin(/*track=*/true);
    if (!status.ok()) {
      return Fail(OfDevice(pages->device(), "dirty tracking", status), true);
    }
  }
  collected_ = now_;
  OpenPass();
}

// ---- The decision

void MigrationSource::Handle(const Prepared&) {
  if (!CheckPhase(SourcePhase::kPreparing, "Prepared")) return;
  {
    absl::MutexLock lock(&mutex_);
    progress_.pause.state = now_ - phase_began_;
  }
  phase_began_ = now_;
  if (cancel_.load()) return;  // Poll() sees to it
  for (PendingPages* pages : devices_) {
    absl::Status status = PassFaultPoint(FaultPoint::kLeaveConfirm);
    if (status.ok()) status = pages->device().Confirm();
    if (!status.ok()) {
      return Fail(
          OfDevice(pages->device(), "changed since it was saved", status),
          true);
    }
  }
  Commit();
}

void MigrationSource::Commit() {
  const uint64_t epoch = before_.epoch + 1;
  absl::Status status = PassFaultPoint(FaultPoint::kLeaveDecide);
  if (status.ok())
    status = ledger_->Store({.state = Ownership::kHandedOver,
                             .epoch = epoch,
                             .migration_id = options_.migration_id,
                             .peer = options_.peer});
  if (!status.ok()) {
    // Perhaps it is stored, perhaps not: neither side may run before it is
    // known, and known it is once the old record is stored again.
    absl::MutexLock lock(&mutex_);
    phase_ = progress_.phase = SourcePhase::kUnsettled;
    progress_.status =
        absl::Status(status.code(),
                     absl::StrCat("storing the decision: ", status.message()));
    return;
  }
  std::string session;
  {
    absl::MutexLock lock(&mutex_);
    session = pass_.session;
  }
  MarkFaultPoint(FaultPoint::kLeaveDecided);
  SetPhase(SourcePhase::kCommitted);
  Send(migration::Commit{.session = std::move(session), .epoch = epoch});
  is_retire_due_ = true;
}

void MigrationSource::PollUnsettled() {
  if (now_ - phase_began_ < kStoreAgainAfter) return;
  phase_began_ = now_;
  if (!ledger_->Store(before_).ok()) return;
  absl::Status why;
  {
    absl::MutexLock lock(&mutex_);
    why = progress_.status;
  }
  Fail(why, true);
}

void MigrationSource::RetireDevices() {
  is_retire_due_ = false;
  MarkFaultPoint(FaultPoint::kLeaveRetire);
  CloseBlocks();
  for (PendingPages* pages : devices_) pages->device().Retire();
  for (PendingPages* pages : devices_) {
    pages->End();
    pages->device().End();
  }
}

void MigrationSource::Handle(const Running&) {
  if (!CheckPhase(SourcePhase::kCommitted, "Running")) return;
  {
    absl::MutexLock lock(&mutex_);
    progress_.pause.start = now_ - phase_began_;
  }
  Finish(SourcePhase::kDone, absl::OkStatus());
}

// ---- Ends

void MigrationSource::Handle(const Abort& abort) {
  if (phase() == SourcePhase::kCommitted) {
    return Finish(SourcePhase::kDone,
                  absl::Status(abort.reason.code(),
                               absl::StrCat("decided, but the target says: ",
                                            abort.reason.message())));
  }
  Fail(absl::Status(abort.reason.code(),
                    absl::StrCat("the target says: ", abort.reason.message())),
       false);
}

// What only a target gets.
template <typename Other>
void MigrationSource::Handle(const Other& other) {
  Fail(absl::InvalidArgumentError(
           absl::StrCat("a source gets no ", MessageName(other))),
       true);
}

void MigrationSource::Fail(const absl::Status& why, bool tell_peer) {
  if (is_finished()) return;
  if (phase() == SourcePhase::kCommitted) {
    return Finish(SourcePhase::kDone,
                  absl::Status(why.code(),
                               absl::StrCat("decided; whether the target runs "
                                            "is not known: ",
                                            why.message())));
  }
  if (phase() == SourcePhase::kUnsettled && tell_peer == false) return;
  CloseBlocks();
  for (size_t i = paused_devices_; i-- > 0;) devices_[i]->device().Resume();
  // The one that said "not yet" has begun to pause.
  if (phase() == SourcePhase::kPausing && paused_devices_ < devices_.size()) {
    devices_[paused_devices_]->device().Resume();
  }
  for (size_t i = 0; i < prepared_devices_; ++i) {
    devices_[i]->End();
    devices_[i]->device().End();
  }
  outgoing_.clear();
  if (tell_peer) {
    std::string session;
    {
      absl::MutexLock lock(&mutex_);
      session = pass_.session;
    }
    Send(Abort{.reason = why, .session = std::move(session)});
  }
  Finish(SourcePhase::kFailed, why);
}

// Gives no more blocks, and waits for those that are being read.
void MigrationSource::CloseBlocks() {
  absl::MutexLock lock(&mutex_);
  pass_.is_open = false;
  mutex_.Await(absl::Condition(
      +[](int* readers) { return *readers == 0; }, &pass_.readers));
}

void MigrationSource::Finish(SourcePhase phase, const absl::Status& status) {
  if (is_retire_due_) RetireDevices();
  SetPhase(phase);
  absl::MutexLock lock(&mutex_);
  progress_.status = status;
}

// ---- What happens

void MigrationSource::OnMessage(absl::Span<const std::byte> bytes,
                                absl::Time now) {
  now_ = now;
  if (is_finished() || phase() == SourcePhase::kNew) return;
  last_heard_ = now;
  absl::StatusOr<Message> message = ParseMessage(bytes, options_.limits);
  if (!message.ok()) return Fail(message.status(), true);
  if (phase() == SourcePhase::kUnsettled) return;
  std::visit([&](const auto& kind) { Handle(kind); }, *message);
}

void MigrationSource::OnDisconnected(const absl::Status& why, absl::Time now) {
  now_ = now;
  if (phase() == SourcePhase::kUnsettled) return;
  Fail(absl::UnavailableError(
           absl::StrCat("the connection ended: ", why.message())),
       false);
}

void MigrationSource::Poll(absl::Time now) {
  now_ = now;
  if (is_finished() || phase() == SourcePhase::kNew) return;
  if (phase() == SourcePhase::kCommitted && !is_decision_timed_) {
    is_decision_timed_ = true;
    absl::MutexLock lock(&mutex_);
    progress_.pause.decide = now - std::exchange(phase_began_, now);
  }
  if (is_retire_due_ && outgoing_.empty()) RetireDevices();
  if (phase() == SourcePhase::kUnsettled) return PollUnsettled();
  if (cancel_.load() && phase() != SourcePhase::kCommitted) {
    return Fail(absl::CancelledError("cancelled"), true);
  }
  absl::Status failure;
  {
    absl::MutexLock lock(&mutex_);
    progress_.elapsed = now - started_;
    failure = pass_.failure;
  }
  if (!failure.ok()) return Fail(failure, true);
  EndPassIfExhausted();
  PollLimits();
  if (phase() == SourcePhase::kPausing) PollPause();
}

void MigrationSource::PollLimits() {
  absl::Time last = last_heard_;
  {
    absl::MutexLock lock(&mutex_);
    last = std::max(last, pass_.last_taken);
  }
  // While the devices stop nobody has anything to say.
  if (phase() != SourcePhase::kPausing && now_ - last > options_.silence_max) {
    return Fail(absl::DeadlineExceededError(absl::StrCat(
                    SourcePhaseName(phase()), ": nothing heard for ",
                    absl::FormatDuration(options_.silence_max))),
                true);
  }
  if (phase() == SourcePhase::kCopying && now_ - started_ > options_.timeout) {
    GiveUp(absl::DeadlineExceededError(absl::StrCat(
        "not done within ", absl::FormatDuration(options_.timeout))));
  }
}

// ---- Helpers

absl::StatusOr<std::string> MigrationSource::Save(bool is_immutable,
                                                  Migratable& device) const {
  absl::Status status =
      PassFaultPoint(is_immutable ? FaultPoint::kLeaveSaveImmutable
                                  : FaultPoint::kLeaveSaveMutable);
  if (!status.ok()) return status;
  return savestate::NegotiateSize(
      {.dialect = savestate::SizingDialect::kGpuP,
       .bytes_max = options_.limits.blob_bytes_max,
       .immutable = is_immutable},
      absl::StrCat(device.name(),
                   is_immutable ? ": immutable data" : ": mutable data"),
      [&](absl::Span<std::byte> out) {
        return is_immutable ? device.SaveImmutable(out)
                            : device.SaveMutable(out);
      });
}

std::optional<OutgoingMigrationMessage> MigrationSource::TakeMessage() {
  if (outgoing_.empty()) return std::nullopt;
  OutgoingMigrationMessage message = std::move(outgoing_.front());
  outgoing_.pop_front();
  return message;
}

void MigrationSource::Send(const Message& message,
                           std::vector<int> descriptors) {
  outgoing_.push_back({.bytes = SerializeMessage(message),
                       .descriptors = std::move(descriptors)});
  if (listener_ != nullptr) listener_->OnOutput();
}

bool MigrationSource::CheckPhase(SourcePhase phase, absl::string_view message) {
  if (phase_ == phase) return true;
  Fail(absl::InvalidArgumentError(absl::StrCat(
           "the target sent ", message, " while ", SourcePhaseName(phase_))),
       true);
  return false;
}

void MigrationSource::SetPhase(SourcePhase phase) {
  phase_ = phase;
  absl::MutexLock lock(&mutex_);
  progress_.phase = phase;
  progress_.elapsed = now_ - started_;
}

uint64_t MigrationSource::PendingBytes() const {
  uint64_t bytes = 0;
  for (const PendingPages* pages : devices_) bytes += pages->pending_bytes();
  return bytes;
}

bool MigrationSource::is_finished() const {
  absl::MutexLock lock(&mutex_);
  return progress_.phase == SourcePhase::kDone ||
         progress_.phase == SourcePhase::kFailed;
}

MigrationProgress MigrationSource::progress() const {
  absl::MutexLock lock(&mutex_);
  return progress_;
}

std::string MigrationSource::running_id() const {
  absl::MutexLock lock(&mutex_);
  switch (progress_.phase) {
    case SourcePhase::kNew:
    case SourcePhase::kCommitted:
    case SourcePhase::kDone:
    case SourcePhase::kFailed:
      return {};
    default:
      return options_.migration_id;
  }
}

}  // namespace ferrybus::migration
