// SPDX-License-Identifier: MIT

#include "ferrybus/examples/hypervisor/hypercalls.h"

#include <cstring>

namespace ferrybus::hypervisor {
namespace {

constexpr uint64_t kPageBytes = 4096;
constexpr uint32_t kChannelMessage = 1;

struct PostMessageInput {
  uint32_t connection_id;
  uint32_t reserved;
  uint32_t type;
  uint32_t payload_bytes;
  std::byte payload[240];
};
static_assert(sizeof(PostMessageInput) == 256);

// Copies the input block: 8-byte aligned, and within a page.
template <typename T>
HypercallStatus CopyInput(const GuestMemory& memory, uint64_t address,
                          T* input) {
  if (address % 8 != 0 || address % kPageBytes > kPageBytes - sizeof(T)) {
    return HypercallStatus::kInvalidAlignment;
  }
  const absl::Span<const std::byte> bytes =
      memory.Translate(address, sizeof(T));
  if (bytes.empty()) return HypercallStatus::kInvalidParameter;
  std::memcpy(input, bytes.data(), sizeof(T));
  return HypercallStatus::kSuccess;
}

HypercallStatus PostMessage(uint64_t address, const GuestMemory& memory,
                            HypercallSink* sink) {
  PostMessageInput input;
  const HypercallStatus status = CopyInput(memory, address, &input);
  if (status != HypercallStatus::kSuccess) return status;
  if (input.type != kChannelMessage ||
      input.payload_bytes > sizeof(input.payload)) {
    return HypercallStatus::kInvalidParameter;
  }
  return sink->PostMessage(input.connection_id,
                           {input.payload, input.payload_bytes});
}

HypercallStatus SignalEvent(const Hypercall& call, const GuestMemory& memory,
                            HypercallSink* sink) {
  uint64_t input = call.input;
  if ((call.control & kHypercallFast) == 0) {
    const HypercallStatus status = CopyInput(memory, call.input, &input);
    if (status != HypercallStatus::kSuccess) return status;
  }
  return sink->SignalEvent(input);
}

}  // namespace

HypercallStatus HandleHypercall(const Hypercall& call,
                                const GuestMemory& memory,
                                HypercallSink* sink) {
  // Neither has a variable header nor repetitions.
  constexpr uint64_t kUnused = ~uint64_t{0x1ffff};
  const uint16_t code = static_cast<uint16_t>(call.control);
  const bool fast = (call.control & kHypercallFast) != 0;
  if (code != kHypercallPostMessage && code != kHypercallSignalEvent) {
    return HypercallStatus::kInvalidCode;
  }
  if ((call.control & kUnused) != 0 ||
      (fast && code == kHypercallPostMessage)) {
    return HypercallStatus::kInvalidInput;
  }
  return code == kHypercallPostMessage ? PostMessage(call.input, memory, sink)
                                       : SignalEvent(call, memory, sink);
}

}  // namespace ferrybus::hypervisor
