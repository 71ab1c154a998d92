// SPDX-License-Identifier: MIT
//
// The storage protocol's packets (storvsc / storvsp): layout and numbers.
//
// One packet is 64 bytes, in both directions.  The guest sends an operation;
// the host's completion carries a packet whose operation is kCompleteIo.
//
//   @0   u32 operation
//   @4   u32 flags               1: completion requested
//   @8   u32 status              of the operation; 0 is success (NTSTATUS)
//   @12  52 bytes                by operation: Srb, ChannelProperties,
//                                ProtocolVersion, or zero
//
// A Linux guest reads at most 80 bytes per packet on this channel (descriptor
// and payload), so a host never sends more than these 64 bytes of payload.
//
// All integers are little-endian, except inside a CDB and SCSI data, where
// they are big-endian.
//
// Trust: the peer wrote every byte.  Copy a packet out (memcpy), check, use.
//
//   ferrybus::vstor::Packet packet;
//   std::memcpy(&packet, payload.data(), sizeof(packet));
//   auto srb = ferrybus::vstor::GetBody<ferrybus::vstor::Srb>(packet);

#ifndef FERRYBUS_CHANNEL_PROTOCOLS_VSTOR_H_
#define FERRYBUS_CHANNEL_PROTOCOLS_VSTOR_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace ferrybus::vstor {

enum class Operation : uint32_t {
  kCompleteIo = 1,
  kRemoveDevice = 2,
  kExecuteSrb = 3,
  kResetLun = 4,
  kResetAdapter = 5,
  kResetBus = 6,
  kBeginInitialization = 7,
  kEndInitialization = 8,
  kQueryProtocolVersion = 9,
  kQueryProperties = 10,
  kEnumerateBus = 11,  // host to guest, transaction id 0
  kFchbaData = 12,
  kCreateMultiChannels = 13,
};

inline constexpr uint32_t kFlagRequestCompletion = 1;

// Major version in the high byte.
inline constexpr uint16_t kVersionWin10 = 0x0602;
inline constexpr uint16_t kVersionWin8_1 = 0x0600;
inline constexpr uint16_t kVersionWin8 = 0x0501;

// Packet::status.  The guest only tells zero from the rest.
inline constexpr uint32_t kStatusSuccess = 0;
inline constexpr uint32_t kStatusInvalidParameter = 0xC000'000D;
inline constexpr uint32_t kStatusRevisionMismatch = 0xC000'0059;
inline constexpr uint32_t kStatusNotSupported = 0xC000'00BB;
inline constexpr uint32_t kStatusInvalidDeviceState = 0xC000'0184;

// Srb::srb_status: a code, with kSrbAutosenseValid or'ed in when the sense
// area holds sense data.
inline constexpr uint8_t kSrbSuccess = 0x01;
inline constexpr uint8_t kSrbError = 0x04;
inline constexpr uint8_t kSrbBusy = 0x05;
inline constexpr uint8_t kSrbInvalidRequest = 0x06;
inline constexpr uint8_t kSrbDataOverrun = 0x12;
inline constexpr uint8_t kSrbInvalidLun = 0x20;
inline constexpr uint8_t kSrbAutosenseValid = 0x80;
inline constexpr uint8_t kSrbCodeMask = 0x3f;

// Srb::data_in.
inline constexpr uint8_t kDataOut = 0;
inline constexpr uint8_t kDataIn = 1;
inline constexpr uint8_t kDataNone = 2;

// Srb::srb_flags and queue fields as Linux sets them.
inline constexpr uint32_t kSrbFlagQueueActionEnable = 0x0000'0002;
inline constexpr uint32_t kSrbFlagDisableSynchTransfer = 0x0000'0008;
inline constexpr uint32_t kSrbFlagDataIn = 0x0000'0040;
inline constexpr uint32_t kSrbFlagDataOut = 0x0000'0080;
inline constexpr uint32_t kSrbFlagNoQueueFreeze = 0x0000'0100;
inline constexpr uint8_t kSrbSimpleTagRequest = 0x20;
inline constexpr uint8_t kSrbUntagged = 0xff;

inline constexpr uint32_t kBodyBytes = 52;
inline constexpr uint32_t kCdbBytesMax = 16;
inline constexpr uint32_t kSenseBytesMax = 20;

struct Packet {
  Operation operation;
  uint32_t flags;
  uint32_t status;
  uint8_t body[kBodyBytes];
};
static_assert(sizeof(Packet) == 64);
static_assert(offsetof(Packet, body) == 12);
static_assert(std::is_trivially_copyable_v<Packet>);

// Body of kExecuteSrb and of its answer.  Offsets in the packet are 12 more.
struct Srb {
  uint16_t length_bytes;  // 52
  uint8_t srb_status;
  uint8_t scsi_status;
  uint8_t port;
  uint8_t path;
  uint8_t target;
  uint8_t lun;
  uint8_t cdb_bytes;
  uint8_t sense_bytes;
  uint8_t data_in;
  uint8_t reserved;
  uint32_t transfer_bytes;
  // The CDB in a request; sense data in an answer.
  uint8_t cdb_or_sense[kSenseBytesMax];
  uint16_t reserved2;
  uint8_t queue_tag;
  uint8_t queue_action;
  uint32_t srb_flags;
  uint32_t timeout_s;
  uint32_t queue_sort_key;
};
static_assert(sizeof(Srb) == kBodyBytes);
static_assert(offsetof(Srb, cdb_bytes) == 20 - 12);
static_assert(offsetof(Srb, data_in) == 22 - 12);
static_assert(offsetof(Srb, transfer_bytes) == 24 - 12);
static_assert(offsetof(Srb, cdb_or_sense) == 28 - 12);
static_assert(offsetof(Srb, queue_tag) == 50 - 12);
static_assert(offsetof(Srb, srb_flags) == 52 - 12);
static_assert(offsetof(Srb, queue_sort_key) == 60 - 12);
static_assert(std::is_trivially_copyable_v<Srb>);

// Body of the answer to kQueryProperties.
struct ChannelProperties {
  uint32_t reserved;
  uint16_t max_channels;
  uint16_t reserved2;
  uint32_t flags;
  uint32_t max_transfer_bytes;
  uint64_t reserved3;
};
static_assert(sizeof(ChannelProperties) == 24);
static_assert(offsetof(ChannelProperties, max_channels) == 16 - 12);
static_assert(offsetof(ChannelProperties, flags) == 20 - 12);
static_assert(offsetof(ChannelProperties, max_transfer_bytes) == 24 - 12);
static_assert(std::is_trivially_copyable_v<ChannelProperties>);

inline constexpr uint32_t kPropertyMultiChannel = 1;

// Body of kQueryProtocolVersion.
struct ProtocolVersion {
  uint16_t major_minor;
  uint16_t revision;
};
static_assert(sizeof(ProtocolVersion) == 4);

// Body of kCreateMultiChannels.
struct SubChannelRequest {
  uint16_t count;
};
static_assert(sizeof(SubChannelRequest) == 2);

template <typename T>
T GetBody(const Packet& packet) {
  static_assert(sizeof(T) <= kBodyBytes && std::is_trivially_copyable_v<T>);
  T body;
  std::memcpy(&body, packet.body, sizeof(body));
  return body;
}

template <typename T>
void SetBody(const T& body, Packet& packet) {
  static_assert(sizeof(T) <= kBodyBytes && std::is_trivially_copyable_v<T>);
  std::memcpy(packet.body, &body, sizeof(body));
}

}  // namespace ferrybus::vstor

#endif  // FERRYBUS_CHANNEL_PROTOCOLS_VSTOR_H_
