// SPDX-License-Identifier: MIT
//
// Writes the golden files that are missing from a folder:
//
//   write_golden_buses FOLDER
//
// Files that exist are left alone: a golden file is only ever added.

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include "ferrybus/tests/golden/golden_bus.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: write_golden_buses FOLDER\n");
    return 2;
  }
  for (const auto& golden : ferrybus::golden::GoldenBuses()) {
    const auto path = std::filesystem::path(argv[1]) / golden.file_name();
    if (std::filesystem::exists(path)) {
      std::printf("kept   %s\n", path.c_str());
      continue;
    }
    ferrybus::golden::GoldenRig rig(golden);
    std::ofstream out(path, std::ios::binary);
    out << rig.saved();
    if (!out.flush()) {
      std::fprintf(stderr, "cannot write %s\n", path.c_str());
      return 1;
    }
    std::printf("wrote  %s, %zu bytes\n", path.c_str(), rig.saved().size());
  }
  return 0;
}
