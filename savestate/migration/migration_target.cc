// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/migration/migration_target.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "ferrybus/savestate/fault_points.h"

namespace ferrybus::migration {
namespace {

using savestate::FaultPoint;
using savestate::MarkFaultPoint;
using savestate::PassFaultPoint;

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

std::string Describe(const std::vector<SegmentDescription>& segments) {
  if (segments.empty()) return "no memory";
  return absl::StrJoin(
      segments, ", ", [](std::string* out, const SegmentDescription& segment) {
        absl::StrAppend(out, "segment ", segment.id, ": ", segment.size_bytes,
                        " bytes in pages of ", segment.page_size_bytes);
      });
}

}  // namespace

absl::string_view TargetPhaseName(TargetPhase phase) {
  static constexpr absl::string_view kNames[] = {
      "new",       "validating", "receiving", "restoring", "prepared",
      "undecided", "starting",   "running",   "failed"};
  return kNames[static_cast<size_t>(phase)];
}

MigrationTarget::MigrationTarget(const TargetOptions& options, TargetHost* host,
                                 OwnershipLedger* ledger)
    : options_(options), host_(host), ledger_(ledger) {}

// ---- Beginning

void MigrationTarget::Handle(Hello hello) {
  if (!CheckPhase(TargetPhase::kNew, hello)) return;
  absl::Status status = CheckHello(hello);
  status.Update(PassFaultPoint(FaultPoint::kArriveCreate));
  if (!status.ok()) return Fail(status, true);
  hello_ = std::move(hello);
  has_devices_ = true;
  absl::StatusOr<std::vector<Migratable*>> devices = host_->CreateDevices(
      hello_, std::exchange(descriptors_, {}), is_recovery_);
  if (!devices.ok()) {
    has_devices_ = false;
    return Fail(devices.status(), true);
  }
  status = TakeDevices(*devices);
  if (status.ok()) status = PrepareDevices();
  if (!status.ok()) return Fail(status, true);
  SetPhase(TargetPhase::kValidating);
  Send(HelloReply{.version = kProtocolVersion, .session = options_.session});
}

absl::Status MigrationTarget::CheckHello(const Hello& hello) {
  if (hello.version_min > kProtocolVersion ||
      hello.version_max < kProtocolVersion) {
    return absl::UnimplementedError(absl::StrCat(
        "the source speaks protocol versions ", hello.version_min, " to ",
        hello.version_max, ", this host ", kProtocolVersion));
  }
  if (hello.machine != options_.machine) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the machine is ", hello.machine, ", expected is ", options_.machine));
  }
  size_t shared = 0;
  for (const DeviceDescription& device : hello.devices) {
    for (const SegmentDescription& segment : device.segments) {
      shared += segment.is_shared ? 1 : 0;
    }
  }
  if (!is_recovery_ && shared != descriptors_.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(shared, " segments are shared, with ", descriptors_.size(),
                     " descriptors"));
  }
  if (is_recovery_) return absl::OkStatus();
  absl::StatusOr<OwnershipRecord> record = ledger_->Load();
  if (!record.ok()) return record.status();
  if (record->state == Ownership::kOwner ||
      record->state == Ownership::kPrepared) {
    return absl::FailedPreconditionError(absl::StrCat(
        hello.machine,
        ": this host's record says: ", OwnershipName(record->state)));
  }
  if (hello.epoch < record->epoch) {
    return absl::FailedPreconditionError(absl::StrCat(
        hello.machine, ": epoch ", hello.epoch,
        " is that of an earlier owner; this host knows ", record->epoch));
  }
  before_ = *std::move(record);
  return absl::OkStatus();
}

absl::Status MigrationTarget::TakeDevices(
    absl::Span<Migratable* const> devices) {
  if (devices.size() != hello_.devices.size()) {
    return absl::InternalError(
        absl::StrCat(devices.size(), " devices for ", hello_.devices.size()));
  }
  for (size_t i = 0; i < devices.size(); ++i) {
    const DeviceDescription& wanted = hello_.devices[i];
    std::vector<SegmentDescription> here;
    Device device = {.device = devices[i], .memories = {}};
    for (const Segment& segment : devices[i]->segments()) {
      here.push_back({.id = segment.id,
                      .page_size_bytes = segment.page_size_bytes,
                      .size_bytes = SegmentSizeBytes(segment)});
    }
    std::vector<SegmentDescription> there = wanted.segments;
    for (SegmentDescription& segment : there) {
      device.memories.push_back(
          {.segment = segment.id,
           .page_size_bytes = segment.page_size_bytes,
           .pages = segment.size_bytes / segment.page_size_bytes,
           .is_shared = segment.is_shared});
      segment.is_shared = false;
    }
    if (devices[i]->name() != wanted.name || here != there) {
      return absl::FailedPreconditionError(
          absl::StrCat("the source's ", wanted.name, " has ", Describe(there),
                       "; here ", devices[i]->name(), " has ", Describe(here)));
    }
    devices_.push_back(std::move(device));
  }
  return absl::OkStatus();
}

