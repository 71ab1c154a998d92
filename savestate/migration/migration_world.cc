// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/migration/migration_world.h"

#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"

namespace ferrybus::migration {
namespace {

constexpr int kSettleStepsMax = 100000;

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

std::string Id(absl::string_view kind, int number) {
  std::string id = absl::StrCat(kind, number);
  id.resize(kIdSizeBytes, '.');
  return id;
}

}  // namespace

MigrationWorld::MigrationWorld(const WorldOptions& options)
    : options_(options) {
  hosts_[0].state = FakeMachineState(options.pages);
  hosts_[0].ledger.set_record({.state = Ownership::kOwner, .epoch = 1});
  MakeDevice(hosts_[0]);
  (void)MakePages(hosts_[0], MemoryOrigin::kZeros);
  hosts_[0].device->Run();
  for (int i = 0; i < options.requests_before; ++i) {
    hosts_[0].device->Do(next_request_++);
  }
}

MigrationWorld::~MigrationWorld() {
  for (Host& host : hosts_) {
    host.source = nullptr;
    host.target = nullptr;
    host.pages = nullptr;
  }
}

void MigrationWorld::MakeDevice(Host& host) {
  host.device = std::make_unique<FakeDevice>("fake", options_.capabilities,
                                             &host.state, &host.fault);
  host.device->set_pauses_late(options_.pauses_late);
}

absl::Status MigrationWorld::MakePages(Host& host, MemoryOrigin origin) {
  absl::StatusOr<std::unique_ptr<PendingPages>> pages =
      PendingPages::Create(host.device.get(), origin);
  if (!pages.ok()) return pages.status();
  host.pages = *std::move(pages);
  return absl::OkStatus();
}

void MigrationWorld::Start() {
  ++moves_;
  migration_id_ = Id("move", moves_);
  session_ = Id("session", moves_);
  requests_left_ = options_.requests_during;
  is_connected_ = true;
  is_stalled_ = corrupt_next_ = false;
  to_target_.clear();
  to_source_.clear();
  blocks_.clear();
  SourceOptions options = options_.source;
  options.machine = "machine";
  options.migration_id = migration_id_;
  options.peer = "there";
  options.block_bytes = 16 * kFakePageSize;
  PendingPages* pages = here().pages.get();
  here().source = std::make_unique<MigrationSource>(
      options, absl::MakeConstSpan(&pages, 1), &here().ledger);
  there().target = std::make_unique<MigrationTarget>(
      TargetOptions{.machine = "machine", .session = session_, .peer = "here"},
      this, &there().ledger);
  here().source->Start(now_);
}

absl::StatusOr<std::vector<Migratable*>> MigrationWorld::CreateDevices(
    const Hello& hello, std::vector<int> descriptors, bool is_recovery) {
  Host& host = there();
  creation_parameters_ = hello.devices[0].creation_parameters;
  if (!is_recovery) {
    host.state = FakeMachineState(hello.devices[0].segments[0].size_bytes /
                                  kFakePageSize);
  }
  // What a descriptor stands for is the memory itself.
  if (!descriptors.empty()) host.state.memory = here().state.memory;
  for (int descriptor : descriptors) close(descriptor);
  MakeDevice(host);
  absl::Status status = MakePages(
      host, is_recovery ? MemoryOrigin::kUnknown : MemoryOrigin::kZeros);
  if (!status.ok()) {
    DestroyDevices();
    return status;
  }
  return std::vector<Migratable*>{host.device.get()};
}

void MigrationWorld::DestroyDevices() {
  there().pages = nullptr;
  there().device = nullptr;
}

int MigrationWorld::runs_at() const {
  for (int i = 0; i < 2; ++i) {
    if (hosts_[i].device != nullptr && hosts_[i].device->is_running()) {
      return i;
    }
  }
  return -1;
}

void MigrationWorld::DoRequest() {
  const int host = runs_at();
  if (host < 0 || requests_left_ == 0) return;
  --requests_left_;
  hosts_[host].device->Do(next_request_++);
}

void MigrationWorld::MaybeCorrupt(std::string* bytes) {
  if (!corrupt_next_ || bytes->empty()) return;
  corrupt_next_ = false;
  (*bytes)[steps_ * 31 % bytes->size()] ^= static_cast<char>(1 << steps_ % 8);
}

void MigrationWorld::Step(LinkFault fault) {
  Do(fault);
  switch (steps_++ % 7) {
    case 0:
      return StepSource();
    case 1:
      return DeliverToTarget();
    case 2:
      return DeliverBlock();
    case 3:
      return StepTarget();
    case 4:
      return DeliverToSource();
    case 5:
      return DoRequest();
    default:
      now_ += absl::Milliseconds(1);
  }
}

void MigrationWorld::StepSource() {
  if (here().source == nullptr) return;
  here().source->Poll(now_);
  while (auto message = here().source->TakeMessage()) {
    if (!message->descriptors.empty()) shared_ = message->descriptors;
    sent_to_target_.push_back(message->bytes);
    if (is_connected_) to_target_.push_back(std::move(message->bytes));
  }
}

void MigrationWorld::DeliverToTarget() {
  if (is_stalled_ || to_target_.empty() || there().target == nullptr) return;
  std::string bytes = std::move(to_target_.front());
  to_target_.pop_front();
  MaybeCorrupt(&bytes);
  std::vector<int> descriptors;
  for (int descriptor : std::exchange(shared_, {})) {
    descriptors.push_back(dup(descriptor));
  }
  there().target->OnMessage(AsBytes(bytes), descriptors, now_);
}

void MigrationWorld::DeliverBlock() {
  // One is on its way while the next is taken.
  if (here().source != nullptr && blocks_.size() < 2) {
    MigrationSource::NextBlock next = here().source->TakeBlock(encoder_, now_);
    if (!next.bytes.empty()) {
      sent_blocks_.push_back(next.bytes);
      if (is_connected_) blocks_.push_back(std::move(next.bytes));
    }
  }
  if (is_stalled_ || blocks_.empty() || there().target == nullptr) return;
  std::string bytes = std::move(blocks_.front());
  blocks_.pop_front();
  MaybeCorrupt(&bytes);
  there().target->OnBlock(AsBytes(bytes), now_);
}

void MigrationWorld::StepTarget() {
  if (there().target == nullptr) return;
  there().target->Poll(now_);
  while (auto message = there().target->TakeMessage()) {
    sent_to_source_.push_back(*message);
    if (is_connected_) to_source_.push_back(*std::move(message));
  }
}

void MigrationWorld::DeliverToSource() {
  if (is_stalled_ || to_source_.empty() || here().source == nullptr) return;
  std::string bytes = std::move(to_source_.front());
  to_source_.pop_front();
  MaybeCorrupt(&bytes);
  here().source->OnMessage(AsBytes(bytes), now_);
}

// ---- Faults

void MigrationWorld::Do(LinkFault fault) {
  switch (fault) {
    case LinkFault::kNone:
      return;
    case LinkFault::kKillSource:
      return Kill(from_);
    case LinkFault::kKillTarget:
      return Kill(1 - from_);
    case LinkFault::kCut:
      return Disconnect();
    case LinkFault::kStall:
      is_stalled_ = true;
      return;
    case LinkFault::kCorrupt:
      corrupt_next_ = true;
      return;
    case LinkFault::kCancel:
      if (here().source != nullptr) here().source->RequestCancel();
      return;
  }
}

void MigrationWorld::Kill(int index) {
  Host& host = hosts_[index];
  host.source = nullptr;
  host.target = nullptr;
  host.pages = nullptr;
  host.device = nullptr;
  host.is_down = true;
  Disconnect();
}

void MigrationWorld::Abandon(bool is_source) {
  Host& host = is_source ? here() : there();
  (void)host.source.release();
  (void)host.target.release();
  (void)host.pages.release();
  (void)host.device.release();
  Kill(is_source ? from_ : 1 - from_);
}

void MigrationWorld::Disconnect() {
  if (!is_connected_) return;
  is_connected_ = false;
  to_target_.clear();
  to_source_.clear();
  blocks_.clear();
  const absl::Status why = absl::UnavailableError("reset by peer");
  if (here().source != nullptr) here().source->OnDisconnected(why, now_);
  if (there().target != nullptr) there().target->OnDisconnected(why, now_);
}

void MigrationWorld::Restart(int index) {
  Host& host = hosts_[index];
  host.is_down = false;
  const OwnershipRecord& record = host.ledger.record();
  if (record.state == Ownership::kOwner) {
    MakeDevice(host);
    (void)MakePages(host, MemoryOrigin::kUnknown);
    host.device->Run();
  } else if (record.state == Ownership::kPrepared) {
    host.target = std::make_unique<MigrationTarget>(
        TargetOptions{
            .machine = "machine", .session = session_, .peer = "here"},
        this, &host.ledger);
    host.fault.calls_until = -1;
    (void)host.target->Recover(record, now_);
  }
}

// The target's host asks the source's.
void MigrationWorld::Ask() {
  if (there().target == nullptr || here().is_down ||
      there().target->phase() != TargetPhase::kUndecided) {
    return;
  }
  const std::string running =
      here().source == nullptr ? std::string() : here().source->running_id();
  there().target->OnDecision(
      Decide(here().ledger.record(), there().target->migration_id(), running),
      now_);
}

bool MigrationWorld::is_over() const {
  const Host& here = hosts_[from_];
  const Host& there = hosts_[1 - from_];
  return !here.is_down && !there.is_down &&
         (here.source == nullptr || here.source->is_finished()) &&
         (there.target == nullptr || there.target->is_finished() ||
          there.target->phase() == TargetPhase::kNew);
}

bool MigrationWorld::Settle() {
  for (int i = 0; i < kSettleStepsMax; ++i) {
    if (is_over()) return true;
    Step();
    if (!Check().empty()) return true;  // the caller checks, too
    if (i % 50 != 49) continue;
    for (int host : {0, 1}) {
      if (hosts_[host].is_down) Restart(host);
    }
    Ask();
    if (i % 500 == 499) now_ += absl::Seconds(7);
  }
  return false;
}

std::string MigrationWorld::Check() const {
  if (hosts_[0].device != nullptr && hosts_[0].device->is_running() &&
      hosts_[1].device != nullptr && hosts_[1].device->is_running()) {
    return "it runs on both hosts";
  }
  return {};
}

std::string MigrationWorld::CheckEnd() {
  std::string wrong = Check();
  if (!wrong.empty()) return wrong;
  const int owner = runs_at();
  if (owner < 0) return "it runs nowhere";
  const Host& host = hosts_[owner];
  const Host& other = hosts_[1 - owner];
  if (host.ledger.record().state != Ownership::kOwner) {
    return absl::StrCat("the ledger where it runs says ",
                        OwnershipName(host.ledger.record().state));
  }
  if (other.ledger.record().state == Ownership::kOwner ||
      other.ledger.record().state == Ownership::kPrepared) {
    return absl::StrCat("the ledger where it does not run says ",
                        OwnershipName(other.ledger.record().state));
  }
  // And it goes on.
  for (int i = 0; i < 10; ++i) host.device->Do(next_request_++);
  if (host.state.done.size() != next_request_) {
    return absl::StrCat(host.state.done.size(), " requests of ", next_request_);
  }
  for (uint64_t i = 0; i < next_request_; ++i) {
    if (host.state.done[i] != i) {
      return absl::StrCat("request ", host.state.done[i], " in place of ", i);
    }
  }
  if (host.state.memory != ExpectedMemory(host.state.done, options_.pages)) {
    return "the memory is not what the requests wrote";
  }
  if (host.device->prepared() != 0) {
    return absl::StrCat("Prepare without End: ", host.device->prepared());
  }
  if (other.device != nullptr && other.device->prepared() != 0) {
    return absl::StrCat("Prepare without End on the other host: ",
                        other.device->prepared());
  }
  if (other.device != nullptr && !other.device->is_retired()) {
    return "the other host's device was not retired";
  }
  const int tracked = options_.capabilities.performant_tracking ? 1 : 0;
  if (host.device->tracked() != tracked) {
    return absl::StrCat("tracked ", host.device->tracked(), " times");
  }
  from_ = owner;  // the next move begins there
  hosts_[1 - owner].source = nullptr;
  hosts_[0].target = nullptr;
  hosts_[1].target = nullptr;
  hosts_[1 - owner].pages = nullptr;
  hosts_[1 - owner].device = nullptr;
  return {};
}

}  // namespace ferrybus::migration
