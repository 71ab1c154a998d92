// SPDX-License-Identifier: MIT
//
// The C functions that save and restore a server's packets.

#include <algorithm>
#include <cstring>
#include <utility>

#include "ferrybus/kmcl/channel.h"
#include "ferrybus/kmcl/save_stream.h"
#include "ferrybus/savestate/size_negotiation.h"

using ferrybus::EndpointState;
using ferrybus::kmcl::Chunk;
using ferrybus::kmcl::ChunkKind;
using ferrybus::kmcl::PacketRecord;
using ferrybus::kmcl::RestoreStream;
using ferrybus::kmcl::SaveStream;
using ferrybus::kmcl::ServerChannelOf;
using ferrybus::savestate::SizeAnswer;

namespace {

std::string MakeRecord(PacketRecord::State state, uint64_t transaction_id,
                       bool waits, const std::string& payload) {
  PacketRecord record;
  record.transaction_id = transaction_id;
  record.state = state;
  record.waits = waits ? 1 : 0;
  record.payload_bytes = static_cast<uint32_t>(payload.size());
  std::string bytes(sizeof(record), '\0');
  std::memcpy(bytes.data(), &record, sizeof(record));
  return bytes + payload;
}

void AppendSized(const std::string& part, std::string* out) {
  const uint32_t bytes = static_cast<uint32_t>(part.size());
  out->append(reinterpret_cast<const char*>(&bytes), sizeof(bytes));
  out->append(part);
}

bool TakeSized(absl::Span<const std::byte>* in, std::string* part) {
  uint32_t bytes = 0;
  if (in->size() < sizeof(bytes)) return false;
  std::memcpy(&bytes, in->data(), sizeof(bytes));
  in->remove_prefix(sizeof(bytes));
  if (bytes > in->size()) return false;
  part->assign(reinterpret_cast<const char*>(in->data()), bytes);
  in->remove_prefix(bytes);
  return true;
}

// -- Save --------------------------------------------------------------------

// The packets of an open channel, from where the library has them.
void CollectOpen(FerrybusChannel& channel, EndpointState* state,
                 SaveStream* stream) {
  const auto is_queued = [state](uint64_t id) {
    return std::any_of(
        state->queued.begin(), state->queued.end(),
        [id](const auto& each) { return each.transaction_id == id; });
  };
  for (const EndpointState::Awaiting& each : state->awaiting) {
    FerrybusPacket* const packet = channel.InFlight(each.tag);
    if (packet == nullptr || is_queued(each.transaction_id)) continue;
    stream->items.push_back(
        {packet, MakeRecord(PacketRecord::kAwaiting, each.transaction_id, true,
                            std::string())});
  }
  std::vector<EndpointState::Queued> completions;
  for (EndpointState::Queued& each : state->queued) {
    if (each.type == ferrybus::ringbuffer::PacketType::kCompletion) {
      completions.push_back(std::move(each));
      continue;
    }
    FerrybusPacket* const packet = channel.InFlight(each.tag);
    if (packet == nullptr) continue;
    stream->items.push_back(
        {packet, MakeRecord(PacketRecord::kQueued, each.transaction_id,
                            packet->waits, each.payload)});
  }
  state->queued = std::move(completions);
  state->awaiting.clear();
}

void CollectUnsent(FerrybusChannel& channel, SaveStream* stream) {
  for (FerrybusPacket* packet = channel.unsent_first; packet != nullptr;
       packet = packet->next) {
    stream->items.push_back(
        {packet,
         MakeRecord(PacketRecord::kUnsent, 0, packet->waits,
                    std::string(reinterpret_cast<const char*>(packet + 1),
                                packet->payload_bytes))});
  }
}

// The user's bytes of a packet, by the documented two calls.
NTSTATUS AskUser(FerrybusChannel& channel, VMBPACKET packet,
                 std::string* bytes) {
  NTSTATUS last = STATUS_SUCCESS;
  const auto blob = ferrybus::savestate::NegotiateSize(
      {.dialect = ferrybus::savestate::SizingDialect::kKmcl}, "packet",
      [&](absl::Span<std::byte> buffer) {
        UINT32 needed = static_cast<UINT32>(buffer.size());
        last = channel.settings.save_packet(
            &channel, packet, buffer.empty() ? nullptr : buffer.data(), needed,
            &needed);
        if (last == STATUS_SUCCESS) return SizeAnswer::Ok(needed);
        if (NT_SUCCESS(last)) {
          return SizeAnswer{SizeAnswer::Code::kPending, needed, {}};
        }
        if (last == STATUS_BUFFER_TOO_SMALL)
          return SizeAnswer::TooSmall(needed);
        return SizeAnswer::Failed(absl::InternalError("the user's failure"),
                                  needed);
      });
  if (blob.ok()) {
    *bytes = *blob;
    return STATUS_SUCCESS;
  }
  return NT_SUCCESS(last) ? STATUS_UNSUCCESSFUL : last;
}

NTSTATUS MakeNextChunk(FerrybusChannel& channel) {
  SaveStream& stream = *channel.saving;
  if (!stream.chunk.empty()) return STATUS_SUCCESS;
  ChunkKind kind = ChunkKind::kPacket;
  std::string body;
  if (stream.next == 0) {
    kind = ChunkKind::kChannel;
    body = stream.channel_body;
  } else if (stream.next <= stream.items.size()) {
    const SaveStream::Item& item = stream.items[stream.next - 1];
    std::string user;
    const NTSTATUS status = AskUser(channel, item.packet, &user);
    if (!NT_SUCCESS(status)) return status;
    AppendSized(item.record, &body);
    AppendSized(user, &body);
  } else {
    kind = ChunkKind::kEnd;
    const uint32_t count = static_cast<uint32_t>(stream.items.size());
    body.assign(reinterpret_cast<const char*>(&count), sizeof(count));
  }
  stream.chunk = MakeChunk(kind, stream.next, body);
  return STATUS_SUCCESS;
}

// -- Restore -----------------------------------------------------------------

NTSTATUS FailRestore(FerrybusChannel& channel, NTSTATUS status) {
  const std::unique_ptr<RestoreStream> stream = std::move(channel.restoring);
  for (FerrybusPacket* packet : stream->packets) {
    if (!packet->in_flight) continue;  // the bus has cancelled it
    channel.DropUnsent(packet);
    channel.Finish(packet, STATUS_CANCELLED, {});
  }
  return status;
}

NTSTATUS RestoreChannelChunk(FerrybusChannel& channel, const Chunk& chunk) {
  if (chunk.body.empty()) return STATUS_INVALID_PARAMETER;
  RestoreStream& stream = *channel.restoring;
  stream.was_open = chunk.body[0] != std::byte{0};
  if (!stream.was_open) return STATUS_SUCCESS;
  if (ServerChannelOf(channel) == nullptr) return STATUS_INVALID_DEVICE_STATE;
  auto snapshot = ferrybus::ParseChannelSnapshot(
      chunk.body.subspan(1), ServerChannelOf(channel)->endpoint().limits(),
      "saved channel");
  if (!snapshot.ok()) return STATUS_INVALID_PARAMETER;
  stream.snapshot = *std::move(snapshot);
  return STATUS_SUCCESS;
}

NTSTATUS RestorePacketChunk(FerrybusChannel& channel, const Chunk& chunk) {
  RestoreStream& stream = *channel.restoring;
  absl::Span<const std::byte> body = chunk.body;
  std::string user;
  if (!TakeSized(&body, &stream.current) || !TakeSized(&body, &user) ||
      !body.empty()) {
    return STATUS_INVALID_PARAMETER;
  }
  stream.is_current_restored = false;
  const NTSTATUS status = channel.settings.restore_packet(
      &channel, stream.current.data(),
      static_cast<UINT32>(stream.current.size()),
      user.empty() ? nullptr : user.data(), static_cast<UINT32>(user.size()));
  if (!NT_SUCCESS(status)) return status;
  // Else its transaction would vanish.
  return stream.is_current_restored ? STATUS_SUCCESS : STATUS_INVALID_PARAMETER;
}

NTSTATUS RestoreEndChunk(FerrybusChannel& channel, const Chunk& chunk) {
  RestoreStream& stream = *channel.restoring;
  uint32_t count = 0;
  if (chunk.body.size() != sizeof(count)) return STATUS_INVALID_PARAMETER;
  std::memcpy(&count, chunk.body.data(), sizeof(count));
  if (count != stream.packets.size()) return STATUS_INVALID_PARAMETER;
  if (!stream.was_open) return STATUS_SUCCESS;
  channel.is_restoring_open = true;
  const absl::Status status = channel.world->server->RestoreChannel(
      ServerChannelOf(channel)->offer(), stream.snapshot);
  channel.is_restoring_open = false;
  if (!status.ok()) return STATUS_INVALID_PARAMETER;
  channel.takes_packets = true;
  return STATUS_SUCCESS;
}

// Puts a packet where its record says; false: the record is unsound.
bool AddRestored(FerrybusChannel& channel, FerrybusPacket* packet,
                 const PacketRecord& record, const std::string& payload) {
  EndpointState& state = channel.restoring->snapshot.endpoint;
  if (record.state != PacketRecord::kAwaiting &&
      record.state != PacketRecord::kQueued) {
    return false;
  }
  if (!channel.TakeIndex(packet)) return false;
  packet->waits = record.waits != 0;
  if (packet->waits) {
    state.awaiting.push_back({record.transaction_id, packet->index, "", false});
  }
  if (record.state == PacketRecord::kQueued) {
    const uint16_t flags =
        packet->waits ? ferrybus::ringbuffer::kFlagCompletionRequested : 0;
    state.queued.push_back({ferrybus::ringbuffer::PacketType::kDataInBand,
                            flags, record.transaction_id, "", payload,
                            packet->index, !packet->waits});
  }
  return true;
}

}  // namespace

