// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/migration/grpc/outgoing_migration.h"

#include <grpcpp/client_context.h>
#include <grpcpp/support/sync_stream.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ferrybus/savestate/migration/grpc/transport.grpc.pb.h"

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

using ControlStream = grpc::ClientReaderWriter<v1::Envelope, v1::Envelope>;

// TLS 1.3 refuses a client with a bare end of the connection.
absl::Status Explained(const absl::Status& status, bool was_heard) {
  if (was_heard || !absl::IsUnavailable(status)) return status;
  return absl::UnavailableError(absl::StrCat(
      status.message(),
      " (before the target said anything: is it there, do both sides use TLS, "
      "and has each a certificate that the other's authority signed?)"));
}

// The ticket comes with the target's metadata, before its first message.
struct Control {
  std::shared_ptr<grpc::Channel> channel;
  grpc::ClientContext context;
  std::unique_ptr<ControlStream> stream;

  std::string Ticket() const {
    const auto& metadata = context.GetServerInitialMetadata();
    auto found = metadata.find(kTicketKey);
    if (found == metadata.end()) return {};
    return {found->second.data(), found->second.size()};
  }

  // Why it ended.
  absl::Status End(ControlLink& link) const {
    link.Close(absl::ZeroDuration());
    const absl::Status status = FromGrpc(stream->Finish());
    return status.ok() ? absl::UnavailableError("the target ended it") : status;
  }

  ControlLink::Stream Link() {
    return {.open =
                [this] {
                  stream = v1::MigrationTransport::NewStub(channel)->Control(
                      &context);
                },
            .read =
                [this](std::string* bytes) {
                  v1::Envelope envelope;
                  if (!stream->Read(&envelope)) return false;
                  *bytes = std::move(*envelope.mutable_message());
                  return true;
                },
            .write =
                [this](const std::string& bytes) {
                  v1::Envelope envelope;
                  envelope.set_message(bytes);
                  return stream->Write(envelope);
                },
            .writes_done = [this] { stream->WritesDone(); },
            .cancel = [this] { context.TryCancel(); }};
  }
};

}  // namespace

class OutgoingMigration::BulkStream {
 public:
  BulkStream(const HostAddress& target, const MessageLimits& limits,
             const std::string& ticket)
      : channel_(MakeChannel(target, limits)) {
    context_.AddMetadata(kTicketKey, ticket);
  }

  void Open() {
    writer_ = v1::MigrationTransport::NewStub(channel_)->Bulk(&context_, &end_);
  }
  bool Write(std::string block) {
    v1::Envelope envelope;
    envelope.set_message(std::move(block));
    return writer_->Write(envelope);
  }
  // Of a stream that has written: a connection that went, with blocks that the
  // target may not have, shows itself to nobody who does not write.
  bool IsConnected() const {
    return channel_->GetState(/*try_to_connect=*/false) == GRPC_CHANNEL_READY;
  }
  absl::Status Finish() {
    writer_->WritesDone();
    return FromGrpc(writer_->Finish());
  }
  void Cancel() { context_.TryCancel(); }

  std::thread thread;

 private:
  const std::shared_ptr<grpc::Channel> channel_;
  grpc::ClientContext context_;
  v1::BulkEnd end_;
  std::unique_ptr<grpc::ClientWriter<v1::Envelope>> writer_;
};

OutgoingMigration::OutgoingMigration(const OutgoingOptions& options,
                                     absl::Span<PendingPages* const> devices,
                                     OwnershipLedger* ledger,
                                     MigrationBook* book)
    : options_(options),
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
  Control control;
  control.channel = MakeChannel(options_.target, options_.source.limits);
  control.context.AddMetadata(kSourceAddressKey, options_.own_address);
  ControlLink link(control.Link());
  {
    absl::MutexLock lock(&mutex_);
    link_ = &link;
  }
  source_.Start(absl::Now());
  bool is_connected = true;
  absl::Time give_up = absl::InfiniteFuture();
  while (!source_.is_finished()) {
    while (std::optional<OutgoingMigrationMessage> message =
               source_.TakeMessage()) {
      link.Send(std::move(message->bytes));
    }
    const SourcePhase phase = source_.progress().phase;
    const absl::Duration wait =
        phase == SourcePhase::kPausing ? kPausingPollTime : kPollTime;
    if (!is_connected) {
      absl::SleepFor(wait);
    } else if (std::optional<std::string> bytes = link.Receive(wait)) {
      if (streams_.empty()) StartStreams(control.Ticket());
      source_.OnMessage(AsBytes(*bytes), absl::Now());
    } else if (link.is_ended()) {
      is_connected = false;
      source_.OnDisconnected(
          Explained(control.End(link), /*was_heard=*/!streams_.empty()),
          absl::Now());
    }
    source_.Poll(absl::Now());
    const absl::Status broken = broken_stream();
    if (!broken.ok() && give_up == absl::InfiniteFuture()) {
      give_up = absl::Now() + kReasonPatience;
    }
    if (absl::Now() >= give_up) source_.OnDisconnected(broken, absl::Now());
    if (options_.on_progress) options_.on_progress(source_.progress());
  }
  // What the end has to say.
  while (std::optional<OutgoingMigrationMessage> message =
             source_.TakeMessage()) {
    link.Send(std::move(message->bytes));
  }
  link.Close(std::min(kClosePatience, options_.source.silence_max));
  {
    absl::MutexLock lock(&mutex_);
    link_ = nullptr;
  }
  StopStreams();
  if (options_.on_progress) options_.on_progress(source_.progress());
  return source_.progress();
}

// ---- Blocks

void OutgoingMigration::StartStreams(const std::string& ticket) {
  for (int i = 0; i < options_.streams; ++i) {
    streams_.push_back(std::make_unique<BulkStream>(
        options_.target, options_.source.limits, ticket));
  }
  for (const std::unique_ptr<BulkStream>& stream : streams_) {
    stream->thread = std::thread([this, &stream] { RunStream(*stream); });
  }
}

void OutgoingMigration::RunStream(BulkStream& stream) {
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
void OutgoingMigration::SendBlocks(BulkStream& stream) {
  PageEncoder encoder;
  bool has_written = false;
  while (!has_written || stream.IsConnected()) {
    uint64_t outputs = 0;
    {
      absl::MutexLock lock(&mutex_);
      if (is_stopping_) return;
      outputs = outputs_;
    }
    MigrationSource::NextBlock block = source_.TakeBlock(encoder, absl::Now());
    if (!block.bytes.empty()) {
      if (!stream.Write(std::move(block.bytes))) return;
      has_written = true;
      continue;
    }
    absl::MutexLock lock(&mutex_);
    auto is_due = [this, outputs]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return is_stopping_ || outputs_ != outputs;
    };
    mutex_.AwaitWithDeadline(
        absl::Condition(&is_due),
        std::min(block.not_before, absl::Now() + kPollTime));
  }
}

void OutgoingMigration::StopStreams() {
  {
    absl::MutexLock lock(&mutex_);
    is_stopping_ = true;
  }
  // All blocks that count have arrived, or none does any more.
  for (const std::unique_ptr<BulkStream>& stream : streams_) stream->Cancel();
  for (const std::unique_ptr<BulkStream>& stream : streams_) {
    stream->thread.join();
  }
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

v1::MigrationReport OutgoingMigration::Report() const {
  v1::MigrationReport report;
  report.set_migration_id(options_.source.migration_id);
  report.set_machine(options_.source.machine);
  report.set_peer(options_.target.address);
  report.set_role(v1::MigrationReport::ROLE_SOURCE);
  WriteProgress(source_.progress(), &report);
  return report;
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
