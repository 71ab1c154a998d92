// SPDX-License-Identifier: MIT
//
// The side that a machine leaves: a state machine without threads, clock or
// I/O.  Whoever runs it hands in messages and time, and sends what it gives
// out; MigrationTarget is the other side.
//
//   validate -> copy, pass by pass, while the machine runs -> pause -> the last
//   pages -> mutable data -> decide -> retire
//
// The passes end when what is left would take less than the downtime limit, or
// never do: then the time-out cancels, or forces the pause.  Without a time-out
// it gives up after passes_max passes, or three in a row that hardly shrank.
//
// Until the decision is stored, every failure, from wherever, leaves the
// machine running here as if nothing had been
// (savestate/migration/ownership.h).
//
// Ownership: borrows pages (with their devices) and ledger.
// Thread safety: TakeBlock(), RequestCancel(), progress() from any thread; the
// others one at a time, on one that may block in the devices.
// Trust: messages are the peer's; anything it must not say ends the migration.
// Cost: TakeBlock() reads, checks for zeros, and compresses in the caller's
// thread; call it from as many as there are streams.
//
//   MigrationSource source(options, {&pages}, &ledger);
//   source.Start(now);
//   while (!source.is_finished()) { send what TakeMessage() and TakeBlock()
//     give; OnMessage(received, now); Poll(now); }

#ifndef FERRYBUS_SAVESTATE_MIGRATION_MIGRATION_SOURCE_H_
#define FERRYBUS_SAVESTATE_MIGRATION_MIGRATION_SOURCE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ferrybus/savestate/migration/migration_messages.h"
#include "ferrybus/savestate/migration/migration_progress.h"
#include "ferrybus/savestate/migration/ownership.h"
#include "ferrybus/savestate/migration/page_block.h"
#include "ferrybus/savestate/migration/pending_pages.h"

namespace ferrybus::migration {

enum class OnTimeout : uint8_t { kCancel, kForce };

struct SourceOptions {
  std::string machine = {};       // its name, on both hosts
  std::string migration_id = {};  // kIdSizeBytes, never used before
  std::string peer = {};          // for the ledger
  // Nothing is copied while the machine runs.
  bool quick = false;
  // The target is on this host, and gets the memory itself where a device has
  // a descriptor for it.
  bool share_memory = false;
  bool compress = true;
  absl::Duration downtime_limit = absl::Milliseconds(250);
  // Of the passes while the machine runs.
  absl::Duration timeout = absl::InfiniteDuration();
  OnTimeout on_timeout = OnTimeout::kCancel;
  uint32_t passes_max = 16;
  // Without a message or a block to send for so long: the peer is gone.
  absl::Duration silence_max = absl::Seconds(30);
  absl::Duration pause_max = absl::Seconds(10);
  uint64_t block_bytes = uint64_t{1} << 20;
  // Of blocks as they are sent, a second; 0: no limit.
  uint64_t bandwidth_max_bytes = 0;
  MessageLimits limits = {};
};

// Bytes, with the descriptors that go with them, which stay the device's.
struct OutgoingMigrationMessage {
  std::string bytes;
  std::vector<int> descriptors;
};

// What runs the machine: told that there is something to send, from any thread.
class OutputListener {
 public:
  virtual ~OutputListener() = default;
  virtual void OnOutput() = 0;
};

class MigrationSource {
 public:
  // REQUIRES: block_bytes is at most kBlockBytesMax.
  MigrationSource(const SourceOptions& options,
                  absl::Span<PendingPages* const> devices,
                  OwnershipLedger* ledger, OutputListener* listener = nullptr);
  // Once is_finished(), and no TakeBlock() runs; unless the process ends: that
  // is a crash, which the ledgers sort out.
  ~MigrationSource() = default;

  // -- What happens.  `now` never goes back (savestate/steady_clock.h).

  void Start(absl::Time now);
  void OnMessage(absl::Span<const std::byte> bytes, absl::Time now);
  void OnDisconnected(const absl::Status& why, absl::Time now);
  // At least every 100 ms; every few while kPausing.
  void Poll(absl::Time now);
  // The machine goes on here, unless it is decided by then.
  void RequestCancel() { cancel_.store(true); }

  // -- What to send.

  std::optional<OutgoingMigrationMessage> TakeMessage();
  struct NextBlock {
    std::string bytes;  // empty: none
    // None now, but then.
    absl::Time not_before = absl::InfiniteFuture();
  };
  NextBlock TakeBlock(PageEncoder& encoder, absl::Time now);

  // -- Looking.

  bool is_finished() const;
  MigrationProgress progress() const;
  // The id, until it is decided.
  std::string running_id() const;

 private:
  // What TakeBlock() shares with the rest.
  struct Pass {
    bool is_open = false;
    bool is_exhausted = false;
    uint32_t number = 0;
    uint64_t blocks = 0;
    std::string session;
    absl::Status failure;
    absl::Time not_before = absl::InfinitePast();
    absl::Time last_taken = absl::InfinitePast();
    int readers = 0;  // of the devices' memory
  };

  void Handle(const HelloReply& reply);
  void Handle(const ImmutableAccepted&);
  void Handle(const PassDone& done);
  void Handle(const Prepared&);
  void Handle(const Running&);
  void Handle(const Abort& abort);
  template <typename Other>
  void Handle(const Other&);

  absl::StatusOr<std::string> Save(bool is_immutable, Migratable& device) const;
  void SendHello();
  std::optional<PageBatch> TakeBatch(PageBlock* block)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OpenPass();
  void EndPassIfExhausted();
  void AfterCopyPass();
  void PollLimits();
  void GiveUp(const absl::Status& why);
  void BeginPause();
  void PollPause();
  void BlackoutPass();
  void SendMutable();
  void Commit();
  void PollUnsettled();
  void RetireDevices();
  void Fail(const absl::Status& why, bool tell_peer);
  void Finish(SourcePhase phase, const absl::Status& status);
  void Send(const Message& message, std::vector<int> descriptors = {});
  void SetPhase(SourcePhase phase);
  void CloseBlocks();
  SourcePhase phase() const { return phase_; }
  bool CheckPhase(SourcePhase phase, absl::string_view message);
  uint64_t PendingBytes() const;
  void UpdateRates();

  const SourceOptions options_;
  const std::vector<PendingPages*> devices_;
  OwnershipLedger* const ledger_;
  OutputListener* const listener_;
  std::atomic<bool> cancel_{false};

  // Of the one thread.
  SourcePhase phase_ = SourcePhase::kNew;
  absl::Time now_;
  absl::Time started_;
  absl::Time last_heard_;
  absl::Time pass_began_;
  absl::Time collected_;
  absl::Time phase_began_;
  uint64_t pass_plain_bytes_before_ = 0;
  uint64_t last_left_bytes_ = 0;
  uint32_t passes_not_shrunk_ = 0;
  size_t prepared_devices_ = 0;
  size_t paused_devices_ = 0;
  bool has_begun_pages_ = false;
  bool is_pass_running_ = false;  // until PassDone
  uint32_t blackout_passes_ = 0;
  bool is_retire_due_ = false;
  bool is_decision_timed_ = false;
  OwnershipRecord before_;  // as it was when it began
  std::deque<OutgoingMigrationMessage> outgoing_;

  mutable absl::Mutex mutex_;
  Pass pass_ ABSL_GUARDED_BY(mutex_);
  MigrationProgress progress_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace ferrybus::migration

#endif  // FERRYBUS_SAVESTATE_MIGRATION_MIGRATION_SOURCE_H_
