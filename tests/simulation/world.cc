// SPDX-License-Identifier: MIT

#include "ferrybus/tests/simulation/world.h"

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/check.h"

namespace ferrybus::simulation {
namespace {

// So much passes with each step.
constexpr uint64_t kStepMicrosecondsMax = 2000;
constexpr uint64_t kMessagesMax = 6;

}  // namespace

World::World(Context* context, const RunOptions& options)
    : context_(context),
      plan_(options),
      machine_(context, options),
      guest_(&machine_),
      host_a_(&machine_, &guest_, 0),
      host_b_(&machine_, &guest_, 1),
      hosts_{&host_a_, &host_b_},
      migration_(context, hosts_),
      local_move_(context, &plan_),
      update_(context, &plan_) {}

void World::Begin() {
  {
    auto ledger = migration::FileLedger::Open(
        "/ledger", host_a_.files().ledger.file_system());
    FERRYBUS_CHECK(
        ledger.ok() &&
            (*ledger)
                ->Store({.state = migration::Ownership::kOwner, .epoch = 1})
                .ok(),
        "the first record could not be stored");
  }
  for (SimulatedHost* host : hosts_) host->Start();
  // Some runs begin with a guest that works already.
  for (uint64_t i = context_->random.OneIn(2) ? 12 : 0; i > 0; --i) {
    guest_.Poll();
    host_a_.Poll(~uint64_t{0});
    host_a_.AdvanceDisk(/*all=*/true);
    host_a_.RunFunction(~uint32_t{0});
  }
}

// The host that the guest is on, or was on last.
SimulatedHost& World::machine_host() {
  if (machine_.runs_at >= 0) return *hosts_[machine_.runs_at];
  return host_a_.has_bus() ? host_a_ : host_b_;
}

// ---- Steps

World::Part World::DrawPart() {
  uint64_t sum = 0;
  for (size_t i = 0; i < FaultPlan::kParts; ++i) sum += plan_.eagerness(i);
  // Those that a run cannot do without come often, whatever it drew.
  if (context_->random.OneIn(3)) {
    static constexpr Part kAlways[] = {Part::kGuest,       Part::kHost,
                                       Part::kDisk,        Part::kMigration,
                                       Part::kAccelerator, Part::kMigration};
    return kAlways[context_->random.Below(std::size(kAlways))];
  }
  uint64_t at = context_->random.Below(sum);
  for (size_t i = 0; i < FaultPlan::kParts; ++i) {
    if (at < plan_.eagerness(i)) return static_cast<Part>(i);
    at -= plan_.eagerness(i);
  }
  return Part::kGuest;
}

void World::Step() {
  context_->clock.Advance(
      absl::Microseconds(context_->random.Below(kStepMicrosecondsMax)));
  const Part part = DrawPart();
  context_->trace.Add(static_cast<uint64_t>(part));
  Do(part);
  EndDeafness();
  Faults();
  Check();
}

void World::Do(Part part) {
  Random& random = context_->random;
  const bool guest_runs = machine_.runs_at >= 0 && guest_.is_on();
  if (guest_runs) hosts_[machine_.runs_at]->Enter();
  switch (part) {
    case Part::kGuest:
      if (guest_runs) guest_.Poll();
      return;
    case Part::kGuestAsks:
      if (guest_runs) guest_.Ask(random.Between(1, 12));
      return;
    case Part::kGuestAnswers:
      if (guest_runs) guest_.Answer(random.Between(1, 8));
      return;
    case Part::kHost:
      return machine_host().Poll(random.Below(kMessagesMax));
    case Part::kHostAnswers:
      return machine_host().Answer(random.Between(1, 8));
    case Part::kHostAsks:
      return machine_host().Ask(random.Between(1, 10));
    case Part::kDisk:
      // A host that hands over still has its I/O.
      return hosts_[random.Below(2)]->AdvanceDisk(false);
    case Part::kMigration:
      for (uint64_t i = random.Between(1, 12); i > 0; --i) {
        if (migration_.is_under_way()) migration_.Step(random.Next());
      }
      return;
    case Part::kLocalMove:
      local_move_.Step();
      return update_.Step();
    case Part::kBeginMove:
      return BeginMove();
    case Part::kGuestTidies:
      if (guest_runs) guest_.ReopenChannels();
      return;
    case Part::kHostTidies:
      for (SimulatedHost* host : hosts_) host->OfferAgain();
      migration_.Ask();
      if (!random.OneIn(8)) return;
      for (SimulatedHost* host : hosts_) {
        if (random.OneIn(2)) host->files().ledger.Heal();
        if (random.OneIn(2)) host->files().checkpoints.Heal();
        host->Start();
      }
      return;
    case Part::kAccelerator:
      // One that waits for the decision has its accelerator, too.
      return hosts_[random.Below(2)]->RunFunction(
          static_cast<uint32_t>(random.Between(1, 12)));
  }
}

bool World::IsMoving() const {
  return migration_.is_under_way() || local_move_.is_under_way() ||
         update_.is_under_way();
}

bool World::CanMigrate() const {
  return host_a_.is_up() && host_b_.is_up() && machine_.runs_at >= 0;
}

void World::BeginMove() {
  if (IsMoving()) return;
  if (machine_.runs_at < 0 || !hosts_[machine_.runs_at]->Serves()) return;
  if (!context_->random.OneIn(3)) {
    return local_move_.Begin(hosts_[machine_.runs_at]);
  }
  if (!CanMigrate()) return;
  const uint64_t one_in = plan_.one_in(Fault::kForcedPause);
  const bool is_hurried = one_in != 0 && context_->random.OneIn(one_in);
  if (is_hurried) context_->Happened(Fault::kForcedPause);
  const uint64_t refusal = plan_.one_in(Fault::kRestoreRefused);
  hosts_[1 - machine_.runs_at]->refuses_restore =
      refusal != 0 && context_->random.OneIn(refusal);
  migration_.Begin(machine_.runs_at, is_hurried);
}

void World::BeginUpdate() {
  if (IsMoving()) return;
  if (machine_.runs_at < 0 || !hosts_[machine_.runs_at]->Serves()) return;
  update_.Begin(hosts_[machine_.runs_at]);
}

// ---- Faults

void World::Faults() {
  for (size_t i = 0; i < kFaultCount; ++i) {
    const Fault fault = static_cast<Fault>(i);
    switch (fault) {
      case Fault::kCheckpointKill:  // where they belong to
      case Fault::kForcedPause:
      case Fault::kRestoreRefused:
      case Fault::kUpdateFails:
        continue;
      default:
        break;
    }
    const uint64_t one_in = plan_.one_in(fault);
    // Apart from all else that the step draws.
    Random its(Mix(machine_.options.seed, context_->step), i);
    if (one_in != 0 && its.OneIn(one_in)) Do(fault);
  }
}

void World::Do(Fault fault) {
  Random& random = context_->random;
  const bool guest_runs = machine_.runs_at >= 0 && guest_.is_on();
  if (guest_runs) hosts_[machine_.runs_at]->Enter();
  const size_t channel = random.Below(kChannelCount);
  SimulatedHost& host = *hosts_[random.Below(2)];
  switch (fault) {
    case Fault::kDelay:
    case Fault::kCorrupt:
    case Fault::kCut:
    case Fault::kCancel:
      return DoToMigration(fault);
    case Fault::kClockJump:
      context_->clock.Advance(absl::Milliseconds(random.Between(100, 9000)));
      return context_->Happened(fault);
    case Fault::kPowerLoss:
    case Fault::kProcessKill:
      if (!host.is_up()) return;
      StopHost(host, fault == Fault::kPowerLoss);
      return context_->Happened(fault);
    case Fault::kFileError:
      (random.OneIn(2) ? host.files().ledger : host.files().checkpoints)
          .FailSoon();
      return context_->Happened(fault);
    case Fault::kImageError:
      machine_.disk.FailNext();
      return context_->Happened(fault);
    case Fault::kSlowDisk:
      machine_.disk.set_is_slow(true);
      slow_until_ = context_->step + random.Between(5, 80);
      return context_->Happened(fault);
    case Fault::kGuestReset:
      if (guest_runs) ResetGuest();
      return;
    case Fault::kGuestUnload:
      if (guest_runs) guest_.Unload();
      return;
    case Fault::kChannelClose:
      if (!guest_runs) return;
      guest_.CloseChannel(channel);
      return context_->Happened(fault);
    case Fault::kRescind:
      if (guest_runs) hosts_[machine_.runs_at]->Rescind(channel);
      return;
    case Fault::kDeafGuest:
      if (!guest_runs) return;
      guest_.deaf_channel = machine_host().ChannelId(channel);
      deaf_until_ = context_->step + random.Between(10, 120);
      return context_->Happened(fault);
    case Fault::kDeafHost:
      if (!guest_runs) return;
      machine_host().deaf_channel = machine_host().ChannelId(channel);
      deaf_until_ = context_->step + random.Between(10, 120);
      return context_->Happened(fault);
    case Fault::kHostileRing:
      if (guest_runs) hosts_[machine_.runs_at]->ScribbleOnRings(kSpareChannel);
      return;
    case Fault::kHotUpdate:
      return BeginUpdate();
    default:
      return;
  }
}

void World::DoToMigration(Fault fault) {
  Random& random = context_->random;
  if (!migration_.is_under_way()) return;
  switch (fault) {
    case Fault::kDelay:
      migration_.network().Delay(
          random.Below(VirtualNetwork::kQueues),
          absl::Milliseconds(random.Between(1, random.OneIn(20) ? 9000 : 60)));
      break;
    case Fault::kCorrupt:
      migration_.network().CorruptNext();
      break;
    case Fault::kCut:
      if (!migration_.network().is_connected()) return;
      migration_.network().Cut();
      break;
    default:
      if (migration_.source_host().source == nullptr) return;
      migration_.source_host().source->RequestCancel();
  }
  context_->Happened(fault);
}

void World::StopHost(SimulatedHost& host, bool power) {
  if (&host == &machine_host()) {
    local_move_.Forget();
    update_.Forget();
  }
  host.Stop(power);
  migration_.OnHostStopped();
}

void World::ResetGuest() {
  context_->Happened(Fault::kGuestReset);
  machine_.disk_oracle.model.OnReset(/*is_cleared=*/true);
  machine_.disk_may_fault = true;
  machine_.function_oracle.may_fault = true;
  for (const auto& channel : machine_.channels) {
    channel->guest.Mute();
    channel->host.Mute();
  }
  guest_.Halt();
  machine_.ram.Create(machine_.runs_at, std::byte{0});
  guest_.Boot();
}

void World::EndDeafness() {
  if (context_->step >= deaf_until_) {
    guest_.deaf_channel = 0;
    for (SimulatedHost* host : hosts_) host->deaf_channel = 0;
  }
  if (context_->step >= slow_until_) machine_.disk.set_is_slow(false);
}

// ---- What must hold

void World::Check() {
  if (host_a_.Serves() && host_b_.Serves()) {
    context_->Fail("two-owners", "both hosts serve the guest");
  }
  context_->trace.Add(static_cast<uint64_t>(machine_.runs_at + 1));
}

// ---- The end

void World::Heal() {
  for (SimulatedHost* host : hosts_) {
    host->files().ledger.Heal();
    host->files().checkpoints.Heal();
    host->refuses_restore = false;
  }
  machine_.disk.Heal();
  migration_.network().Heal();
  local_move_.Heal();
  deaf_until_ = 0;
  slow_until_ = 0;
  EndDeafness();
  // Nobody knows what a ring that was scribbled on will do.
  if (machine_.runs_at >= 0 && guest_.is_on() &&
      machine_.channels[kSpareChannel]->host.is_muted()) {
    hosts_[machine_.runs_at]->Enter();
    guest_.CloseChannel(kSpareChannel);
  }
}

void World::Round() {
  context_->clock.Advance(absl::Milliseconds(5));
  for (SimulatedHost* host : hosts_) host->Start();
  for (uint64_t what = 0; what < MigrationRun::kSteps; ++what) {
    if (migration_.is_under_way()) migration_.Step(what);
  }
  migration_.Ask();
  local_move_.Step();
  update_.Step();
  for (Part part : {Part::kGuest, Part::kGuestAnswers, Part::kGuestTidies}) {
    Do(part);
  }
  for (SimulatedHost* host : hosts_) {
    host->Poll(~uint64_t{0});
    host->Answer(~uint64_t{0});
    host->AdvanceDisk(/*all=*/true);
    host->RunFunction(~uint32_t{0});
    host->OfferAgain();
  }
  Check();
}

void World::BeginLastMove() {
  last_host_ = machine_.runs_at;
  migration_.Begin(machine_.runs_at, /*is_hurried=*/false);
}

bool World::ContinueVerify() {
  if (machine_.runs_at < 0 || !guest_.is_on()) return false;
  hosts_[machine_.runs_at]->Enter();
  return guest_.ContinueVerify();
}

std::string World::Wants() {
  if (migration_.is_under_way()) return "a migration is under way";
  if (local_move_.is_under_way()) return "a local move is under way";
  if (update_.is_under_way()) return "an update is under way";
  if (machine_.runs_at < 0) return "the machine runs nowhere";
  int owners = 0;
  for (SimulatedHost* host : hosts_) {
    if (!host->is_up()) return "a host is down";
    const auto record = host->ledger().Load();
    if (!record.ok()) return "a ledger cannot be read";
    owners += record->state == migration::Ownership::kOwner ? 1 : 0;
  }
  if (owners != 1) {
    context_->Fail("ledger", absl::StrCat(owners, " hosts own the machine"));
  }
  hosts_[machine_.runs_at]->Enter();
  return guest_.Wants();
}

std::string World::Describe() {
  return absl::StrCat(
      "the guest runs at ", machine_.runs_at,
      ", wants: ", guest_.is_on() ? guest_.Wants() : "is off",
      migration_.is_under_way() ? "\na migration is under way" : "",
      local_move_.is_under_way() ? "\na local move is under way" : "",
      update_.is_under_way() ? "\nan update is under way" : "", "\n",
      host_a_.Describe(), "\n", host_b_.Describe(), "\n");
}

}  // namespace ferrybus::simulation
