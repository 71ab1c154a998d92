// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/virtual_function/msix_table.h"

#include <cstdint>
#include <vector>

#include "ferrybus/vsp/virtual_function/msix_test_util.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// doc:MX1
TEST(MsixTableTest, EntriesBeginMaskedAndZero) {
  MsixFixture f(2048);
  for (uint32_t i = 0; i < 2048; ++i) {
    EXPECT_EQ(ReadEntry(f.table, i * 16), 0u);
    EXPECT_EQ(ReadEntry(f.table, i * 16 + 8), uint64_t{1} << 32);
  }
  EXPECT_EQ(f.table.ReadControl(), 2047);
  EXPECT_EQ(f.table.pending_size_bytes(), 256u);
}

// doc:MX2 bad:M3
TEST(MsixTableTest, OnlyAlignedAccessesOfFourAndEightBytes) {
  MsixFixture f(2);
  f.Start();
  const MsixCounters before = f.table.counters();
  uint64_t refused = 0;
  for (uint64_t offset = 0; offset < 32; ++offset) {
    for (size_t size = 0; size <= 17; ++size) {
      if ((size == 4 || size == 8) && offset % size == 0) continue;
      std::vector<std::byte> bytes(size, std::byte{0});
      EXPECT_EQ(f.table.WriteTable(offset, bytes), MsixAccess::kBadSize);
      EXPECT_EQ(f.table.ReadTable(offset, absl::MakeSpan(bytes)),
                MsixAccess::kBadSize);
      EXPECT_EQ(bytes, std::vector<std::byte>(size, std::byte{0xff}));
      EXPECT_EQ(f.table.ReadPending(offset % 8, absl::MakeSpan(bytes)),
                offset % 8 == 0 && size == 8 ? MsixAccess::kDone
                                             : MsixAccess::kBadSize);
      refused += 3;
    }
  }
  const MsixCounters after = f.table.counters();
  EXPECT_EQ(after.refused_accesses, before.refused_accesses + refused);
  EXPECT_EQ(after.guest_writes, before.guest_writes);
  EXPECT_EQ(ReadEntry(f.table, 16), f.AddressOf(1));
  // Eight bytes at 12 would span two entries.
  EXPECT_EQ(WriteEntry<uint64_t>(f.table, 12, 0), MsixAccess::kBadSize);
  EXPECT_THAT(f.host.writes, IsEmpty());
}

// bad:M1 doc:MX21
TEST(MsixTableTest, IndexBeyondTheTableIsRefused) {
  for (uint32_t vectors : {1u, 16u, 2047u, 2048u}) {
    MsixFixture f(vectors);
    f.Start();
    for (uint64_t index : std::vector<uint64_t>{vectors, 2047, 2048, 0xffffffff,
                                                ~uint64_t{0} / 16}) {
      if (index < vectors) continue;
      EXPECT_EQ(WriteEntry<uint32_t>(f.table, index * 16, 0),
                MsixAccess::kOutside);
      EXPECT_EQ(WriteEntry<uint64_t>(f.table, index * 16 + 8, 0),
                MsixAccess::kOutside);
      EXPECT_EQ(ReadEntry(f.table, index * 16), ~uint64_t{0});
      EXPECT_EQ(f.table.Raise(static_cast<uint32_t>(index)),
                MsixRaise::kNoSuchVector);
      f.table.Withdraw(static_cast<uint32_t>(index));
    }
    EXPECT_EQ(ReadPendingWord(f.table, f.table.pending_size_bytes()),
              ~uint64_t{0});
    EXPECT_THAT(f.TakeSent(), IsEmpty());
    EXPECT_THAT(f.host.writes, IsEmpty());
  }
}

// doc:MX3 doc:MX4
TEST(MsixTableTest, FunctionMaskHoldsBackAndLeavesTheVectorsBits) {
  MsixFixture f(3);
  f.Start();
  f.Mask(1);
  (void)f.table.WriteControl(MsixTable::kEnable | MsixTable::kFunctionMask);
  EXPECT_EQ(f.table.ReadControl(), 0xc002);
  for (uint32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(f.table.Raise(i), MsixRaise::kPending);
    EXPECT_EQ(ReadEntry(f.table, i * 16 + 8) >> 32, i == 1 ? 1u : 0u);
  }
  EXPECT_EQ(ReadPendingWord(f.table, 0), 7u);
  EXPECT_THAT(f.TakeSent(), IsEmpty());
}

