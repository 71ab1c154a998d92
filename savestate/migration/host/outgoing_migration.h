// SPDX-License-Identifier: MIT
//
// Moves a machine to another host: runs a MigrationSource over a connection.
//
// The messages go over one stream, the blocks over several beside it, each
// with a thread that reads, compresses and sends.  If one of the connections
// breaks, the migration ends: a hole in the memory cannot come of it, as the
// target counts the blocks.
//
// Ownership: borrows devices, ledger and book.
// Thread safety: Run() once, in a thread of its own, which it blocks; the
// others from any thread.
// Trust: the connection knows its peer; what that says is checked all the same.
//
//   OutgoingMigration migration(options, MakeGrpcConnection(...), {&pages},
//                               &ledger, &book);
//   MigrationProgress result = migration.Run();

#ifndef FERRYBUS_SAVESTATE_MIGRATION_HOST_OUTGOING_MIGRATION_H_
#define FERRYBUS_SAVESTATE_MIGRATION_HOST_OUTGOING_MIGRATION_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ferrybus/savestate/migration/host/control_link.h"
#include "ferrybus/savestate/migration/host/incoming_migration.h"
#include "ferrybus/savestate/migration/host/migration_book.h"
#include "ferrybus/savestate/migration/migration_source.h"

namespace ferrybus::migration {

// Blocks on their way to the target.  Cancel() and IsConnected() from any
// thread.
class BlockStream {
 public:
  virtual ~BlockStream() = default;
  virtual void Open() = 0;
  // Blocks.  False: it broke.
  virtual bool Write(std::string block) = 0;
  // Of a stream that has written: a connection that went, with blocks that the
  // target may not have, shows itself to nobody who does not write.
  virtual bool IsConnected() const = 0;
  // After the last Write(): how it ended.
  virtual absl::Status Finish() = 0;
  virtual void Cancel() = 0;
};

// To the host that a machine goes to; says there where this host answers what
// it decided.
class TargetConnection {
 public:
  virtual ~TargetConnection() = default;
  // What the messages go over; outlived by this.
  virtual ControlLink::Stream Control() = 0;
  // Once a message of the target's has come.
  virtual std::unique_ptr<BlockStream> NewBlockStream() = 0;
  // Why the stream of messages ended, once its link is closed.  `was_heard`:
  // the target had said something.
  virtual absl::Status End(bool was_heard) = 0;
};

struct OutgoingOptions {
  SourceOptions source;
  // Of blocks; 1 to kStreamsMax.
  int streams = 2;
  // Often, from the thread that runs.
  std::function<void(const MigrationProgress&)> on_progress;
};

class OutgoingMigration final : public Moving, private OutputListener {
 public:
  OutgoingMigration(const OutgoingOptions& options,
                    std::unique_ptr<TargetConnection> connection,
                    absl::Span<PendingPages* const> devices,
                    OwnershipLedger* ledger, MigrationBook* book);
  ~OutgoingMigration() override;

  // Until it is done or has failed.  FailedPrecondition in the status, before
  // anything happened: the machine is in another migration.
  MigrationProgress Run();

  MigrationProgress progress() const { return source_.progress(); }

  // Moving.
  MigrationReport Report() const override;
  void RequestCancel() override;
  bool IsUndecidedSource() const override;

 private:
  struct Stream {
    std::unique_ptr<BlockStream> blocks;
    std::thread thread;
  };

  void OnOutput() override;
  MigrationProgress Drive();
  void SendAll(ControlLink& link);
  void StartStreams();
  void StopStreams();
  void RunStream(BlockStream& stream);
  void SendBlocks(BlockStream& stream);
  absl::Status broken_stream() const;

  const OutgoingOptions options_;
  const std::unique_ptr<TargetConnection> connection_;
  MigrationBook* const book_;
  MigrationSource source_;
  std::vector<Stream> streams_;

  mutable absl::Mutex mutex_;
  ControlLink* link_ ABSL_GUARDED_BY(mutex_) = nullptr;
  uint64_t outputs_ ABSL_GUARDED_BY(mutex_) = 0;  // how often OnOutput()
  bool is_stopping_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status broken_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace ferrybus::migration

#endif  // FERRYBUS_SAVESTATE_MIGRATION_HOST_OUTGOING_MIGRATION_H_
