// SPDX-License-Identifier: MIT
//
// A machine on its way to this host: runs a MigrationTarget over gRPC.
//
// Ownership: borrows host and ledger of the target.
// Thread safety: Serve() and Settle() from one thread after the other; the
// others from any thread, OnBlock() until both have returned.
// Trust: what comes in is a peer's, checked by the target.

#ifndef FERRYBUS_SAVESTATE_MIGRATION_GRPC_INCOMING_MIGRATION_H_
#define FERRYBUS_SAVESTATE_MIGRATION_GRPC_INCOMING_MIGRATION_H_

#include <grpcpp/server_context.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "ferrybus/savestate/migration/grpc/channel.h"
#include "ferrybus/savestate/migration/grpc/control_link.h"
#include "ferrybus/savestate/migration/grpc/migration_book.h"
#include "ferrybus/savestate/migration/migration_target.h"

namespace ferrybus::migration {

class IncomingMigration final : public Moving {
 public:
  IncomingMigration(const TargetOptions& options,
                    const std::string& migration_id, TargetHost* host,
                    OwnershipLedger* ledger);
  ~IncomingMigration() override = default;

  // From the hello on, until it runs here, has failed, or is undecided.
  void Serve(ControlLink& link, const std::string& hello);
  // In a process that finds kPrepared in its ledger.
  absl::Status Recover(const OwnershipRecord& record);
  // Asks until the decision is known, or Stop().
  void Settle(const std::shared_ptr<grpc::ChannelCredentials>& credentials);

  void OnBlock(const std::string& bytes);

  // The streams of blocks, while they run.  ResourceExhausted.
  absl::Status AddStream(grpc::ServerContext* context);
  void RemoveStream(grpc::ServerContext* context, bool is_broken);
  // Those that are left have nothing to bring any more.
  void CancelStreams();

  // What an operator says who knows that the source is gone for good.
  void Decide(Decision decision);
  // Goes no further; what is undecided stays so.
  void Stop();

  TargetPhase phase() const { return target_.phase(); }
  absl::Status status() const { return target_.status(); }
  const std::string& machine() const { return options_.machine; }

  // Moving.
  v1::MigrationReport Report() const override;
  void RequestCancel() override;
  bool IsUndecidedSource() const override { return false; }

 private:
  // What was asked for by other threads since the last time.
  struct Wishes {
    bool is_poked = false;
    bool cancel = false;
    bool stop = false;
    bool is_stream_broken = false;
    std::optional<Decision> decision;
  };

  void Heed(const Wishes& wishes);
  Wishes TakeWishes();
  void Poke() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool IsServed() const;

  const TargetOptions options_;
  const std::string migration_id_;
  MigrationTarget target_;

  mutable absl::Mutex mutex_;
  ControlLink* link_ ABSL_GUARDED_BY(mutex_) = nullptr;
  Wishes wishes_ ABSL_GUARDED_BY(mutex_);
  std::vector<grpc::ServerContext*> streams_ ABSL_GUARDED_BY(mutex_);
  // Why the source could not be asked.
  absl::Status asked_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace ferrybus::migration

#endif  // FERRYBUS_SAVESTATE_MIGRATION_GRPC_INCOMING_MIGRATION_H_
