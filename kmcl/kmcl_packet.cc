// SPDX-License-Identifier: MIT
//
// The C functions that send packets, and those for packets that came.

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "ferrybus/channel/check.h"
#include "ferrybus/kmcl/channel.h"
#include "ferrybus/savestate/steady_clock.h"

using ferrybus::ExternalData;
using ferrybus::GuestAccess;
using ferrybus::IncomingPacket;
using ferrybus::SendStatus;
using ferrybus::kmcl::External;
using ferrybus::kmcl::World;
using ferrybus::vsc::SyncResult;

namespace ferrybus::kmcl {

NTSTATUS ToNtStatus(SendStatus status) {
  switch (status) {
    case SendStatus::kOk:
      return STATUS_SUCCESS;
    case SendStatus::kFull:
      return STATUS_INSUFFICIENT_RESOURCES;
    case SendStatus::kTooLarge:
      return STATUS_INVALID_PARAMETER_3;
    case SendStatus::kClosed:
      return STATUS_DEVICE_REMOVED;
    case SendStatus::kNotSupported:
      return STATUS_NOT_SUPPORTED;
  }
  return STATUS_UNSUCCESSFUL;
}

}  // namespace ferrybus::kmcl

namespace {

constexpr UINT32 kWait = VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION;
constexpr UINT32 kForce = VMBUS_CHANNEL_FORMAT_FLAG_FORCE_MDL_LENGTH;
constexpr UINT32 kKnownFlags =
    kWait | kForce | VMBUS_CHANNEL_FORMAT_FLAG_PAGED_BUFFER;

absl::Span<const std::byte> Bytes(const void* buffer, UINT32 length) {
  return {static_cast<const std::byte*>(buffer), length};
}

NTSTATUS CheckSend(VMBPACKET packet, UINT32 length, UINT32 flags,
                   bool is_external) {
  if (packet == nullptr || packet->in_flight || packet->routine == nullptr) {
    return STATUS_INVALID_PARAMETER_1;
  }
  const FerrybusChannel& channel = *packet->channel;
  if (length > channel.settings.packet_bytes_max) {
    return STATUS_INVALID_PARAMETER_3;
  }
  if ((flags & ~kKnownFlags) != 0) return STATUS_INVALID_PARAMETER;
  // The peer may use the memory until it has completed the packet.
  if (is_external && ((flags & kWait) == 0 || channel.is_server)) {
    return STATUS_INVALID_PARAMETER;
  }
  return STATUS_SUCCESS;
}

// Lets the bus run until a moment.
class Pumper final : public ferrybus::vsc::Waiter {
 public:
  Pumper(World& world, absl::Time deadline)
      : world_(world), deadline_(deadline) {}
  bool Wait() override {
    if (world_.pump()) return true;
    if (ferrybus::savestate::SteadyNow() >= deadline_) return false;
    absl::SleepFor(absl::Microseconds(50));
    return true;
  }

 private:
  World& world_;
  const absl::Time deadline_;
};

// As KeWaitForSingleObject has it: relative if negative, else since 1601.
absl::Time ToDeadline(const int64_t* timeout) {
  constexpr int64_t kUnixEpoch = 116444736000000000;
  if (timeout == nullptr || *timeout == 0) return absl::InfiniteFuture();
  const auto ticks = [](int64_t count) {
    return 100 * absl::Nanoseconds(count);
  };
  const absl::Duration left =
      *timeout < 0
          ? -ticks(*timeout)
          : absl::UnixEpoch() + ticks(*timeout - kUnixEpoch) - absl::Now();
  return ferrybus::savestate::SteadyNow() + left;
}

NTSTATUS ToNtStatus(SyncResult result) {
  switch (result) {
    case SyncResult::kOk:
      return STATUS_SUCCESS;
    case SyncResult::kFull:
      return STATUS_BUFFER_OVERFLOW;
    case SyncResult::kCancelled:
      return STATUS_CANCELLED;
    case SyncResult::kClosed:
      return STATUS_DEVICE_REMOVED;
    case SyncResult::kTooLarge:
      return STATUS_INVALID_PARAMETER_3;
    case SyncResult::kReplyTooLarge:
      return STATUS_BUFFER_TOO_SMALL;
    case SyncResult::kNotSupported:
      return STATUS_NOT_SUPPORTED;
  }
  return STATUS_UNSUCCESSFUL;
}

NTSTATUS SendSynchronousOfServer(FerrybusChannel& channel, PVOID buffer,
                                 UINT32 bytes) {
  ferrybus::OutgoingPacket packet;
  packet.payload = Bytes(buffer, bytes);
  const SendStatus sent =
      ferrybus::kmcl::ServerChannelOf(channel)->SendNow(packet);
  return sent == SendStatus::kFull ? STATUS_BUFFER_OVERFLOW
                                   : ferrybus::kmcl::ToNtStatus(sent);
}

}  // namespace

