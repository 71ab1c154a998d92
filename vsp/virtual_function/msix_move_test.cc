// SPDX-License-Identifier: MIT

// Tables that move while the guest writes and the device raises.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "ferrybus/vsp/virtual_function/msix_state_persist.h"
#include "ferrybus/vsp/virtual_function/msix_table.h"
#include "ferrybus/vsp/virtual_function/msix_test_util.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// What a vector may be like when an interrupt comes.
enum class Shape { kOpen, kMasked, kFunctionMasked, kDisabled, kChanging };
constexpr Shape kShapes[] = {Shape::kOpen, Shape::kMasked,
                             Shape::kFunctionMasked, Shape::kDisabled,
                             Shape::kChanging};

// A move as steps; at any of them something may happen to whoever owns the
// table then.
class Move {
 public:
  static constexpr int kSteps = 9;  // and then it is over
  static constexpr int kRetireStep = 5;

  explicit Move(Shape shape) : shape_(shape), source_(2), target_(2, 2) {
    source_.Start();
    if (shape == Shape::kMasked) source_.Mask(0);
    if (shape == Shape::kFunctionMasked) {
      (void)source_.table.WriteControl(MsixTable::kEnable |
                                       MsixTable::kFunctionMask);
    }
    if (shape == Shape::kDisabled) (void)source_.table.WriteControl(0);
  }

  void Step(int step) {
    if (step == 1) source_.table.Pause();
    if (step == 2 && shape_ == Shape::kChanging) {
      (void)WriteEntry<uint32_t>(source_.table, 8, 0x77);
    }
    if (step == 3) Save();
    if (step == 4) Parse();
    if (step == kRetireStep) Retire();
    absl::Status status;
    if (step == 6) status = target_.table.Restore(state_);
    if (step == 7) status = target_.table.Rewrite();
    if (step == 8) status = target_.table.Resume();
    EXPECT_TRUE(status.ok()) << status;
  }

  // Here or there: a device whose table has gone raises again on the target.
  void Raise(uint32_t vector) {
    if (source_.table.Raise(vector) == MsixRaise::kRetired) {
      EXPECT_NE(target_.table.Raise(vector), MsixRaise::kRetired);
    }
  }

  void Cancel() { EXPECT_TRUE(source_.table.Resume().ok()); }

  // The guest opens everything: what was raised has come, or comes now.
  std::map<uint32_t, int> Received(bool is_moved) {
    MsixFixture& owner = is_moved ? target_ : source_;
    owner.Unmask(0);
    owner.Enable();
    std::map<uint32_t, int> received;
    for (MsixFixture* f : {&source_, &target_}) {
      for (uint32_t vector : f->TakeSent()) ++received[vector];
    }
    return received;
  }

 private:
  void Save() {
    const auto saved = source_.table.Save();
    ASSERT_TRUE(saved.ok()) << saved.status();
    bytes_ = SerializeMsixState(*saved);
  }
  void Parse() {
    const auto parsed = ParseMsixState(
        {reinterpret_cast<const std::byte*>(bytes_.data()), bytes_.size()});
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    state_ = *parsed;
  }
  // If something came since the save, it is saved once more.
  void Retire() {
    if (source_.table.Retire().ok()) return;
    Save();
    Parse();
    EXPECT_TRUE(source_.table.Retire().ok());
  }

  const Shape shape_;
  MsixFixture source_;
  MsixFixture target_;
  std::string bytes_;
  MsixTableState state_;
};

// bad:M6 doc:MX18
TEST(MsixMoveTest, InterruptAtAnyStepOfAMoveArrives) {
  int cases = 0;
  for (Shape shape : kShapes) {
    for (int at = 0; at <= Move::kSteps; ++at) {
      for (int again = at; again <= Move::kSteps; ++again) {
        Move move(shape);
        for (int step = 0; step <= Move::kSteps; ++step) {
          if (step == at) move.Raise(0);
          if (step == again) move.Raise(0);
          move.Step(step);
        }
        const int received = move.Received(/*is_moved=*/true)[0];
        EXPECT_GE(received, 1) << "raised at " << at << " and " << again;
        EXPECT_LE(received, 2);
        ++cases;
      }
    }
  }
  std::printf("%d cases of raising twice during a move\n", cases);
}

// bad:M6
TEST(MsixMoveTest, OneInterruptArrivesOnceHoweverFarTheMoveGot) {
  int cases = 0;
  for (Shape shape : kShapes) {
    for (int at = 0; at <= Move::kSteps; ++at) {
      // The last: it is not cancelled.
      for (int cancel = 1; cancel <= Move::kRetireStep; ++cancel) {
        const bool is_moved = cancel == Move::kRetireStep;
        Move move(shape);
        for (int step = 0; step <= Move::kSteps; ++step) {
          if (step == cancel && !is_moved) move.Cancel();
          if (step == at) move.Raise(0);
          if (step < cancel || is_moved) move.Step(step);
        }
        EXPECT_THAT(move.Received(is_moved),
                    ElementsAre(::testing::Pair(0u, 1)))
            << "raised at " << at << ", cancelled at " << cancel;
        ++cases;
      }
    }
  }
  std::printf("%d cases of raising once, moved or cancelled\n", cases);
}

