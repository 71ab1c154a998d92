// SPDX-License-Identifier: MIT
//
// The client process of the demo: owns guest RAM, runs the workload through
// its channel, knows nothing of moves.

#ifndef FERRYBUS_EXAMPLES_DEMO_CLIENT_H_
#define FERRYBUS_EXAMPLES_DEMO_CLIENT_H_

#include <cstdint>
#include <string>

#include "ferrybus/examples/demo/control.h"
#include "ferrybus/examples/demo/disk_image.h"

namespace ferrybus::demo {

struct ClientOptions {
  std::string manifest_path;
  uint64_t seed = 0;
};

// What the client has to know of the image, as JSON.
Json ManifestOf(const DiskImage& image);
DiskImage ImageOf(const Json& manifest);

// The process's exit code.
//
// Sends {"event": "port"} and the host's ends of its port; then takes
// {"command": "run"}, answers "running", and at {"command": "finish"} ends
// with {"event": "result", ...}.
int RunClient(const ClientOptions& options);

}  // namespace ferrybus::demo

#endif  // FERRYBUS_EXAMPLES_DEMO_CLIENT_H_
