// SPDX-License-Identifier: MIT
//
// Moves a machine to another host: runs a MigrationSource over gRPC.
//
// The messages go over one connection, the blocks over several beside it, each
// with a thread that reads, compresses and sends.  If one of the connections
// breaks, the migration ends: a hole in the memory cannot come of it, as the
// target counts the blocks.
//
// Ownership: borrows devices, ledger and book.
// Thread safety: Run() once, in a thread of its own, which it blocks; the
// others from any thread. Trust: the peer showed a certificate; what it says is
// checked all the same.
//
//   OutgoingMigration migration(options, {&pages}, &ledger, &book);
//   MigrationProgress result = migration.Run();

#ifndef FERRYBUS_SAVESTATE_MIGRATION_GRPC_OUTGOING_MIGRATION_H_
#define FERRYBUS_SAVESTATE_MIGRATION_GRPC_OUTGOING_MIGRATION_H_

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
#include "ferrybus/savestate/migration/grpc/channel.h"
#include "ferrybus/savestate/migration/grpc/control_link.h"
#include "ferrybus/savestate/migration/grpc/migration_book.h"
#include "ferrybus/savestate/migration/migration_source.h"

namespace ferrybus::migration {

inline constexpr int kStreamsMax = 16;

struct OutgoingOptions {
  // share_memory is not for this transport.
  SourceOptions source;
  HostAddress target;
  // Where this host's server answers: the target asks there for the decision.
  std::string own_address;
  // Of blocks; 1 to kStreamsMax.
  int streams = 2;
  // Often, from the thread that runs.
  std::function<void(const MigrationProgress&)> on_progress;
};

class OutgoingMigration final : public Moving, private OutputListener {
 public:
  OutgoingMigration(const OutgoingOptions& options,
                    absl::Span<PendingPages* const> devices,
                    OwnershipLedger* ledger, MigrationBook* book);
  ~OutgoingMigration() override;

  // Until it is done or has failed.  FailedPrecondition in the status, before
  // anything happened: the machine is in another migration.
  MigrationProgress Run();

  MigrationProgress progress() const { return source_.progress(); }

  // Moving.
  v1::MigrationReport Report() const override;
  void RequestCancel() override;
  bool IsUndecidedSource() const override;

 private:
  class BulkStream;

  void OnOutput() override;
  MigrationProgress Drive();
  void OnControl(ControlLink& link, const std::string& ticket);
  void StartStreams(const std::string& ticket);
  void StopStreams();
  void RunStream(BulkStream& stream);
  void SendBlocks(BulkStream& stream);
  absl::Status broken_stream() const;
  void Poke() const;

  const OutgoingOptions options_;
  MigrationBook* const book_;
  MigrationSource source_;
  std::vector<std::unique_ptr<BulkStream>> streams_;

  mutable absl::Mutex mutex_;
  ControlLink* link_ ABSL_GUARDED_BY(mutex_) = nullptr;
  uint64_t outputs_ ABSL_GUARDED_BY(mutex_) = 0;  // how often OnOutput()
  bool is_stopping_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status broken_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace ferrybus::migration

#endif  // FERRYBUS_SAVESTATE_MIGRATION_GRPC_OUTGOING_MIGRATION_H_
