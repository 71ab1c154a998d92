// SPDX-License-Identifier: MIT
//
// Explores all interleavings of the ring's programs and prints what it saw.
//
//   explore_ring [--deep] [--schedules]
//
// --deep: more packets, and once more without reduction.  --schedules: for each
// weakened ordering the shortest schedule that goes wrong.

#include <iostream>
#include <string_view>

#include "ferrybus/tests/interleaving/ring_report.h"

int main(int argc, char** argv) {
  ferrybus::interleaving::ReportOptions options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--deep") {
      options.deep = true;
    } else if (argument == "--schedules") {
      options.schedules = true;
    } else {
      std::cerr << "usage: explore_ring [--deep] [--schedules]\n";
      return 2;
    }
  }
  return ferrybus::interleaving::ReportRing(options, std::cout) ? 0 : 1;
}