NTSTATUS VmbChannelSaveBegin(VMBCHANNEL Channel) {
  if (Channel == nullptr || !Channel->is_server) {
    return STATUS_INVALID_PARAMETER_1;
  }
  if (!Channel->is_enabled() || Channel->saving != nullptr) {
    return STATUS_INVALID_DEVICE_STATE;
  }
  auto stream = std::make_unique<SaveStream>();
  stream->channel_body.assign(1, Channel->is_open ? '\1' : '\0');
  if (Channel->is_open) {
    auto state = ServerChannelOf(*Channel)->BeginSave();
    if (!state.ok()) return STATUS_INVALID_DEVICE_STATE;
    CollectOpen(*Channel, &*state, stream.get());
    stream->channel_body += ferrybus::SaveChannelSnapshot({*state, ""});
  } else {
    CollectUnsent(*Channel, stream.get());
  }
  const bool has_callback = Channel->settings.save_packet != nullptr;
  Channel->saving = std::move(stream);
  if (Channel->saving->items.empty() || has_callback) return STATUS_SUCCESS;
  VmbChannelSaveEnd(Channel);
  return STATUS_INVALID_DEVICE_STATE;
}

NTSTATUS VmbChannelSaveContinue(VMBCHANNEL Channel, PVOID SaveBuffer,
                                UINT32 SaveBufferSize, UINT32* BytesFilled,
                                UINT32* BytesRequired) {
  *BytesFilled = *BytesRequired = 0;
  if (Channel->saving == nullptr) return STATUS_INVALID_DEVICE_STATE;
  SaveStream& stream = *Channel->saving;
  const UINT32 room = SaveBuffer == nullptr ? 0 : SaveBufferSize;
  while (stream.next < stream.items.size() + 2) {
    const NTSTATUS status = MakeNextChunk(*Channel);
    if (!NT_SUCCESS(status)) return status;
    if (stream.chunk.size() > room - *BytesFilled) {
      *BytesRequired = static_cast<UINT32>(stream.chunk.size());
      return *BytesFilled == 0 ? STATUS_BUFFER_TOO_SMALL
                               : STATUS_BUFFER_OVERFLOW;
    }
    std::memcpy(static_cast<char*>(SaveBuffer) + *BytesFilled,
                stream.chunk.data(), stream.chunk.size());
    *BytesFilled += static_cast<UINT32>(stream.chunk.size());
    stream.chunk.clear();
    ++stream.next;
  }
  return STATUS_SUCCESS;
}

