// SPDX-License-Identifier: MIT
//
// A source whose target says whatever the input has, while the machine works:
// either it goes on as if nothing had been, or the decision is stored and it is
// retired.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>

#include "ferrybus/savestate/migration/fake_machine.h"
#include "ferrybus/savestate/migration/migration_fuzz_input.h"
#include "ferrybus/savestate/migration/migration_source.h"
#include "ferrybus/savestate/migration/pending_pages.h"

namespace {

using namespace ferrybus::migration;  // NOLINT: this is its test

void Check(bool condition) {
  if (!condition) std::abort();
}

void CheckOwner(const MigrationSource& source, const FakeDevice& device,
                const FakeLedger& ledger) {
  const SourcePhase phase = source.progress().phase;
  const bool is_decided =
      phase == SourcePhase::kCommitted || phase == SourcePhase::kDone;
  Check((ledger.record().state == Ownership::kHandedOver) == is_decided);
  Check(!(is_decided && device.is_running()));
  if (phase == SourcePhase::kDone) Check(device.is_retired());
  if (phase == SourcePhase::kFailed) {
    Check(device.is_running() && !device.is_retired());
  }
  if (source.is_finished()) {
    Check(device.prepared() == 0 && device.tracked() == 0);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes) {
  absl::Span<const std::byte> input(reinterpret_cast<const std::byte*>(data),
                                    size_bytes);
  FakeMachineState state(kFuzzPages);
  FakeDevice device("fake", Capabilities{.live_migration = true}, &state);
  absl::StatusOr<std::unique_ptr<PendingPages>> pages =
      PendingPages::Create(&device, MemoryOrigin::kZeros);
  Check(pages.ok());
  device.Run();
  uint64_t request = 0;
  for (; request < 10; ++request) device.Do(request);
  FakeLedger ledger;
  OwnershipRecord owner;
  owner.state = Ownership::kOwner;
  owner.epoch = 1;
  ledger.set_record(owner);
  SourceOptions options;
  options.machine = kFuzzMachine;
  options.migration_id = kFuzzMigrationId;
  options.peer = "there";
  options.block_bytes = 2 * kFakePageSize;
  PendingPages* const list = pages->get();
  MigrationSource source(options, absl::MakeConstSpan(&list, 1), &ledger);
  absl::Time now = absl::UnixEpoch();
  source.Start(now);
  PageEncoder encoder;
  while (std::optional<FuzzEvent> event = NextEvent(&input)) {
    switch (event->kind) {
      case FuzzEvent::kMessage:
        source.OnMessage(event->bytes, now);
        break;
      case FuzzEvent::kTime:
        now += absl::Milliseconds(50 + 20 * event->bytes.size());
        break;
      case FuzzEvent::kDisconnect:
        source.OnDisconnected(absl::UnavailableError("cut"), now);
        break;
      case FuzzEvent::kCancel:
        source.RequestCancel();
        break;
      case FuzzEvent::kRequest:
        if (device.is_running()) device.Do(request++);
        break;
      default:
        break;
    }
    while (!source.TakeBlock(encoder, now).bytes.empty()) {
    }
    source.Poll(now);
    while (source.TakeMessage().has_value()) {
    }
    source.Poll(now);
    CheckOwner(source, device, ledger);
  }
  source.OnDisconnected(absl::UnavailableError("the end"), now);
  Check(source.is_finished());
  CheckOwner(source, device, ledger);
  return 0;
}