// -- Sending -----------------------------------------------------------------

NTSTATUS VmbPacketSend(VMBPACKET Packet, PVOID Buffer, UINT32 BufferLength,
                       PMDL ExternalDataMdl, UINT32 Flags) {
  if (ExternalDataMdl != nullptr) {
    return VmbPacketSendWithExternalMdl(Packet, Buffer, BufferLength,
                                        ExternalDataMdl, 0, 0, Flags);
  }
  const NTSTATUS status = CheckSend(Packet, BufferLength, Flags, false);
  if (!NT_SUCCESS(status)) return status;
  return Packet->channel->Send(Packet, Bytes(Buffer, BufferLength), {},
                               (Flags & kWait) != 0);
}

NTSTATUS VmbPacketSendWithExternalMdl(VMBPACKET Packet, PVOID Buffer,
                                      UINT32 BufferLength, PMDL ExternalDataMdl,
                                      UINT32 MdlOffset, UINT32 MdlLength,
                                      UINT32 Flags) {
  const NTSTATUS status = CheckSend(Packet, BufferLength, Flags, true);
  if (!NT_SUCCESS(status)) return status;
  FerrybusChannel& channel = *Packet->channel;
  auto& buffers = channel.scratch;
  if (!channel.ResolveChain(ExternalDataMdl, MdlOffset, MdlLength,
                            (Flags & kForce) != 0, &buffers)) {
    return STATUS_INVALID_PARAMETER;
  }
  uint64_t total = 0;
  for (const auto& each : buffers) total += each.byte_count;
  if (buffers.size() > channel.settings.external_ranges_max ||
      total > channel.settings.external_bytes_max) {
    return STATUS_INVALID_PARAMETER;
  }
  return channel.Send(Packet, Bytes(Buffer, BufferLength), {buffers, {}}, true);
}

NTSTATUS VmbPacketSendWithExternalPfns(VMBPACKET Packet, PVOID Buffer,
                                       UINT32 BufferLength, const UINT64* Pfns,
                                       UINT32 PfnLength, UINT32 Flags) {
  const NTSTATUS status = CheckSend(Packet, BufferLength, Flags, true);
  if (!NT_SUCCESS(status)) return status;
  FerrybusChannel& channel = *Packet->channel;
  if (Pfns == nullptr || PfnLength == 0 ||
      uint64_t{PfnLength} * 4096 > channel.settings.external_bytes_max) {
    return STATUS_INVALID_PARAMETER;
  }
  return channel.Send(Packet, Bytes(Buffer, BufferLength),
                      {{}, {Pfns, PfnLength}}, true);
}

