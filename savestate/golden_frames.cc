// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/golden_frames.h"

#include <cstdint>
#include <utility>

namespace ferrybus::savestate {
namespace {

// Bytes that differ from their neighbours, so that a shift shows.
std::string Pattern(size_t size_bytes) {
  std::string bytes;
  for (size_t i = 0; i < size_bytes; ++i) {
    bytes.push_back(static_cast<char>(i * 7 + 1));
  }
  return bytes;
}

}  // namespace

std::vector<GoldenFrame> GoldenFrames() {
  std::vector<GoldenFrame> frames;

  frames.push_back({"frame_v1_empty.ferry", FrameWriter("")});

  // The worked example of docs/SAVE_STATE.md.
  FrameWriter example("ferrybus 1.0");
  example.AddSection("demo", 7, 1, SectionKind::kRequired, "hello");
  frames.push_back({"frame_v1_example.ferry", std::move(example)});

  // Body lengths around the 8-byte alignment, both kinds, the longest name,
  // the largest instance and version, order other than by name.
  FrameWriter shapes("producer-of-24-bytes-max");
  for (size_t length : {17, 0, 8, 7, 1, 9}) {
    shapes.AddSection("shape", length, 1, SectionKind::kRequired,
                      Pattern(length));
  }
  shapes.AddSection("a-name-that-has-24-bytes", 0, 3, SectionKind::kOptional,
                    Pattern(16));
  shapes.AddSection("Z._9", ~uint64_t{0}, ~uint32_t{0}, SectionKind::kOptional,
                    Pattern(3));
  frames.push_back({"frame_v1_shapes.ferry", std::move(shapes)});

  // One name, many instances, as channels have.
  FrameWriter channels;
  channels.AddSection("connection", 0, 2, SectionKind::kRequired, Pattern(40));
  for (uint64_t relid = 1; relid <= 6; ++relid) {
    channels.AddSection("channel", relid, 1, SectionKind::kRequired,
                        Pattern(20 + relid));
    channels.AddSection("counters", relid, 1, SectionKind::kOptional,
                        Pattern(relid));
  }
  frames.push_back({"frame_v1_instances.ferry", std::move(channels)});
  return frames;
}

}  // namespace ferrybus::savestate
