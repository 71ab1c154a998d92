// SPDX-License-Identifier: MIT
//
// Two hosts, a machine that moves from the first to the second, a link between
// them, and faults at any step: for tests.  Everything happens in one thread,
// in an order that a step number names.

#ifndef FERRYBUS_SAVESTATE_MIGRATION_MIGRATION_WORLD_H_
#define FERRYBUS_SAVESTATE_MIGRATION_MIGRATION_WORLD_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "ferrybus/savestate/migration/fake_machine.h"
#include "ferrybus/savestate/migration/migration_source.h"
#include "ferrybus/savestate/migration/migration_target.h"
#include "ferrybus/savestate/migration/pending_pages.h"

namespace ferrybus::migration {

enum class LinkFault {
  kNone,
  kKillSource,
  kKillTarget,
  kCut,
  kStall,
  kCorrupt,  // a bit of the next message or block
  kCancel,
};

struct WorldOptions {
  Capabilities capabilities = {.live_migration = true};
  SourceOptions source;
  uint64_t pages = 70;
  int requests_before = 40;
  int requests_during = 60;
  int pauses_late = 1;
};

class MigrationWorld final : public TargetHost {
 public:
  explicit MigrationWorld(const WorldOptions& options);
  ~MigrationWorld() override;

  // Begins the move from the host that owns the machine.
  void Start();
  // One step: the fault comes at its beginning.
  void Step(LinkFault fault = LinkFault::kNone);
  // Kills a host in the middle of a call that never returns: what the host has
  // in memory stays as it is, for ever.
  void Abandon(bool is_source);
  // Steps until the move has ended on both hosts, with whatever it takes: time
  // passes, hosts that were killed start again, undecided ones ask.  False: it
  // never does.
  bool Settle();
  bool is_over() const;

  // What must hold at any moment, and, after Settle(), in the end; empty if it
  // does.  The end: one host runs, its ledger says so, the other's does not,
  // the client's requests are all there, once, and the memory is theirs.
  std::string Check() const;
  std::string CheckEnd();

  struct Host {
    FakeLedger ledger;
    FakeMachineState state{0};
    FakeFault fault;
    std::unique_ptr<FakeDevice> device;
    std::unique_ptr<PendingPages> pages;
    std::unique_ptr<MigrationSource> source;
    std::unique_ptr<MigrationTarget> target;
    bool is_down = false;
  };
  Host& here() { return hosts_[from_]; }
  Host& there() { return hosts_[1 - from_]; }
  const std::string& migration_id() const { return migration_id_; }
  uint64_t steps() const { return steps_; }
  absl::Time now() const { return now_; }
  void Pass(absl::Duration time) { now_ += time; }
  bool is_moved() const { return runs_at() == 1 - from_; }
  const std::vector<std::string>& sent_to_target() const {
    return sent_to_target_;
  }
  const std::vector<std::string>& sent_to_source() const {
    return sent_to_source_;
  }
  const std::string& creation_parameters() const {
    return creation_parameters_;
  }
  const std::vector<std::string>& sent_blocks() const { return sent_blocks_; }

 private:
  // TargetHost: the other host's.
  absl::StatusOr<std::vector<Migratable*>> CreateDevices(
      const Hello& hello, std::vector<int> descriptors,
      bool is_recovery) override;
  void DestroyDevices() override;

  int runs_at() const;
  void MakeDevice(Host& host);
  static absl::Status MakePages(Host& host, MemoryOrigin origin);
  void DoRequest();
  void Do(LinkFault fault);
  void Kill(int index);
  void Restart(int index);
  void Disconnect();
  void StepSource();
  void StepTarget();
  void DeliverToTarget();
  void DeliverToSource();
  void DeliverBlock();
  void MaybeCorrupt(std::string* bytes);
  void Ask();

  WorldOptions options_;
  Host hosts_[2];
  int from_ = 0;
  int moves_ = 0;
  absl::Time now_ = absl::UnixEpoch();
  uint64_t steps_ = 0;
  uint64_t next_request_ = 0;
  int requests_left_ = 0;
  std::string migration_id_;
  std::string session_;
  std::string creation_parameters_;
  std::vector<int> shared_;  // of the next message
  bool is_connected_ = false;
  bool is_stalled_ = false;
  bool corrupt_next_ = false;
  std::deque<std::string> to_target_;
  std::deque<std::string> to_source_;
  std::deque<std::string> blocks_;
  std::vector<std::string> sent_to_target_;
  std::vector<std::string> sent_to_source_;
  std::vector<std::string> sent_blocks_;
  PageEncoder encoder_;
};

}  // namespace ferrybus::migration

#endif  // FERRYBUS_SAVESTATE_MIGRATION_MIGRATION_WORLD_H_
