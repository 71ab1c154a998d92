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

RingChannel::RingChannel(const ClientOffer& offer, Driver* driver,
                         const DriverSettings& settings,
                         const EndpointOptions& endpoint, const Shared& shared)
    : offer_(offer),
      driver_(driver),
      settings_(settings),
      ready_(shared.ready),
      connection_(shared.connection),
      post_started_(shared.post_started),
      endpoint_(std::make_unique<PacketEndpoint>(
          EndpointSide::kGuest, endpoint, shared.memory, shared.doorbell,
          static_cast<EndpointEvents*>(this))),
      life_(endpoint_.get(), static_cast<ChannelLifeEvents*>(this),
            settings.run) {
  life_.Enable();
}

absl::Status RingChannel::OnLifeOpened() {
  driver_->OnOpened(*this);
  return absl::OkStatus();
}

void RingChannel::OnLifeStarted() {
  driver_->OnStarted();
  post_started_->push_back(id());
  OnWork();
}

// -- Requests ----------------------------------------------------------------

SendResult RingChannel::Send(const Request& request) {
  switch (SendPacket(request, nullptr)) {
    case SendStatus::kOk:
      return SendResult::kOk;
    case SendStatus::kFull:
      return SendResult::kFull;
    case SendStatus::kTooLarge:
      return SendResult::kTooLarge;
    case SendStatus::kClosed:
      return SendResult::kClosed;
    case SendStatus::kNotSupported:
      return SendResult::kNotSupported;
  }
  return SendResult::kClosed;
}

SendStatus RingChannel::SendPacket(const Request& request, ReplyRoom* reply) {
  OutgoingPacket packet;
  packet.payload = request.payload;
  packet.wants_completion = request.wants_completion;
  packet.tag = request.tag;
  packet.may_queue = request.may_queue;
  packet.wants_sent = request.wants_sent;
  packet.reply = reply;
  if (!request.buffers.empty() || !request.page_numbers.empty()) {
    if (!BuildRanges(request)) return SendStatus::kTooLarge;
    packet.type = ringbuffer::PacketType::kDataUsingGpaDirect;
    packet.extension = ranges_;
  }
  return endpoint_->Send(packet);
}

SyncResult RingChannel::SendAndWait(const Request& request,
                                    absl::Span<std::byte> room, size_t* bytes,
                                    Waiter& waiter) {
  *bytes = 0;
  ReplyRoom reply;
  reply.room = room;
  switch (SendPacket(request, &reply)) {
    case SendStatus::kOk:
      break;
    case SendStatus::kFull:
      return SyncResult::kFull;
    case SendStatus::kTooLarge:
      return SyncResult::kTooLarge;
    case SendStatus::kClosed:
      return SyncResult::kClosed;
    case SendStatus::kNotSupported:
      return SyncResult::kNotSupported;
  }
  endpoint_->Flush();
  ++waiters_;
  bool in_time = true;
  ReplyRoom::State state = endpoint_->Look(reply);
  while (state == ReplyRoom::State::kWaiting && in_time) {
    in_time = waiter.Wait();
    state = endpoint_->Look(reply);
  }
  if (state != ReplyRoom::State::kDone) (void)endpoint_->Cancel(&reply);
  --waiters_;
  if (state == ReplyRoom::State::kWaiting) return SyncResult::kCancelled;
  if (state == ReplyRoom::State::kGone) return SyncResult::kClosed;
  if (reply.bytes > room.size()) return SyncResult::kReplyTooLarge;
  *bytes = reply.bytes;
  return SyncResult::kOk;
}

// One range per buffer, or one for all pages.  False: a buffer is empty or
// absurdly long.
bool RingChannel::BuildRanges(const Request& request) {
  const size_t bytes_max = endpoint_->limits().max_packet_bytes;
  ranges_.clear();
  if (!request.page_numbers.empty()) {
    const size_t pages = request.page_numbers.size();
    if (pages * 8 > bytes_max) return false;
    Append(GpaDirectHeader{0, 1}, &ranges_);
    Append(GpaRangeHeader{static_cast<uint32_t>(pages * kPageBytes), 0},
           &ranges_);
    for (const uint64_t page : request.page_numbers) Append(page, &ranges_);
    return true;
  }
  Append(GpaDirectHeader{0, static_cast<uint32_t>(request.buffers.size())},
         &ranges_);
  for (const GuestBuffer& buffer : request.buffers) {
    const uint32_t offset = static_cast<uint32_t>(buffer.gpa % kPageBytes);
    const uint64_t pages =
        (uint64_t{offset} + buffer.byte_count + kPageBytes - 1) / kPageBytes;
    if (buffer.byte_count == 0 || ranges_.size() + pages * 8 > bytes_max) {
      return false;
    }
    Append(GpaRangeHeader{buffer.byte_count, offset}, &ranges_);
    for (uint64_t i = 0; i < pages; ++i) {
      Append(uint64_t{buffer.gpa / kPageBytes + i}, &ranges_);
    }
  }
  return true;
}

// -- GPADLs ------------------------------------------------------------------

absl::StatusOr<GpadlHandle> RingChannel::CreateGpadl(
    absl::Span<const uint64_t> page_numbers, uint32_t byte_count,
    uint32_t byte_offset, GuestAccess access) {
  if (!life_.is_up()) {
    return absl::FailedPreconditionError(
        "only an open channel may make GPADLs");
  }
  const absl::StatusOr<GpadlId> gpadl =
      connection_->CreateGpadl(id(), page_numbers, byte_count, byte_offset);
  if (!gpadl.ok()) return gpadl.status();
  return gpadls_[*gpadl] = MakeGpadlHandle(*gpadl, access);
}

absl::Status RingChannel::DeleteGpadl(GpadlHandle gpadl) {
  if (gpadls_.count(IdOf(gpadl)) == 0) {
    return absl::NotFoundError("the channel has no such GPADL");
  }
  return connection_->TeardownGpadl(IdOf(gpadl));
}

}  // namespace ferrybus::vsc
