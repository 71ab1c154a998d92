// SPDX-License-Identifier: MIT
//
// Frames, sealed or not, as they are and with their checksums made right.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

#include "ferrybus/savestate/frame.h"
#include "ferrybus/savestate/frame_fixup.h"
#include "ferrybus/savestate/frame_report.h"
#include "ferrybus/savestate/seal.h"

namespace ferrybus::savestate {
namespace {

void Check(bool condition) {
  if (!condition) std::abort();
}

// A file that is sealed opens, or does not; one that is not can be sealed.
// Either way there is one spelling.
void SealAndCheck(const std::string& file, const Frame& frame) {
  const auto bytes = [](std::string_view text) {
    return absl::MakeConstSpan(reinterpret_cast<const std::byte*>(text.data()),
                               text.size());
  };
  const SealKey key{"fuzz", bytes("32 bytes that everybody can read")};
  const auto info = DescribeSeal(frame);
  const auto opened = OpenSeal(bytes(file), {key}, 0);
  Check(info.ok() || !opened.ok());
  if (opened.ok()) {
    Check(opened->seal.counter == info->counter);
    Check(*Seal(bytes(opened->frame), key, info->counter) == file);
  }
  if (frame.HasSeal()) return;
  const auto sealed = Seal(bytes(file), key, 7);
  if (!sealed.ok()) return;  // at a limit
  Check(OpenSeal(bytes(*sealed), {key}, 7)->frame == file);
}

void ParseAndCheck(const std::string& file) {
  const auto bytes = absl::MakeConstSpan(
      reinterpret_cast<const std::byte*>(file.data()), file.size());
  const FrameReport report = DescribeHeader(bytes);
  const auto frame = Frame::Parse(bytes);
  Check(report.verdict.code() == frame.status().code());
  for (const char c : report.ToString()) {
    Check(c == '\n' || (c >= 0x20 && c < 0x7f));
  }
  if (!frame.ok()) return;
  // What was accepted is what the writer makes of it: no second spelling.
  FrameWriter writer{std::string(frame->producer())};
  for (const Section& section : frame->sections()) {
    Check(frame->Find(section.name, section.instance) == &section);
    std::string body;
    for (const std::byte byte : section.body) {
      body.push_back(static_cast<char>(byte));
    }
    writer.AddSection(std::string(section.name), section.instance,
                      section.version, section.kind, std::move(body));
  }
  const auto again = writer.Finish();
  Check(again.ok() && *again == file);
  SealAndCheck(file, *frame);
}

}  // namespace
}  // namespace ferrybus::savestate

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes) {
  std::string file(reinterpret_cast<const char*>(data), size_bytes);
  ferrybus::savestate::ParseAndCheck(file);
  ferrybus::savestate::FixChecksums(&file);
  ferrybus::savestate::ParseAndCheck(file);
  return 0;
}
