// SPDX-License-Identifier: MIT
//
// The channel interface under its documented names: for C11, and for whoever
// knows Hyper-V's kernel mode client library.
//
// What it is: a shim over vsp::Bus and vsc::Bus.  Names, flags, status values
// and orders of calls are the documented ones; what a kernel has and a process
// has not is translated:
//   parent device, bus handle   a FERRYBUS_PARENT, see below
//   IRQL                        whether a callback may block, see below
//   MDL                         a chain of byte ranges in this process
//   page frame number           guest-physical address / 4096
//
// Blocking: there are no hidden threads.  A call that waits in KMCL
// (VmbChannelDisable, VmbChannelPause, VmbChannelSendSynchronousRequest,
// VmbChannelCreateGpadl..., VmbChannelDeleteGpadl) pumps its parent's bus
// meanwhile, so callbacks run inside of it.  Who does not wait calls
// ferrybus_pump() in a loop.  Such calls are allowed outside of callbacks, in
// EvtChannelPostStarted, and in EvtVmbChannelProcessPacket where it may block:
// after VmbChannelPacketDeferToPassive, or with
// VmbChannelSetIncomingProcessingAtPassive.  Elsewhere they would never
// return; they abort, or answer STATUS_INVALID_DEVICE_STATE if they have a
// status.
//
// Ownership: a parent outlives its channels.  Guest memory behind a packet is
// valid until VmbChannelPacketComplete, behind a mapped GPADL until
// VmbChannelUnmapGpadl or the end of EvtChannelClosed.
// Thread safety: one thread calls a parent's functions and those of its
// channels; VmbChannelPacketComplete from any.
// Trust: as in the library below: a peer can fault its channel, no more.
// Cost: one indirect call above the library; no allocation per packet once
// warm.
//
// Chosen here, where the documents are silent: maximum packet size 4096 bytes,
// 16 data pages for each ring, 256 packets per channel and direction.

#ifndef FERRYBUS_KMCL_KMCL_H_
#define FERRYBUS_KMCL_KMCL_H_

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

// -- Types --------------------------------------------------------------------

typedef int32_t NTSTATUS;
typedef uint8_t BOOLEAN;
typedef uint8_t UINT8;
typedef uint16_t UINT16;
typedef uint32_t UINT32;
typedef uint32_t ULONG;
typedef uint64_t UINT64;
typedef void* PVOID;

#ifndef FERRYBUS_GUID_DEFINED  // by driver_migration.h
#define FERRYBUS_GUID_DEFINED
typedef struct _GUID {
  uint32_t Data1;
  uint16_t Data2;
  uint16_t Data3;
  uint8_t Data4[8];
} GUID;
#endif

typedef struct _UNICODE_STRING {
  uint16_t Length;  // bytes
  uint16_t MaximumLength;
  const uint16_t* Buffer;  // UTF-16
} UNICODE_STRING;

// Bytes of this process.  On the client they lie in guest RAM.
#ifndef FERRYBUS_MDL_DEFINED  // by driver_hot_update.h
#define FERRYBUS_MDL_DEFINED
typedef struct _MDL {
  struct _MDL* Next;
  PVOID MappedSystemVa;
  ULONG ByteCount;
} MDL, *PMDL;
#endif

typedef struct FerrybusParent* FERRYBUS_PARENT;
typedef FERRYBUS_PARENT PDEVICE_OBJECT;
typedef FERRYBUS_PARENT HANDLE;
typedef struct FerrybusChannel* VMBCHANNEL;
typedef struct FerrybusPacket* VMBPACKET;
typedef struct FerrybusCompletion* VMBPACKETCOMPLETION;

