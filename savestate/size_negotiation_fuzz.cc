// SPDX-License-Identifier: MIT
//
// A callback that answers whatever the input says.  Byte 0 picks the options;
// then three bytes per call: the code, how the size is chosen, a number.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

#include "ferrybus/savestate/size_negotiation.h"

namespace {

using ::ferrybus::savestate::kResizesMax;
using ::ferrybus::savestate::NegotiateSize;
using ::ferrybus::savestate::SizeAnswer;
using ::ferrybus::savestate::SizingDialect;
using ::ferrybus::savestate::SizingOptions;

constexpr uint64_t kBytesMax = 4096;

void Check(bool condition) {
  if (!condition) std::abort();
}

class HostileCallback {
 public:
  HostileCallback(const uint8_t* data, size_t size_bytes)
      : data_(data), left_(size_bytes) {}

  uint8_t Next() {
    if (left_ == 0) return 0;
    --left_;
    return *data_++;
  }

  SizeAnswer Answer(absl::Span<std::byte> buffer) {
    ++calls_;
    Check(calls_ <= 1 + kResizesMax);
    Check((calls_ == 1) == (buffer.data() == nullptr));
    Check(buffer.size() <= kBytesMax);
    for (const std::byte byte : buffer) Check(byte == std::byte{0});
    const uint8_t code = Next();
    const uint8_t rule = Next();
    const uint8_t number = Next();
    if (!buffer.empty()) {
      std::memset(buffer.data(), 'x', number % (buffer.size() + 1));
    }
    last_bytes_ = buffer.size();
    SizeAnswer answer;
    answer.code = static_cast<SizeAnswer::Code>(code % 4);
    if (code % 8 >= 4) answer.failure = absl::UnavailableError("no");
    if (code % 16 >= 8) answer.failure = absl::InvalidArgumentError("no");
    switch (rule % 6) {
      case 0:
        answer.bytes = number;
        break;
      case 1:
        answer.bytes = buffer.size() + number;
        break;
      case 2:
        answer.bytes = buffer.size() - number;  // may wrap
        break;
      case 3:
        answer.bytes = ~uint64_t{0} - number;
        break;
      case 4:
        answer.bytes = kBytesMax - 128 + number;
        break;
      default:
        break;  // untouched
    }
    return answer;
  }

  int calls() const { return calls_; }
  size_t last_bytes() const { return last_bytes_; }

 private:
  const uint8_t* data_;
  size_t left_;
  int calls_ = 0;
  size_t last_bytes_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes) {
  HostileCallback callback(data, size_bytes);
  const uint8_t first = callback.Next();
  SizingOptions options;
  options.dialect = static_cast<SizingDialect>(first % 3);
  options.bytes_max = kBytesMax;
  options.immutable = (first & 16) != 0;
  options.literal_success = (first & 32) != 0;
  const auto blob = NegotiateSize(
      options, "fuzzed",
      [&](absl::Span<std::byte> buffer) { return callback.Answer(buffer); });
  Check(callback.calls() >= 1);
  if (blob.ok()) {
    Check(blob->size() <= callback.last_bytes());
    // Nothing but what the callback wrote, or zeros.
    for (const char c : *blob) Check(c == 'x' || c == '\0');
  } else {
    Check(!blob.status().message().empty());
  }
  return 0;
}
