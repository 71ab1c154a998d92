// SPDX-License-Identifier: MIT
//
// The C functions for a channel's life and settings.

#include <algorithm>
#include <cstring>
#include <utility>

#include "ferrybus/channel/check.h"
#include "ferrybus/kmcl/channel.h"
#include "ferrybus/kmcl/save_stream.h"

using ferrybus::ChannelRun;
using ferrybus::Guid;
using ferrybus::kmcl::MmioRange;
using ferrybus::kmcl::PumpUntil;
using ferrybus::kmcl::Settings;
using ferrybus::kmcl::Side;

namespace {

constexpr uint8_t kHighestVtl = 2;

static_assert(sizeof(GUID) == sizeof(Guid));

Guid ToGuid(const GUID& guid) {
  Guid result;
  std::memcpy(result.bytes.data(), &guid, sizeof(guid));
  return result;
}

// The documented first check of each setting.
bool CanSet(VMBCHANNEL channel) {
  return channel != nullptr && !channel->is_enabled();
}

// Sizes of packet objects are fixed by the first one.
bool CanSetSizes(VMBCHANNEL channel) {
  return CanSet(channel) && channel->packets_allocated == 0;
}

bool CanSetServer(VMBCHANNEL channel) {
  return CanSet(channel) && channel->is_server;
}

bool CanSetClient(VMBCHANNEL channel) {
  return CanSet(channel) && !channel->is_server;
}

void AppendUtf8(uint32_t code, std::string* out) {
  if (code < 0x80) {
    out->push_back(static_cast<char>(code));
    return;
  }
  const int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  const uint32_t lead = more == 1 ? 0xc0 : more == 2 ? 0xe0 : 0xf0;
  out->push_back(static_cast<char>(lead | code >> (6 * more)));
  for (int i = more; i-- > 0;) {
    out->push_back(static_cast<char>(0x80 | ((code >> (6 * i)) & 0x3f)));
  }
}

std::string ToUtf8(const UNICODE_STRING& text) {
  std::string out;
  const size_t count = text.Length / 2;
  for (size_t i = 0; i < count; ++i) {
    uint32_t code = text.Buffer[i];
    if (code >= 0xd800 && code < 0xdc00 && i + 1 < count &&
        text.Buffer[i + 1] >= 0xdc00 && text.Buffer[i + 1] < 0xe000) {
      code = 0x10000 + ((code - 0xd800) << 10) + (text.Buffer[++i] - 0xdc00);
    } else if (code >= 0xd800 && code < 0xe000) {
      code = 0xfffd;  // half a pair
    }
    AppendUtf8(code, &out);
  }
  return out;
}

void BuryEndedSides(FerrybusChannel& channel) {
  auto& ended = channel.ended_sides;
  ended.erase(std::remove_if(ended.begin(), ended.end(),
                             [](const std::unique_ptr<Side>& side) {
                               return side->is_gone();
                             }),
              ended.end());
}

void RetireEndedSide(FerrybusChannel& channel) {
  if (channel.side != nullptr) {
    channel.ended_sides.push_back(std::move(channel.side));
  }
  channel.has_ended = false;
  BuryEndedSides(channel);
}

void TakeMmio(FerrybusChannel& channel) {
  MmioRange& range = channel.is_server ? channel.world->server_mmio
                                       : channel.world->client_mmio;
  const uint64_t bytes = channel.side->mmio_bytes();
  if (channel.mmio_bytes != 0 || bytes == 0 || range.end - range.next < bytes) {
    return;
  }
  channel.mmio_address = range.next;
  channel.mmio_bytes = bytes;
  range.next += bytes;
}

}  // namespace

// -- Life --------------------------------------------------------------------

NTSTATUS VmbChannelAllocate(PDEVICE_OBJECT ParentDeviceObject, BOOLEAN IsServer,
                            VMBCHANNEL* Channel) {
  if (ParentDeviceObject == nullptr) return STATUS_INVALID_PARAMETER_1;
  const ferrybus::kmcl::World& world = *ParentDeviceObject->world;
  if (IsServer ? world.server == nullptr : world.client == nullptr) {
    return STATUS_INVALID_PARAMETER_2;
  }
  if (Channel == nullptr) return STATUS_INVALID_PARAMETER_3;
  *Channel = new FerrybusChannel(ParentDeviceObject, IsServer != 0);
  return STATUS_SUCCESS;
}

