// SPDX-License-Identifier: MIT
//
// Any bytes as a message; byte 0 picks the limits.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "ferrybus/savestate/proto_limits.h"
#include "ferrybus/savestate/proto_limits_proto2_test.pb.h"
#include "ferrybus/savestate/proto_limits_test.pb.h"

namespace ferrybus::savestate {
namespace {

void Check(bool condition) {
  if (!condition) std::abort();
}

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return absl::MakeConstSpan(reinterpret_cast<const std::byte*>(text.data()),
                             text.size());
}

template <typename Message>
void ParseAndCheck(const std::string& bytes, const ProtoLimits& limits) {
  Message message;
  const absl::Status status =
      ParseBounded(AsBytes(bytes), limits, &message, "fuzzed");
  if (!status.ok()) {
    Check(message.ByteSizeLong() == 0);
    return;
  }
  Check(message.SpaceUsedLong() <=
        limits.memory_per_byte * bytes.size() + limits.memory_slack_bytes);
  const std::string once = SerializeDeterministic(message);
  Message again;
  Check(ParseBounded(AsBytes(once), ProtoLimits(), &again, "again").ok());
  Check(SerializeDeterministic(again) == once);
}

}  // namespace
}  // namespace ferrybus::savestate

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes) {
  namespace savestate = ferrybus::savestate;
  if (size_bytes == 0) return 0;
  savestate::ProtoLimits limits;
  if ((data[0] & 1) != 0) {
    limits.unknown_fields = savestate::UnknownFields::kDiscard;
  }
  if ((data[0] & 2) != 0) limits.memory_slack_bytes = 4096;
  if ((data[0] & 4) != 0) limits.depth_max = 2;
  const std::string bytes(reinterpret_cast<const char*>(data) + 1,
                          size_bytes - 1);
  savestate::ParseAndCheck<savestate::testing::Everything>(bytes, limits);
  savestate::ParseAndCheck<savestate::testing::Old>(bytes, limits);
  return 0;
}
