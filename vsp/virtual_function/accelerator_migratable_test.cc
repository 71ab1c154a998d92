// SPDX-License-Identifier: MIT

// The order of a migration's calls, and what a target refuses.

#include "ferrybus/vsp/virtual_function/accelerator_migratable.h"

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "ferrybus/vsp/virtual_function/accelerator_state_persist.h"
#include "ferrybus/vsp/virtual_function/accelerator_world.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

using migration::Role;
using ::testing::AllOf;
using ::testing::HasSubstr;

using Code = absl::StatusCode;
using SizeCode = savestate::SizeAnswer::Code;

accelerator::Command LongHash() {
  accelerator::Command command = {};
  command.op = accelerator::Op::kHash;
  command.source = {1, 0, 0};
  command.size_bytes = 64 << 10;
  return command;
}

void Submit(AcceleratorHost& host, const accelerator::Command& command) {
  EXPECT_TRUE(host.accelerator.Submit(command, 0, [](uint64_t) {}));
}

// A source in the middle of a command, with a pending interrupt.
void Use(AcceleratorHost& host) {
  host.StartInterrupts();
  Submit(host, LongHash());
  Submit(host, LongHash());
  host.accelerator.Run(20);
  host.Mask(2, true);
  (void)host.table.Raise(2);
  const std::byte master[] = {std::byte{4}, std::byte{0}};
  EXPECT_TRUE(host.config.Write(ConfigSpace::kCommand, master).ok());
}

std::string ImmutableOf(AcceleratorHost& host) {
  EXPECT_TRUE(host.migratable.Prepare(Role::kSource).ok());
  const auto blob = SaveImmutableOf(host.migratable);
  host.migratable.End();
  return blob.value();
}

// Of a source that goes on.
std::string MutableOf(AcceleratorHost& host) {
  EXPECT_TRUE(host.migratable.Prepare(Role::kSource).ok());
  EXPECT_TRUE(host.migratable.Pause().ok());
  const auto blob = SaveMutableOf(host.migratable);
  host.migratable.Resume();
  host.migratable.End();
  return blob.value();
}

// -- Order --------------------------------------------------------------------

// doc:MG16
TEST(AcceleratorMigratableTest, CallsAtTheWrongTimeAreRefused) {
  AcceleratorHost host(1);
  AcceleratorMigratable& its = host.migratable;
  std::vector<std::byte> page(4096);
  const auto out = absl::MakeSpan(page);
  const auto expect_refused = [&](absl::string_view what, bool source,
                                  bool paused, bool target) {
    SCOPED_TRACE(std::string(what));
    EXPECT_EQ(its.Prepare(Role::kSource).code(), Code::kFailedPrecondition);
    if (!source) {
      EXPECT_EQ(its.SaveImmutable({}).code, SizeCode::kFailed);
      EXPECT_EQ(its.ReadMemory(1, 0, out).code(), Code::kFailedPrecondition);
      EXPECT_EQ(its.Pause().status().code(), Code::kFailedPrecondition);
    }
    if (!paused) {
      EXPECT_EQ(its.SaveMutable({}).code, SizeCode::kFailed);
      EXPECT_EQ(its.Confirm().code(), Code::kFailedPrecondition);
    }
    if (!target) {
      EXPECT_EQ(its.RestoreImmutable({}).code(), Code::kFailedPrecondition);
    }
    EXPECT_EQ(its.WriteMemory(1, 0, page).code(), Code::kFailedPrecondition);
    EXPECT_EQ(its.RestoreMutable({}).code(), Code::kFailedPrecondition);
    EXPECT_EQ(its.RewriteInterrupts().code(), Code::kFailedPrecondition);
  };
  ASSERT_TRUE(its.Prepare(Role::kSource).ok());
  expect_refused("source", true, false, false);
  ASSERT_TRUE(*its.Pause());
  ASSERT_TRUE(*its.Pause());
  // Not saved yet.
  EXPECT_EQ(its.Confirm().code(), Code::kFailedPrecondition);
  expect_refused("paused", true, true, false);
  its.Retire();
  expect_refused("retired", false, false, false);
  its.End();
  its.Resume();
  expect_refused("ended", false, false, false);
  EXPECT_TRUE(host.accelerator.is_held(Accelerator::kMigration));
}