#define NT_SUCCESS(Status) ((NTSTATUS)(Status) >= 0)
#define STATUS_SUCCESS ((NTSTATUS)0x00000000)
#define STATUS_PENDING ((NTSTATUS)0x00000103)
#define STATUS_BUFFER_OVERFLOW ((NTSTATUS)0x80000005)
#define STATUS_UNSUCCESSFUL ((NTSTATUS)0xC0000001)
#define STATUS_NOT_IMPLEMENTED ((NTSTATUS)0xC0000002)
#define STATUS_INVALID_PARAMETER ((NTSTATUS)0xC000000D)
#define STATUS_MORE_PROCESSING_REQUIRED ((NTSTATUS)0xC0000016)
#define STATUS_BUFFER_TOO_SMALL ((NTSTATUS)0xC0000023)
#define STATUS_OBJECT_TYPE_MISMATCH ((NTSTATUS)0xC0000024)
#define STATUS_INSUFFICIENT_RESOURCES ((NTSTATUS)0xC000009A)
#define STATUS_NOT_SUPPORTED ((NTSTATUS)0xC00000BB)
#define STATUS_INVALID_PARAMETER_1 ((NTSTATUS)0xC00000EF)
#define STATUS_INVALID_PARAMETER_2 ((NTSTATUS)0xC00000F0)
#define STATUS_INVALID_PARAMETER_3 ((NTSTATUS)0xC00000F1)
#define STATUS_CANCELLED ((NTSTATUS)0xC0000120)
#define STATUS_INVALID_DEVICE_STATE ((NTSTATUS)0xC0000184)
#define STATUS_DEVICE_REMOVED ((NTSTATUS)0xC00002B6)

#define VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION 0x1
#define VMBUS_CHANNEL_FORMAT_FLAG_FORCE_MDL_LENGTH 0x2
#define VMBUS_CHANNEL_FORMAT_FLAG_PAGED_BUFFER 0x4
#define VMBUS_CHANNEL_GPADL_FLAG_READ_ONLY 0x1
#define VMBUS_CHANNEL_GPADL_READ_ONLY VMBUS_CHANNEL_GPADL_FLAG_READ_ONLY
#define VMBUS_CHANNEL_INIT_FLAG_IS_PIPE 0x1
#define VMBUS_SERVER_CHANNEL_INIT_FLAG_LOOPBACK_OFFER 0x1
#define VMBUS_SERVER_CHANNEL_INIT_FLAG_ENUMERATE_DEVICE_INTERFACE 0x2
#define VMBUS_SERVER_CHANNEL_INIT_FLAG_OFFER_AS_PIPE 0x4
#define VMBUS_SERVER_CHANNEL_INIT_FLAG_FORCE_NEW_CHANNEL 0x8
#define VMBUS_SERVER_CHANNEL_INIT_FLAG_TLNPI_PROVIDER_OFFER 0x10
#define VMBUS_CHANNEL_PROCESS_PACKET_FLAG_EXTERNAL_DATA 0x1
#define VMBUS_CHANNEL_PROCESS_PACKET_FLAGS \
  VMBUS_CHANNEL_PROCESS_PACKET_FLAG_EXTERNAL_DATA
#define VMBUS_CHANNEL_PACKET_EXTERNAL_DATA_FLAG_READ_ONLY 0x1
#define VMBUS_SERVER_CHANNEL_INIT_MAXIMUM_OFFER_DATA 120

// -- Callbacks ----------------------------------------------------------------

// The peer opened the channel; a failure refuses it.
typedef NTSTATUS EVT_VMB_CHANNEL_OPENED(VMBCHANNEL Channel);
// The link ended.  What is left of GPADLs ends when this returns.
typedef void EVT_VMB_CHANNEL_CLOSED(VMBCHANNEL Channel);
// No packet is processed from here on, until the next "started".
typedef void EVT_VMB_CHANNEL_SUSPEND(VMBCHANNEL Channel);
// May send; nothing flows before it returns.
typedef void EVT_VMB_CHANNEL_STARTED(VMBCHANNEL Channel);
// May wait for answers.
typedef void EVT_VMB_CHANNEL_POST_STARTED(VMBCHANNEL Channel);
// Client: the offer was found, but could not be opened.
typedef void EVT_VMB_CHANNEL_PNP_FAILURE(VMBCHANNEL Channel, NTSTATUS Status);
// One packet.  Ends in VmbChannelPacketComplete, now or later; or comes again
// after ...DeferToPassive, and after STATUS_PENDING of ...GetExternalData.
typedef void EVT_VMB_CHANNEL_PROCESS_PACKET(VMBCHANNEL Channel,
                                            VMBPACKETCOMPLETION Completion,
                                            PVOID Buffer, UINT32 BufferLength,
                                            UINT32 Flags);