// doc:MX5 bad:M4
TEST(MsixTableTest, ExactlyOneInterruptFollowsAnUnmask) {
  MsixFixture f(70);
  f.Start();
  f.Mask(69);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(f.table.Raise(69), MsixRaise::kPending);
  }
  EXPECT_EQ(ReadPendingWord(f.table, 8), 1u << 5);
  f.Unmask(69);
  EXPECT_THAT(f.TakeSent(), ElementsAre(69));
  EXPECT_EQ(ReadPendingWord(f.table, 8), 0u);
  f.Mask(69);
  f.Unmask(69);
  EXPECT_THAT(f.TakeSent(), IsEmpty());
  // Clearing the function mask lets many go, those that are masked stay.
  (void)f.table.WriteControl(MsixTable::kEnable | MsixTable::kFunctionMask);
  f.Mask(2);
  for (uint32_t i : {0, 2, 64, 2, 0}) (void)f.table.Raise(i);
  f.Enable();
  EXPECT_THAT(f.TakeSent(), ElementsAre(0, 64));
  f.Unmask(2);
  EXPECT_THAT(f.TakeSent(), ElementsAre(2));
}

// doc:MX6
TEST(MsixTableTest, WithdrawnInterruptIsNotSent) {
  MsixFixture f(1);
  f.Start();
  f.Mask(0);
  (void)f.table.Raise(0);
  f.table.Withdraw(0);
  EXPECT_EQ(ReadPendingWord(f.table, 0), 0u);
  f.Unmask(0);
  EXPECT_THAT(f.TakeSent(), IsEmpty());
}

// doc:MX7
TEST(MsixTableTest, UnmaskedEntryChangesByWholeAccesses) {
  MsixFixture f(1);
  f.Start();
  const uint64_t address = kInterruptRange + 0x5000;
  (void)WriteEntry<uint32_t>(f.table, 0, static_cast<uint32_t>(address));
  EXPECT_EQ(f.table.Raise(0), MsixRaise::kSent);
  EXPECT_EQ(f.host.sent.back().second,
            (MsixMessage{f.host.ToHost(address), f.DataOf(0)}));
  // Half of a new address that is no interrupt: nothing goes anywhere.
  (void)WriteEntry<uint32_t>(f.table, 4, 7);
  EXPECT_EQ(f.table.Raise(0), MsixRaise::kPending);
  EXPECT_TRUE(f.host.entries[0].is_masked());
  EXPECT_EQ(f.host.entries[0].address, 0u);
  (void)WriteEntry<uint32_t>(f.table, 4, 0);
  EXPECT_THAT(f.TakeSent(), ElementsAre(0, 0));
}

// doc:MX8
TEST(MsixTableTest, ReservedControlBitsAreKept) {
  MsixFixture f(1);
  f.Start();
  (void)WriteEntry<uint32_t>(f.table, 12, 0xabcd1230);
  EXPECT_EQ(ReadEntry(f.table, 8) >> 32, 0xabcd1230u);
  EXPECT_EQ(f.host.entries[0].vector_control, 0xabcd1230u);
}

// doc:MX9
TEST(MsixTableTest, PendingBitsAreReadOnly) {
  MsixFixture f(65);
  (void)f.table.Raise(0);
  (void)f.table.Raise(64);
  EXPECT_EQ(f.table.pending_size_bytes(), 16u);
  const std::vector<std::byte> ones(8, std::byte{0xff});
  EXPECT_EQ(f.table.WritePending(0, ones), MsixAccess::kReadOnly);
  EXPECT_EQ(f.table.WritePending(8, ones), MsixAccess::kReadOnly);
  EXPECT_EQ(f.table.WritePending(16, ones), MsixAccess::kOutside);
  EXPECT_EQ(f.table.WritePending(1, ones), MsixAccess::kBadSize);
  EXPECT_EQ(ReadPendingWord(f.table, 0), 1u);
  EXPECT_EQ(ReadPendingWord(f.table, 8), 1u);
  uint32_t high = 5;
  EXPECT_EQ(f.table.ReadPending(
                12, absl::MakeSpan(reinterpret_cast<std::byte*>(&high), 4)),
            MsixAccess::kDone);
  EXPECT_EQ(high, 0u);
}

// doc:MX10
TEST(MsixTableTest, DisabledFunctionSendsNothingAndKeepsItsTable) {
  MsixFixture f(1);
  f.Start();
  (void)f.table.WriteControl(0);
  EXPECT_EQ(f.table.Raise(0), MsixRaise::kPending);
  EXPECT_EQ(ReadEntry(f.table, 0), f.AddressOf(0));
  (void)WriteEntry<uint32_t>(f.table, 8, 99);
  EXPECT_THAT(f.host.writes, IsEmpty());
  f.Enable();
  ASSERT_EQ(f.host.sent.size(), 1u);
  EXPECT_EQ(f.host.sent[0].second.data, 99u);
}

