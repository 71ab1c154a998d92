// SPDX-License-Identifier: MIT
//
// The tables of functions that a driver asks for.

#include <cstring>

#include "ferrybus/kmcl/kmcl.h"

namespace {

const KMCL_CLIENT_INTERFACE_V1 kCommon = {
    VmbChannelAllocate,
    VmbChannelCleanup,
    VmbChannelEnable,
    VmbChannelDisable,
    VmbChannelStart,
    VmbChannelPause,
    VmbChannelGetInterfaceInstance,
    VmbChannelGetMmioSpace,
    VmbChannelSetPointer,
    VmbChannelGetPointer,
    VmbChannelInitSetMaximumPacketSize,
    VmbChannelInitSetMaximumExternalData,
    VmbChannelInitSetClientContextSize,
    VmbChannelInitSetProcessPacketCallbacks,
    VmbChannelInitSetStateChangeCallbacks,
    VmbChannelInitSetFriendlyName,
    VmbChannelInitSetFlags,
    VmbClientChannelInitSetRingBufferPageCount,
    VmbClientChannelInitSetTargetPnp,
    VmbChannelSetIncomingProcessingAtPassive,
    VmbChannelSetTransactionQuota,
    VmbChannelSetInterruptLatency,
    VmbPacketAllocate,
    VmbPacketFree,
    VmbChannelSizeofPacket,
    VmbPacketInitialize,
    VmbPacketSetCompletionRoutine,
    VmbPacketSetPointer,
    VmbPacketGetPointer,
    VmbPacketGetChannel,
    VmbPacketSend,
    VmbPacketSendWithExternalMdl,
    VmbPacketSendWithExternalPfns,
    VmbChannelSendSynchronousRequest,
    VmbChannelPacketComplete,
    VmbChannelPacketDeferToPassive,
    VmbChannelPacketFail,
    VmbChannelPacketGetExternalData,
    VmbChannelCreateGpadlFromBuffer,
    VmbChannelCreateGpadlFromMdl,
    VmbChannelDeleteGpadl,
};

const KMCL_SERVER_ONLY_METHODS kServer = {
    VmbConvertVmbusHandleToKernelHandle,
    VmbServerChannelInitSetFlags,
    VmbServerChannelInitSetMmioMegabytes,
    VmbServerChannelInitSetTargetInterfaceId,
    VmbServerChannelInitSetTargetVtl,
    VmbServerChannelInitSetVmbusHandle,
    VmbServerChannelInitSetSaveRestorePacketCallbacks,
    VmbChannelMapGpadl,
    VmbChannelUnmapGpadl,
    VmbChannelSaveBegin,
    VmbChannelSaveContinue,
    VmbChannelSaveEnd,
    VmbChannelRestoreFromBuffer,
    VmbPacketRestore,
};

}  // namespace

NTSTATUS ferrybus_query_interface(BOOLEAN is_server, UINT16 version,
                                  UINT16 size, PVOID table) {
  const size_t wanted = is_server ? sizeof(KMCL_SERVER_INTERFACE_V1)
                                  : sizeof(KMCL_CLIENT_INTERFACE_V1);
  if (version != 1 || size != wanted) return STATUS_NOT_SUPPORTED;
  if (is_server) {
    *static_cast<KMCL_SERVER_INTERFACE_V1*>(table) = {kCommon, kServer};
  } else {
    *static_cast<KMCL_CLIENT_INTERFACE_V1*>(table) = kCommon;
  }
  return STATUS_SUCCESS;
}