// A batch ended: so many packets since the last call.
typedef void EVT_VMB_CHANNEL_PROCESSING_COMPLETE(VMBCHANNEL Channel,
                                                 UINT32 PacketsProcessed);
// Once for each send: the peer completed the packet, with its bytes; or, sent
// without WAIT_FOR_COMPLETION, it is in the ring.  STATUS_CANCELLED: the peer
// closed; STATUS_DEVICE_REMOVED: this side disabled the channel.
typedef void EVT_VMB_PACKET_COMPLETION_ROUTINE(VMBPACKET Packet,
                                               NTSTATUS Status, PVOID Buffer,
                                               UINT32 BufferLength);
// First called with SaveBufferSize 0: success means that there is nothing to
// save; a failure with *BytesNeeded set is followed by a second call with at
// least that many bytes.
typedef NTSTATUS EVT_VMB_CHANNEL_SAVE_PACKET(VMBCHANNEL Channel,
                                             VMBPACKET Packet, PVOID SaveBuffer,
                                             UINT32 SaveBufferSize,
                                             UINT32* BytesNeeded);
// Allocates a packet and gives it LibraryBuffer by VmbPacketRestore.
typedef NTSTATUS EVT_VMB_CHANNEL_RESTORE_PACKET(VMBCHANNEL Channel,
                                                PVOID LibraryBuffer,
                                                UINT32 LibraryBufferSize,
                                                PVOID SaveBuffer,
                                                UINT32 SaveBufferSize);

#define VMB_CHANNEL_STATE_CHANGE_CALLBACKS_VERSION 1
typedef struct _VMB_CHANNEL_STATE_CHANGE_CALLBACKS {
  ULONG Version;
  ULONG Size;
  EVT_VMB_CHANNEL_OPENED* EvtChannelOpened;
  EVT_VMB_CHANNEL_CLOSED* EvtChannelClosed;
  EVT_VMB_CHANNEL_SUSPEND* EvtChannelSuspend;
  EVT_VMB_CHANNEL_STARTED* EvtChannelStarted;
  EVT_VMB_CHANNEL_POST_STARTED* EvtChannelPostStarted;
} VMB_CHANNEL_STATE_CHANGE_CALLBACKS;

static inline void VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(
    VMB_CHANNEL_STATE_CHANGE_CALLBACKS* Callbacks) {
  memset(Callbacks, 0, sizeof(*Callbacks));
  Callbacks->Version = VMB_CHANNEL_STATE_CHANGE_CALLBACKS_VERSION;
  Callbacks->Size = (ULONG)sizeof(*Callbacks);
}

// -- Channels -----------------------------------------------------------------

NTSTATUS VmbChannelAllocate(PDEVICE_OBJECT ParentDeviceObject, BOOLEAN IsServer,
                            VMBCHANNEL* Channel);
// Aborts unless the channel is disabled.
void VmbChannelCleanup(VMBCHANNEL Channel);
NTSTATUS VmbChannelEnable(VMBCHANNEL Channel);
void VmbChannelDisable(VMBCHANNEL Channel);
void VmbChannelStart(VMBCHANNEL Channel);
void VmbChannelPause(VMBCHANNEL Channel);
void VmbChannelGetInterfaceInstance(VMBCHANNEL Channel, GUID* Instance);
// Zeroes before the channel was opened.
void VmbChannelGetMmioSpace(VMBCHANNEL Channel, UINT64* MmioAddress,
                            UINT64* MmioSize);
void VmbChannelSetPointer(VMBCHANNEL Channel, PVOID Pointer);
PVOID VmbChannelGetPointer(VMBCHANNEL Channel);
// A second reference; each is closed by ferrybus_close_parent().
NTSTATUS VmbConvertVmbusHandleToKernelHandle(HANDLE VmbusHandle,
                                             HANDLE* KernelHandle);

// -- Settings, of a disabled channel: else STATUS_INVALID_PARAMETER_1 ---------

NTSTATUS VmbChannelInitSetMaximumPacketSize(VMBCHANNEL Channel,
                                            UINT32 PacketSize);
