// SPDX-License-Identifier: MIT

#include "ferrybus/kmcl/channel.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <optional>
#include <utility>

#include "ferrybus/channel/check.h"
#include "ferrybus/kmcl/save_stream.h"

using ferrybus::ChannelRun;
using ferrybus::IncomingPacket;
using ferrybus::SendStatus;
using ferrybus::kmcl::External;
using ferrybus::kmcl::QuietScope;
using ferrybus::vsc::GuestBuffer;

namespace {

constexpr uint64_t kPageBytes = 4096;

void FreePacketRoutine(VMBPACKET packet, NTSTATUS, PVOID, UINT32) {
  VmbPacketFree(packet);
}

std::byte* PayloadRoom(FerrybusPacket* packet) {
  return reinterpret_cast<std::byte*>(packet + 1);
}

size_t RoundUp(size_t bytes) { return (bytes + 7) / 8 * 8; }

}  // namespace

FerrybusChannel::FerrybusChannel(FERRYBUS_PARENT parent, bool server)
    : world(parent->world),
      is_server(server),
      run(server ? ChannelRun::kPaused : ChannelRun::kActive) {
  world->channels.push_back(this);
}

FerrybusChannel::~FerrybusChannel() {
  auto& all = world->channels;
  all.erase(std::remove(all.begin(), all.end(), this), all.end());
  while (free_packets != nullptr) {
    ::operator delete(std::exchange(free_packets, free_packets->next));
  }
  while (unsent_first != nullptr) {
    FerrybusPacket* const packet =
        std::exchange(unsent_first, unsent_first->next);
    if (packet->is_allocated) ::operator delete(packet);
  }
}

// -- States ------------------------------------------------------------------

NTSTATUS FerrybusChannel::OnOpened() {
  // A client may make GPADLs here, which waits for the server.
  std::optional<QuietScope> quiet;
  if (is_server) quiet.emplace(*world);
  is_open = true;
  EVT_VMB_CHANNEL_OPENED* const opened = settings.state.EvtChannelOpened;
  const NTSTATUS status = opened != nullptr ? opened(this) : STATUS_SUCCESS;
  if (!NT_SUCCESS(status)) {
    is_open = false;
    return status;
  }
  if (!is_open) return STATUS_CANCELLED;  // closed meanwhile
  if (quota != 0) side->SetQuota(quota);
  // A restored channel had sent what it had; nothing flows yet.
  if (!is_restoring_open) SendUnsent();
  return STATUS_SUCCESS;
}

// What was sent before the opening goes first.
void FerrybusChannel::SendUnsent() {
  takes_packets = true;
  FerrybusPacket* packet = std::exchange(unsent_first, nullptr);
  unsent_last = nullptr;
  while (packet != nullptr) {
    FerrybusPacket* const next = packet->next;
    const std::byte* const payload = PayloadRoom(packet);
    const auto* const external = payload + RoundUp(settings.packet_bytes_max);
    const SendStatus sent = side->Send(
        {payload, packet->payload_bytes},
        {{reinterpret_cast<const GuestBuffer*>(external), packet->buffer_count},
         {reinterpret_cast<const uint64_t*>(external), packet->page_count}},
        packet->waits, packet->index);
    if (sent != SendStatus::kOk) {
      Finish(packet, ferrybus::kmcl::ToNtStatus(sent), {});
    }
    packet = next;
  }
}

void FerrybusChannel::OnStarted() {
  const QuietScope quiet(*world);
  if (settings.state.EvtChannelStarted != nullptr) {
    settings.state.EvtChannelStarted(this);
  }
}

void FerrybusChannel::OnPostStarted() {
  if (settings.state.EvtChannelPostStarted != nullptr) {
    settings.state.EvtChannelPostStarted(this);
  }
}

void FerrybusChannel::OnSuspend() {
  const QuietScope quiet(*world);
  if (settings.state.EvtChannelSuspend != nullptr) {
    settings.state.EvtChannelSuspend(this);
  }
}

void FerrybusChannel::OnClosed() {
  takes_packets = false;
  if (!std::exchange(is_open, false)) return;
  const QuietScope quiet(*world);
  CancelInFlight(is_disabling ? STATUS_DEVICE_REMOVED : STATUS_CANCELLED);
  if (settings.state.EvtChannelClosed != nullptr) {
    settings.state.EvtChannelClosed(this);
  }
  mapped_gpadls.clear();
}

void FerrybusChannel::OnAbandoned() {
  if (!is_server || side == nullptr) return;
  side->Abandon();
  saving.reset();
  is_open = takes_packets = false;
  CancelInFlight(STATUS_DEVICE_REMOVED);
}

void FerrybusChannel::OnOpenFailed() {
  const QuietScope quiet(*world);
  if (settings.pnp_failure != nullptr) {
    settings.pnp_failure(this, STATUS_UNSUCCESSFUL);
  }
}

// -- Packets that came -------------------------------------------------------