void VmbChannelSaveEnd(VMBCHANNEL Channel) {
  if (Channel->saving == nullptr) return;
  Channel->saving.reset();
  if (Channel->is_open) ServerChannelOf(*Channel)->EndSave();
}

NTSTATUS VmbChannelRestoreFromBuffer(VMBCHANNEL Channel, PVOID SaveBuffer,
                                     UINT32 SaveBufferSize) {
  if (Channel == nullptr || !Channel->is_server) {
    return STATUS_INVALID_PARAMETER_1;
  }
  if (!Channel->is_enabled() || Channel->is_open ||
      Channel->settings.restore_packet == nullptr) {
    return STATUS_INVALID_DEVICE_STATE;
  }
  if (Channel->restoring == nullptr) {
    Channel->restoring = std::make_unique<RestoreStream>();
  }
  absl::Span<const std::byte> left(static_cast<const std::byte*>(SaveBuffer),
                                   SaveBufferSize);
  while (!left.empty()) {
    Chunk chunk;
    RestoreStream& stream = *Channel->restoring;
    if (!TakeChunk(&left, &chunk) || chunk.sequence != stream.next ||
        (chunk.kind == ChunkKind::kChannel) != (stream.next == 0)) {
      return FailRestore(*Channel, STATUS_INVALID_PARAMETER);
    }
    ++stream.next;
    NTSTATUS status = STATUS_INVALID_PARAMETER;
    if (Channel->is_forced_new()) {
      // It is offered anew: what was saved is dropped.
      if (chunk.kind != ChunkKind::kEnd || left.empty()) {
        status = STATUS_SUCCESS;
      }
    } else if (chunk.kind == ChunkKind::kChannel) {
      status = RestoreChannelChunk(*Channel, chunk);
    } else if (chunk.kind == ChunkKind::kPacket) {
      status = RestorePacketChunk(*Channel, chunk);
    } else if (chunk.kind == ChunkKind::kEnd && left.empty()) {
      status = RestoreEndChunk(*Channel, chunk);
    }
    if (!NT_SUCCESS(status)) return FailRestore(*Channel, status);
    if (chunk.kind == ChunkKind::kEnd) {
      Channel->restoring.reset();
      return STATUS_SUCCESS;
    }
  }
  return STATUS_MORE_PROCESSING_REQUIRED;
}

