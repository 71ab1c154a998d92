// SPDX-License-Identifier: MIT
//
// The demo itself: starts client and server, replaces the server again and
// again, and judges what came of it.

#ifndef FERRYBUS_EXAMPLES_DEMO_SUPERVISOR_H_
#define FERRYBUS_EXAMPLES_DEMO_SUPERVISOR_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace ferrybus::demo {

struct DemoOptions {
  uint64_t moves = 60;
  double seconds = 0;  // 0: until `moves` are done
  uint64_t seed = 0;
  bool kill = false;
  uint64_t image_mib = 256;
  double interval_ms = 200;
  std::string json_path;
  std::string folder;  // empty: a new one, removed at the end
};

// Ok when nothing was lost, doubled or different.
absl::Status RunDemo(const DemoOptions& options);

}  // namespace ferrybus::demo

#endif  // FERRYBUS_EXAMPLES_DEMO_SUPERVISOR_H_