NTSTATUS VmbChannelInitSetMaximumExternalData(VMBCHANNEL Channel,
                                              UINT32 DataSize,
                                              UINT32 ChainLength);
// Packets in flight of our own, and of the peer, at most.
NTSTATUS VmbChannelInitSetMaximumPacketCount(VMBCHANNEL Channel,
                                             UINT32 PacketCount);
NTSTATUS VmbChannelInitSetClientContextSize(VMBCHANNEL Channel,
                                            UINT32 ContextSize);
NTSTATUS VmbChannelInitSetProcessPacketCallbacks(
    VMBCHANNEL Channel, EVT_VMB_CHANNEL_PROCESS_PACKET* ProcessPacketCallback,
    EVT_VMB_CHANNEL_PROCESSING_COMPLETE* ProcessingCompleteCallback);
NTSTATUS VmbChannelInitSetStateChangeCallbacks(
    VMBCHANNEL Channel, VMB_CHANNEL_STATE_CHANGE_CALLBACKS* Callbacks);
NTSTATUS VmbChannelInitSetFriendlyName(VMBCHANNEL Channel,
                                       const UNICODE_STRING* FriendlyName);
NTSTATUS VmbChannelInitSetFlags(VMBCHANNEL Channel, UINT32 Flags);
NTSTATUS VmbServerChannelInitSetFlags(VMBCHANNEL Channel, UINT32 Flags);
NTSTATUS VmbServerChannelInitSetMmioMegabytes(VMBCHANNEL Channel, UINT16 Mmio,
                                              UINT16 OptionalMmio);
NTSTATUS VmbServerChannelInitSetTargetInterfaceId(
    VMBCHANNEL Channel, const GUID* InterfaceType,
    const GUID* InterfaceInstance);
NTSTATUS VmbServerChannelInitSetTargetVtl(VMBCHANNEL Channel, UINT8 Vtl);
NTSTATUS VmbServerChannelInitSetVmbusHandle(VMBCHANNEL Channel,
                                            HANDLE VmbusHandle);
NTSTATUS VmbServerChannelInitSetSaveRestorePacketCallbacks(
    VMBCHANNEL Channel, EVT_VMB_CHANNEL_SAVE_PACKET* SavePacketCallback,
    EVT_VMB_CHANNEL_RESTORE_PACKET* RestorePacketCallback);
// Data pages; each ring has a control page besides.
NTSTATUS VmbClientChannelInitSetRingBufferPageCount(VMBCHANNEL Channel,
                                                    UINT32 IncomingPages,
                                                    UINT32 OutgoingPages);
NTSTATUS VmbClientChannelInitSetTargetPnp(
    VMBCHANNEL Channel, const GUID* InterfaceType,
    const GUID* InterfaceInstance,  // may be null
    EVT_VMB_CHANNEL_PNP_FAILURE* PnpFailureCallback);

// -- Settings at any time -----------------------------------------------------

void VmbChannelSetIncomingProcessingAtPassive(VMBCHANNEL Channel,
                                              BOOLEAN AtPassive);
NTSTATUS VmbChannelSetTransactionQuota(VMBCHANNEL Channel, UINT32 Quota);
// Only while open; in 100 ns.
NTSTATUS VmbChannelSetInterruptLatency(VMBCHANNEL Channel, UINT16 Latency,
                                       UINT16* OriginalLatency);

// -- Packets that are sent ----------------------------------------------------

// Null: the maximum number of packets is in use.
VMBPACKET VmbPacketAllocate(VMBCHANNEL Channel);
void VmbPacketFree(VMBPACKET Packet);
UINT32 VmbChannelSizeofPacket(VMBCHANNEL Channel);
NTSTATUS VmbPacketInitialize(VMBCHANNEL Channel, VMBPACKET Packet,
                             UINT32 ByteCount);
void VmbPacketSetCompletionRoutine(
    VMBPACKET Packet, EVT_VMB_PACKET_COMPLETION_ROUTINE* CompletionRoutine);
void VmbPacketSetPointer(VMBPACKET Packet, PVOID Pointer);
PVOID VmbPacketGetPointer(VMBPACKET Packet);
VMBCHANNEL VmbPacketGetChannel(VMBPACKET Packet);
NTSTATUS VmbPacketSend(VMBPACKET Packet, PVOID Buffer, UINT32 BufferLength,
                       PMDL ExternalDataMdl, UINT32 Flags);
