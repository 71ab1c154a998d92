// SPDX-License-Identifier: MIT
//
// A check that stays on: for mistakes of the program itself (ours or the
// embedder's), never for anything a guest, a file or a peer can cause.  Prints
// where and what, then aborts.

#ifndef FERRYBUS_CHANNEL_CHECK_H_
#define FERRYBUS_CHANNEL_CHECK_H_

#include <cstdio>
#include <cstdlib>

#define FERRYBUS_CHECK(condition, what)                                    \
  do {                                                                     \
    if (!(condition)) {                                                    \
      std::fprintf(stderr, "%s:%d: ferrybus misused: %s (%s)\n", __FILE__, \
                   __LINE__, what, #condition);                            \
      std::abort();                                                        \
    }                                                                      \
  } while (false)

#endif  // FERRYBUS_CHANNEL_CHECK_H_
