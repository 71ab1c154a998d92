// SPDX-License-Identifier: MIT
//
// Two sides that wait for each other by every policy, on threads and in two
// processes, with full fences and with the asymmetric one: ping-pong, where
// each packet waits for the one before, and a stream through a ring that is
// mostly full or empty.  Nothing stalls, every packet arrives exactly once.
//
// Nothing is timed.  A stall is a time without any progress at all (kStallMs)
// that is far beyond what a loaded machine needs for one packet; the state of
// both control pages is then in the failure.
//
//   FERRYBUS_WAITING_PACKETS=N   packets of a run that sleeps

#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "ferrybus/ringbuffer/asymmetric_access.h"
#include "ferrybus/ringbuffer/sleepers.h"
#include "ferrybus/ringbuffer/testing/test_ring.h"
#include "ferrybus/ringbuffer/testing/test_seed.h"
#include "ferrybus/ringbuffer/waiting.h"
#include "gtest/gtest.h"

namespace ferrybus::ringbuffer {
namespace {

using testing::TestRing;
using testing::TestSeed;

constexpr uint32_t kSize = 4096;
constexpr int kStallMs = 30000;

enum class Traffic { kPingPong, kStream };
enum class Bell { kEventFd, kFutex };
enum class Peers { kThreads, kProcesses };

struct NamedPolicy {
  const char* name;
  WaitPolicy policy;
};
constexpr NamedPolicy kPolicies[] = {
    {"Spin", kSpin},
    {"Yield", kYield},
    {"BackOff", kBackOff},
    {"Sleep", kSleep},
    {"SleepAtOnce", {.sleep = true}},
};

// What one of the two sides shares with the other, in both processes.
struct SideState {
  std::atomic<uint64_t> sent;
  std::atomic<uint64_t> taken;
  std::atomic<uint64_t> rings;
  uint32_t futex;
  char failure[200];
};

struct Shared {
  std::array<SideState, 2> side;
};

uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 33)) * 0xff51afd7ed558ccd;
  return x ^ (x >> 29);
}

// Packet `number` has a length and contents that follow from it.
size_t WordsOf(uint64_t number) { return 1 + Mix(number) % 100; }

// Work, and now and then a nap, so that the sides overtake each other.
void Dawdle(std::mt19937_64& random) {
  const uint64_t dice = random() % 1024;
  if (dice < 64) {
    for (uint64_t n = random() % 2000; n > 0; --n) asm volatile("");
  } else if (dice < 768) {
    // Moves the two halves of a handshake against each other, step by step.
    for (uint64_t n = random() % 128; n > 0; --n) asm volatile("");
  } else if (dice == 1000) {
    const timespec nap = {0, static_cast<long>(random() % 50000)};
    nanosleep(&nap, nullptr);
  }
}

// One side: it sends on one ring and takes from the other, on one bell.
template <class Access, class S>
class Side {
 public:
  Side(const TestRing& out, const TestRing& in, const Access& access,
       const WaitPolicy& policy, S& sleeper, SideState& state, uint64_t seed)
      : producer_(out.view(), access),
        consumer_(in.view(), kSize, access),
        policy_(policy),
        sleeper_(sleeper),
        state_(state),
        random_(seed) {}

  // How the peer is woken.
  int peer_fd = -1;
  uint32_t* peer_word = nullptr;

  bool Send() {
    const uint64_t number = state_.sent.load();
    const size_t words = WordsOf(number);
    for (size_t i = 0; i < words; ++i) payload_[i] = Mix(number + i);
    while (true) {
      const WriteResult result = producer_.Write(
          {PacketType::kDataInBand, 0, number}, {},
          {reinterpret_cast<const std::byte*>(payload_.data()), words * 8});
      if (result == WriteResult::kOk) break;
      if (result != WriteResult::kFull) return Fail("write", producer_.fault());
      Publish();
      const uint64_t wanted = PacketRingBytes(kDescriptorBytes, words * 8);
      const WaitResult waited =
          WaitForRoom(producer_, wanted, policy_, sleeper_);
      if (waited != WaitResult::kReady) return Fail("no room", {});
    }
    ++state_.sent;
    return true;
  }

  void Publish() {
    if (producer_.Publish()) RingPeer();
  }

