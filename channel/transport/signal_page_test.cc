// SPDX-License-Identifier: MIT

#include "ferrybus/channel/transport/signal_page.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "ferrybus/channel/transport/unique_fd.h"
#include "gtest/gtest.h"

namespace ferrybus {
namespace {

UniqueFd Page(off_t bytes, unsigned seals) {
  UniqueFd fd(memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  EXPECT_EQ(ftruncate(fd.get(), bytes), 0);
  EXPECT_EQ(fcntl(fd.get(), F_ADD_SEALS, seals), 0);
  return fd;
}

class SignalPageTest : public ::testing::Test {
 protected:
  SignalPageTest()
      : fd_(Page(4096, F_SEAL_SHRINK)),
        event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
        page_(*SignalPage::Map(fd_.get())),
        sender_(page_, SignalDirection::kGuestToHost, event_.get()),
        receiver_(page_, SignalDirection::kGuestToHost, event_.get()) {}

  std::vector<uint32_t> Take() {
    std::vector<uint32_t> channels;
    const bool any =
        receiver_.Take([&](uint32_t channel) { channels.push_back(channel); });
    EXPECT_EQ(any, !channels.empty());
    return channels;
  }
  bool IsReadable() const {
    pollfd fd = {event_.get(), POLLIN, 0};
    return poll(&fd, 1, 0) == 1;
  }

  UniqueFd fd_;
  UniqueFd event_;
  SignalPage page_;
  SignalSender sender_;
  SignalReceiver receiver_;
};

// bad:R31
TEST_F(SignalPageTest, OnlyASealedPageIsMapped) {
  EXPECT_EQ(SignalPage::Map(Page(4096, 0).get()).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_FALSE(SignalPage::Map(Page(0, F_SEAL_SHRINK).get()).ok());
  EXPECT_FALSE(SignalPage::Map(Page(8192, F_SEAL_SHRINK).get()).ok());
  EXPECT_FALSE(SignalPage::Map(event_.get()).ok());
  EXPECT_FALSE(SignalPage::Map(-1).ok());
}

TEST_F(SignalPageTest, ASignalIsTakenOnce) {
  sender_.Ring(1);
  sender_.Ring(2047);
  sender_.Ring(1);
  sender_.Ring(64);
  EXPECT_TRUE(IsReadable());
  EXPECT_EQ(Take(), (std::vector<uint32_t>{1, 64, 2047}));
  EXPECT_FALSE(IsReadable());
  EXPECT_TRUE(Take().empty());
  sender_.Ring(1);
  EXPECT_TRUE(IsReadable());
  EXPECT_EQ(Take(), std::vector<uint32_t>{1});
}

TEST_F(SignalPageTest, ChannelsThatCannotBeAreNotSignalled) {
  sender_.Ring(2048);
  sender_.Ring(0xffffffff);
  EXPECT_FALSE(IsReadable());
  EXPECT_TRUE(Take().empty());
}

TEST_F(SignalPageTest, TheDirectionsDoNotMeet) {
  SignalSender other(page_, SignalDirection::kHostToGuest, event_.get());
  for (uint32_t i = 0; i < 2048; ++i) other.Ring(i);
  EXPECT_TRUE(Take().empty());
  EXPECT_EQ(page_.words(SignalDirection::kGuestToHost) -
                page_.words(SignalDirection::kHostToGuest),
            256);
}

// bad:C19
TEST_F(SignalPageTest, AHostileGuestCanSetEveryBitAndNoMore) {
  std::byte* const bytes =
      reinterpret_cast<std::byte*>(page_.words(SignalDirection::kHostToGuest));
  for (size_t i = 0; i < 4096; ++i) bytes[i] = std::byte{0xff};
  EXPECT_EQ(Take().size(), 2048u);
  EXPECT_TRUE(Take().empty());
}

// The owner before may have cleared the eventfd and then died.
// promise:P3
TEST_F(SignalPageTest, ABitWithoutAWakeUpIsStillTaken) {
  sender_.Ring(5);
  uint64_t count;
  ASSERT_EQ(read(event_.get(), &count, sizeof(count)), 8);
  EXPECT_EQ(Take(), std::vector<uint32_t>{5});
}

// The peer can make the descriptor that it gave us block.
// promise:P8
TEST_F(SignalPageTest, TakingNeverBlocks) {
  ASSERT_EQ(fcntl(event_.get(), F_SETFL, 0), 0);
  EXPECT_TRUE(Take().empty());
  sender_.Ring(3);
  EXPECT_EQ(Take(), std::vector<uint32_t>{3});
}

TEST_F(SignalPageTest, AFullCounterIsAwakeEnough) {
  const uint64_t most = 0xfffffffffffffffe;
  ASSERT_EQ(write(event_.get(), &most, sizeof(most)), 8);
  sender_.Ring(3);
  EXPECT_EQ(Take(), std::vector<uint32_t>{3});
}

TEST_F(SignalPageTest, AMovedPageIsUnmappedOnce) {
  SignalPage moved = std::move(page_);
  uint64_t* const words = moved.words(SignalDirection::kHostToGuest);
  words[0] = 1;
  page_ = std::move(moved);
  EXPECT_EQ(page_.words(SignalDirection::kHostToGuest), words);
}

// promise:P3 promise:P13
TEST_F(SignalPageTest, NoSignalIsLostBetweenThreads) {
  constexpr uint64_t kRounds = 20000;
  std::atomic<uint64_t> sent[2] = {0, 0};
  std::atomic<uint64_t> seen[2] = {0, 0};
  std::vector<std::thread> senders;
  for (uint32_t id = 0; id < 2; ++id) {
    senders.emplace_back([&, id] {
      for (uint64_t i = 1; i <= kRounds; ++i) {
        sent[id] = i;
        sender_.Ring(70 + id);
        while (seen[id] < i) std::this_thread::yield();
      }
    });
  }
  while (seen[0] < kRounds || seen[1] < kRounds) {
    pollfd fd = {event_.get(), POLLIN, 0};
    if (poll(&fd, 1, 10000) != 1) {
      ADD_FAILURE() << "no wake-up after " << seen[0] << " and " << seen[1];
      seen[0] = seen[1] = kRounds;
      break;
    }
    receiver_.Take([&](uint32_t channel) {
      seen[channel - 70] = sent[channel - 70].load();
    });
  }
  for (std::thread& sender : senders) sender.join();
}

}  // namespace
}  // namespace ferrybus
