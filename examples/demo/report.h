// SPDX-License-Identifier: MIT
//
// What a demo run measured, as text and as JSON.

#ifndef FERRYBUS_EXAMPLES_DEMO_REPORT_H_
#define FERRYBUS_EXAMPLES_DEMO_REPORT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "ferrybus/examples/demo/control.h"

namespace ferrybus::demo {

// One replacement of the serving process.  CLOCK_MONOTONIC nanoseconds.
struct MoveRecord {
  uint64_t in_flight = 0;
  uint64_t state_bytes = 0;
  int64_t begin_ns = 0;    // the old server stops taking packets
  int64_t saved_ns = 0;    // its state is bytes
  int64_t written_ns = 0;  // they are durable
  int64_t start_ns = 0;    // the new server begins to restore
  int64_t serving_ns = 0;  // it serves
  int64_t pause_ns = 0;    // as the client saw it
};

struct Gap {
  int64_t begin_ns = 0;
  int64_t end_ns = 0;
};

struct DemoReport {
  uint64_t seed = 0;
  bool killed = false;
  std::string engine;
  double seconds = 0;
  uint64_t files = 0;
  uint64_t requests = 0;
  uint64_t lost = 0;
  uint64_t duplicated = 0;
  uint64_t differing = 0;
  uint64_t failed = 0;
  uint64_t verified_bytes = 0;
  uint64_t file_passes = 0;
  bool file_system_ok = false;
  bool digests_ok = false;
  std::vector<MoveRecord> moves;

  bool verified() const {
    return lost == 0 && duplicated == 0 && differing == 0 && failed == 0 &&
           file_system_ok && digests_ok;
  }
};

// The pause of each move: the longest of the client's gaps between two
// completions that touches it.
void AssignPauses(const std::vector<Gap>& gaps, std::vector<MoveRecord>* moves);

Json ToJson(const DemoReport& report);
std::string ToText(const DemoReport& report);

}  // namespace ferrybus::demo

#endif  // FERRYBUS_EXAMPLES_DEMO_REPORT_H_
