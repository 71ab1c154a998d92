// SPDX-License-Identifier: MIT
//
// A machine on its way to this host: runs a MigrationTarget over a link.
//
// Ownership: borrows host and ledger of the target.
// Thread safety: Serve() and Settle() from one thread after the other; the
// others from any thread, OnBlock() until both have returned.
// Trust: what comes in is a peer's, checked by the target.

#ifndef FERRYBUS_SAVESTATE_MIGRATION_HOST_INCOMING_MIGRATION_H_
#define FERRYBUS_SAVESTATE_MIGRATION_HOST_INCOMING_MIGRATION_H_

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "ferrybus/savestate/migration/host/control_link.h"
#include "ferrybus/savestate/migration/host/migration_book.h"
#include "ferrybus/savestate/migration/migration_target.h"

namespace ferrybus::migration {

// At a time, of one migration.
inline constexpr int kStreamsMax = 16;

// Asks the host at `peer` what it decided, as a source.  Unavailable,
// DeadlineExceeded: ask again.  May block for some seconds.
using DecisionAsker = std::function<absl::StatusOr<Decision>(
    const std::string& peer, const std::string& machine,
    const std::string& migration_id)>;

class IncomingMigration final : public Moving {
 public:
  IncomingMigration(const TargetOptions& options,
                    const std::string& migration_id, TargetHost* host,
                    OwnershipLedger* ledger);
  ~IncomingMigration() override = default;

  // From the hello on, until it runs here, has failed, or is undecided.
  void Serve(ControlLink& link, LinkMessage hello);
  // In a process that finds kPrepared in its ledger.
  absl::Status Recover(const OwnershipRecord& record);
  // Asks until the decision is known, or Stop().
  void Settle(const DecisionAsker& ask);

  void OnBlock(const std::string& bytes);

  // The streams of blocks, while they run: what ends one, from any thread,
  // which is also its name.  ResourceExhausted.
  using CancelStream = std::function<void()>;
  absl::Status AddStream(const CancelStream* stream);
  void RemoveStream(const CancelStream* stream, bool is_broken);
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
  MigrationReport Report() const override;
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
  std::vector<const CancelStream*> streams_ ABSL_GUARDED_BY(mutex_);
  // Why the source could not be asked.
  absl::Status asked_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace ferrybus::migration

#endif  // FERRYBUS_SAVESTATE_MIGRATION_HOST_INCOMING_MIGRATION_H_