absl::Status MigrationTarget::PrepareDevices() {
  for (const Device& device : devices_) {
    absl::Status status = device.device->Prepare(Role::kTarget);
    if (!status.ok()) return OfDevice(*device.device, "prepare", status);
    ++prepared_devices_;
  }
  return absl::OkStatus();
}

void MigrationTarget::Handle(ImmutableData data) {
  if (!CheckPhase(TargetPhase::kValidating, data)) return;
  if (data.device != immutable_) {
    return Fail(
        absl::InvalidArgumentError(absl::StrCat(
            "immutable data of device ", data.device, ", due is ", immutable_)),
        true);
  }
  Migratable& device = *devices_[immutable_].device;
  absl::Status status = PassFaultPoint(FaultPoint::kArriveRestoreImmutable);
  if (status.ok()) status = device.RestoreImmutable(AsBytes(data.data));
  if (!status.ok()) return Fail(OfDevice(device, "refused", status), true);
  if (++immutable_ < devices_.size()) return;
  {
    absl::MutexLock lock(&mutex_);
    pass_.is_open = true;
  }
  SetPhase(TargetPhase::kReceiving);
  Send(ImmutableAccepted());
}

// ---- Mutable data, and the decision

void MigrationTarget::Handle(MutableData data) {
  {
    absl::MutexLock lock(&mutex_);
    if (phase_ == TargetPhase::kReceiving) {
      // Between two passes.
      if (pass_.seen.empty() && !pass_.blocks.has_value() &&
          pass_.failure.ok()) {
        pass_.is_open = false;
        phase_ = TargetPhase::kRestoring;
      }
    }
  }
  if (!CheckPhase(TargetPhase::kRestoring, data)) return;
  if (data.device != mutable_ || mutable_ >= devices_.size()) {
    return Fail(
        absl::InvalidArgumentError(absl::StrCat(
            "mutable data of device ", data.device, ", due is ", mutable_)),
        true);
  }
  Migratable& device = *devices_[mutable_].device;
  absl::Status status = PassFaultPoint(FaultPoint::kArriveRestoreMutable);
  if (status.ok()) status = device.RestoreMutable(AsBytes(data.data));
  if (!status.ok()) return Fail(OfDevice(device, "refused", status), true);
  ++mutable_;
}

void MigrationTarget::Handle(const Prepare& prepare) {
  if (!CheckPhase(TargetPhase::kRestoring, prepare)) return;
  if (mutable_ != devices_.size()) {
    return Fail(absl::InvalidArgumentError(
                    absl::StrCat("prepare after the mutable data of ", mutable_,
                                 " devices of ", devices_.size())),
                true);
  }
  for (const Device& device : devices_) {
    absl::Status status = PassFaultPoint(FaultPoint::kArriveInterrupts);
    if (status.ok()) status = device.device->RewriteInterrupts();
    if (!status.ok()) {
      return Fail(OfDevice(*device.device, "interrupts", status), true);
    }
  }
  if (is_recovery_) return;  // it is stored, and nobody listens
  absl::Status status = StorePrepared();
  if (!status.ok()) {
    // Perhaps it is stored all the same: it ends as if it were, when the old
    // record is there again.
    Send(Abort{.reason = status});
    return SetPhase(TargetPhase::kUndecided, status);
  }
  MarkFaultPoint(FaultPoint::kArrivePrepared);
  SetPhase(TargetPhase::kPrepared);
  Send(Prepared());
}

// ---- Ends

void MigrationTarget::Handle(const Abort& abort) {
  const absl::Status why(
      abort.reason.code(),
      absl::StrCat("the source says: ", abort.reason.message()));
  // Only the source of this session decides.
  if (phase() == TargetPhase::kPrepared && abort.session == options_.session) {
    return DiscardPrepared(why);
  }
  Fail(why, false);
}

// What only a source gets.
template <typename Other>
void MigrationTarget::Handle(const Other& other) {
  Fail(absl::InvalidArgumentError(
           absl::StrCat("a target gets no ", MessageName(other))),
       true);
}

// What went wrong is no decision: a machine that is prepared stays so.
void MigrationTarget::Fail(const absl::Status& why, bool tell_peer) {
  switch (phase()) {
    case TargetPhase::kPrepared:
    case TargetPhase::kUndecided:
      return SetPhase(TargetPhase::kUndecided, why);
    case TargetPhase::kStarting:
    case TargetPhase::kRunning:
    case TargetPhase::kFailed:
      return;
    default:
      return Discard(why, tell_peer);
  }
}

void MigrationTarget::Discard(const absl::Status& why, bool tell_peer) {
  CloseBlocks();
  for (size_t i = 0; i < prepared_devices_; ++i) devices_[i].device->End();
  prepared_devices_ = 0;
  devices_.clear();
  if (has_devices_) host_->DestroyDevices();
  has_devices_ = false;
  outgoing_.clear();
  if (tell_peer) Send(Abort{.reason = why});
  SetPhase(TargetPhase::kFailed, why);
}

