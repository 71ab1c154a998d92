// SPDX-License-Identifier: MIT

#include "ferrybus/vsc/ring_channel.h"

#include <cstring>

namespace ferrybus::vsc {
namespace {

using ringbuffer::GpaDirectHeader;
using ringbuffer::GpaRangeHeader;
using ringbuffer::kPageBytes;

template <typename T>
void Append(const T& value, std::vector<std::byte>* out) {
  const size_t at = out->size();
  out->resize(at + sizeof(value));
  std::memcpy(out->data() + at, &value, sizeof(value));
}

}  // namespace

SendResult RingChannel::Send(const Request& request) {
  OutgoingPacket packet;
  packet.payload = request.payload;
  packet.wants_completion = request.wants_completion;
  packet.tag = request.tag;
  if (!request.buffers.empty()) {
    if (!BuildRanges(request.buffers)) return SendResult::kTooLarge;
    packet.type = ringbuffer::PacketType::kDataUsingGpaDirect;
    packet.extension = ranges_;
  }
  switch (endpoint_->Send(packet)) {
    case SendStatus::kOk:
      return SendResult::kOk;
    case SendStatus::kFull:
      return SendResult::kFull;
    case SendStatus::kTooLarge:
      return SendResult::kTooLarge;
    case SendStatus::kClosed:
      return SendResult::kClosed;
  }
  return SendResult::kClosed;
}

// One range per buffer.  False: a buffer is empty or absurdly long.
bool RingChannel::BuildRanges(absl::Span<const GuestBuffer> buffers) {
  ranges_.clear();
  Append(GpaDirectHeader{0, static_cast<uint32_t>(buffers.size())}, &ranges_);
  for (const GuestBuffer& buffer : buffers) {
    const uint32_t offset = static_cast<uint32_t>(buffer.gpa % kPageBytes);
    const uint64_t pages =
        (uint64_t{offset} + buffer.byte_count + kPageBytes - 1) / kPageBytes;
    if (buffer.byte_count == 0 ||
        ranges_.size() + pages * 8 > endpoint_->limits().max_packet_bytes) {
      return false;
    }
    Append(GpaRangeHeader{buffer.byte_count, offset}, &ranges_);
    for (uint64_t i = 0; i < pages; ++i) {
      Append(uint64_t{buffer.gpa / kPageBytes + i}, &ranges_);
    }
  }
  return true;
}

}  // namespace ferrybus::vsc