NTSTATUS VmbChannelSendSynchronousRequest(VMBCHANNEL Channel, PVOID Buffer,
                                          UINT32 BufferSize,
                                          PMDL ExternalDataMdl, UINT32 Flags,
                                          PVOID CompletionBuffer,
                                          UINT32* CompletionBufferSize,
                                          const int64_t* Timeout) {
  if (Channel == nullptr) return STATUS_INVALID_PARAMETER_1;
  const bool waits = (Flags & kWait) != 0;
  const bool never_queues = Timeout != nullptr && *Timeout == 0;
  const UINT32 room =
      CompletionBufferSize == nullptr ? 0 : *CompletionBufferSize;
  if (room % 8 != 0 || BufferSize > Channel->settings.packet_bytes_max) {
    return STATUS_INVALID_PARAMETER;
  }
  // Who holds packets of the guest must not wait for it.
  if (Channel->is_server && (waits || !never_queues || ExternalDataMdl)) {
    return STATUS_NOT_SUPPORTED;
  }
  if (!Channel->is_open) return STATUS_DEVICE_REMOVED;
  if (!Channel->takes_packets) return STATUS_INVALID_DEVICE_STATE;
  if (Channel->is_server) {
    return SendSynchronousOfServer(*Channel, Buffer, BufferSize);
  }
  if ((waits || !never_queues) && Channel->world->quiet_depth != 0) {
    return STATUS_INVALID_DEVICE_STATE;
  }
  ferrybus::vsc::Request request;
  request.payload = Bytes(Buffer, BufferSize);
  if (ExternalDataMdl != nullptr) {
    if (!waits || !Channel->ResolveChain(ExternalDataMdl, 0, 0, false,
                                         &Channel->scratch)) {
      return STATUS_INVALID_PARAMETER;
    }
    request.buffers = Channel->scratch;
  }
  request.wants_completion = waits;
  request.may_queue = !never_queues;
  Pumper pumper(*Channel->world, ToDeadline(Timeout));
  size_t bytes = 0;
  const SyncResult result =
      ferrybus::kmcl::ClientChannelOf(*Channel)->SendAndWait(
          request, {static_cast<std::byte*>(CompletionBuffer), room}, &bytes,
          pumper);
  if (result == SyncResult::kOk && CompletionBufferSize != nullptr) {
    *CompletionBufferSize = static_cast<UINT32>(bytes);
  }
  return ToNtStatus(result);
}

// -- Packets that came -------------------------------------------------------

void VmbChannelPacketComplete(VMBPACKETCOMPLETION Completion, PVOID Buffer,
                              UINT32 BufferLength) {
  // Once it is complete, the object is the next packet's.
  IncomingPacket packet = std::move(Completion->packet);
  FERRYBUS_CHECK(packet ? true : false, "a packet was completed twice");
  packet.Complete(Bytes(Buffer, BufferLength));
}

void VmbChannelPacketDeferToPassive(VMBPACKETCOMPLETION Completion) {
  Completion->gives_back = true;
}

void VmbChannelPacketFail(VMBPACKETCOMPLETION Completion) {
  IncomingPacket packet = std::move(Completion->packet);
  packet.Fail("VmbChannelPacketFail");
}

NTSTATUS VmbChannelPacketGetExternalData(VMBPACKETCOMPLETION Completion,
                                         UINT32 Flags, PMDL* Mdl) {
  if (Completion == nullptr) return STATUS_INVALID_PARAMETER_1;
  if ((Flags & ~UINT32{VMBUS_CHANNEL_PACKET_EXTERNAL_DATA_FLAG_READ_ONLY}) !=
      0) {
    return STATUS_INVALID_PARAMETER_2;
  }
  *Mdl = nullptr;
  IncomingPacket& packet = Completion->packet;
  const auto pinned = packet.PinGuestBuffers(
      Flags != 0 ? GuestAccess::kReadOnly : GuestAccess::kReadWrite);
  if (!pinned.ok()) return STATUS_INVALID_PARAMETER;
  if (*pinned == ExternalData::kPending) {
    Completion->gives_back = true;
    return STATUS_PENDING;
  }
  const auto buffers = packet.guest_buffers();
  if (!buffers.ok()) return STATUS_INVALID_PARAMETER;
  std::vector<MDL>& mdls = Completion->mdls;
  mdls.clear();
  for (const iovec& each : *buffers) {
    mdls.push_back({nullptr, each.iov_base, static_cast<ULONG>(each.iov_len)});
  }
  for (size_t i = 1; i < mdls.size(); ++i) mdls[i - 1].Next = &mdls[i];
  if (!mdls.empty()) *Mdl = mdls.data();
  return STATUS_SUCCESS;
}

PVOID VmbChannelPacketGetClientContext(VMBPACKETCOMPLETION Completion) {
  return Completion->context.data();
}
