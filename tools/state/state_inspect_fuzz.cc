// SPDX-License-Identifier: MIT
//
// Any bytes, inspected, validated, explained and upgraded.
//
// Input: byte 0, bit 0: the file's checksums are made right first; bit 1: whole
// lists; then the file.

#include <cstddef>
#include <cstdint>
#include <string>

#include "ferrybus/channel/check.h"
#include "ferrybus/savestate/frame.h"
#include "ferrybus/savestate/frame_fixup.h"
#include "ferrybus/tools/state/state_check.h"
#include "ferrybus/tools/state/state_model.h"
#include "ferrybus/tools/state/state_sections.h"
#include "ferrybus/tools/state/state_text.h"
#include "ferrybus/tools/state/state_upgrade.h"

namespace {

using namespace ferrybus::state_tool;  // NOLINT: one small program

void CheckIsPrintable(const std::string& text) {
  for (char c : text) {
    FERRYBUS_CHECK((c >= 0x20 && c <= 0x7e) || c == '\n', "not printable");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes) {
  if (size_bytes == 0) return 0;
  std::string file(reinterpret_cast<const char*>(data) + 1, size_bytes - 1);
  if ((data[0] & 1) != 0) ferrybus::savestate::FixChecksums(&file);
  const bool all = (data[0] & 2) != 0;
  const Json model =
      DescribeState(AsBytes(file), all ? ModelOptions::All() : ModelOptions());
  const std::string text = InspectText(model);
  CheckIsPrintable(text);
  CheckIsPrintable(ToJsonText(model));
  FERRYBUS_CHECK(all || text.size() < (size_t{1} << 20), "too long");
  const Findings findings = CheckState(AsBytes(file), CheckOptions());
  Json result = ToJson(findings, kFindingsMax);
  result["explain"] = DescribeNeeds(AsBytes(file));
  CheckIsPrintable(ValidateText(result));
  CheckIsPrintable(ToJsonText(result));
  const auto upgraded = UpgradeState(AsBytes(file), CheckOptions());
  if (!upgraded.ok()) {
    const auto frame = ferrybus::savestate::Frame::Parse(AsBytes(file));
    FERRYBUS_CHECK(
        !findings.ok() || !frame.ok() || frame->Find(kSealSection) != nullptr,
        "valid, but cannot be upgraded");
    return 0;
  }
  FERRYBUS_CHECK(findings.ok(), "upgraded in spite of errors");
  FERRYBUS_CHECK(CheckState(AsBytes(upgraded->file), CheckOptions()).ok(),
                 "the upgraded file has errors");
  return 0;
}