NTSTATUS VmbPacketSendWithExternalMdl(VMBPACKET Packet, PVOID Buffer,
                                      UINT32 BufferLength, PMDL ExternalDataMdl,
                                      UINT32 MdlOffset, UINT32 MdlLength,
                                      UINT32 Flags);
NTSTATUS VmbPacketSendWithExternalPfns(VMBPACKET Packet, PVOID Buffer,
                                       UINT32 BufferLength, const UINT64* Pfns,
                                       UINT32 PfnLength, UINT32 Flags);
// *Timeout in 100 ns: 0 does not queue, negative is relative, null is for
// ever.  STATUS_BUFFER_TOO_SMALL: the answer did not fit and is lost.
NTSTATUS VmbChannelSendSynchronousRequest(VMBCHANNEL Channel, PVOID Buffer,
                                          UINT32 BufferSize,
                                          PMDL ExternalDataMdl, UINT32 Flags,
                                          PVOID CompletionBuffer,
                                          UINT32* CompletionBufferSize,
                                          const int64_t* Timeout);

// -- Packets that came --------------------------------------------------------

void VmbChannelPacketComplete(VMBPACKETCOMPLETION Completion, PVOID Buffer,
                              UINT32 BufferLength);
void VmbChannelPacketDeferToPassive(VMBPACKETCOMPLETION Completion);
void VmbChannelPacketFail(VMBPACKETCOMPLETION Completion);
// *Mdl is null for a packet without external data.
NTSTATUS VmbChannelPacketGetExternalData(VMBPACKETCOMPLETION Completion,
                                         UINT32 Flags, PMDL* Mdl);
// The area of VmbChannelInitSetClientContextSize.
PVOID VmbChannelPacketGetClientContext(VMBPACKETCOMPLETION Completion);

// -- Buffers that are shared for long -----------------------------------------

NTSTATUS VmbChannelCreateGpadlFromBuffer(VMBCHANNEL Channel, UINT32 Flags,
                                         PVOID Buffer, UINT32 BufferLength,
                                         UINT32* GpadlHandle);
// Pieces within a chain begin and end at pages.
NTSTATUS VmbChannelCreateGpadlFromMdl(VMBCHANNEL Channel, UINT32 Flags,
                                      PMDL Mdl, UINT32 Start, UINT32 Length,
                                      UINT32* GpadlHandle);
void VmbChannelDeleteGpadl(VMBCHANNEL Channel, UINT32 GpadlHandle);
NTSTATUS VmbChannelMapGpadl(VMBCHANNEL Channel, UINT32 Flags,
                            UINT32 GpadlHandle, PMDL* Mdl);
void VmbChannelUnmapGpadl(VMBCHANNEL Channel, UINT32 GpadlHandle);

// -- Save and restore, of a server --------------------------------------------

// The channel is paused, or not open.
NTSTATUS VmbChannelSaveBegin(VMBCHANNEL Channel);
// Fills whole chunks.  STATUS_SUCCESS: that was all.  STATUS_BUFFER_OVERFLOW:
// there is more; the next chunk has *BytesRequired bytes.
// STATUS_BUFFER_TOO_SMALL: not one chunk fits.
NTSTATUS VmbChannelSaveContinue(VMBCHANNEL Channel, PVOID SaveBuffer,
                                UINT32 SaveBufferSize, UINT32* BytesFilled,
                                UINT32* BytesRequired);
void VmbChannelSaveEnd(VMBCHANNEL Channel);
// One buffer of SaveContinue after the other.
// STATUS_MORE_PROCESSING_REQUIRED: good so far, go on.
NTSTATUS VmbChannelRestoreFromBuffer(VMBCHANNEL Channel, PVOID SaveBuffer,
                                     UINT32 SaveBufferSize);
// Within EvtVmbChannelRestorePacket.
NTSTATUS VmbPacketRestore(VMBPACKET Packet, PVOID LibraryBuffer,
                          UINT32 LibraryBufferSize);

// -- Tables -------------------------------------------------------------------

