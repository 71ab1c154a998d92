// SPDX-License-Identifier: MIT
//
// What another process writes in a hot update: refused, or written again and
// read again as the same.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "absl/types/span.h"
#include "ferrybus/vsp/virtual_function/hot_update_messages_persist.h"

namespace {

using ferrybus::vsp::HotUpdateRequest;
using ferrybus::vsp::HotUpdateStep;
using ferrybus::vsp::ParseAnswer;
using ferrybus::vsp::ParseRequest;
using ferrybus::vsp::SerializeAnswer;
using ferrybus::vsp::SerializeRequest;

void Need(bool holds) {
  if (!holds) std::abort();
}

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes) {
  const absl::Span<const std::byte> bytes(
      reinterpret_cast<const std::byte*>(data), size_bytes);
  HotUpdateRequest request = {.memory_bytes = 77};
  if (ParseRequest(bytes, &request).ok()) {
    Need(request.step >= HotUpdateStep::kBegin &&
         request.step <= HotUpdateStep::kComplete);
    const std::string written = SerializeRequest(request);
    HotUpdateRequest again;
    Need(ParseRequest(AsBytes(written), &again).ok());
    Need(SerializeRequest(again) == written);
    Need(again.step == request.step &&
         again.memory_bytes == request.memory_bytes);
    // Only a block's message has one.
    Need(request.step != HotUpdateStep::kRestore ||
         (again.segments == request.segments && again.copy == request.copy &&
          again.metadata == request.metadata));
  } else {
    Need(request.memory_bytes == 77);  // not touched
  }
  absl::Status answer;
  if (ParseAnswer(bytes, &answer).ok()) {
    const std::string written = SerializeAnswer(answer);
    absl::Status again;
    Need(ParseAnswer(AsBytes(written), &again).ok());
    Need(again.code() == answer.code());
    Need(again.message().size() == answer.message().size());
    Need(SerializeAnswer(again) == written);
  }
  return 0;
}