void FerrybusChannel::OnPacket(IncomingPacket packet) {
  const uint32_t slot = packet.info().slot;
  while (completions.size() <= slot) completions.emplace_back();
  FerrybusCompletion& completion = completions[slot];
  completion.channel = this;
  completion.packet = std::move(packet);
  completion.gives_back = false;
  completion.context.assign((settings.context_bytes + 7) / 8, 0);
  if (settings.process_packet == nullptr) {
    VmbChannelPacketComplete(&completion, nullptr, 0);
    return;
  }
  const auto payload = completion.packet.payload();
  const UINT32 flags = completion.packet.has_external_data()
                           ? VMBUS_CHANNEL_PROCESS_PACKET_FLAG_EXTERNAL_DATA
                           : 0;
  const auto process = [&] {
    settings.process_packet(this, &completion,
                            const_cast<std::byte*>(payload.data()),
                            static_cast<UINT32>(payload.size()), flags);
  };
  if (completion.packet.may_block()) {
    process();
  } else {
    const QuietScope quiet(*world);
    process();
  }
  // Only set within the callback, so nobody else has it then.
  if (completion.gives_back) std::move(completion.packet).Defer();
}

void FerrybusChannel::OnBatchEnd(size_t count) {
  const QuietScope quiet(*world);
  if (settings.processing_complete != nullptr) {
    settings.processing_complete(this, static_cast<UINT32>(count));
  }
}

// -- Packets that are sent ---------------------------------------------------

size_t FerrybusChannel::external_room_bytes() const {
  return std::max<size_t>(
      settings.external_ranges_max * sizeof(GuestBuffer),
      (settings.external_bytes_max / kPageBytes + 1) * sizeof(uint64_t));
}

uint32_t FerrybusChannel::packet_object_bytes() const {
  size_t bytes = sizeof(FerrybusPacket) + RoundUp(settings.packet_bytes_max);
  if (!is_server) bytes += external_room_bytes();
  return static_cast<uint32_t>(bytes);
}

bool FerrybusChannel::TakeIndex(FerrybusPacket* packet) {
  if (packets.empty()) {
    packets.resize(settings.packet_count_max);
    for (uint32_t i = settings.packet_count_max; i-- > 0;) {
      free_indices.push_back(i);
    }
  }
  if (free_indices.empty()) return false;
  packet->index = free_indices.back();
  free_indices.pop_back();
  packets[packet->index] = packet;
  packet->in_flight = true;
  return true;
}

NTSTATUS FerrybusChannel::Send(FerrybusPacket* packet,
                               absl::Span<const std::byte> payload,
                               const External& external, bool waits) {
  if (!TakeIndex(packet)) return STATUS_INSUFFICIENT_RESOURCES;
  packet->waits = waits;
  if (takes_packets) {
    const SendStatus sent = side->Send(payload, external, waits, packet->index);
    if (sent == SendStatus::kOk) return STATUS_SUCCESS;
    packet->in_flight = false;
    packets[packet->index] = nullptr;
    free_indices.push_back(packet->index);
    return ferrybus::kmcl::ToNtStatus(sent);
  }
  packet->payload_bytes = static_cast<uint32_t>(payload.size());
  packet->buffer_count = static_cast<uint32_t>(external.buffers.size());
  packet->page_count = static_cast<uint32_t>(external.pages.size());
  std::byte* const room = PayloadRoom(packet);
  std::copy(payload.begin(), payload.end(), room);
  std::byte* const behind = room + RoundUp(settings.packet_bytes_max);
  if (!external.buffers.empty()) {
    std::memcpy(behind, external.buffers.data(),
                external.buffers.size() * sizeof(GuestBuffer));
  }
  if (!external.pages.empty()) {
    std::memcpy(behind, external.pages.data(),
                external.pages.size() * sizeof(uint64_t));
  }
  packet->next = nullptr;
  (unsent_first == nullptr ? unsent_first : unsent_last->next) = packet;
  unsent_last = packet;
  return STATUS_SUCCESS;
}

// Takes a packet out of those that wait for the opening, if it is there.
void FerrybusChannel::DropUnsent(FerrybusPacket* packet) {
  FerrybusPacket* kept = nullptr;
  for (FerrybusPacket* each = unsent_first; each != nullptr;
       each = each->next) {
    if (each != packet) {
      kept = each;
      continue;
    }
    (kept == nullptr ? unsent_first : kept->next) = each->next;
    if (unsent_last == each) unsent_last = kept;
    return;
  }
}

bool FerrybusChannel::Resolve(const void* at, uint64_t bytes,
                              uint64_t* gpa) const {
  const std::byte* const base = world->memory->Translate(0, 1).data();
  const auto offset =
      reinterpret_cast<uintptr_t>(at) - reinterpret_cast<uintptr_t>(base);
  if (offset >= world->memory->page_count() * kPageBytes) return false;
  *gpa = offset;
  return world->memory->Translate(offset, bytes).data() == at;
}