// doc:MX11 doc:MX12
TEST(MsixTableTest, VectorsMayShareAMessage) {
  MsixFixture f(2);
  f.Start();
  f.Mask(1);
  (void)WriteEntry<uint64_t>(f.table, 16, f.AddressOf(0));
  (void)WriteEntry<uint64_t>(f.table, 24, f.DataOf(0));  // and unmasks
  EXPECT_EQ(f.table.Raise(0), MsixRaise::kSent);
  EXPECT_EQ(f.table.Raise(1), MsixRaise::kSent);
  ASSERT_EQ(f.host.sent.size(), 2u);
  EXPECT_EQ(f.host.sent[0].second, f.host.sent[1].second);
}

// doc:MX14 doc:MX16 doc:MX17
TEST(MsixTableTest, WholeEntriesInHostFormReachTheDeviceAndReadsDoNot) {
  MsixFixture f(4);
  (void)f.table.Resume();
  f.Enable();
  (void)WriteEntry<uint32_t>(f.table, 32, kInterruptRange + 0x40);
  (void)WriteEntry<uint32_t>(f.table, 36, 0);
  (void)WriteEntry<uint32_t>(f.table, 40, 0xdeadbeef);
  EXPECT_THAT(f.host.writes, IsEmpty());  // masked: the device need not know
  f.Unmask(2);
  ASSERT_EQ(f.host.writes.size(), 1u);
  EXPECT_EQ(f.host.writes[0].first, 2u);
  EXPECT_EQ(f.host.writes[0].second,
            (MsixEntry{f.host.ToHost(kInterruptRange + 0x40), 0xdeadbeef, 0}));
  const uint64_t maps = f.host.maps;
  EXPECT_EQ(ReadEntry(f.table, 32), kInterruptRange + 0x40);
  EXPECT_EQ(ReadEntry(f.table, 40), 0xdeadbeefu);
  EXPECT_EQ(f.host.maps, maps);
  EXPECT_EQ(f.host.writes.size(), 1u);
}

TEST(MsixTableTest, DeliversEveryWriteIfAskedTo) {
  MsixFixture f(MsixOptions{.vectors = 1, .deliver_every_write = true});
  (void)f.table.Resume();
  for (int i = 0; i < 3; ++i) (void)WriteEntry<uint32_t>(f.table, 8, 5);
  EXPECT_EQ(f.host.writes.size(), 3u);
  f.table.Pause();
  for (int i = 0; i < 3; ++i) (void)WriteEntry<uint32_t>(f.table, 8, 6);
  EXPECT_EQ(f.host.writes.size(), 3u);
  (void)f.table.Resume();
  ASSERT_EQ(f.host.writes.size(), 4u);
  EXPECT_EQ(f.host.writes[3].second.data, 6u);
}

// bad:M2
TEST(MsixTableTest, ReservedBitsAreDroppedOrRefused) {
  MsixOptions options = {.vectors = 1, .data_bits = 0xffff};
  MsixFixture dropping(options);
  dropping.Start();
  EXPECT_EQ(WriteEntry<uint64_t>(dropping.table, 0, kInterruptRange + 3),
            MsixAccess::kDone);
  EXPECT_EQ(WriteEntry<uint32_t>(dropping.table, 8, 0xabcd1234),
            MsixAccess::kDone);
  EXPECT_EQ(ReadEntry(dropping.table, 0), kInterruptRange);
  EXPECT_EQ(ReadEntry(dropping.table, 8), 0x1234u);
  EXPECT_EQ(dropping.host.entries[0].data, 0x1234u);

  options.reserved_bits = MsixReservedBits::kRefuse;
  MsixFixture refusing(options);
  refusing.Start();
  const uint64_t before = refusing.table.counters().refused_accesses;
  EXPECT_EQ(WriteEntry<uint64_t>(refusing.table, 0, kInterruptRange + 1),
            MsixAccess::kReservedBits);
  EXPECT_EQ(WriteEntry<uint32_t>(refusing.table, 8, 0x10000),
            MsixAccess::kReservedBits);
  EXPECT_EQ(ReadEntry(refusing.table, 0), refusing.AddressOf(0));
  EXPECT_EQ(ReadEntry(refusing.table, 8), refusing.DataOf(0));
  EXPECT_EQ(refusing.table.counters().refused_accesses, before + 2);
}