void VmbChannelCleanup(VMBCHANNEL Channel) {
  FERRYBUS_CHECK(!Channel->is_enabled(),
                 "VmbChannelCleanup of a channel that is not disabled");
  RetireEndedSide(*Channel);
  (void)PumpUntil(*Channel->world, absl::InfiniteFuture(), [Channel] {
    BuryEndedSides(*Channel);
    return Channel->ended_sides.empty();
  });
  delete Channel;
}

NTSTATUS VmbChannelEnable(VMBCHANNEL Channel) {
  if (!CanSet(Channel)) return STATUS_INVALID_PARAMETER_1;
  RetireEndedSide(*Channel);
  NTSTATUS status;
  if (Channel->is_server) {
    Channel->side = ferrybus::kmcl::EnableServer(Channel, &status);
  } else {
    status = ferrybus::kmcl::EnableClient(Channel);
  }
  return status;
}

void VmbChannelDisable(VMBCHANNEL Channel) {
  if (!Channel->is_enabled()) return;
  Channel->is_disabling = true;
  Channel->saving.reset();
  Channel->side->Disable();
  Channel->is_disabling = false;
  Channel->has_ended = false;
  Channel->side.reset();
  Channel->mmio_bytes = 0;
  // The default again; a pause from now on is remembered.
  Channel->run = Channel->is_server ? ChannelRun::kPaused : ChannelRun::kActive;
}

void VmbChannelStart(VMBCHANNEL Channel) {
  FERRYBUS_CHECK(Channel->world->quiet_depth == 0,
                 "VmbChannelStart within a callback that may not wait");
  if (Channel->saving != nullptr) return;  // VmbChannelSaveEnd first
  Channel->run = ChannelRun::kActive;
  if (Channel->is_enabled()) Channel->side->SetRun(Channel->run);
}

void VmbChannelPause(VMBCHANNEL Channel) {
  FERRYBUS_CHECK(Channel->world->quiet_depth == 0,
                 "VmbChannelPause within a callback that may not wait");
  Channel->run = ChannelRun::kPaused;
  if (Channel->is_enabled()) Channel->side->SetRun(Channel->run);
}

void VmbChannelGetInterfaceInstance(VMBCHANNEL Channel, GUID* Instance) {
  const Guid instance = Channel->side != nullptr
                            ? Channel->side->instance()
                            : Channel->settings.instance.value_or(Guid());
  std::memcpy(Instance, &instance, sizeof(instance));
}

void VmbChannelGetMmioSpace(VMBCHANNEL Channel, UINT64* MmioAddress,
                            UINT64* MmioSize) {
  *MmioAddress = *MmioSize = 0;
  if (!Channel->is_open) return;
  TakeMmio(*Channel);
  *MmioAddress = Channel->mmio_address;
  *MmioSize = Channel->mmio_bytes;
}

void VmbChannelSetPointer(VMBCHANNEL Channel, PVOID Pointer) {
  Channel->pointer = Pointer;
}

PVOID VmbChannelGetPointer(VMBCHANNEL Channel) { return Channel->pointer; }

// -- Settings of a disabled channel ------------------------------------------

NTSTATUS VmbChannelInitSetMaximumPacketSize(VMBCHANNEL Channel,
                                            UINT32 PacketSize) {
  if (!CanSetSizes(Channel)) return STATUS_INVALID_PARAMETER_1;
  // What the length fields of a packet can say.
  if (PacketSize == 0 || PacketSize > 0xffff * 8 - 64) {
    return STATUS_INVALID_PARAMETER_2;
  }
  Channel->settings.packet_bytes_max = PacketSize;
  return STATUS_SUCCESS;
}

NTSTATUS VmbChannelInitSetMaximumExternalData(VMBCHANNEL Channel,
                                              UINT32 DataSize,
                                              UINT32 ChainLength) {
  if (!CanSetSizes(Channel)) return STATUS_INVALID_PARAMETER_1;
  if (DataSize == 0) return STATUS_INVALID_PARAMETER_2;
  if (ChainLength == 0) return STATUS_INVALID_PARAMETER_3;
  Channel->settings.external_bytes_max = DataSize;
  Channel->settings.external_ranges_max = ChainLength;
  return STATUS_SUCCESS;
}

NTSTATUS VmbChannelInitSetMaximumPacketCount(VMBCHANNEL Channel,
                                             UINT32 PacketCount) {
  if (!CanSetSizes(Channel)) return STATUS_INVALID_PARAMETER_1;
  if (PacketCount == 0) return STATUS_INVALID_PARAMETER_2;
  Channel->settings.packet_count_max = PacketCount;
  return STATUS_SUCCESS;
}

