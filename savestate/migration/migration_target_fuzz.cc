// SPDX-License-Identifier: MIT
//
// A target whose source says and sends whatever the input has: the machine runs
// here only after the decision, and what fails leaves nothing behind.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "ferrybus/savestate/migration/fake_machine.h"
#include "ferrybus/savestate/migration/migration_fuzz_input.h"
#include "ferrybus/savestate/migration/migration_target.h"

namespace {

using namespace ferrybus::migration;  // NOLINT: this is its test

void Check(bool condition) {
  if (!condition) std::abort();
}

class Host final : public TargetHost {
 public:
  absl::StatusOr<std::vector<Migratable*>> CreateDevices(
      const Hello& hello, std::vector<int> /*descriptors*/,
      bool /*is_recovery*/) override {
    Check(device == nullptr);
    if (hello.devices.size() != 1) {
      return absl::FailedPreconditionError("one device");
    }
    device = std::make_unique<FakeDevice>(
        "fake", Capabilities{.live_migration = true}, &state);
    return std::vector<Migratable*>{device.get()};
  }
  void DestroyDevices() override {
    Check(device != nullptr && device->prepared() == 0);
    device.reset();
  }

  FakeMachineState state{kFuzzPages};
  std::unique_ptr<FakeDevice> device;
};

void CheckOwner(const MigrationTarget& target, const Host& host,
                const FakeLedger& ledger) {
  const bool is_running = target.phase() == TargetPhase::kRunning;
  Check((host.device != nullptr && host.device->is_running()) == is_running);
  Check((ledger.record().state == Ownership::kOwner) == is_running);
  const bool is_prepared = target.phase() == TargetPhase::kPrepared ||
                           target.phase() == TargetPhase::kUndecided;
  Check((ledger.record().state == Ownership::kPrepared) == is_prepared);
  if (target.phase() == TargetPhase::kFailed) Check(host.device == nullptr);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes) {
  absl::Span<const std::byte> input(reinterpret_cast<const std::byte*>(data),
                                    size_bytes);
  Host host;
  FakeLedger ledger;
  MessageLimits limits;
  limits.blob_bytes_max = 1 << 16;
  limits.state_bytes_max = 1 << 17;
  MigrationTarget target({.machine = kFuzzMachine,
                          .session = kFuzzSession,
                          .peer = "there",
                          .limits = limits},
                         &host, &ledger);
  absl::Time now = absl::UnixEpoch();
  while (std::optional<FuzzEvent> event = NextEvent(&input)) {
    switch (event->kind) {
      case FuzzEvent::kMessage:
        target.OnMessage(event->bytes, {}, now);
        break;
      case FuzzEvent::kBlock:
        target.OnBlock(event->bytes, now);
        break;
      case FuzzEvent::kTime:
        now += absl::Milliseconds(50 + 20 * event->bytes.size());
        break;
      case FuzzEvent::kDisconnect:
        target.OnDisconnected(absl::UnavailableError("cut"), now);
        break;
      case FuzzEvent::kCancel:
        target.Cancel();
        break;
      case FuzzEvent::kDecision:
        target.OnDecision(static_cast<Decision>(event->bytes.size() % 3), now);
        break;
      default:
        break;
    }
    target.Poll(now);
    CheckOwner(target, host, ledger);
    while (target.TakeMessage().has_value()) {
    }
  }
  target.OnDisconnected(absl::UnavailableError("the end"), now);
  target.OnDecision(Decision::kAborted, now);
  CheckOwner(target, host, ledger);
  Check(target.is_finished());
  return 0;
}