bool FerrybusChannel::ResolveChain(PMDL mdl, uint32_t offset, uint32_t length,
                                   bool force,
                                   std::vector<GuestBuffer>* buffers) const {
  buffers->clear();
  const bool all = length == 0;
  uint64_t left = all ? UINT64_MAX : length;
  for (; mdl != nullptr && left != 0; mdl = mdl->Next) {
    if (offset >= mdl->ByteCount) {
      offset -= mdl->ByteCount;
      continue;
    }
    const auto* const at =
        static_cast<const std::byte*>(mdl->MappedSystemVa) + offset;
    uint64_t bytes = std::min<uint64_t>(left, mdl->ByteCount - offset);
    if (force) {
      // To the end of the page that the buffer ends in, and no further.
      const uint64_t into_page =
          (reinterpret_cast<uintptr_t>(mdl->MappedSystemVa) + mdl->ByteCount) %
          kPageBytes;
      const uint64_t most = mdl->ByteCount - offset +
                            (into_page == 0 ? 0 : kPageBytes - into_page);
      if (all || left > most) return false;
      bytes = left;
    }
    uint64_t gpa = 0;
    if (!Resolve(at, bytes, &gpa)) return false;
    buffers->push_back({gpa, static_cast<uint32_t>(bytes)});
    offset = 0;
    left -= all ? 0 : bytes;
    if (force) break;
  }
  return !buffers->empty() && (all || left == 0);
}

FerrybusPacket* FerrybusChannel::InFlight(uint64_t tag) {
  return tag < packets.size() ? packets[tag] : nullptr;
}

void FerrybusChannel::Finish(FerrybusPacket* packet, NTSTATUS status,
                             absl::Span<const std::byte> reply) {
  packets[packet->index] = nullptr;
  free_indices.push_back(packet->index);
  packet->in_flight = false;
  const QuietScope quiet(*world);
  packet->routine(packet, status, const_cast<std::byte*>(reply.data()),
                  static_cast<UINT32>(reply.size()));
}

void FerrybusChannel::OnCompletion(uint64_t tag,
                                   absl::Span<const std::byte> reply) {
  FerrybusPacket* const packet = InFlight(tag);
  if (packet != nullptr) Finish(packet, STATUS_SUCCESS, reply);
}

void FerrybusChannel::OnSent(uint64_t tag) {
  FerrybusPacket* const packet = InFlight(tag);
  if (packet != nullptr) Finish(packet, STATUS_SUCCESS, {});
}

// Those that the library had; not those that wait for the next opening.
void FerrybusChannel::CancelInFlight(NTSTATUS status) {
  std::vector<FerrybusPacket*> cancelled;
  for (FerrybusPacket* packet : packets) {
    if (packet == nullptr) continue;
    bool is_unsent = false;
    for (FerrybusPacket* each = unsent_first; each != nullptr;
         each = each->next) {
      is_unsent |= each == packet;
    }
    if (!is_unsent) cancelled.push_back(packet);
  }
  for (FerrybusPacket* packet : cancelled) Finish(packet, status, {});
}

// -- The C functions for packets ---------------------------------------------

VMBPACKET VmbPacketAllocate(VMBCHANNEL Channel) {
  FerrybusPacket* packet = Channel->free_packets;
  if (packet != nullptr) {
    Channel->free_packets = packet->next;
  } else {
    if (Channel->packets_allocated >= Channel->settings.packet_count_max) {
      return nullptr;
    }
    ++Channel->packets_allocated;
    void* const memory = ::operator new(Channel->packet_object_bytes());
    packet = new (memory) FerrybusPacket;
  }
  *packet = FerrybusPacket();
  packet->channel = Channel;
  packet->is_allocated = true;
  packet->routine = FreePacketRoutine;
  return packet;
}

void VmbPacketFree(VMBPACKET Packet) {
  FERRYBUS_CHECK(Packet->is_allocated && !Packet->in_flight,
                 "VmbPacketFree of a packet in flight, or not allocated");
  Packet->next = Packet->channel->free_packets;
  Packet->channel->free_packets = Packet;
}

UINT32 VmbChannelSizeofPacket(VMBCHANNEL Channel) {
  return Channel->packet_object_bytes();
}

NTSTATUS VmbPacketInitialize(VMBCHANNEL Channel, VMBPACKET Packet,
                             UINT32 ByteCount) {
  if (Channel == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (Packet == nullptr) return STATUS_INVALID_PARAMETER_2;
  if (ByteCount < Channel->packet_object_bytes()) {
    return STATUS_INVALID_PARAMETER_3;
  }
  new (Packet) FerrybusPacket;
  Packet->channel = Channel;
  return STATUS_SUCCESS;
}

void VmbPacketSetCompletionRoutine(
    VMBPACKET Packet, EVT_VMB_PACKET_COMPLETION_ROUTINE* CompletionRoutine) {
  Packet->routine = CompletionRoutine;
}

void VmbPacketSetPointer(VMBPACKET Packet, PVOID Pointer) {
  Packet->pointer = Pointer;
}

PVOID VmbPacketGetPointer(VMBPACKET Packet) { return Packet->pointer; }

VMBCHANNEL VmbPacketGetChannel(VMBPACKET Packet) { return Packet->channel; }
