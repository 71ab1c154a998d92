// SPDX-License-Identifier: MIT
//
// The side that a machine comes to: a state machine without threads, clock or
// I/O, as MigrationSource, which is the other side.
//
// The devices are created as the source describes them, take the immutable
// data, then the memory, then the mutable data.  When all of it is there the
// target stores that it is prepared, and says so; it runs once the source's
// decision reaches it, never before.  If the connection ends in between it is
// undecided: whoever runs it asks the source's host for the decision, as often
// as it takes, also after a restart (Recover).
//
// Ownership: borrows host and ledger; the devices are the host's.
// Thread safety: OnBlock() and phase() from any thread; the others one at a
// time, on one that may block in the devices.
// Trust: messages and blocks are the peer's.  Nothing is allocated for what it
// only announces; anything it must not say ends the migration.
// Cost: OnBlock() decompresses, checks and writes in the caller's thread.

#ifndef FERRYBUS_SAVESTATE_MIGRATION_MIGRATION_TARGET_H_
#define FERRYBUS_SAVESTATE_MIGRATION_MIGRATION_TARGET_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ferrybus/savestate/migration/migratable.h"
#include "ferrybus/savestate/migration/migration_messages.h"
#include "ferrybus/savestate/migration/ownership.h"
#include "ferrybus/savestate/migration/page_block.h"

namespace ferrybus::migration {

enum class TargetPhase : uint8_t {
  kNew,
  kValidating,  // immutable data
  kReceiving,   // memory
  kRestoring,   // mutable data
  kPrepared,
  kUndecided,  // prepared, and the source is gone: needs the decision
  kStarting,   // decided, not yet stored
  kRunning,
  kFailed,
};

absl::string_view TargetPhaseName(TargetPhase phase);

// Makes the machine's devices.
class TargetHost {
 public:
  virtual ~TargetHost() = default;
  // One for each that the hello describes, in its order, never run; from the
  // descriptors, which are now the host's, in the order of the segments that
  // are shared.  `is_recovery`: the memory of the process before is still
  // there, and is attached.  A failure refuses the machine.
  virtual absl::StatusOr<std::vector<Migratable*>> CreateDevices(
      const Hello& hello, std::vector<int> descriptors, bool is_recovery) = 0;
  // The machine does not come: ends them, and what they stand on.
  virtual void DestroyDevices() = 0;
};

struct TargetOptions {
  std::string machine;  // what this target expects
  std::string session;  // kIdSizeBytes, random
  std::string peer;     // for the ledger: whom to ask
  absl::Duration silence_max = absl::Seconds(30);
  MessageLimits limits = {};
};

class MigrationTarget {
 public:
  MigrationTarget(const TargetOptions& options, TargetHost* host,
                  OwnershipLedger* ledger);
  // No OnBlock() is running.
  ~MigrationTarget() = default;

  // -- What happens.  `now` never goes back.

  void OnMessage(absl::Span<const std::byte> bytes,
                 std::vector<int> descriptors, absl::Time now);
  void OnBlock(absl::Span<const std::byte> bytes, absl::Time now);
  void OnDisconnected(const absl::Status& why, absl::Time now);
  void Poll(absl::Time now);
  // Ends it, unless it is prepared by then.
  void Cancel();

  // In a process that finds kPrepared in its ledger: stands where the one
  // before stood, undecided.
  absl::Status Recover(const OwnershipRecord& record, absl::Time now);
  // What the source's host says.  kUndecided: nothing happens.
  void OnDecision(Decision decision, absl::Time now);

  // -- What to send.
  std::optional<std::string> TakeMessage();

  // -- Looking.

  TargetPhase phase() const;
  bool is_finished() const;
  // kRunning: OK.  Else why it failed, or what it waits for.
  absl::Status status() const;
  std::string migration_id() const { return hello_.migration_id; }

 private:
  struct Memory {
    uint32_t segment = 0;
    uint64_t page_size_bytes = 0;
    uint64_t pages = 0;
    bool is_shared = false;
  };
  struct Device {
    Migratable* device = nullptr;
    std::vector<Memory> memories;
  };
  // What OnBlock() shares with the rest.
  struct Pass {
    bool is_open = false;  // blocks are taken
    uint32_t number = 1;
    uint64_t applied = 0;
    absl::flat_hash_set<uint64_t> seen;
    std::optional<uint64_t> blocks;  // once PassEnd told
    int writers = 0;
    absl::Status failure;
    absl::Time last_block = absl::InfinitePast();
  };

  void Handle(Hello hello);
  void Handle(ImmutableData data);
  void Handle(const PassEnd& end);
  void Handle(MutableData data);
  void Handle(const Prepare&);
  void Handle(const Commit& commit);
  void Handle(const Abort& abort);
  template <typename Other>
  void Handle(const Other&);

  absl::Status CheckHello(const Hello& hello);
  absl::Status TakeDevices(absl::Span<Migratable* const> devices);
  absl::Status PrepareDevices();
  absl::StatusOr<Memory> FindMemory(const PageBlock& block) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status BeginBlock(const PageBlock& block, Memory* memory);
  absl::Status ApplyBlock(PageBlock&& block, const Memory& memory);
  void FinishPass();
  absl::Status StorePrepared();
  void PollStarting();
  void Fail(const absl::Status& why, bool tell_peer);
  void Discard(const absl::Status& why, bool tell_peer);
  void DiscardPrepared(const absl::Status& why);
  void CloseBlocks();
  void Send(const Message& message);
  void SetPhase(TargetPhase phase, const absl::Status& status = {});
  bool CheckPhase(TargetPhase wanted, const Message& message);

  const TargetOptions options_;
  TargetHost* const host_;
  OwnershipLedger* const ledger_;

  // Of the one thread.
  absl::Time now_;
  absl::Time last_heard_;
  absl::Time stored_;
  Hello hello_;
  OwnershipRecord before_;
  std::vector<int> descriptors_;
  std::vector<std::string> messages_;  // what kPrepared stands on
  std::vector<Device> devices_;  // read by OnBlock() while blocks are open
  size_t prepared_devices_ = 0;
  uint32_t immutable_ = 0;
  uint32_t mutable_ = 0;
  uint64_t state_bytes_ = 0;
  bool is_recovery_ = false;
  bool has_devices_ = false;
  std::deque<std::string> outgoing_;

  mutable absl::Mutex mutex_;
  TargetPhase phase_ ABSL_GUARDED_BY(mutex_) = TargetPhase::kNew;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  Pass pass_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace ferrybus::migration

#endif  // FERRYBUS_SAVESTATE_MIGRATION_MIGRATION_TARGET_H_
