// SPDX-License-Identifier: MIT
//
// The content of the golden files in golden/: what the writer was given when
// each was made.  golden_frames_test compares the files with what the writer
// makes of the same content today.
//
// A golden file is never edited, and an entry here is never changed: files
// that are out in the world look like this.  New ones are added at the end,
// with:
//
//   bazel run //savestate:write_golden_frames -- "$PWD/savestate/golden"
//
// which leaves files that exist alone.

#ifndef FERRYBUS_SAVESTATE_GOLDEN_FRAMES_H_
#define FERRYBUS_SAVESTATE_GOLDEN_FRAMES_H_

#include <string>
#include <vector>

#include "ferrybus/savestate/frame.h"

namespace ferrybus::savestate {

struct GoldenFrame {
  std::string file_name;
  FrameWriter writer;
};

std::vector<GoldenFrame> GoldenFrames();

}  // namespace ferrybus::savestate

#endif  // FERRYBUS_SAVESTATE_GOLDEN_FRAMES_H_
