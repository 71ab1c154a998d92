// SPDX-License-Identifier: MIT
//
// The system's time is set an hour ahead and back while machines move: nobody
// is given up for it.
//
// For this program only: its clock_gettime() adds what the time was set by, and
// its syscall() takes that off again from the moment until which a futex waits,
// as the kernel's clock was not set.

#include <linux/futex.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <thread>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "ferrybus/savestate/steady_clock.h"
#include "ferrybus/tests/migration/unix_world.h"
#include "gtest/gtest.h"

namespace {

std::atomic<int64_t> set_ahead_seconds = 0;
// As this thread saw it last: what it waits until was made from that.
thread_local int64_t seen_ahead_seconds = 0;

int64_t Kernel(int64_t number, int64_t a, int64_t b, int64_t c, int64_t d,
               int64_t e, int64_t f) {
  register int64_t fourth asm("r10") = d;
  register int64_t fifth asm("r8") = e;
  register int64_t sixth asm("r9") = f;
  int64_t result;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth), "r"(fifth),
                 "r"(sixth)
               : "rcx", "r11", "memory");
  if (result >= 0) return result;
  errno = static_cast<int>(-result);
  return -1;
}

}  // namespace

extern "C" int clock_gettime(clockid_t clock, timespec* now) noexcept {
  const int64_t result = Kernel(SYS_clock_gettime, clock,
                                reinterpret_cast<intptr_t>(now), 0, 0, 0, 0);
  if (clock == CLOCK_REALTIME) {
    seen_ahead_seconds = set_ahead_seconds;
    now->tv_sec += seen_ahead_seconds;
  }
  return static_cast<int>(result);
}

extern "C" long syscall(long number, ...) noexcept {  // NOLINT
  va_list list;
  va_start(list, number);
  int64_t given[6];
  for (int64_t& each : given) each = va_arg(list, int64_t);
  va_end(list);
  timespec until;
  if (number == SYS_futex && (given[1] & FUTEX_CLOCK_REALTIME) != 0 &&
      given[3] != 0) {
    until = *reinterpret_cast<const timespec*>(given[3]);
    until.tv_sec -= seen_ahead_seconds;
    given[3] = reinterpret_cast<intptr_t>(&until);
  }
  return Kernel(number, given[0], given[1], given[2], given[3], given[4],
                given[5]);
}

namespace ferrybus::migration {
namespace {

constexpr int64_t kHour = 3600;

// Sets the time ahead and back, again and again.
class ClockSetter {
 public:
  ClockSetter() : thread_([this] { Run(); }) {}
  ~ClockSetter() {
    is_over_ = true;
    thread_.join();
    set_ahead_seconds = 0;
  }

 private:
  void Run() {
    for (int64_t turn = 0; !is_over_; ++turn) {
      set_ahead_seconds = turn % 3 * kHour - kHour;
      usleep(1000);
    }
  }

  std::atomic<bool> is_over_ = false;
  std::thread thread_;
};

TEST(ClockJumpTest, TheTimeIsSetForAllButTheSteadyClock) {
  const absl::Time steady = savestate::SteadyNow();
  const absl::Time now = absl::Now();
  set_ahead_seconds = kHour;
  EXPECT_GT(absl::Now() - now, absl::Minutes(59));
  EXPECT_LT(savestate::SteadyNow() - steady, absl::Minutes(1));
  set_ahead_seconds = 0;
}

// bad:K9
TEST(ClockJumpTest, MachinesMoveAllTheSame) {
  for (const bool share_memory : {true, false}) {
    for (int i = 0; i < 30; ++i) {
      SCOPED_TRACE(i);
      UnixWorld world({.share_memory = share_memory});
      const ClockSetter setter;
      const MigrationProgress result =
          world.Move(world.Outgoing(world.target().address()));
      ASSERT_EQ(result.phase, SourcePhase::kDone) << result.status;
      ASSERT_TRUE(result.status.ok()) << result.status;
      ASSERT_EQ(world.CheckEnd(), "");
      ASSERT_TRUE(world.is_moved());
    }
  }
}

}  // namespace
}  // namespace ferrybus::migration
