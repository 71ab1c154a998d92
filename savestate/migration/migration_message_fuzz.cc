// SPDX-License-Identifier: MIT
//
// A message of a peer's: refused, or one that is written and read again as the
// same.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "ferrybus/savestate/migration/migration_messages.h"

namespace {

using namespace ferrybus::migration;  // NOLINT: this is its test

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes) {
  const MessageLimits limits = {.blob_bytes_max = 4096,
                                .state_bytes_max = 8192,
                                .devices_max = 4,
                                .segments_max = 3,
                                .segment_bytes_max = uint64_t{1} << 30};
  absl::StatusOr<Message> message = ParseMessage(
      {reinterpret_cast<const std::byte*>(data), size_bytes}, limits);
  if (!message.ok()) {
    if (message.status().message().empty()) std::abort();
    return 0;
  }
  const std::string bytes = SerializeMessage(*message);
  absl::StatusOr<Message> again = ParseMessage(AsBytes(bytes), limits);
  if (!again.ok() || again->index() != message->index() ||
      SerializeMessage(*again) != bytes) {
    std::abort();
  }
  return 0;
}