// bad:M5 doc:MX18 doc:MX20
TEST(MsixMoveTest, LastWriteOfTheGuestIsWhatTheTargetHas) {
  for (int at = 0; at < 5; ++at) {
    MsixFixture source(2);
    MsixFixture target(2, 2);
    source.Start();
    const uint64_t address = kInterruptRange + 0x100 * (at + 1);
    const auto maybe_write = [&](int step) {
      if (step == at) (void)WriteEntry<uint64_t>(source.table, 16, address);
    };
    maybe_write(0);
    source.table.Pause();
    maybe_write(1);
    MsixTableState state = source.table.Save().value();
    maybe_write(2);
    if (!source.table.Retire().ok()) {
      EXPECT_EQ(at, 2);  // a write behind the save is not lost
      state = source.table.Save().value();
      ASSERT_TRUE(source.table.Retire().ok());
    }
    EXPECT_EQ(WriteEntry<uint64_t>(source.table, 16, 0), MsixAccess::kRetired);
    ASSERT_TRUE(target.table.Restore(state).ok());
    const auto write_on_target = [&](int step) {
      if (step == at) (void)WriteEntry<uint64_t>(target.table, 16, address);
    };
    write_on_target(3);
    ASSERT_TRUE(target.table.Rewrite().ok());
    write_on_target(4);
    ASSERT_TRUE(target.table.Resume().ok());
    EXPECT_EQ(ReadEntry(target.table, 16), address) << at;
    EXPECT_EQ(target.host.entries[1].address, target.host.ToHost(address));
    EXPECT_EQ(target.host.entries[0].address,
              target.host.ToHost(target.AddressOf(0)));
    EXPECT_THAT(source.TakeSent(), IsEmpty());
  }
}

// Notes what comes first.
class OrderedHost final : public MsixHost, public MsixDevice {
 public:
  absl::StatusOr<MsixMessage> MapMessage(const MsixMessage& guest) override {
    return guest;
  }
  void SendMessage(uint32_t, const MsixMessage&) override {
    writes_before_first_send = std::min(writes_before_first_send, writes);
  }
  absl::Status WriteVirtualizedInterrupt(uint32_t, const MsixEntry&) override {
    ++writes;
    return absl::OkStatus();
  }
  uint32_t writes = 0;
  uint32_t writes_before_first_send = ~0u;
};

// doc:MX20
TEST(MsixMoveTest, EveryEntryIsRewrittenBeforeAnythingIsSent) {
  MsixFixture source(200);
  source.Start();
  source.Mask(7);
  source.table.Pause();
  (void)source.table.Raise(0);
  const MsixTableState state = source.table.Save().value();
  for (bool is_rewritten_before : {false, true}) {
    OrderedHost host;
    MsixTable target({.vectors = 200}, &host, &host);
    ASSERT_TRUE(target.Restore(state).ok());
    if (is_rewritten_before) {
      ASSERT_TRUE(target.Rewrite().ok());
      EXPECT_EQ(host.writes, 200u);
      EXPECT_EQ(host.writes_before_first_send, ~0u);
    }
    ASSERT_TRUE(target.Resume().ok());
    EXPECT_EQ(host.writes, 200u);  // masked ones, too
    EXPECT_EQ(host.writes_before_first_send, 200u);
  }
}

TEST(MsixMoveTest, DisabledFunctionIsRewrittenToo) {
  MsixFixture source(3);
  source.Start();
  (void)source.table.WriteControl(0);
  source.table.Pause();
  MsixFixture target(3, 2);
  ASSERT_TRUE(target.table.Restore(source.table.Save().value()).ok());
  ASSERT_TRUE(target.table.Resume().ok());
  EXPECT_EQ(target.host.writes.size(), 3u);
}

TEST(MsixMoveTest, RewriteTellsWhatTheTargetCannotDo) {
  MsixFixture source(3);
  source.Start();
  source.Mask(0);
  (void)WriteEntry<uint64_t>(source.table, 0, 0);  // masked: nobody minds
  (void)WriteEntry<uint64_t>(source.table, 16, 0x5000);
  source.table.Pause();
  const MsixTableState state = source.table.Save().value();
  MsixFixture target(3, 2);
  ASSERT_TRUE(target.table.Restore(state).ok());
  const absl::Status status = target.table.Rewrite();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("vector 1"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("1 have no message"));
  EXPECT_EQ(target.host.writes.size(), 3u);
  // It may run all the same; the vector is silent here as it was there.
  ASSERT_TRUE(target.table.Resume().ok());
  EXPECT_EQ(target.table.Raise(1), MsixRaise::kPending);
  EXPECT_EQ(target.table.Raise(2), MsixRaise::kSent);
}