// doc:MG20 doc:MG24
TEST(AcceleratorMigratableTest, ATargetIsNewAndPausedAndTakesStepsInOrder) {
  AcceleratorHost source(1);
  Use(source);
  const std::string immutable_data = ImmutableOf(source);
  const std::string mutable_data = MutableOf(source);
  EXPECT_EQ(source.migratable.Prepare(Role::kTarget).code(),
            Code::kFailedPrecondition);
  AcceleratorHost target(2);
  AcceleratorMigratable& its = target.migratable;
  ASSERT_TRUE(its.Prepare(Role::kTarget).ok());
  std::vector<std::byte> page(4096);
  EXPECT_EQ(its.WriteMemory(1, 0, page).code(), Code::kFailedPrecondition);
  EXPECT_EQ(its.RestoreMutable(BlobBytes(mutable_data)).code(),
            Code::kFailedPrecondition);
  EXPECT_TRUE(its.RestoreImmutable(BlobBytes(immutable_data)).ok());
  EXPECT_EQ(its.RestoreImmutable(BlobBytes(immutable_data)).code(),
            Code::kFailedPrecondition);
  EXPECT_EQ(its.RewriteInterrupts().code(), Code::kFailedPrecondition);
  EXPECT_TRUE(its.WriteMemory(1, 0, page).ok());
  EXPECT_EQ(its.WriteMemory(1, kWorldSizes[0], page).code(), Code::kOutOfRange);
  EXPECT_EQ(its.WriteMemory(9, 0, page).code(), Code::kOutOfRange);
  its.Resume();  // too early: nothing
  EXPECT_TRUE(its.RestoreMutable(BlobBytes(mutable_data)).ok());
  EXPECT_EQ(its.RestoreMutable(BlobBytes(mutable_data)).code(),
            Code::kFailedPrecondition);
  EXPECT_EQ(its.WriteMemory(1, 0, page).code(), Code::kFailedPrecondition);
  EXPECT_EQ(target.accelerator.Run(10), 0u);
  EXPECT_TRUE(its.RewriteInterrupts().ok());
  its.End();
  EXPECT_EQ(target.accelerator.Run(10), 0u);
  its.Resume();
  EXPECT_EQ(target.accelerator.Run(10), 10u);
}

// bad:M5
TEST(AcceleratorMigratableTest, ConfirmNoticesWhatTheGuestStillDid) {
  const std::vector<std::function<void(AcceleratorHost&)>> deeds = {
      [](AcceleratorHost& host) { Submit(host, LongHash()); },
      [](AcceleratorHost& host) { host.Mask(0, true); },
      [](AcceleratorHost& host) { (void)host.table.Raise(3); },
      [](AcceleratorHost& host) { host.accelerator.Reset(); },
      [](AcceleratorHost& host) {
        const std::byte line[] = {std::byte{9}};
        EXPECT_TRUE(host.config.Write(ConfigSpace::kInterruptLine, line).ok());
      },
  };
  for (size_t i = 0; i < deeds.size(); ++i) {
    AcceleratorHost host(1);
    Use(host);
    ASSERT_TRUE(host.migratable.Prepare(Role::kSource).ok());
    ASSERT_TRUE(host.migratable.Pause().ok());
    ASSERT_TRUE(SaveMutableOf(host.migratable).ok());
    EXPECT_TRUE(host.migratable.Confirm().ok());
    deeds[i](host);
    EXPECT_EQ(host.migratable.Confirm().code(), Code::kFailedPrecondition)
        << "deed " << i;
    // Saved again, it may go.
    ASSERT_TRUE(SaveMutableOf(host.migratable).ok());
    EXPECT_TRUE(host.migratable.Confirm().ok());
  }
}

// doc:MG14 doc:MG17
TEST(AcceleratorMigratableTest, ASourceGoesOnAfterAPauseThatWasNotUsed) {
  AcceleratorHost host(1);
  Use(host);
  ASSERT_TRUE(host.migratable.Prepare(Role::kSource).ok());
  ASSERT_TRUE(host.migratable.Pause().ok());
  EXPECT_EQ(host.accelerator.Run(10), 0u);
  (void)host.table.Raise(0);
  EXPECT_EQ(host.SentOf(0), 0u);
  host.migratable.Resume();
  host.migratable.End();
  EXPECT_EQ(host.SentOf(0), 1u);
  EXPECT_EQ(host.accelerator.Run(10), 10u);
  EXPECT_TRUE(host.migratable.Prepare(Role::kSource).ok());
}

