// SPDX-License-Identifier: MIT
//
// Writes the golden files that are missing from a folder:
//
//   write_golden_frames FOLDER
//
// Files that exist are left alone: a golden file is only ever added.

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include "ferrybus/savestate/golden_frames.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: write_golden_frames FOLDER\n");
    return 2;
  }
  for (const auto& golden : ferrybus::savestate::GoldenFrames()) {
    const auto path = std::filesystem::path(argv[1]) / golden.file_name;
    if (std::filesystem::exists(path)) {
      std::printf("kept   %s\n", path.c_str());
      continue;
    }
    const auto file = golden.writer.Finish();
    std::ofstream out(path, std::ios::binary);
    if (file.ok()) out << *file;
    if (!file.ok() || !out.flush()) {
      std::fprintf(stderr, "cannot write %s: %s\n", path.c_str(),
                   file.status().ToString().c_str());
      return 1;
    }
    std::printf("wrote  %s, %zu bytes\n", path.c_str(), file->size());
  }
  return 0;
}