#define FERRYBUS_KMCL_MEMBER(Name) __typeof__(&Name) Name
typedef struct _KMCL_CLIENT_INTERFACE_V1 {
  FERRYBUS_KMCL_MEMBER(VmbChannelAllocate);
  FERRYBUS_KMCL_MEMBER(VmbChannelCleanup);
  FERRYBUS_KMCL_MEMBER(VmbChannelEnable);
  FERRYBUS_KMCL_MEMBER(VmbChannelDisable);
  FERRYBUS_KMCL_MEMBER(VmbChannelStart);
  FERRYBUS_KMCL_MEMBER(VmbChannelPause);
  FERRYBUS_KMCL_MEMBER(VmbChannelGetInterfaceInstance);
  FERRYBUS_KMCL_MEMBER(VmbChannelGetMmioSpace);
  FERRYBUS_KMCL_MEMBER(VmbChannelSetPointer);
  FERRYBUS_KMCL_MEMBER(VmbChannelGetPointer);
  FERRYBUS_KMCL_MEMBER(VmbChannelInitSetMaximumPacketSize);
  FERRYBUS_KMCL_MEMBER(VmbChannelInitSetMaximumExternalData);
  FERRYBUS_KMCL_MEMBER(VmbChannelInitSetClientContextSize);
  FERRYBUS_KMCL_MEMBER(VmbChannelInitSetProcessPacketCallbacks);
  FERRYBUS_KMCL_MEMBER(VmbChannelInitSetStateChangeCallbacks);
  FERRYBUS_KMCL_MEMBER(VmbChannelInitSetFriendlyName);
  FERRYBUS_KMCL_MEMBER(VmbChannelInitSetFlags);
  FERRYBUS_KMCL_MEMBER(VmbClientChannelInitSetRingBufferPageCount);
  FERRYBUS_KMCL_MEMBER(VmbClientChannelInitSetTargetPnp);
  FERRYBUS_KMCL_MEMBER(VmbChannelSetIncomingProcessingAtPassive);
  FERRYBUS_KMCL_MEMBER(VmbChannelSetTransactionQuota);
  FERRYBUS_KMCL_MEMBER(VmbChannelSetInterruptLatency);
  FERRYBUS_KMCL_MEMBER(VmbPacketAllocate);
  FERRYBUS_KMCL_MEMBER(VmbPacketFree);
  FERRYBUS_KMCL_MEMBER(VmbChannelSizeofPacket);
  FERRYBUS_KMCL_MEMBER(VmbPacketInitialize);
  FERRYBUS_KMCL_MEMBER(VmbPacketSetCompletionRoutine);
  FERRYBUS_KMCL_MEMBER(VmbPacketSetPointer);
  FERRYBUS_KMCL_MEMBER(VmbPacketGetPointer);
  FERRYBUS_KMCL_MEMBER(VmbPacketGetChannel);
  FERRYBUS_KMCL_MEMBER(VmbPacketSend);
  FERRYBUS_KMCL_MEMBER(VmbPacketSendWithExternalMdl);
  FERRYBUS_KMCL_MEMBER(VmbPacketSendWithExternalPfns);
  FERRYBUS_KMCL_MEMBER(VmbChannelSendSynchronousRequest);
  FERRYBUS_KMCL_MEMBER(VmbChannelPacketComplete);
  FERRYBUS_KMCL_MEMBER(VmbChannelPacketDeferToPassive);
  FERRYBUS_KMCL_MEMBER(VmbChannelPacketFail);
  FERRYBUS_KMCL_MEMBER(VmbChannelPacketGetExternalData);
  FERRYBUS_KMCL_MEMBER(VmbChannelCreateGpadlFromBuffer);
  FERRYBUS_KMCL_MEMBER(VmbChannelCreateGpadlFromMdl);
  FERRYBUS_KMCL_MEMBER(VmbChannelDeleteGpadl);
} KMCL_CLIENT_INTERFACE_V1;