// bad:M7 bad:S25
TEST(MsixMoveTest, StateOfAnotherSizeIsRefusedNamingBoth) {
  for (uint32_t theirs : {1u, 15u, 17u, 2048u}) {
    MsixFixture source(theirs);
    MsixFixture target(16);
    const absl::Status status =
        target.table.Restore(source.table.Save().value());
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()),
                HasSubstr(absl::StrCat("has ", theirs, " vectors")));
    EXPECT_THAT(std::string(status.message()), HasSubstr("device 16"));
    // Nothing was changed: the right one is taken.
    MsixFixture right(16);
    EXPECT_TRUE(target.table.Restore(right.table.Save().value()).ok());
  }
}

TEST(MsixMoveTest, StateThatNoGuestCouldMakeIsRefused) {
  MsixFixture f(MsixOptions{.vectors = 2, .data_bits = 0xffff});
  const MsixTableState good = f.table.Save().value();
  MsixTableState bad = good;
  bad.entries[1].address = kInterruptRange + 2;
  EXPECT_EQ(f.table.Restore(bad).code(), absl::StatusCode::kInvalidArgument);
  bad = good;
  bad.entries[0].data = 0x10000;
  EXPECT_EQ(f.table.Restore(bad).code(), absl::StatusCode::kInvalidArgument);
  bad = good;
  bad.pending.Set(2);
  EXPECT_EQ(f.table.Restore(bad).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(f.table.Restore(good).ok());
}

TEST(MsixMoveTest, OnlyANewTableIsRestored) {
  MsixFixture f(1);
  const MsixTableState state = f.table.Save().value();
  ASSERT_TRUE(f.table.Restore(state).ok());
  EXPECT_EQ(f.table.Restore(state).code(),
            absl::StatusCode::kFailedPrecondition);
  MsixFixture written(1);
  (void)WriteEntry<uint32_t>(written.table, 8, 1);
  EXPECT_FALSE(written.table.Restore(state).ok());
  MsixFixture run(1);
  ASSERT_TRUE(run.table.Resume().ok());
  EXPECT_FALSE(run.table.Restore(state).ok());
}

TEST(MsixMoveTest, InterruptBeforeTheRestoreStaysPending) {
  MsixFixture source(2);
  source.Start();
  source.table.Pause();
  MsixFixture target(2, 2);
  EXPECT_EQ(target.table.Raise(1), MsixRaise::kPending);
  ASSERT_TRUE(target.table.Restore(source.table.Save().value()).ok());
  ASSERT_TRUE(target.table.Resume().ok());
  EXPECT_THAT(target.TakeSent(), ElementsAre(1));
}

// doc:MX15
TEST(MsixMoveTest, GuestIsAnsweredFromTheShadowForTheWholeLife) {
  MsixFixture f(2);
  const auto write_and_read = [&f](uint32_t data) {
    (void)WriteEntry<uint32_t>(f.table, 8, data);
    return ReadEntry(f.table, 8) & 0xffffffff;
  };
  EXPECT_EQ(write_and_read(1), 1u);  // before it ever runs
  f.Start();
  EXPECT_EQ(write_and_read(2), 2u);
  f.table.Pause();
  EXPECT_EQ(write_and_read(3), 3u);
  ASSERT_TRUE(f.table.Save().ok());
  EXPECT_EQ(write_and_read(4), 4u);
  ASSERT_TRUE(f.table.Resume().ok());
  EXPECT_EQ(write_and_read(5), 5u);
  f.table.Pause();
  ASSERT_TRUE(f.table.Save().ok());
  ASSERT_TRUE(f.table.Retire().ok());
  EXPECT_EQ(write_and_read(6), 5u);  // the table is elsewhere
}

TEST(MsixMoveTest, CallsOutOfOrderAreRefused) {
  MsixFixture f(1);
  f.Start();
  EXPECT_FALSE(f.table.Save().ok());
  EXPECT_FALSE(f.table.Retire().ok());
  f.table.Pause();
  EXPECT_FALSE(f.table.Retire().ok());  // never saved
  ASSERT_TRUE(f.table.Save().ok());
  (void)f.table.Raise(0);
  EXPECT_FALSE(f.table.Retire().ok());
  ASSERT_TRUE(f.table.Save().ok());
  f.table.Withdraw(0);
  EXPECT_FALSE(f.table.Retire().ok());
  ASSERT_TRUE(f.table.Save().ok());
  (void)f.table.WriteControl(0);
  EXPECT_FALSE(f.table.Retire().ok());
  ASSERT_TRUE(f.table.Save().ok());
  ASSERT_TRUE(f.table.Resume().ok());
  f.table.Pause();
  EXPECT_FALSE(f.table.Retire().ok());
  ASSERT_TRUE(f.table.Save().ok());
  ASSERT_TRUE(f.table.Retire().ok());
  EXPECT_FALSE(f.table.Retire().ok());
  EXPECT_FALSE(f.table.Resume().ok());
  EXPECT_FALSE(f.table.Save().ok());
  EXPECT_FALSE(f.table.Rewrite().ok());
  EXPECT_EQ(f.table.Raise(0), MsixRaise::kRetired);
  EXPECT_EQ(f.table.WriteControl(0), MsixAccess::kRetired);
  f.table.Reset();
  EXPECT_EQ(ReadEntry(f.table, 0), f.AddressOf(0));
}

}  // namespace
}  // namespace ferrybus::vsp