  // Takes one packet, waiting for it.
  bool Take() {
    BasicPacketView<Access> packet;
    ReadResult result = consumer_.Next(&packet);
    if (result == ReadResult::kEmpty) {
      Release();
      const WaitResult waited = WaitForPackets(consumer_, policy_, sleeper_);
      if (waited != WaitResult::kReady) return Fail("no packet", {});
      result = consumer_.Next(&packet);
    }
    if (result != ReadResult::kOk) return Fail("read", consumer_.fault());
    const uint64_t number = state_.taken.load();
    const size_t words = WordsOf(number);
    if (packet.transaction_id != number || packet.payload.size() != words * 8 ||
        packet.payload.Load64(0) != Mix(number) ||
        packet.payload.Load64(static_cast<uint32_t>(words * 8 - 8)) !=
            Mix(number + words - 1)) {
      return Fail(absl::StrCat("packet ", packet.transaction_id,
                               " where expected is ", number),
                  {});
    }
    ++state_.taken;
    return true;
  }

  void Release() {
    if (consumer_.Release()) RingPeer();
  }

  void Pong(uint64_t packets) {
    for (uint64_t i = 0; i < packets; ++i) {
      if (!Take()) return;
      Release();
      Dawdle(random_);
      if (!Send()) return;
      Publish();
    }
  }
  void Ping(uint64_t packets) {
    for (uint64_t i = 0; i < packets; ++i) {
      if (!Send()) return;
      Publish();
      Dawdle(random_);
      if (!Take()) return;
      Release();
    }
  }
  void Pour(uint64_t packets) {
    while (state_.sent.load() < packets) {
      uint64_t batch = 1 + random_() % 8;
      while (batch-- != 0 && state_.sent.load() < packets) {
        if (!Send()) return;
      }
      Publish();
      Dawdle(random_);
    }
  }
  void Drink(uint64_t packets) {
    while (state_.taken.load() < packets) {
      uint64_t batch = 1 + random_() % 8;
      while (batch-- != 0 && state_.taken.load() < packets) {
        if (!Take()) return;
      }
      Release();
      Dawdle(random_);
    }
  }

 private:
  void RingPeer() {
    ++state_.rings;
    if (peer_word != nullptr) return FutexSleeper::Ring(peer_word);
    const uint64_t one = 1;
    (void)!write(peer_fd, &one, sizeof(one));
  }

  bool Fail(const std::string& what, RingFault fault) {
    std::snprintf(state_.failure, sizeof(state_.failure), "%s, fault: %s",
                  what.c_str(), RingFaultName(fault));
    return false;
  }

  BasicRingProducer<Access> producer_;
  BasicRingConsumer<Access> consumer_;
  const WaitPolicy policy_;
  S& sleeper_;
  SideState& state_;
  std::mt19937_64 random_;
  std::array<uint64_t, 100> payload_;
};

struct Plan {
  Traffic traffic;
  Bell bell;
  Peers peers;
  std::array<WaitPolicy, 2> policies;
  uint64_t packets;
  uint64_t seed;
};

// The two rings and bells, and the run of both sides.
template <class Access>
class Run {
 public:
  Run(const Plan& plan, const Access& access) : plan_(plan), access_(access) {
    void* const memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    EXPECT_NE(memory, MAP_FAILED);
    shared_ = new (memory) Shared();
    for (int i = 0; i < 2; ++i) {
      fds_[i] = eventfd(0, EFD_CLOEXEC | (plan.seed % 2 ? EFD_NONBLOCK : 0));
      auto made = EventFdSleeper::Create(fds_[i]);
      EXPECT_TRUE(made.ok());
      eventfd_sleepers_[i] = *std::move(made);
      futex_sleepers_[i] =
          std::make_unique<FutexSleeper>(&shared_->side[i].futex);
    }
  }
  ~Run() {
    for (int fd : fds_) close(fd);
    munmap(shared_, sizeof(Shared));
  }