typedef struct _KMCL_SERVER_ONLY_METHODS {
  FERRYBUS_KMCL_MEMBER(VmbConvertVmbusHandleToKernelHandle);
  FERRYBUS_KMCL_MEMBER(VmbServerChannelInitSetFlags);
  FERRYBUS_KMCL_MEMBER(VmbServerChannelInitSetMmioMegabytes);
  FERRYBUS_KMCL_MEMBER(VmbServerChannelInitSetTargetInterfaceId);
  FERRYBUS_KMCL_MEMBER(VmbServerChannelInitSetTargetVtl);
  FERRYBUS_KMCL_MEMBER(VmbServerChannelInitSetVmbusHandle);
  FERRYBUS_KMCL_MEMBER(VmbServerChannelInitSetSaveRestorePacketCallbacks);
  FERRYBUS_KMCL_MEMBER(VmbChannelMapGpadl);
  FERRYBUS_KMCL_MEMBER(VmbChannelUnmapGpadl);
  FERRYBUS_KMCL_MEMBER(VmbChannelSaveBegin);
  FERRYBUS_KMCL_MEMBER(VmbChannelSaveContinue);
  FERRYBUS_KMCL_MEMBER(VmbChannelSaveEnd);
  FERRYBUS_KMCL_MEMBER(VmbChannelRestoreFromBuffer);
  FERRYBUS_KMCL_MEMBER(VmbPacketRestore);
} KMCL_SERVER_ONLY_METHODS;

typedef struct _KMCL_SERVER_INTERFACE_V1 {
  KMCL_CLIENT_INTERFACE_V1 Common;
  KMCL_SERVER_ONLY_METHODS Server;
} KMCL_SERVER_INTERFACE_V1;

// Fills a table of `size` bytes.  STATUS_NOT_SUPPORTED: another version or
// size than that of KMCL_CLIENT_INTERFACE_V1 or KMCL_SERVER_INTERFACE_V1.
NTSTATUS ferrybus_query_interface(BOOLEAN is_server, UINT16 version,
                                  UINT16 size, PVOID table);

// -- Instead of a kernel ------------------------------------------------------

// A guest with `ram_bytes` of RAM and its host, both in this process and on
// this thread: pumping one pumps both.
NTSTATUS ferrybus_create_loopback(UINT64 ram_bytes, FERRYBUS_PARENT* server,
                                  FERRYBUS_PARENT* client);
void ferrybus_close_parent(FERRYBUS_PARENT parent);
// Runs callbacks and carries messages; 1: call again soon, 0: nothing to do.
int ferrybus_pump(FERRYBUS_PARENT parent);
// The connection of a server's bus, without its channels: two calls, the first
// with a null buffer for the size.  Another process, or this one later, goes on
// from it: ferrybus_restore_parent, then each channel as before (allocate, set,
// enable, VmbChannelRestoreFromBuffer), then ferrybus_start_parent: nothing
// runs before, and VmbChannelDisable would wait for ever.  Within one process
// the channels of the old bus end without a word to the guest.
NTSTATUS ferrybus_save_parent(FERRYBUS_PARENT server, PVOID buffer,
                              UINT32 bytes, UINT32* needed);
NTSTATUS ferrybus_restore_parent(FERRYBUS_PARENT server, const void* buffer,
                                 UINT32 bytes);
void ferrybus_start_parent(FERRYBUS_PARENT server);
// Client: zeroed guest RAM, whole pages; null if there is no more.
PVOID ferrybus_allocate_guest_memory(FERRYBUS_PARENT client, UINT32 bytes);
void ferrybus_free_guest_memory(FERRYBUS_PARENT client, PVOID memory,
                                UINT32 bytes);
// Where the channels' MMIO windows come from.
void ferrybus_set_mmio(FERRYBUS_PARENT parent, UINT64 address, UINT64 bytes);
// Up to 120 bytes for the peer: in the offer of a server, in the opening of a
// client.  Of a disabled channel.
NTSTATUS ferrybus_set_user_data(VMBCHANNEL channel, const void* data,
                                UINT32 bytes);
// What the peer of an open channel gave: 120 bytes, or null.
const void* ferrybus_peer_user_data(VMBCHANNEL channel);
// In UTF-8; empty until it is set.
const char* ferrybus_friendly_name(VMBCHANNEL channel);

#ifdef __cplusplus
}  // extern "C"
#endif

#endif  // FERRYBUS_KMCL_KMCL_H_