// bad:M2
TEST(MsixTableTest, AddressWithoutAMessageKeepsTheVectorSilent) {
  MsixFixture f(2);
  f.Start();
  (void)WriteEntry<uint64_t>(f.table, 0, 0x123456000);  // guest RAM, say
  EXPECT_EQ(f.table.Raise(0), MsixRaise::kPending);
  EXPECT_EQ(f.table.Raise(1), MsixRaise::kSent);
  ASSERT_EQ(f.host.writes.size(), 1u);
  EXPECT_EQ(f.host.writes[0].second, (MsixEntry{0, f.DataOf(0), 1}));
  EXPECT_EQ(f.table.counters().unmapped_messages, 1u);
  EXPECT_EQ(f.table.last_failure().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(f.table.last_failure().message()),
              ::testing::AllOf(::testing::HasSubstr("vector 0"),
                               ::testing::HasSubstr("0x123456000"),
                               ::testing::HasSubstr("no interrupt is there")));
  EXPECT_EQ(ReadEntry(f.table, 0), 0x123456000u);
  EXPECT_EQ(ReadEntry(f.table, 8), f.DataOf(0));
  // Writing it again asks the host again, the device not.
  (void)WriteEntry<uint64_t>(f.table, 0, 0x123456000);
  EXPECT_EQ(f.table.counters().unmapped_messages, 2u);
  EXPECT_EQ(f.host.writes.size(), 1u);
  f.TakeSent();
  (void)WriteEntry<uint64_t>(f.table, 0, f.AddressOf(0));
  EXPECT_THAT(f.TakeSent(), ElementsAre(0));
}

TEST(MsixTableTest, EntryThatTheDeviceRefusesIsSilentUntilItTakesIt) {
  MsixFixture f(1);
  f.Start();
  f.host.refusal = absl::InternalError("firmware is busy");
  (void)WriteEntry<uint32_t>(f.table, 8, 7);
  EXPECT_EQ(f.table.Raise(0), MsixRaise::kPending);
  EXPECT_EQ(f.table.counters().device_refusals, 1u);
  EXPECT_EQ(f.table.last_failure().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(f.table.Rewrite().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(f.TakeSent(), IsEmpty());
  f.host.refusal = absl::OkStatus();
  (void)WriteEntry<uint32_t>(f.table, 8, 7);
  ASSERT_EQ(f.host.sent.size(), 1u);
  EXPECT_EQ(f.host.sent[0].second.data, 7u);
}

TEST(MsixTableTest, MaskThatTheDeviceRefusedIsDeliveredBeforeAnythingElse) {
  MsixFixture f(1);
  f.Start();
  f.host.refusal = absl::InternalError("firmware is busy");
  f.Mask(0);
  f.host.refusal = absl::OkStatus();
  // Masked before and after, but the device does not know.
  (void)WriteEntry<uint32_t>(f.table, 8, 9);
  EXPECT_TRUE(f.host.entries[0].is_masked());
  EXPECT_EQ(f.host.entries[0].data, 9u);
}

TEST(MsixTableTest, ResetForgetsEverything) {
  MsixFixture f(2);
  f.Start();
  f.Mask(1);
  (void)f.table.Raise(1);
  f.table.Reset();
  EXPECT_EQ(f.table.ReadControl(), 1);
  EXPECT_EQ(ReadEntry(f.table, 0), 0u);
  EXPECT_EQ(ReadEntry(f.table, 8), uint64_t{1} << 32);
  EXPECT_EQ(ReadPendingWord(f.table, 0), 0u);
  // A device that was not reset does not fire from what it had.
  f.Enable();
  EXPECT_TRUE(f.host.entries[0].is_masked());
  EXPECT_THAT(f.TakeSent(), IsEmpty());
}

// bad:M8
TEST(MsixTableTest, FloodOfWritesReachesTheDeviceOnce) {
  constexpr uint32_t kWrites = 1'000'000;
  MsixFixture f(2);
  f.Start();
  f.Mask(0);
  f.host.writes.clear();
  for (uint32_t i = 0; i < kWrites; ++i) {
    (void)WriteEntry<uint32_t>(f.table, 8, i);
  }
  EXPECT_THAT(f.host.writes, IsEmpty());
  f.Unmask(0);
  ASSERT_EQ(f.host.writes.size(), 1u);
  EXPECT_EQ(f.host.writes[0].second.data, kWrites - 1);

  f.table.Pause();
  f.host.writes.clear();
  for (uint32_t i = 0; i < kWrites; ++i) {
    (void)WriteEntry<uint32_t>(f.table, 24, i);
    (void)f.table.Raise(1);
  }
  EXPECT_THAT(f.host.writes, IsEmpty());
  (void)f.table.Resume();
  ASSERT_EQ(f.host.writes.size(), 1u);
  EXPECT_EQ(f.host.writes[0].second.data, kWrites - 1);
  EXPECT_THAT(f.TakeSent(), ElementsAre(1));

  // The same value again, running and unmasked: nothing to tell.
  f.host.writes.clear();
  for (uint32_t i = 0; i < kWrites; ++i) {
    (void)WriteEntry<uint32_t>(f.table, 24, kWrites - 1);
  }
  EXPECT_THAT(f.host.writes, IsEmpty());
}

}  // namespace
}  // namespace ferrybus::vsp