  // "" if all went well.
  std::string Go() {
    const pid_t child = plan_.peers == Peers::kProcesses ? fork() : 0;
    if (plan_.peers == Peers::kProcesses && child == 0) {
      // Each process for itself; fork would keep it, too.
      if (!Register(&access_)) _exit(2);
      RunSide(1);
      _exit(shared_->side[1].failure[0] != 0);
    }
    const int sides = plan_.peers == Peers::kThreads ? 2 : 1;
    std::atomic<int> running{sides};
    std::vector<std::thread> threads;
    threads.reserve(sides);
    for (int i = 0; i < sides; ++i) {
      threads.emplace_back([this, i, &running] {
        RunSide(i);
        --running;
      });
    }
    std::string failure = Watch(child, running);
    for (std::thread& thread : threads) thread.join();
    for (const SideState& side : shared_->side) {
      if (side.failure[0] != 0) absl::StrAppend(&failure, side.failure, "; ");
    }
    const bool stream = plan_.traffic == Traffic::kStream;
    const std::array<uint64_t, 2> sent = {plan_.packets,
                                          stream ? 0 : plan_.packets};
    for (int i = 0; i < 2; ++i) {
      if (shared_->side[i].sent == sent[i] &&
          shared_->side[i].taken == sent[1 - i]) {
        continue;
      }
      absl::StrAppend(&failure, "side ", i, " sent ",
                      shared_->side[i].sent.load(), " and took ",
                      shared_->side[i].taken.load(), "; ");
    }
    return failure;
  }

  uint64_t rings() const {
    return shared_->side[0].rings + shared_->side[1].rings;
  }

  static bool Register(AsymmetricAccess* access) {
    return AsymmetricAccess::Register(access->scope()).ok();
  }
  static bool Register(ProductionAccess*) { return true; }

 private:
  void RunSide(int i) {
    if (plan_.bell == Bell::kFutex) {
      RunSideOn(i, *futex_sleepers_[i]);
    } else {
      RunSideOn(i, *eventfd_sleepers_[i]);
    }
  }

  template <class S>
  void RunSideOn(int i, S& sleeper) {
    Side<Access, S> side(rings_[i], rings_[1 - i], access_, plan_.policies[i],
                         sleeper, shared_->side[i], plan_.seed + i);
    side.peer_fd = fds_[1 - i];
    if (plan_.bell == Bell::kFutex) {
      side.peer_word = &shared_->side[1 - i].futex;
    }
    if (plan_.traffic == Traffic::kStream) {
      i == 0 ? side.Pour(plan_.packets) : side.Drink(plan_.packets);
    } else {
      i == 0 ? side.Ping(plan_.packets) : side.Pong(plan_.packets);
    }
  }

  uint64_t Progress() const {
    uint64_t sum = 0;
    for (const SideState& side : shared_->side) sum += side.sent + side.taken;
    return sum;
  }

  // Until all sides are done, or none of them moves any more.
  std::string Watch(pid_t child, const std::atomic<int>& running) {
    std::string failure;
    uint64_t progress = ~uint64_t{0};
    int still_ms = 0;
    while (running.load() != 0 || child != 0) {
      int status = 0;
      if (child != 0 && waitpid(child, &status, WNOHANG) == child) {
        child = 0;
        if (status != 0) failure = absl::StrCat("child: ", status, "; ");
        if (status != 0) Stop(0);
      }
      constexpr int kStepMs = 2;
      const timespec step = {0, kStepMs * 1'000'000L};
      nanosleep(&step, nullptr);
      still_ms = Progress() == progress ? still_ms + kStepMs : 0;
      progress = Progress();
      if (still_ms < kStallMs) continue;
      failure = absl::StrCat("STALL: ", Dump());
      Stop(child);
      still_ms = 0;
    }
    return failure;
  }

  void Stop(pid_t child) {
    if (child != 0) kill(child, SIGKILL);
    for (int i = 0; i < 2; ++i) {
      eventfd_sleepers_[i]->RequestStop();
      futex_sleepers_[i]->RequestStop();
    }
  }

  std::string Dump() const {
    std::string text;
    for (int i = 0; i < 2; ++i) {
      const TestRing& ring = rings_[i];
      absl::StrAppend(
          &text, "ring ", i, ": write ", ring.word(kWriteIndexOffset), " read ",
          ring.word(kReadIndexOffset), " mask ",
          ring.word(kInterruptMaskOffset), " pending ",
          ring.word(kPendingSendSizeOffset), ", side ", i, " sent ",
          shared_->side[i].sent.load(), " took ", shared_->side[i].taken.load(),
          " rang ", shared_->side[i].rings.load(), "; ");
    }
    return text;
  }

