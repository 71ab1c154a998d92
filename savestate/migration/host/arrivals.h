// SPDX-License-Identifier: MIT
//
// The machines that come to this host over one transport, and what it answers
// of those that left.
//
// A machine that is prepared when its source is lost is asked about, again and
// again, in a thread of its own: so it goes also after a restart.
//
// Ownership: borrows registry and book, which outlive it; owns the threads that
// ask.
// Thread safety: all methods, from any thread; Stop() before it ends, and no
// Serve() is running then.
// Trust: what comes over a link is a peer's: its bytes are checked, what it can
// make grow is bounded.
//
//   Arrivals arrivals({.ask = ...}, &registry, &book);
//   absl::Status status = arrivals.Serve(link, peer, ticket);

#ifndef FERRYBUS_SAVESTATE_MIGRATION_HOST_ARRIVALS_H_
#define FERRYBUS_SAVESTATE_MIGRATION_HOST_ARRIVALS_H_

#include <atomic>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "ferrybus/savestate/migration/host/control_link.h"
#include "ferrybus/savestate/migration/host/incoming_migration.h"
#include "ferrybus/savestate/migration/host/migration_book.h"
#include "ferrybus/savestate/migration/host/shared_memory.h"
#include "ferrybus/savestate/migration/migration_target.h"

namespace ferrybus::migration {

// The machines of a host, by name.
class MachineRegistry {
 public:
  virtual ~MachineRegistry() = default;

  struct Arrival {
    TargetHost* host = nullptr;
    // Used from several threads.
    OwnershipLedger* ledger = nullptr;
  };
  // A machine that wants to come, or that was prepared by the process before.
  // A failure refuses it.
  virtual absl::StatusOr<Arrival> BeginArrival(const std::string& machine) = 0;
  // It is not touched any more.  `is_running`: it has arrived.
  virtual void EndArrival(const std::string& machine, bool is_running) = 0;
  // Used from several threads, as long as the registry.  NotFound.
  virtual absl::StatusOr<OwnershipLedger*> FindLedger(
      const std::string& machine) = 0;
};

// What a source sends first.
absl::StatusOr<Hello> ReadHello(const std::string& bytes,
                                const MessageLimits& limits);

class Arrivals {
 public:
  struct Options {
    // Of the other hosts, over this transport.
    DecisionAsker ask;
    absl::Duration silence_max = absl::Seconds(30);
    // At a time.
    int arrivals_max = 16;
    MessageLimits limits = {};
    // What may come by descriptor.
    SharedMemoryRule shared_memory = SharedMemoryRule::kSealed;
  };
  using Incoming = std::shared_ptr<IncomingMigration>;

  Arrivals(const Options& options, MachineRegistry* registry,
           MigrationBook* book)
      : options_(options), registry_(registry), book_(book) {}
  Arrivals(const Arrivals&) = delete;
  Arrivals& operator=(const Arrivals&) = delete;
  ~Arrivals() { Stop(); }

  // Blocks until the machine runs here, has failed, or is undecided; the link
  // is closed then.  `peer`: whom to ask what was decided.  `ticket`: by which
  // Find() knows it, never used before.  The status: it was refused.
  absl::Status Serve(ControlLink& link, const std::string& peer,
                     const std::string& ticket);
  // Null: there is none.
  Incoming Find(const std::string& ticket) const;

  // What became of a migration whose source this host was.  NotFound: it was
  // not.
  absl::StatusOr<Decision> Decide(const std::string& machine,
                                  const std::string& migration_id);

  // For a machine whose ledger says kPrepared, when the process begins.
  absl::Status Recover(const std::string& machine);
  // What an operator says of an undecided machine whose source is gone for
  // good.  If it is not, there may be two owners.  FailedPrecondition: it is
  // not undecided.
  absl::Status Settle(const std::string& machine, Decision decision);

  // Ends what is under way; what is undecided stays so, on the disk.
  void Stop();

 private:
  struct Settler {
    std::thread thread;
    bool is_over = false;
  };

  absl::StatusOr<LinkMessage> FirstMessage(ControlLink& link) const;
  absl::StatusOr<Incoming> Begin(const TargetOptions& options,
                                 const std::string& migration_id,
                                 const std::string& ticket);
  // It runs here, has failed, or goes on in a thread of its own.
  void EndOrSettle(const Incoming& incoming, const std::string& ticket);
  void End(const Incoming& incoming, const std::string& ticket);
  void JoinFinished() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  MachineRegistry* const registry_;
  MigrationBook* const book_;
  std::atomic<bool> is_stopping_{false};

  mutable absl::Mutex mutex_;
  std::map<std::string, Incoming> incoming_ ABSL_GUARDED_BY(mutex_);
  std::list<Settler> settlers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace ferrybus::migration

#endif  // FERRYBUS_SAVESTATE_MIGRATION_HOST_ARRIVALS_H_
