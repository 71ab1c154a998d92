// SPDX-License-Identifier: MIT
//
// Writes the fuzz targets' seeds into a folder of each:
//
//   bazel run //tools/state:write_test_states -- "$PWD/tools/state/corpus"

#include <cstdio>
#include <fstream>
#include <string>

#include "ferrybus/tools/state/state_test_util.h"

namespace {

bool Write(const std::string& path, const std::string& bytes) {
  std::ofstream file(path, std::ios::binary);
  file << bytes;
  return file.flush().good();
}

}  // namespace

int main(int argc, char** argv) {
  using namespace ferrybus::state_tool;  // NOLINT: one small program
  if (argc != 2) {
    std::fprintf(stderr, "usage: write_test_states FOLDER\n");
    return 2;
  }
  const std::string folder = argv[1];
  // Byte 0: see the targets.
  const std::string bus = SavedBus();
  const bool ok =
      Write(folder + "/state_inspect/bus", std::string(1, '\1') + bus) &&
      Write(folder + "/state_inspect/bus_unknown_section",
            std::string(1, '\3') + WithSection(bus, "later", 1, false)) &&
      Write(folder + "/state_diff/same", std::string(1, '\1') + bus + bus) &&
      Write(folder + "/state_diff/socket_differs",
            std::string(1, '\1') + bus + OtherSavedBus());
  return ok ? 0 : 1;
}