NTSTATUS VmbChannelInitSetClientContextSize(VMBCHANNEL Channel,
                                            UINT32 ContextSize) {
  if (!CanSet(Channel)) return STATUS_INVALID_PARAMETER_1;
  Channel->settings.context_bytes = ContextSize;
  return STATUS_SUCCESS;
}

NTSTATUS VmbChannelInitSetProcessPacketCallbacks(
    VMBCHANNEL Channel, EVT_VMB_CHANNEL_PROCESS_PACKET* ProcessPacketCallback,
    EVT_VMB_CHANNEL_PROCESSING_COMPLETE* ProcessingCompleteCallback) {
  if (!CanSet(Channel)) return STATUS_INVALID_PARAMETER_1;
  Channel->settings.process_packet = ProcessPacketCallback;
  Channel->settings.processing_complete = ProcessingCompleteCallback;
  return STATUS_SUCCESS;
}

NTSTATUS VmbChannelInitSetStateChangeCallbacks(
    VMBCHANNEL Channel, VMB_CHANNEL_STATE_CHANGE_CALLBACKS* Callbacks) {
  if (!CanSet(Channel)) return STATUS_INVALID_PARAMETER_1;
  if (Callbacks == nullptr ||
      Callbacks->Version != VMB_CHANNEL_STATE_CHANGE_CALLBACKS_VERSION ||
      Callbacks->Size != sizeof(*Callbacks)) {
    return STATUS_INVALID_PARAMETER_2;
  }
  Channel->settings.state = *Callbacks;
  return STATUS_SUCCESS;
}

NTSTATUS VmbChannelInitSetFriendlyName(VMBCHANNEL Channel,
                                       const UNICODE_STRING* FriendlyName) {
  if (!CanSet(Channel)) return STATUS_INVALID_PARAMETER_1;
  if (FriendlyName == nullptr) return STATUS_INVALID_PARAMETER_2;
  Channel->settings.friendly_name = ToUtf8(*FriendlyName);
  return STATUS_SUCCESS;
}

const char* ferrybus_friendly_name(VMBCHANNEL channel) {
  return channel->settings.friendly_name.c_str();
}

NTSTATUS VmbChannelInitSetFlags(VMBCHANNEL Channel, UINT32 Flags) {
  if (!CanSet(Channel)) return STATUS_INVALID_PARAMETER_1;
  if ((Flags & ~UINT32{VMBUS_CHANNEL_INIT_FLAG_IS_PIPE}) != 0) {
    return STATUS_INVALID_PARAMETER_2;
  }
  Channel->settings.is_pipe = Flags != 0;
  return STATUS_SUCCESS;
}

NTSTATUS VmbServerChannelInitSetFlags(VMBCHANNEL Channel, UINT32 Flags) {
  if (!CanSetServer(Channel)) return STATUS_INVALID_PARAMETER_1;
  constexpr UINT32 kKnown = 0x1f;
  if ((Flags & ~kKnown) != 0) return STATUS_INVALID_PARAMETER_2;
  Channel->settings.server_flags = Flags;
  return STATUS_SUCCESS;
}

NTSTATUS VmbServerChannelInitSetMmioMegabytes(VMBCHANNEL Channel, UINT16 Mmio,
                                              UINT16 OptionalMmio) {
  if (!CanSetServer(Channel)) return STATUS_INVALID_PARAMETER_1;
  if (Mmio == 0 && OptionalMmio == 0) return STATUS_INVALID_PARAMETER;
  Channel->settings.mmio_megabytes = Mmio;
  Channel->settings.mmio_megabytes_optional = OptionalMmio;
  return STATUS_SUCCESS;
}

NTSTATUS VmbServerChannelInitSetTargetInterfaceId(
    VMBCHANNEL Channel, const GUID* InterfaceType,
    const GUID* InterfaceInstance) {
  if (!CanSetServer(Channel)) return STATUS_INVALID_PARAMETER_1;
  if (InterfaceType == nullptr) return STATUS_INVALID_PARAMETER_2;
  if (InterfaceInstance == nullptr) return STATUS_INVALID_PARAMETER_3;
  Channel->settings.type = ToGuid(*InterfaceType);
  Channel->settings.instance = ToGuid(*InterfaceInstance);
  return STATUS_SUCCESS;
}

NTSTATUS VmbServerChannelInitSetTargetVtl(VMBCHANNEL Channel, UINT8 Vtl) {
  if (!CanSetServer(Channel)) return STATUS_INVALID_PARAMETER_1;
  if (Vtl > kHighestVtl) return STATUS_INVALID_PARAMETER_2;
  Channel->settings.vtl = Vtl;
  return STATUS_SUCCESS;
}

