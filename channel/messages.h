// SPDX-License-Identifier: MIT
#ifndef FERRYBUS_CHANNEL_MESSAGES_H_
#define FERRYBUS_CHANNEL_MESSAGES_H_

// The VMBus channel messages, as they lie on the wire.
//
// A message is at most 240 bytes and travels in a SynIC message (or, between
// processes, in a frame of our transport).  All integers are little-endian and
// naturally aligned, so the structures below are the wire bytes.  A structure
// is the longest form of its message; which prefix a sender must send and a
// receiver must demand is in message_codec.h.  docs/WIRE_FORMAT.md, "Channel
// messages", has the same in tables.
//
// Trust: a structure is a private copy but its values are still the peer's.

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "ferrybus/channel/guid.h"

namespace ferrybus {

static_assert(std::endian::native == std::endian::little,
              "the wire structures assume a little-endian machine");

// The number that the host gives to an offered channel, 1...2047.  The field
// calls it "relid".
enum class ChannelId : uint32_t {};
inline constexpr uint32_t kMaxChannelId = 2047;

// The number that the guest gives to a GPADL, any 32-bit value.
enum class GpadlId : uint32_t {};

inline constexpr size_t kMaxMessageSizeBytes = 240;
inline constexpr size_t kUserDataSizeBytes = 120;
inline constexpr uint64_t kGpadlPageSizeBytes = 4096;

// target_vp of a channel that wants no interrupts.
inline constexpr uint32_t kNoInterruptVp = 0xffffffff;

// Message connections (SynIC ports) that a guest posts to.
inline constexpr uint32_t kMessageConnectionClassic = 1;
inline constexpr uint32_t kMessageConnectionMulticlient = 4;
inline constexpr uint8_t kVmbusSint = 2;
inline constexpr uint32_t kSintCount = 16;

// Where a message for the guest goes.
struct MessageTarget {
  uint32_t vp = 0;
  uint8_t sint = kVmbusSint;

  friend bool operator==(const MessageTarget&, const MessageTarget&) = default;
};

// The guest's two monitor pages, as addresses.  Both 0: it has none.
struct MonitorPages {
  uint64_t parent_to_child = 0;
  uint64_t child_to_parent = 0;