NTSTATUS VmbPacketRestore(VMBPACKET Packet, PVOID LibraryBuffer,
                          UINT32 LibraryBufferSize) {
  if (Packet == nullptr || Packet->in_flight || Packet->routine == nullptr) {
    return STATUS_INVALID_PARAMETER_1;
  }
  FerrybusChannel& channel = *Packet->channel;
  if (channel.restoring == nullptr || channel.restoring->is_current_restored) {
    return STATUS_INVALID_DEVICE_STATE;
  }
  RestoreStream& stream = *channel.restoring;
  const std::string given(static_cast<const char*>(LibraryBuffer),
                          LibraryBufferSize);
  PacketRecord record;
  if (given != stream.current || given.size() < sizeof(record)) {
    return STATUS_INVALID_PARAMETER_2;
  }
  std::memcpy(&record, given.data(), sizeof(record));
  const std::string payload = given.substr(sizeof(record));
  if (payload.size() != record.payload_bytes ||
      payload.size() > channel.settings.packet_bytes_max) {
    return STATUS_INVALID_PARAMETER_2;
  }
  if (record.state == PacketRecord::kUnsent && !stream.was_open) {
    const NTSTATUS sent = channel.Send(
        Packet,
        {reinterpret_cast<const std::byte*>(payload.data()), payload.size()},
        {}, record.waits != 0);
    if (!NT_SUCCESS(sent)) return sent;
  } else if (!stream.was_open ||
             !AddRestored(channel, Packet, record, payload)) {
    return STATUS_INVALID_PARAMETER_2;
  }
  stream.packets.push_back(Packet);
  stream.is_current_restored = true;
  return STATUS_SUCCESS;
}
