// SPDX-License-Identifier: MIT
//
// The serving process of the demo: a disk behind a bus, until it is told to
// save itself and end.

#ifndef FERRYBUS_EXAMPLES_DEMO_SERVE_H_
#define FERRYBUS_EXAMPLES_DEMO_SERVE_H_

#include <string>

namespace ferrybus::demo {

struct ServeOptions {
  std::string image_path;
  std::string checkpoint_folder;
};

// Runs until it has moved or was stopped.  The process's exit code.
//
// Commands on the control socket: {"command": "go", "restore": bool} followed
// by the port; then {"command": "move"} or {"command": "stop"}.
// Answers: {"event": "serving" | "saved" | "failed", ...} with times.
int Serve(const ServeOptions& options);

}  // namespace ferrybus::demo

#endif  // FERRYBUS_EXAMPLES_DEMO_SERVE_H_