  friend bool operator==(const MonitorPages&, const MonitorPages&) = default;
};

// OPENCHANNEL_RESULT, GPADL_CREATED and MODIFYCHANNEL_RESPONSE: zero is
// success, all else failure.  This is the failure that we send.
inline constexpr uint32_t kStatusSuccess = 0;
inline constexpr uint32_t kStatusUnsuccessful = 0x8000ffff;
// hv_sock: TL_CONNECT_RESULT.
inline constexpr uint32_t kStatusConnectionRefused = 0xc0000236;

// VersionResponseMessage::connection_state.
inline constexpr uint8_t kConnectionSuccessful = 0;
inline constexpr uint8_t kConnectionFailedLowResources = 1;
inline constexpr uint8_t kConnectionFailedUnknown = 2;

// OfferChannelMessage::flags.
inline constexpr uint16_t kOfferEnumerateDeviceInterface = 0x1;
inline constexpr uint16_t kOfferConfidentialRing = 0x2;
inline constexpr uint16_t kOfferConfidentialExternalMemory = 0x4;
inline constexpr uint16_t kOfferPinnedExternalMemory = 0x8;
inline constexpr uint16_t kOfferNamedPipeMode = 0x10;
inline constexpr uint16_t kOfferTlnpiProvider = 0x2000;

// OpenChannelMessage::flags, with feature 0x2.
inline constexpr uint16_t kOpenRedirectInterrupt = 0x1;
// Event flags of a guest, OpenChannelMessage::event_flag.
inline constexpr uint32_t kEventFlagCount = 2048;

// OfferChannelMessage::monitor_id when the channel has no monitor.
inline constexpr uint8_t kNoMonitorId = 0xff;

enum class MessageType : uint32_t {
  kOfferChannel = 1,
  kRescindChannelOffer = 2,
  kRequestOffers = 3,
  kAllOffersDelivered = 4,
  kOpenChannel = 5,
  kOpenChannelResult = 6,
  kCloseChannel = 7,
  kGpadlHeader = 8,
  kGpadlBody = 9,
  kGpadlCreated = 10,
  kGpadlTeardown = 11,
  kGpadlTorndown = 12,
  kRelidReleased = 13,
  kInitiateContact = 14,
  kVersionResponse = 15,
  kUnload = 16,
  kUnloadResponse = 17,
  kOpenReservedChannel = 18,
  kCloseReservedChannel = 19,
  kCloseReservedResponse = 20,
  kTlConnectRequest = 21,
  kModifyChannel = 22,
  kTlConnectResult = 23,
  kModifyChannelResponse = 24,
  kModifyConnection = 25,
  kModifyConnectionResponse = 26,
  kPause = 27,
  kPauseResponse = 28,
  kResume = 29,
};
inline constexpr uint32_t kMaxMessageType = 29;

struct MessageHeader {
  MessageType type{};
  uint32_t padding = 0;  // sent as 0, not looked at
};

// Structures whose whole content is the header.
template <MessageType type>
struct HeaderOnlyMessage {
  static constexpr MessageType kType = type;
  MessageHeader header{type};
};
using RequestOffersMessage = HeaderOnlyMessage<MessageType::kRequestOffers>;
using AllOffersDeliveredMessage =
    HeaderOnlyMessage<MessageType::kAllOffersDelivered>;
using UnloadMessage = HeaderOnlyMessage<MessageType::kUnload>;
using UnloadResponseMessage = HeaderOnlyMessage<MessageType::kUnloadResponse>;
using PauseMessage = HeaderOnlyMessage<MessageType::kPause>;
using PauseResponseMessage = HeaderOnlyMessage<MessageType::kPauseResponse>;
using ResumeMessage = HeaderOnlyMessage<MessageType::kResume>;

struct OfferChannelMessage {
  static constexpr MessageType kType = MessageType::kOfferChannel;
  MessageHeader header{kType};
  Guid interface_type;
  Guid interface_instance;
  std::array<uint32_t, 4> reserved{};
  uint16_t flags = 0;
  uint16_t mmio_megabytes = 0;
  std::array<std::byte, kUserDataSizeBytes> user_data{};
  uint16_t sub_channel_index = 0;
  uint16_t mmio_megabytes_optional = 0;
  ChannelId channel_id{};
  uint8_t monitor_id = kNoMonitorId;
  uint8_t monitor_allocated = 0;
  // The message ends here before version 1.1.
  uint16_t is_dedicated_interrupt = 0;
  uint32_t connection_id = 0;
};

// Two messages that carry nothing but the channel's number; likewise below.
template <MessageType type>
struct ChannelIdMessage {
  static constexpr MessageType kType = type;
  MessageHeader header{type};
  ChannelId channel_id{};
};
using RescindChannelOfferMessage =
    ChannelIdMessage<MessageType::kRescindChannelOffer>;
using CloseChannelMessage = ChannelIdMessage<MessageType::kCloseChannel>;
using RelidReleasedMessage = ChannelIdMessage<MessageType::kRelidReleased>;
using CloseReservedResponseMessage =
    ChannelIdMessage<MessageType::kCloseReservedResponse>;

struct OpenChannelMessage {
  static constexpr MessageType kType = MessageType::kOpenChannel;
  MessageHeader header{kType};
  ChannelId channel_id{};
  uint32_t open_id = 0;
  GpadlId ring_gpadl{};
  uint32_t target_vp = 0;
  uint32_t downstream_page_offset = 0;
  std::array<std::byte, kUserDataSizeBytes> user_data{};
  // Only with feature 0x1 or 0x2.
  uint32_t connection_id = 0;
  uint16_t event_flag = 0;
  uint16_t flags = 0;
};

struct OpenChannelResultMessage {
  static constexpr MessageType kType = MessageType::kOpenChannelResult;
  MessageHeader header{kType};
  ChannelId channel_id{};
  uint32_t open_id = 0;
  uint32_t status = 0;
};

// Followed by range bytes: {u32 byte_count, u32 byte_offset, u64 pfn[]}.
struct GpadlHeaderMessage {
  static constexpr MessageType kType = MessageType::kGpadlHeader;
  MessageHeader header{kType};
  ChannelId channel_id{};
  GpadlId gpadl_id{};
  uint16_t range_buffer_size_bytes = 0;  // of all ranges, bodies included
  uint16_t range_count = 0;
};

// Followed by more range bytes.
struct GpadlBodyMessage {
  static constexpr MessageType kType = MessageType::kGpadlBody;
  MessageHeader header{kType};
  uint32_t message_number = 0;  // always 0 in practice, not looked at
  GpadlId gpadl_id{};
};

struct GpadlCreatedMessage {
  static constexpr MessageType kType = MessageType::kGpadlCreated;
  MessageHeader header{kType};
  ChannelId channel_id{};
  GpadlId gpadl_id{};
  uint32_t status = 0;
};

struct GpadlTeardownMessage {
  static constexpr MessageType kType = MessageType::kGpadlTeardown;
  MessageHeader header{kType};
  ChannelId channel_id{};
  GpadlId gpadl_id{};
};

struct GpadlTorndownMessage {
  static constexpr MessageType kType = MessageType::kGpadlTorndown;
  MessageHeader header{kType};
  GpadlId gpadl_id{};
};

struct InitiateContactMessage {
  static constexpr MessageType kType = MessageType::kInitiateContact;
  MessageHeader header{kType};
  uint32_t version = 0;
  uint32_t target_message_vp = 0;
  // Before 5.0 one u64, the address of the interrupt page.  Since then:
  uint8_t target_sint = 0;  // 5.0
  uint8_t target_vtl = 0;   // 5.1
  uint16_t reserved = 0;
  uint32_t feature_flags = 0;  // 6.0
  uint64_t parent_to_child_monitor_page = 0;
  uint64_t child_to_parent_monitor_page = 0;
  Guid client_id;  // only with feature 0x8

