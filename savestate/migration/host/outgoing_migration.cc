// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/migration/host/outgoing_migration.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "ferrybus/savestate/steady_clock.h"

namespace ferrybus::migration {
namespace {

constexpr absl::Duration kPollTime = absl::Milliseconds(50);
constexpr absl::Duration kPausingPollTime = absl::Milliseconds(1);
// For the last messages to be sent, and the target to end its side.
constexpr absl::Duration kClosePatience = absl::Seconds(2);
// A target that failed ends the streams of blocks, and tells why beside them.
constexpr absl::Duration kReasonPatience = absl::Seconds(1);

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

// What goes with a message stays the device's until it is retired, which may be
// before it was sent.
absl::StatusOr<LinkMessage> ToLink(OutgoingMigrationMessage message) {
  LinkMessage out = {.bytes = std::move(message.bytes)};
  for (int each : message.descriptors) {
    savestate::UniqueFd copy(fcntl(each, F_DUPFD_CLOEXEC, 0));
    if (!copy.valid()) {
      return absl::ErrnoToStatus(errno, "a descriptor of shared memory");
    }
    out.descriptors.push_back(std::move(copy));
  }
  return out;
}

}  // namespace

OutgoingMigration::OutgoingMigration(
    const OutgoingOptions& options,
    std::unique_ptr<TargetConnection> connection,
    absl::Span<PendingPages* const> devices, OwnershipLedger* ledger,
    MigrationBook* book)
    : options_(options),
      connection_(std::move(connection)),
      book_(book),
      source_(options.source, devices, ledger, this) {}

OutgoingMigration::~OutgoingMigration() = default;

MigrationProgress OutgoingMigration::Run() {
  MigrationProgress refused;
  refused.phase = SourcePhase::kFailed;
  if (options_.streams < 1 || options_.streams > kStreamsMax) {
    refused.status = absl::InvalidArgumentError(absl::StrCat(
        options_.streams, " streams; 1 to ", kStreamsMax, " are possible"));
    return refused;
  }
  refused.status = book_->Begin(options_.source.machine, this);
  if (!refused.status.ok()) return refused;
  MigrationProgress result = Drive();
  book_->End(this);
  return result;
}

MigrationProgress OutgoingMigration::Drive() {
  ControlLink link(connection_->Control());
  {
    absl::MutexLock lock(&mutex_);
    link_ = &link;
  }
  source_.Start(savestate::SteadyNow());
  bool is_connected = true;
  absl::Time give_up = absl::InfiniteFuture();
  while (!source_.is_finished()) {
    SendAll(link);
    const SourcePhase phase = source_.progress().phase;
    const absl::Duration wait =
        phase == SourcePhase::kPausing ? kPausingPollTime : kPollTime;
    if (!is_connected) {
      absl::SleepFor(wait);
    } else if (std::optional<LinkMessage> message = link.Receive(wait)) {
      if (streams_.empty()) StartStreams();
      // No descriptor is due: what came is closed.
      source_.OnMessage(AsBytes(message->bytes), savestate::SteadyNow());
    } else if (link.is_ended()) {
      is_connected = false;
      link.Close(absl::ZeroDuration());
      source_.OnDisconnected(connection_->End(/*was_heard=*/!streams_.empty()),
                             savestate::SteadyNow());
    }
    source_.Poll(savestate::SteadyNow());
    const absl::Status broken = broken_stream();
    if (!broken.ok() && give_up == absl::InfiniteFuture()) {
      give_up = savestate::SteadyNow() + kReasonPatience;
    }
    if (savestate::SteadyNow() >= give_up)
      source_.OnDisconnected(broken, savestate::SteadyNow());
    if (options_.on_progress) options_.on_progress(source_.progress());
  }
  SendAll(link);  // what the end has to say
  link.Close(std::min(kClosePatience, options_.source.silence_max));
  {
    absl::MutexLock lock(&mutex_);
    link_ = nullptr;
  }
  StopStreams();
  if (options_.on_progress) options_.on_progress(source_.progress());
  return source_.progress();
}

void OutgoingMigration::SendAll(ControlLink& link) {
  while (std::optional<OutgoingMigrationMessage> message =
             source_.TakeMessage()) {
    absl::StatusOr<LinkMessage> out = ToLink(*std::move(message));
    // Nothing of this migration goes without it.
    if (!out.ok())
      return source_.OnDisconnected(out.status(), savestate::SteadyNow());
    link.Send(*std::move(out));
  }
}

// ---- Blocks

void OutgoingMigration::StartStreams() {
  for (int i = 0; i < options_.streams; ++i) {
    streams_.push_back({.blocks = connection_->NewBlockStream(), .thread = {}});
  }
  for (Stream& stream : streams_) {
    stream.thread = std::thread(
        [this, blocks = stream.blocks.get()] { RunStream(*blocks); });
  }
}

void OutgoingMigration::RunStream(BlockStream& stream) {
  stream.Open();
  SendBlocks(stream);
  const absl::Status status = stream.Finish();
  absl::MutexLock lock(&mutex_);
  if (is_stopping_) return;
  broken_.Update(absl::UnavailableError(
      absl::StrCat("a stream of blocks: ",
                   status.ok() ? "the target ended it" : status.message())));
  if (link_ != nullptr) link_->Poke();
}

// Until it breaks, or the migration ends.
void OutgoingMigration::SendBlocks(BlockStream& stream) {
  PageEncoder encoder;
  bool has_written = false;
  while (!has_written || stream.IsConnected()) {
    uint64_t outputs = 0;
    {
      absl::MutexLock lock(&mutex_);
      if (is_stopping_) return;
      outputs = outputs_;
    }
    MigrationSource::NextBlock block =
        source_.TakeBlock(encoder, savestate::SteadyNow());
    if (!block.bytes.empty()) {
      if (!stream.Write(std::move(block.bytes))) return;
      has_written = true;
      continue;
    }
    absl::MutexLock lock(&mutex_);
    auto is_due = [this, outputs]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return is_stopping_ || outputs_ != outputs;
    };
    mutex_.AwaitWithTimeout(
        absl::Condition(&is_due),
        std::min(block.not_before - savestate::SteadyNow(), kPollTime));
  }
}

