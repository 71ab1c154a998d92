// SPDX-License-Identifier: MIT
//
// Tells the thread sanitizer what absl::Mutex orders.  Debian's Abseil is not
// built with the sanitizer, so that without this each access under a Mutex
// looks like a race.
//
// These definitions come before the library's own when a program is loaded;
// they call those.  Linked into tests by --config=tsan only.

#include <dlfcn.h>

#include "absl/synchronization/mutex.h"

extern "C" void __tsan_acquire(void* address);
extern "C" void __tsan_release(void* address);
extern "C" void AnnotateIgnoreReadsBegin(const char* file, int line);
extern "C" void AnnotateIgnoreReadsEnd(const char* file, int line);

namespace absl {
inline namespace debian3 {
namespace {

template <typename Function>
Function* Real(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

// The detection's own lock is one of those that the sanitizer does not see.
[[maybe_unused]] const bool is_quiet =
    (SetMutexDeadlockDetectionMode(OnDeadlockCycle::kIgnore), true);

// Whoever lets a Mutex go looks at what others wait for, and those may go on
// before it has told the sanitizer.
class LooksAtConditions {
 public:
  LooksAtConditions() { AnnotateIgnoreReadsBegin(__FILE__, __LINE__); }
  ~LooksAtConditions() { AnnotateIgnoreReadsEnd(__FILE__, __LINE__); }
};

}  // namespace

void Mutex::Lock() {
  static auto* const real = Real<void(Mutex*)>("_ZN4absl7debian35Mutex4LockEv");
  real(this);
  __tsan_acquire(this);
}

void Mutex::Unlock() {
  static auto* const real =
      Real<void(Mutex*)>("_ZN4absl7debian35Mutex6UnlockEv");
  __tsan_release(this);
  const LooksAtConditions looks;
  real(this);
}

void Mutex::Await(const Condition& condition) {
  static auto* const real = Real<void(Mutex*, const Condition&)>(
      "_ZN4absl7debian35Mutex5AwaitERKNS0_9ConditionE");
  __tsan_release(this);
  {
    const LooksAtConditions looks;
    real(this, condition);
  }
  __tsan_acquire(this);
}

bool Mutex::AwaitWithTimeout(const Condition& condition, Duration timeout) {
  static auto* const real = Real<bool(Mutex*, const Condition&, Duration)>(
      "_ZN4absl7debian35Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_"
      "8DurationE");
  __tsan_release(this);
  bool is_met = false;
  {
    const LooksAtConditions looks;
    is_met = real(this, condition, timeout);
  }
  __tsan_acquire(this);
  return is_met;
}

void Mutex::ReaderLock() {
  static auto* const real =
      Real<void(Mutex*)>("_ZN4absl7debian35Mutex10ReaderLockEv");
  real(this);
  __tsan_acquire(this);
}

void Mutex::ReaderUnlock() {
  static auto* const real =
      Real<void(Mutex*)>("_ZN4absl7debian35Mutex12ReaderUnlockEv");
  __tsan_release(this);
  real(this);
}

void CondVar::Wait(Mutex* mutex) {
  static auto* const real = Real<void(CondVar*, Mutex*)>(
      "_ZN4absl7debian37CondVar4WaitEPNS0_5MutexE");
  __tsan_release(mutex);
  real(this, mutex);
  __tsan_acquire(mutex);
}

}  // namespace debian3
}  // namespace absl