  void set_interrupt_page(uint64_t address) {
    target_sint = static_cast<uint8_t>(address);
    target_vtl = static_cast<uint8_t>(address >> 8);
    reserved = static_cast<uint16_t>(address >> 16);
    feature_flags = static_cast<uint32_t>(address >> 32);
  }
};

struct VersionResponseMessage {
  static constexpr MessageType kType = MessageType::kVersionResponse;
  MessageHeader header{kType};
  uint8_t version_supported = 0;
  uint8_t connection_state = 0;
  uint16_t padding = 0;
  uint32_t version_or_connection_id = 0;
  // From 6.0, when the version is supported.
  uint32_t supported_features = 0;
  uint32_t padding2 = 0;
  // Only with feature 0x40.
  uint64_t parent_to_child_monitor_page = 0;
  uint64_t child_to_parent_monitor_page = 0;
};

struct OpenReservedChannelMessage {
  static constexpr MessageType kType = MessageType::kOpenReservedChannel;
  MessageHeader header{kType};
  ChannelId channel_id{};
  uint32_t target_vp = 0;
  uint32_t target_sint = 0;
  GpadlId ring_gpadl{};
  uint32_t downstream_page_offset = 0;
};

struct CloseReservedChannelMessage {
  static constexpr MessageType kType = MessageType::kCloseReservedChannel;
  MessageHeader header{kType};
  ChannelId channel_id{};
  uint32_t target_vp = 0;
  uint32_t target_sint = 0;
};

struct TlConnectRequestMessage {
  static constexpr MessageType kType = MessageType::kTlConnectRequest;
  MessageHeader header{kType};
  Guid endpoint_id;
  Guid service_id;
  Guid silo_id;  // 5.2
};

struct TlConnectResultMessage {
  static constexpr MessageType kType = MessageType::kTlConnectResult;
  MessageHeader header{kType};
  Guid endpoint_id;
  Guid service_id;
  uint32_t status = 0;
};

struct ModifyChannelMessage {
  static constexpr MessageType kType = MessageType::kModifyChannel;
  MessageHeader header{kType};
  ChannelId channel_id{};
  uint32_t target_vp = 0;
};

struct ModifyChannelResponseMessage {
  static constexpr MessageType kType = MessageType::kModifyChannelResponse;
  MessageHeader header{kType};
  ChannelId channel_id{};
  uint32_t status = 0;
};

struct ModifyConnectionMessage {
  static constexpr MessageType kType = MessageType::kModifyConnection;
  MessageHeader header{kType};
  uint64_t parent_to_child_monitor_page = 0;
  uint64_t child_to_parent_monitor_page = 0;
};

struct ModifyConnectionResponseMessage {
  static constexpr MessageType kType = MessageType::kModifyConnectionResponse;
  MessageHeader header{kType};
  uint8_t connection_state = 0;  // the message ends here, after 9 bytes
  std::array<uint8_t, 3> not_sent{};
};

template <typename Message>
inline constexpr bool kIsWireStructure =
    std::is_trivially_copyable_v<Message>&& std::is_standard_layout_v<Message>;

static_assert(sizeof(MessageHeader) == 8);
static_assert(sizeof(RequestOffersMessage) == 8);
static_assert(sizeof(CloseChannelMessage) == 12);

static_assert(sizeof(OfferChannelMessage) == 196);
static_assert(kIsWireStructure<OfferChannelMessage>);
static_assert(offsetof(OfferChannelMessage, interface_type) == 8);
static_assert(offsetof(OfferChannelMessage, interface_instance) == 24);
static_assert(offsetof(OfferChannelMessage, flags) == 56);
static_assert(offsetof(OfferChannelMessage, mmio_megabytes) == 58);
static_assert(offsetof(OfferChannelMessage, user_data) == 60);
static_assert(offsetof(OfferChannelMessage, sub_channel_index) == 180);
static_assert(offsetof(OfferChannelMessage, mmio_megabytes_optional) == 182);
static_assert(offsetof(OfferChannelMessage, channel_id) == 184);
static_assert(offsetof(OfferChannelMessage, monitor_id) == 188);
static_assert(offsetof(OfferChannelMessage, monitor_allocated) == 189);
static_assert(offsetof(OfferChannelMessage, is_dedicated_interrupt) == 190);
static_assert(offsetof(OfferChannelMessage, connection_id) == 192);

static_assert(sizeof(OpenChannelMessage) == 156);
static_assert(kIsWireStructure<OpenChannelMessage>);
static_assert(offsetof(OpenChannelMessage, ring_gpadl) == 16);
static_assert(offsetof(OpenChannelMessage, downstream_page_offset) == 24);
static_assert(offsetof(OpenChannelMessage, user_data) == 28);
static_assert(offsetof(OpenChannelMessage, connection_id) == 148);
static_assert(offsetof(OpenChannelMessage, event_flag) == 152);
static_assert(offsetof(OpenChannelMessage, flags) == 154);

static_assert(sizeof(OpenChannelResultMessage) == 20);
static_assert(sizeof(GpadlHeaderMessage) == 20);
static_assert(offsetof(GpadlHeaderMessage, range_buffer_size_bytes) == 16);
static_assert(sizeof(GpadlBodyMessage) == 16);
static_assert(sizeof(GpadlCreatedMessage) == 20);
static_assert(sizeof(GpadlTeardownMessage) == 16);
static_assert(sizeof(GpadlTorndownMessage) == 12);

static_assert(sizeof(InitiateContactMessage) == 56);
static_assert(kIsWireStructure<InitiateContactMessage>);
static_assert(offsetof(InitiateContactMessage, target_sint) == 16);
static_assert(offsetof(InitiateContactMessage, target_vtl) == 17);
static_assert(offsetof(InitiateContactMessage, feature_flags) == 20);
static_assert(offsetof(InitiateContactMessage, parent_to_child_monitor_page) ==
              24);
static_assert(offsetof(InitiateContactMessage, child_to_parent_monitor_page) ==
              32);
static_assert(offsetof(InitiateContactMessage, client_id) == 40);

static_assert(sizeof(VersionResponseMessage) == 40);
static_assert(kIsWireStructure<VersionResponseMessage>);
static_assert(offsetof(VersionResponseMessage, connection_state) == 9);
static_assert(offsetof(VersionResponseMessage, version_or_connection_id) == 12);
static_assert(offsetof(VersionResponseMessage, supported_features) == 16);
static_assert(offsetof(VersionResponseMessage, parent_to_child_monitor_page) ==
              24);

static_assert(sizeof(OpenReservedChannelMessage) == 28);
static_assert(sizeof(CloseReservedChannelMessage) == 20);
static_assert(sizeof(TlConnectRequestMessage) == 56);
static_assert(offsetof(TlConnectRequestMessage, silo_id) == 40);
static_assert(sizeof(TlConnectResultMessage) == 44);
static_assert(offsetof(TlConnectResultMessage, status) == 40);
static_assert(sizeof(ModifyChannelMessage) == 16);
static_assert(sizeof(ModifyChannelResponseMessage) == 16);
static_assert(sizeof(ModifyConnectionMessage) == 24);
static_assert(offsetof(ModifyConnectionResponseMessage, connection_state) == 8);

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_MESSAGES_H_
