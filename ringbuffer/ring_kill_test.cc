// SPDX-License-Identifier: MIT
//
// A process that writes into a ring is killed at any moment: whoever reads
// finds whole packets, in order, and then none; never a piece of one.
//
//   FERRYBUS_KILLS=N   more or fewer of them

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "ferrybus/ringbuffer/ring_consumer.h"
#include "ferrybus/ringbuffer/ring_producer.h"
#include "ferrybus/ringbuffer/testing/test_ring.h"
#include "ferrybus/ringbuffer/testing/test_seed.h"
#include "gtest/gtest.h"

namespace ferrybus::ringbuffer {
namespace {

using testing::Bytes;
using testing::Pattern;
using testing::TestRing;
using testing::TestSeed;

// Long ones, made before: most of the writer's time goes into the ring.
const Bytes& PayloadOf(uint64_t number) {
  static const std::vector<Bytes>& all = *[] {
    auto* const made = new std::vector<Bytes>;
    for (size_t i = 0; i < 16; ++i) {
      made->push_back(Pattern(3200 - 200 * i, i));
    }
    return made;
  }();
  return all[number % all.size()];
}

// Until it is killed.
[[noreturn]] void WriteForEver(RingView view) {
  RingProducer producer(view);
  for (uint64_t next = 0;;) {
    const WriteResult result =
        producer.Write({PacketType::kDataInBand, 0, next}, {}, PayloadOf(next));
    if (result == WriteResult::kOk) {
      (void)producer.Publish();
      ++next;
    } else if (result == WriteResult::kFull) {
      std::this_thread::yield();
    } else {
      _exit(1);
    }
  }
}

class Reader {
 public:
  explicit Reader(RingView view) : consumer_(view, 4096) {}

  // False: the ring is empty, or what it has is wrong.
  bool TakeOne() {
    PacketView packet;
    last_ = consumer_.Next(&packet);
    if (last_ != ReadResult::kOk) return false;
    Bytes payload(packet.payload.size());
    packet.payload.CopyTo(absl::MakeSpan(payload));
    EXPECT_EQ(packet.transaction_id, taken_);
    const bool is_whole = payload == PayloadOf(taken_);
    EXPECT_TRUE(is_whole) << "packet " << taken_;
    ++taken_;
    (void)consumer_.Release();
    return is_whole;
  }
  ReadResult last() const { return last_; }
  uint64_t taken() const { return taken_; }

 private:
  RingConsumer consumer_;
  ReadResult last_ = ReadResult::kOk;
  uint64_t taken_ = 0;
};

int KillCount() {
  const char* const text = std::getenv("FERRYBUS_KILLS");
  return text != nullptr ? std::atoi(text) : 200;
}

// bad:K2
TEST(RingKillTest, AKilledWriterLeavesWholePacketsOrNone) {
  std::mt19937_64 random(TestSeed("//ringbuffer:ring_kill_test", "*"));
  (void)PayloadOf(0);
  uint64_t taken = 0;
  for (int kill_number = 0; kill_number < KillCount(); ++kill_number) {
    TestRing ring(2 * 4096);
    Reader reader(ring.view());
    // After so many packets, and then some more of its steps.
    const uint64_t wanted = random() % 8;
    const uint64_t spins = random() % 3000;
    const pid_t writer = fork();
    ASSERT_GE(writer, 0);
    if (writer == 0) WriteForEver(ring.view());
    while (reader.taken() < wanted) {
      if (!reader.TakeOne() && reader.last() != ReadResult::kEmpty) break;
    }
    for (uint64_t n = spins; n > 0; --n) asm volatile("");
    kill(writer, SIGKILL);
    int status = 0;
    ASSERT_EQ(waitpid(writer, &status, 0), writer);
    ASSERT_TRUE(WIFSIGNALED(status)) << status;
    while (reader.TakeOne()) {
    }
    ASSERT_EQ(reader.last(), ReadResult::kEmpty) << "kill " << kill_number;
    ASSERT_FALSE(HasFailure()) << "kill " << kill_number;
    taken += reader.taken();
  }
  std::printf("%llu whole packets of %d killed writers\n",
              static_cast<unsigned long long>(taken), KillCount());
  EXPECT_GT(taken, 0u);
}

}  // namespace
}  // namespace ferrybus::ringbuffer