NTSTATUS VmbServerChannelInitSetVmbusHandle(VMBCHANNEL Channel,
                                            HANDLE VmbusHandle) {
  if (!CanSetServer(Channel)) return STATUS_INVALID_PARAMETER_1;
  if (VmbusHandle == nullptr || VmbusHandle->world->server == nullptr) {
    return STATUS_INVALID_PARAMETER_2;
  }
  auto& all = Channel->world->channels;
  all.erase(std::remove(all.begin(), all.end(), Channel), all.end());
  Channel->world = VmbusHandle->world;
  Channel->world->channels.push_back(Channel);
  return STATUS_SUCCESS;
}

NTSTATUS VmbServerChannelInitSetSaveRestorePacketCallbacks(
    VMBCHANNEL Channel, EVT_VMB_CHANNEL_SAVE_PACKET* SavePacketCallback,
    EVT_VMB_CHANNEL_RESTORE_PACKET* RestorePacketCallback) {
  if (!CanSetServer(Channel)) return STATUS_INVALID_PARAMETER_1;
  Channel->settings.save_packet = SavePacketCallback;
  Channel->settings.restore_packet = RestorePacketCallback;
  return STATUS_SUCCESS;
}

NTSTATUS VmbClientChannelInitSetRingBufferPageCount(VMBCHANNEL Channel,
                                                    UINT32 IncomingPages,
                                                    UINT32 OutgoingPages) {
  if (!CanSetClient(Channel)) return STATUS_INVALID_PARAMETER_1;
  if (IncomingPages == 0) return STATUS_INVALID_PARAMETER_2;
  if (OutgoingPages == 0) return STATUS_INVALID_PARAMETER_3;
  Channel->settings.incoming_pages = IncomingPages;
  Channel->settings.outgoing_pages = OutgoingPages;
  return STATUS_SUCCESS;
}

NTSTATUS VmbClientChannelInitSetTargetPnp(
    VMBCHANNEL Channel, const GUID* InterfaceType,
    const GUID* InterfaceInstance,
    EVT_VMB_CHANNEL_PNP_FAILURE* PnpFailureCallback) {
  if (!CanSetClient(Channel)) return STATUS_INVALID_PARAMETER_1;
  if (InterfaceType == nullptr) return STATUS_INVALID_PARAMETER_2;
  Channel->settings.type = ToGuid(*InterfaceType);
  Channel->settings.instance.reset();
  if (InterfaceInstance != nullptr) {
    Channel->settings.instance = ToGuid(*InterfaceInstance);
  }
  Channel->settings.pnp_failure = PnpFailureCallback;
  return STATUS_SUCCESS;
}

NTSTATUS ferrybus_set_user_data(VMBCHANNEL channel, const void* data,
                                UINT32 bytes) {
  if (!CanSet(channel)) return STATUS_INVALID_PARAMETER_1;
  auto& user_data = channel->settings.user_data;
  if (bytes > user_data.size()) return STATUS_INVALID_PARAMETER_3;
  user_data = {};
  std::memcpy(user_data.data(), data, bytes);
  return STATUS_SUCCESS;
}

const void* ferrybus_peer_user_data(VMBCHANNEL channel) {
  return channel->is_open ? channel->side->peer_user_data() : nullptr;
}

// -- Settings at any time ----------------------------------------------------

void VmbChannelSetIncomingProcessingAtPassive(VMBCHANNEL Channel,
                                              BOOLEAN AtPassive) {
  Channel->at_passive = AtPassive != 0;
  if (Channel->is_open) Channel->side->SetWantsBlocking(Channel->at_passive);
}

NTSTATUS VmbChannelSetTransactionQuota(VMBCHANNEL Channel, UINT32 Quota) {
  if (Channel == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (Quota == 0) return STATUS_INVALID_PARAMETER_2;
  Channel->quota = Quota;
  if (Channel->is_open) Channel->side->SetQuota(Quota);
  return STATUS_SUCCESS;
}

NTSTATUS VmbChannelSetInterruptLatency(VMBCHANNEL Channel, UINT16 Latency,
                                       UINT16* OriginalLatency) {
  if (Channel->is_server) return STATUS_NOT_SUPPORTED;
  if (!Channel->is_open) return STATUS_INVALID_DEVICE_STATE;
  *OriginalLatency = std::exchange(Channel->interrupt_latency, Latency);
  return STATUS_SUCCESS;
}