void OutgoingMigration::StopStreams() {
  {
    absl::MutexLock lock(&mutex_);
    is_stopping_ = true;
  }
  // All blocks that count have arrived, or none does any more.
  for (Stream& stream : streams_) stream.blocks->Cancel();
  for (Stream& stream : streams_) stream.thread.join();
}

absl::Status OutgoingMigration::broken_stream() const {
  absl::MutexLock lock(&mutex_);
  return broken_;
}

void OutgoingMigration::OnOutput() {
  absl::MutexLock lock(&mutex_);
  ++outputs_;
  if (link_ != nullptr) link_->Poke();
}

// ---- Looking

MigrationReport OutgoingMigration::Report() const {
  const MigrationProgress progress = source_.progress();
  const bool is_done = progress.phase == SourcePhase::kDone;
  return {
      .migration_id = options_.source.migration_id,
      .machine = options_.source.machine,
      .peer = options_.source.peer,
      .role = MigrationRole::kSource,
      .phase = std::string(SourcePhaseName(progress.phase)),
      .is_finished = is_done || progress.phase == SourcePhase::kFailed,
      .is_handed_over = is_done || progress.phase == SourcePhase::kCommitted,
      .status = progress.status,
      .progress = progress};
}

void OutgoingMigration::RequestCancel() {
  source_.RequestCancel();
  absl::MutexLock lock(&mutex_);
  if (link_ != nullptr) link_->Poke();
}

bool OutgoingMigration::IsUndecidedSource() const {
  return !source_.running_id().empty();
}

}  // namespace ferrybus::migration
