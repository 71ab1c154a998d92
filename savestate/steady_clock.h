// SPDX-License-Identifier: MIT
//
// The clock that deadlines are taken from: it goes on evenly when somebody sets
// the system's time, an hour ahead or back.
//
// Thread safety: any thread.
// Cost: one clock_gettime(), without a system call.
//
//   const absl::Time deadline = SteadyNow() + timeout;

#ifndef FERRYBUS_SAVESTATE_STEADY_CLOCK_H_
#define FERRYBUS_SAVESTATE_STEADY_CLOCK_H_

#include <time.h>

#include "absl/time/time.h"

namespace ferrybus::savestate {

// Only differences mean something: not to be mixed with absl::Now(), nor given
// to what waits until an absl::Time.
inline absl::Time SteadyNow() {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return absl::TimeFromTimespec(now);
}

}  // namespace ferrybus::savestate

#endif  // FERRYBUS_SAVESTATE_STEADY_CLOCK_H_
