// SPDX-License-Identifier: MIT

#include "ferrybus/ringbuffer/sleepers.h"

#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace ferrybus::ringbuffer {
namespace {

constexpr int64_t kNsPerS = 1'000'000'000;
constexpr int64_t kNsPerMs = 1'000'000;

// One clock for all of it: the one that futexes know.
int64_t Now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * kNsPerS + now.tv_nsec;
}

timespec ToTimespec(int64_t ns) { return {ns / kNsPerS, ns % kNsPerS}; }

}  // namespace

int64_t DeadlineAfterMs(int64_t ms) { return Now() + ms * kNsPerMs; }

WaitResult StoppableSleeper::Check(int64_t deadline_ns) const {
  // [R5] acquire: pairs with [W5] in SetStopped().
  if (stopped_.load(std::memory_order_acquire)) return WaitResult::kStopped;
  if (deadline_ns != kNoDeadline && Now() >= deadline_ns) {
    return WaitResult::kTimeout;
  }
  return WaitResult::kReady;
}

absl::StatusOr<std::unique_ptr<EventFdSleeper>> EventFdSleeper::Create(
    int bell) {
  const int stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (stop < 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("sleeper: eventfd: ", std::strerror(errno)));
  }
  return std::unique_ptr<EventFdSleeper>(new EventFdSleeper(bell, stop));
}

EventFdSleeper::~EventFdSleeper() { close(stop_); }

void EventFdSleeper::Sleep(int64_t deadline_ns) {
  pollfd fds[2] = {{bell_, POLLIN, 0}, {stop_, POLLIN, 0}};
  timespec left = {};
  if (deadline_ns != kNoDeadline) {
    left = ToTimespec(std::max<int64_t>(deadline_ns - Now(), 0));
  }
  if (ppoll(fds, 2, deadline_ns == kNoDeadline ? nullptr : &left, nullptr) <=
      0) {
    return;
  }
  // No descriptor: nobody can wake this side any more.
  if ((fds[0].revents & POLLNVAL) != 0) SetStopped();
  if ((fds[0].revents & POLLIN) == 0) return;
  uint64_t count;
  iovec data = {&count, sizeof(count)};
  // RWF_NOWAIT: the peer may have read it already, and whether the descriptor
  // blocks is for the peer to switch, too.
  (void)!preadv2(bell_, &data, 1, -1, RWF_NOWAIT);
}

void EventFdSleeper::RequestStop() {
  SetStopped();
  const uint64_t one = 1;
  (void)!write(stop_, &one, sizeof(one));
}

void FutexSleeper::Sleep(int64_t deadline_ns) {
  // [R6] acquire: pairs with [W6] in Ring().
  if (__atomic_exchange_n(word_, 0, __ATOMIC_ACQUIRE) != 0) return;
  const timespec deadline = ToTimespec(deadline_ns);
  // Sleeps only if the word is still zero.
  syscall(SYS_futex, word_, FUTEX_WAIT_BITSET, 0,
          deadline_ns == kNoDeadline ? nullptr : &deadline, nullptr,
          FUTEX_BITSET_MATCH_ANY);
  // [R6] acquire: pairs with [W6] in Ring().
  (void)__atomic_exchange_n(word_, 0, __ATOMIC_ACQUIRE);
}

void FutexSleeper::RequestStop() {
  SetStopped();
  Ring(word_);
}

void FutexSleeper::Ring(uint32_t* word) {
  // [W6] release: pairs with [R6] in Sleep().  An exchange: a second ring on
  // top of a first one keeps what the first one released.
  (void)__atomic_exchange_n(word, 1, __ATOMIC_ACQ_REL);
  // Also when it was set before: whoever set it may have been killed here.
  syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace ferrybus::ringbuffer