// Takes no more blocks, and waits for those that are being written.
void MigrationTarget::CloseBlocks() {
  absl::MutexLock lock(&mutex_);
  pass_.is_open = false;
  mutex_.Await(absl::Condition(
      +[](int* writers) { return *writers == 0; }, &pass_.writers));
}

void MigrationTarget::Cancel() {
  if (phase() == TargetPhase::kPrepared || phase() == TargetPhase::kUndecided) {
    return;
  }
  Fail(absl::CancelledError("cancelled at the target"), true);
}

// ---- What happens

void MigrationTarget::OnMessage(absl::Span<const std::byte> bytes,
                                std::vector<int> descriptors, absl::Time now) {
  now_ = last_heard_ = now;
  descriptors_ = std::move(descriptors);
  const bool may_have_descriptors = phase() == TargetPhase::kNew;
  absl::StatusOr<Message> message = ParseMessage(bytes, options_.limits);
  if (is_finished()) {
    // Nothing to do.
  } else if (!message.ok()) {
    Fail(message.status(), true);
  } else if (!descriptors_.empty() && !may_have_descriptors) {
    Fail(absl::InvalidArgumentError(
             absl::StrCat(descriptors_.size(), " descriptors too many")),
         true);
  } else {
    if (std::holds_alternative<Hello>(*message) ||
        std::holds_alternative<ImmutableData>(*message) ||
        std::holds_alternative<MutableData>(*message)) {
      messages_.emplace_back(reinterpret_cast<const char*>(bytes.data()),
                             bytes.size());
      state_bytes_ += bytes.size();
    }
    if (state_bytes_ > options_.limits.state_bytes_max) {
      Fail(absl::ResourceExhaustedError(
               absl::StrCat(state_bytes_, " bytes of device state, at most ",
                            options_.limits.state_bytes_max)),
           true);
    }
    std::visit([&](auto& kind) { Handle(std::move(kind)); }, *message);
  }
  for (int descriptor : descriptors_) close(descriptor);
  descriptors_.clear();
}

void MigrationTarget::OnDisconnected(const absl::Status& why, absl::Time now) {
  now_ = now;
  const absl::Status status = absl::UnavailableError(
      absl::StrCat("the connection ended: ", why.message()));
  if (phase() == TargetPhase::kPrepared) {
    return SetPhase(TargetPhase::kUndecided, status);
  }
  if (phase() == TargetPhase::kUndecided) return;
  Fail(status, false);
}

void MigrationTarget::Poll(absl::Time now) {
  now_ = now;
  if (phase() == TargetPhase::kStarting) return PollStarting();
  if (phase() == TargetPhase::kReceiving) FinishPass();
  absl::Status failure;
  absl::Time last = last_heard_;
  {
    absl::MutexLock lock(&mutex_);
    failure = pass_.failure;
    last = std::max(last, pass_.last_block);
  }
  if (is_finished() || phase() == TargetPhase::kUndecided) return;
  if (!failure.ok()) return Fail(failure, true);
  if (phase() == TargetPhase::kNew || now - last <= options_.silence_max) {
    return;
  }
  const absl::Status why = absl::DeadlineExceededError(
      absl::StrCat(TargetPhaseName(phase()), ": nothing heard for ",
                   absl::FormatDuration(options_.silence_max)));
  if (phase() == TargetPhase::kPrepared) {
    return SetPhase(TargetPhase::kUndecided, why);
  }
  Fail(why, true);
}

// ---- Helpers

std::optional<std::string> MigrationTarget::TakeMessage() {
  if (outgoing_.empty()) return std::nullopt;
  std::string message = std::move(outgoing_.front());
  outgoing_.pop_front();
  return message;
}

void MigrationTarget::Send(const Message& message) {
  outgoing_.push_back(SerializeMessage(message));
}

bool MigrationTarget::CheckPhase(TargetPhase wanted, const Message& message) {
  const TargetPhase now = phase();
  if (now == wanted) return true;
  Fail(absl::InvalidArgumentError(absl::StrCat("the source sent ",
                                               MessageName(message), " while ",
                                               TargetPhaseName(now))),
       true);
  return false;
}

void MigrationTarget::SetPhase(TargetPhase phase, const absl::Status& status) {
  absl::MutexLock lock(&mutex_);
  phase_ = phase;
  status_ = status;
}

TargetPhase MigrationTarget::phase() const {
  absl::MutexLock lock(&mutex_);
  return phase_;
}

bool MigrationTarget::is_finished() const {
  const TargetPhase now = phase();
  return now == TargetPhase::kRunning || now == TargetPhase::kFailed;
}

absl::Status MigrationTarget::status() const {
  absl::MutexLock lock(&mutex_);
  return status_;
}

}  // namespace ferrybus::migration