  const Plan plan_;
  Access access_;
  std::array<TestRing, 2> rings_ = {TestRing(kSize), TestRing(kSize)};
  Shared* shared_ = nullptr;
  std::array<int, 2> fds_;
  std::array<std::unique_ptr<EventFdSleeper>, 2> eventfd_sleepers_;
  std::array<std::unique_ptr<FutexSleeper>, 2> futex_sleepers_;
};

// The thread sanitizer makes each packet many times as expensive.
#if defined(__SANITIZE_THREAD__)
constexpr uint64_t kPackets = 5000;
#else
constexpr uint64_t kPackets = 10000;
#endif

uint64_t PacketCount(const WaitPolicy& a, const WaitPolicy& b) {
  const char* const text = std::getenv("FERRYBUS_WAITING_PACKETS");
  const uint64_t packets =
      text != nullptr ? std::strtoull(text, nullptr, 0) : kPackets;
  // Who never sleeps keeps a processor that the other may need.
  return a.sleep && b.sleep ? packets : packets / 25;
}

template <class Access>
void GoBothWays(Plan plan, const Access& access) {
  for (Traffic traffic : {Traffic::kPingPong, Traffic::kStream}) {
    plan.traffic = traffic;
    Run<Access> run(plan, access);
    EXPECT_EQ(run.Go(), "")
        << (traffic == Traffic::kPingPong ? "ping-pong" : "stream");
    std::printf("%s: %llu signals\n",
                traffic == Traffic::kPingPong ? "ping-pong" : "stream",
                static_cast<unsigned long long>(run.rings()));
  }
}

using Parameters = std::tuple<int, int, Bell, Peers>;

class WaitingStormTest : public ::testing::TestWithParam<Parameters> {
 protected:
  Plan MakePlan() {
    const auto& [first, second, bell, peers] = GetParam();
    Plan plan = {};
    plan.bell = bell;
    plan.peers = peers;
    plan.policies = {kPolicies[first].policy, kPolicies[second].policy};
    plan.packets = PacketCount(plan.policies[0], plan.policies[1]);
    plan.seed = TestSeed("//ringbuffer:waiting_storm_test", "*");
    return plan;
  }
};

// promise:P2 promise:P3
TEST_P(WaitingStormTest, NothingStallsWithFullFences) {
  GoBothWays(MakePlan(), ProductionAccess());
}

// promise:P2 promise:P3
TEST_P(WaitingStormTest, NothingStallsWithTheAsymmetricFence) {
  const Plan plan = MakePlan();
  const auto access = AsymmetricAccess::Register(
      plan.peers == Peers::kThreads ? FenceScope::kProcess : FenceScope::kHost);
  if (!access.ok()) GTEST_SKIP() << access.status();
  GoBothWays(plan, *access);
  EXPECT_EQ(AsymmetricAccess::failed_fences(), 0u);
}

std::string NameOf(const ::testing::TestParamInfo<Parameters>& info) {
  const auto& [first, second, bell, peers] = info.param;
  return absl::StrCat(kPolicies[first].name, kPolicies[second].name,
                      bell == Bell::kFutex ? "Futex" : "EventFd",
                      peers == Peers::kThreads ? "Threads" : "Processes");
}

// Who never sleeps needs no bell of its own, but its peer does.
INSTANTIATE_TEST_SUITE_P(
    AwakeOrAsleep, WaitingStormTest,
    ::testing::Combine(::testing::Values(0, 1, 2, 3), ::testing::Values(3, 4),
                       ::testing::Values(Bell::kEventFd),
                       ::testing::Values(Peers::kThreads, Peers::kProcesses)),
    NameOf);
INSTANTIATE_TEST_SUITE_P(
    Futex, WaitingStormTest,
    ::testing::Combine(::testing::Values(3, 4), ::testing::Values(0, 4),
                       ::testing::Values(Bell::kFutex),
                       ::testing::Values(Peers::kThreads, Peers::kProcesses)),
    NameOf);
INSTANTIATE_TEST_SUITE_P(
    Awake, WaitingStormTest,
    ::testing::Combine(::testing::Values(0, 1, 2), ::testing::Values(0, 1, 2),
                       ::testing::Values(Bell::kEventFd),
                       ::testing::Values(Peers::kThreads, Peers::kProcesses)),
    NameOf);

}  // namespace
}  // namespace ferrybus::ringbuffer
