// SPDX-License-Identifier: MIT
//
// An endpoint's own packets: sent, waiting for room, awaiting completion.  All
// of it may run on any thread.

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/check.h"
#include "ferrybus/channel/packet_endpoint.h"
#include "ferrybus/channel/pipe_header.h"
#include "ferrybus/ringbuffer/packet_ranges.h"

namespace ferrybus {

using ringbuffer::PacketHeader;
using ringbuffer::PacketRingBytes;
using ringbuffer::PacketType;
using ringbuffer::WriteResult;

// -- Sends -------------------------------------------------------------------

bool PacketEndpoint::Fits(size_t extension_bytes, size_t payload_bytes,
                          uint64_t ring_bytes_max) {
  const uint64_t total = PacketRingBytes(
      ringbuffer::kDescriptorBytes + extension_bytes, payload_bytes);
  return extension_bytes % 8 == 0 && total <= ring_bytes_max &&
         (total - ringbuffer::kTrailerBytes) / 8 <= 0xffff;
}

bool PacketEndpoint::FitsLocked(size_t extension_bytes,
                                size_t payload_bytes) const {
  // Without a ring; Attach() looks again.
  const uint64_t ring_bytes_max =
      state_ == EndpointRunState::kDetached
          ? ~uint64_t{0}
          : ringbuffer::MaxSendRingBytes(outgoing_.ring().data_bytes);
  return Fits(extension_bytes, payload_bytes, ring_bytes_max);
}

SendStatus PacketEndpoint::CheckSendLocked(const OutgoingPacket& packet) const {
  if (state_ == EndpointRunState::kFaulted ||
      (state_ == EndpointRunState::kDetached &&
       !(packet.may_queue && packet.may_wait_for_open))) {
    return SendStatus::kClosed;
  }
  const bool is_external = !packet.extension.empty();
  size_t payload_bytes = packet.payload.size();
  if (options_.is_pipe) {
    if (packet.wants_completion || is_external) {
      return SendStatus::kNotSupported;
    }
    if (payload_bytes > kMaxPipeDataBytes) return SendStatus::kTooLarge;
    payload_bytes += sizeof(PipeHeader);
  }
  if (options_.max_payload_bytes != 0 &&
      packet.payload.size() > options_.max_payload_bytes) {
    return SendStatus::kTooLarge;
  }
  if (!FitsLocked(packet.extension.size(), payload_bytes)) {
    return SendStatus::kTooLarge;
  }
  // Only the guest has memory to show.
  return is_external && side_ == EndpointSide::kHost ? SendStatus::kNotSupported
                                                     : SendStatus::kOk;
}

SendStatus PacketEndpoint::Send(const OutgoingPacket& packet) {
  Afterwards after;
  SendStatus status;
  {
    absl::MutexLock lock(&mu_);
    status = CheckSendLocked(packet);
    if (status == SendStatus::kOk) status = SendLocked(packet, &after);
    if (after.work) LeaveLocked(&after);
  }
  if (after.leaving) Do(after);
  return status;
}

SendStatus PacketEndpoint::SendLocked(const OutgoingPacket& packet,
                                      Afterwards* after) {
  absl::Span<const std::byte> payload = packet.payload;
  if (options_.is_pipe) {
    BuildPipePayload(payload, &pipe_bytes_);
    payload = pipe_bytes_;
  }
  const uint64_t total = PacketRingBytes(
      ringbuffer::kDescriptorBytes + packet.extension.size(), payload.size());
  PacketHeader header;
  header.type = packet.type;
  if (packet.wants_completion) {
    header.flags = ringbuffer::kFlagCompletionRequested;
    if (!AllocateTransactionLocked(packet.tag, packet.reply,
                                   &header.transaction_id)) {
      wanted_room_ = total;
      return SendStatus::kFull;
    }
  }
  WriteResult result = WriteResult::kFull;
  if (queue_.empty() && flows()) {
    result = outgoing_.Write(header, packet.extension, payload);
  }
  if (result == WriteResult::kOk) {
    CountSentLocked(packet.extension.size() + payload.size());
    NoteSentLocked(header, packet.tag, packet.wants_sent, packet.reply, after);
    return SendStatus::kOk;
  }
  if (result == WriteResult::kFull && packet.may_queue &&
      queue_.size() < limits().max_queued) {
    QueuedPacket& queued = PushQueueLocked(header, packet.extension, payload);
    queued.tag = packet.tag;
    queued.wants_sent = packet.wants_sent;
    queued.reply = packet.reply;
    return SendStatus::kOk;
  }
  if (packet.wants_completion) {
    (void)FreeTransactionLocked(header.transaction_id);
  }
  if (result == WriteResult::kCorrupt) {
    FaultLocked(
        absl::StrCat("outgoing ring: ", RingFaultName(outgoing_.fault())));
    return SendStatus::kClosed;
  }
  if (result == WriteResult::kTooLarge) return SendStatus::kTooLarge;
  wanted_room_ = total;
  return SendStatus::kFull;
}

// A packet is in the ring: whoever waits for no more than that is told.
void PacketEndpoint::NoteSentLocked(const PacketHeader& header, uint64_t tag,
                                    bool wants_sent, ReplyRoom* reply,
                                    Afterwards* after) {
  if (wants_sent) {
    sent_tags_.push_back(tag);
    after->work = true;
  }
  const bool awaits =
      (header.flags & ringbuffer::kFlagCompletionRequested) != 0;
  if (reply != nullptr && !awaits) reply->state = ReplyRoom::State::kDone;
}

// -- The queue ---------------------------------------------------------------

void PacketEndpoint::Reserve(uint32_t packets) {
  absl::MutexLock lock(&mu_);
  const uint32_t bytes = options_.max_payload_bytes != 0
                             ? options_.max_payload_bytes
                             : limits().max_packet_bytes;
  queue_.Reserve(packets, bytes + sizeof(PipeHeader));
  sent_tags_.reserve(packets);
  transactions_.reserve(limits().max_awaiting);
  free_transactions_.reserve(limits().max_awaiting);
  if (options_.is_pipe) pipe_bytes_.reserve(bytes + sizeof(PipeHeader));
}

QueuedPacket& PacketEndpoint::PushQueueLocked(
    const PacketHeader& header, absl::Span<const std::byte> extension,
    absl::Span<const std::byte> payload) {
  if (header.type == PacketType::kCompletion) ++queued_replies_;
  return queue_.Push(header, extension, payload);
}

void PacketEndpoint::ClearQueueLocked() {
  for (uint32_t i = 0; i < queue_.size(); ++i) {
    ReplyRoom* const reply = queue_.at(i).reply;
    if (reply != nullptr) reply->state = ReplyRoom::State::kGone;
  }
  queue_.Clear();
  sent_tags_.clear();
  queued_replies_ = 0;
}

// -- Transactions ------------------------------------------------------------

// Ids are index + 1 with a generation above, so that a late or repeated
// completion matches nothing.
bool PacketEndpoint::AllocateTransactionLocked(uint64_t tag, ReplyRoom* reply,
                                               uint64_t* id) {
  if (free_transactions_.empty()) {
    if (transactions_.size() >= limits().max_awaiting) return false;
    free_transactions_.push_back(static_cast<uint32_t>(transactions_.size()));
    transactions_.emplace_back();
  }
  const uint32_t index = free_transactions_.back();
  free_transactions_.pop_back();
  Transaction& transaction = transactions_[index];
  transaction.awaiting = true;
  transaction.cancelled = false;
  transaction.tag = tag;
  transaction.reply = reply;
  ++awaiting_;
  *id = IdOf(index, transaction);
  return true;
}

const PacketEndpoint::Transaction* PacketEndpoint::FreeTransactionLocked(
    uint64_t id) {
  const uint64_t index = (id & 0xffffffff) - 1;
  if (index >= transactions_.size()) return nullptr;
  Transaction& transaction = transactions_[index];
  if (!transaction.awaiting || transaction.generation != id >> 32) {
    return nullptr;
  }
  transaction.awaiting = false;
  ++transaction.generation;
  --awaiting_;
  free_transactions_.push_back(static_cast<uint32_t>(index));
  return &transaction;
}

void PacketEndpoint::ForgetTransactionsLocked() {
  for (const Transaction& each : transactions_) {
    if (each.awaiting && each.reply != nullptr) {
      each.reply->state = ReplyRoom::State::kGone;
    }
  }
  transactions_.clear();
  free_transactions_.clear();
  awaiting_ = 0;
}

bool PacketEndpoint::Cancel(uint64_t tag) {
  return CancelIf([tag](uint64_t its_tag, const ReplyRoom* reply) {
    return its_tag == tag && reply == nullptr;
  });
}

bool PacketEndpoint::Cancel(const ReplyRoom* reply) {
  return CancelIf([reply](uint64_t, const ReplyRoom* its_reply) {
    return its_reply == reply;
  });
}

bool PacketEndpoint::CancelIf(
    absl::FunctionRef<bool(uint64_t tag, const ReplyRoom* reply)> is_it) {
  bool found = false;
  {
    absl::MutexLock lock(&mu_);
    for (uint32_t i = 0; i < queue_.size() && !found; ++i) {
      const QueuedPacket& queued = queue_.at(i);
      if (queued.header.type == PacketType::kCompletion ||
          !is_it(queued.tag, queued.reply)) {
        continue;
      }
      if (queued.header.flags & ringbuffer::kFlagCompletionRequested) {
        (void)FreeTransactionLocked(queued.header.transaction_id);
      }
      queue_.Remove(i);
      found = true;
    }
    for (Transaction& each : transactions_) {
      if (found || !each.awaiting || each.cancelled ||
          !is_it(each.tag, each.reply)) {
        continue;
      }
      each.cancelled = true;
      each.reply = nullptr;
      found = true;
    }
  }
  if (found) Flush();  // what stood behind may fit
  return found;
}

ReplyRoom::State PacketEndpoint::Look(const ReplyRoom& reply) const {
  absl::MutexLock lock(&mu_);
  if (reply.state == ReplyRoom::State::kWaiting &&
      state_ == EndpointRunState::kFaulted) {
    return ReplyRoom::State::kGone;
  }
  return reply.state;
}

}  // namespace ferrybus
