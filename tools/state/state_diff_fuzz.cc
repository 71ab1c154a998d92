// SPDX-License-Identifier: MIT
//
// Two files compared, both ways.
//
// Input: byte 0, bit 0: checksums are made right first; then the two files, of
// the same size.

#include <cstddef>
#include <cstdint>
#include <string>

#include "ferrybus/channel/check.h"
#include "ferrybus/savestate/frame_fixup.h"
#include "ferrybus/tools/state/state_diff.h"
#include "ferrybus/tools/state/state_sections.h"
#include "ferrybus/tools/state/state_text.h"

namespace {

using namespace ferrybus::state_tool;  // NOLINT: one small program

bool IsSame(const std::string& before, const std::string& after) {
  const auto model =
      DiffStates(AsBytes(before), AsBytes(after), kDifferencesMax);
  if (!model.ok()) return false;
  for (char c : DiffText(*model)) {
    FERRYBUS_CHECK((c >= 0x20 && c <= 0x7e) || c == '\n', "not printable");
  }
  return (*model)["same"].get<bool>();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes) {
  if (size_bytes == 0) return 0;
  const std::string both(reinterpret_cast<const char*>(data) + 1,
                         size_bytes - 1);
  std::string first = both.substr(0, both.size() / 2);
  std::string second = both.substr(both.size() / 2);
  if ((data[0] & 1) != 0) {
    ferrybus::savestate::FixChecksums(&first);
    ferrybus::savestate::FixChecksums(&second);
  }
  FERRYBUS_CHECK(IsSame(first, second) == IsSame(second, first),
                 "same one way, and different the other");
  if (DiffStates(AsBytes(first), AsBytes(first), 1).ok()) {
    FERRYBUS_CHECK(IsSame(first, first), "differs from itself");
  }
  return 0;
}