// A guest that left an address of nothing cannot keep its machine here.
TEST(AcceleratorMigratableTest, AnUnknownMessageAddressDoesNotStopAMove) {
  AcceleratorHost source(1);
  source.StartInterrupts();
  const uint64_t nowhere = 0x1000;
  (void)source.table.WriteTable(
      16, absl::MakeConstSpan(reinterpret_cast<const std::byte*>(&nowhere), 8));
  AcceleratorHost target(2);
  AcceleratorMove move(&source, &target);
  ASSERT_TRUE(move.Begin().ok());
  const absl::Status status = move.Finish();
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(target.migratable.unmapped_tables(), 1u);
  (void)target.table.Raise(0);
  EXPECT_EQ(target.SentOf(0), 1u);
}

// But hardware that does not take its entries does.
TEST(AcceleratorMigratableTest, ADeviceThatRefusesItsTableStopsAMove) {
  AcceleratorHost source(1);
  source.StartInterrupts();
  AcceleratorHost target(2);
  AcceleratorMove move(&source, &target);
  ASSERT_TRUE(move.Begin().ok());
  target.interrupts.refusal = absl::UnavailableError("broken");
  EXPECT_EQ(move.Finish().code(), Code::kUnavailable);
  EXPECT_TRUE(move.Cancel().ok());
  (void)source.table.Raise(0);
  EXPECT_EQ(source.SentOf(0), 1u);
}

// -- Immutable data -----------------------------------------------------------

struct Mismatch {
  const char* field;
  const char* there;
  const char* here;
  std::function<void(AcceleratorHostOptions*)> change;  // of the target
};

// bad:S25
TEST(AcceleratorMigratableTest, AMismatchNamesTheFieldAndBothValues) {
  const Mismatch mismatches[] = {
      {"hardware model", "ferrybus accelerator", "other",
       [](auto* o) { o->migratable.identity.hardware_model = "other"; }},
      {"firmware", "1.0", "1.1",
       [](auto* o) { o->migratable.identity.firmware = "1.1"; }},
      {"driver major", "1 ", "2 ",
       [](auto* o) { o->migratable.identity.driver_major = 2; }},
      {"architecture", "64-bit little-endian", "128-bit",
       [](auto* o) { o->migratable.identity.architecture = "128-bit"; }},
      {"interrupt vectors", "4", "8", [](auto* o) { o->vectors = 8; }},
      {"number of segments", "2", "1",
       [](auto* o) {
         o->sizes.pop_back();
         o->pages.pop_back();
       }},
      {"segment 2 size", "131072", "65536",
       [](auto* o) { o->sizes[1] = 65536; }},
      {"segment 1 page size", "4096", "8192",
       [](auto* o) { o->pages[0] = 8192; }},
  };
  AcceleratorHost source(1);
  const std::string blob = ImmutableOf(source);
  for (const Mismatch& its : mismatches) {
    AcceleratorHostOptions options;
    its.change(&options);
    AcceleratorHost target(2, options);
    ASSERT_TRUE(target.migratable.Prepare(Role::kTarget).ok());
    const absl::Status status =
        target.migratable.RestoreImmutable(BlobBytes(blob));
    EXPECT_EQ(status.code(), Code::kFailedPrecondition) << its.field;
    EXPECT_THAT(
        std::string(status.message()),
        AllOf(HasSubstr(its.field), HasSubstr(its.there), HasSubstr(its.here)));
    target.migratable.End();
  }
}

