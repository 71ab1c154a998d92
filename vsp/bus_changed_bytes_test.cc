// SPDX-License-Identifier: MIT
//
// A saved bus that somebody has changed, restored.

#include <algorithm>

#include "absl/status/status.h"
#include "ferrybus/savestate/frame.h"
#include "ferrybus/savestate/frame_fixup.h"
#include "ferrybus/vsp/bus_move_test_util.h"
#include "ferrybus/vsp/bus_test_util.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

// Everything in one state: packets in flight, queued, awaiting, a faulted
// channel, a GPADL in the making, a message for the guest.
class ChangedBytesTest : public BusMoveTest {
 protected:
  ChangedBytesTest() {
    guest_.Connect(*bus_);
    guest_.Request(guest_.Open(*bus_, 1), 2);
    guest_.Open(*bus_, 2).end.endpoint->Suspend();
    guest_.Pump(*bus_);
    for (int i = 0; i < 3; ++i) {
      const std::string payload(2000, 'q');
      EXPECT_EQ(other_.channel->Send(Packet(payload, 5)), SendStatus::kOk);
    }
    other_.channel->Flush();
    (void)guest_.StartGpadl(2, 30);
    (void)bus_->HandleMessage(guest_.connection.outgoing_front(), 1);
    saved_ = Save();
    const absl::Span<std::byte> ram =
        guest_.memory->Translate(0, guest_.memory->page_count() * 4096);
    ram_.assign(ram.begin(), ram.end());
  }

  void ResetMemory() {
    const absl::Span<std::byte> ram = guest_.memory->Translate(0, ram_.size());
    std::copy(ram_.begin(), ram_.end(), ram.begin());
  }

  // Restores; what is taken is run a little.  True: it was taken.
  bool Try(const std::string& bytes) {
    next_device_.held.clear();
    next_other_.held.clear();
    if (!Restore(bytes, NextDevices()).ok()) {
      EXPECT_TRUE(next_device_.held.empty() && next_other_.held.empty());
      return false;
    }
    EXPECT_TRUE(bus_->Save().ok()) << "taken, but cannot be saved";
    bus_->Start();
    next_device_.AnswerAll();
    next_other_.AnswerAll();
    for (int i = 0; i < 4; ++i) {
      (void)bus_->Poll();
      while (bus_->has_outgoing()) {
        (void)bus_->outgoing_front();
        bus_->PopOutgoing();
      }
    }
    bus_.reset();
    next_device_.held.clear();
    next_other_.held.clear();
    ResetMemory();
    return true;
  }

  std::string saved_;
  std::vector<std::byte> ram_;
};

// bad:S1 bad:S2 promise:P8
TEST_F(ChangedBytesTest, PrefixesAndFlipsAreRefusedByTheirChecksums) {
  for (size_t size = 0; size < saved_.size(); ++size) {
    EXPECT_FALSE(Try(saved_.substr(0, size))) << size;
  }
  for (size_t bit = 0; bit < saved_.size() * 8; bit += 5) {
    std::string flipped = saved_;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    EXPECT_FALSE(Try(flipped)) << bit;
  }
  EXPECT_TRUE(Try(saved_));
}

// bad:S3 bad:S15 bad:S16 promise:P4 promise:P8
TEST_F(ChangedBytesTest, FlipsUnderGoodChecksumsAreRefusedOrWork) {
  int taken = 0;
  int tried = 0;
  for (size_t bit = 0; bit < saved_.size() * 8; ++bit) {
    // The inside of long payloads says nothing new.
    const size_t byte = bit / 8;
    if (byte > 0 && saved_[byte] == 'q' && saved_[byte - 1] == 'q') continue;
    std::string flipped = saved_;
    flipped[byte] = static_cast<char>(flipped[byte] ^ (1 << bit % 8));
    savestate::FixChecksums(&flipped);
    ++tried;
    if (!Try(flipped)) continue;
    ++taken;
    // What was saved is still good on the memory it was saved with.
    if (taken % 64 != 0) continue;
    EXPECT_TRUE(Try(saved_));
  }
  EXPECT_GT(taken, 100);
  EXPECT_GT(tried, 2 * taken);
  // After all that was refused, too.
  EXPECT_TRUE(Try(saved_));
}

// bad:S7 bad:S10 bad:S11
TEST_F(ChangedBytesTest, SectionsMustBeThoseOfTheOpenChannels) {
  const absl::StatusOr<savestate::Frame> frame =
      savestate::Frame::Parse(AsBytes(saved_));
  ASSERT_TRUE(frame.ok());
  ASSERT_EQ(frame->sections().size(), 3u);
  const auto body = [&](size_t index) {
    return testing::ToString(frame->sections()[index].body);
  };
  const auto with =
      [&](std::initializer_list<std::pair<uint64_t, std::string>> channels,
          bool connection = true) {
        savestate::FrameWriter writer;
        if (connection) {
          writer.AddSection("connection", 0, 1,
                            savestate::SectionKind::kRequired, body(0));
        }
        for (const auto& [id, bytes] : channels) {
          writer.AddSection("channel", id, 1, savestate::SectionKind::kRequired,
                            bytes);
        }
        return *writer.Finish();
      };
  EXPECT_TRUE(Try(with({{1, body(1)}, {2, body(2)}})));
  EXPECT_FALSE(Try(with({{1, body(1)}})));
  EXPECT_FALSE(Try(with({{1, body(1)}, {2, body(2)}, {3, body(1)}})));
  EXPECT_FALSE(Try(with({{1, body(1)}, {3, body(2)}})));
  EXPECT_FALSE(Try(with({{1, body(1)}, {2, body(2)}}, false)));
  EXPECT_FALSE(Try(with({{1, body(1)}, {2, ""}})));
  // Each other's: the rings disagree, and both come up faulted.
  observer_.faults.clear();
  EXPECT_TRUE(Try(with({{1, body(2)}, {2, body(1)}})));
  EXPECT_EQ(observer_.faults.size(), 2u);
}

}  // namespace
}  // namespace ferrybus::vsp