// doc:MG22
TEST(AcceleratorMigratableTest, DriversGoForwardAndFormatsAreNamed) {
  AcceleratorIdentity old;
  AcceleratorIdentity later;
  later.driver_minor = 3;
  EXPECT_TRUE(CheckIdentity(old, later).ok());
  EXPECT_THAT(std::string(CheckIdentity(later, old).message()),
              AllOf(HasSubstr("driver minor"), HasSubstr("3"), HasSubstr("0")));
  // format_version 2, and a field that only it knows.
  std::string blob = "\x08\x02\xf8\x01\x05";
  const auto newer = ParseAcceleratorIdentity(BlobBytes(blob));
  EXPECT_EQ(newer.status().code(), Code::kFailedPrecondition);
  EXPECT_THAT(std::string(newer.status().message()),
              AllOf(HasSubstr("format_version is 2"), HasSubstr("up to 1")));
  EXPECT_EQ(ParseAcceleratorIdentity({}).status().code(), Code::kDataLoss);
}

// -- Bytes --------------------------------------------------------------------

TEST(AcceleratorMigratableTest, TheSameStateGivesTheSameBytes) {
  AcceleratorHost source(1);
  Use(source);
  const std::string immutable_data = ImmutableOf(source);
  const std::string mutable_data = MutableOf(source);
  EXPECT_EQ(MutableOf(source), mutable_data);
  AcceleratorHost target(2);
  ASSERT_TRUE(target.migratable.Prepare(Role::kTarget).ok());
  ASSERT_TRUE(
      target.migratable.RestoreImmutable(BlobBytes(immutable_data)).ok());
  ASSERT_TRUE(target.migratable.RestoreMutable(BlobBytes(mutable_data)).ok());
  target.migratable.End();
  target.migratable.Resume();
  EXPECT_EQ(MutableOf(target), mutable_data);
  EXPECT_EQ(ImmutableOf(target), immutable_data);
}

// All or nothing: what is refused leaves a target that takes the right bytes.
TEST(AcceleratorMigratableTest, CorruptMutableDataChangesNothing) {
  AcceleratorHost source(1);
  Use(source);
  const std::string immutable_data = ImmutableOf(source);
  const std::string good = MutableOf(source);
  AcceleratorHost target(2);
  ASSERT_TRUE(target.migratable.Prepare(Role::kTarget).ok());
  ASSERT_TRUE(
      target.migratable.RestoreImmutable(BlobBytes(immutable_data)).ok());
  size_t refused = 0;
  const auto try_blob = [&](const VirtualFunctionState& state) {
    const absl::Status status = target.migratable.RestoreMutable(
        BlobBytes(SerializeVirtualFunctionState(state)));
    EXPECT_FALSE(status.ok());
    ++refused;
  };
  const VirtualFunctionState state =
      *ParseVirtualFunctionState(BlobBytes(good));
  const std::vector<std::function<void(VirtualFunctionState*)>> spoils = {
      [](auto* s) { s->accelerator.registers[accelerator::kRandom] = 0; },
      [](auto* s) { s->accelerator.registers[accelerator::kFailed] = 9; },
      [](auto* s) { s->accelerator.registers[6] = 1; },
      [](auto* s) { s->accelerator.progress += 1; },
      [](auto* s) { s->accelerator.progress = 64 << 10; },
      [](auto* s) { s->accelerator.progress = 0; },
      [](auto* s) { s->accelerator.queue.clear(); },
      [](auto* s) { s->accelerator.queue.front().command.size_bytes = 0; },
      [](auto* s) { s->accelerator.queue.resize(257); },
      [](auto* s) { s->interrupts.reset(); },
      [](auto* s) { s->interrupts->entries.pop_back(); },
      [](auto* s) { s->interrupts->entries.push_back({}); },
      [](auto* s) { s->interrupts->pending.Set(10); },
      [](auto* s) { s->config.clear(); },
      [](auto* s) { s->config[0] ^= 1; },
      [](auto* s) { s->config.pop_back(); },
  };
  for (const auto& spoil : spoils) {
    VirtualFunctionState spoiled = state;
    spoil(&spoiled);
    try_blob(spoiled);
    EXPECT_TRUE(target.accelerator.is_new()) << refused;
  }
  for (size_t cut = 0; cut < good.size(); ++cut) {
    const std::string blob = good.substr(0, cut);
    EXPECT_FALSE(target.migratable.RestoreMutable(BlobBytes(blob)).ok()) << cut;
  }
  EXPECT_TRUE(target.migratable.RestoreMutable(BlobBytes(good)).ok());
}

}  // namespace
}  // namespace ferrybus::vsp
