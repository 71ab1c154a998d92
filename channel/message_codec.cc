// SPDX-License-Identifier: MIT
#include "ferrybus/channel/message_codec.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace ferrybus {
namespace {

enum class Direction { kGuestToHost, kHostToGuest };

struct MessageTraits {
  MessageType type;
  const char* name;
  Direction direction;
  size_t size_bytes_min;  // of the shortest form; see MinimumSize
  ProtocolVersion version_min;
  uint32_t feature = 0;  // that must have been granted
};

// Row n - 1 is type n.  UNLOAD is taken at every version, though guests send
// it only from 1.1 on.
constexpr std::array<MessageTraits, kMaxMessageType> kTraits = {{
    {MessageType::kOfferChannel, "OFFERCHANNEL", Direction::kHostToGuest, 190,
     ProtocolVersion::kWs2008},
    {MessageType::kRescindChannelOffer, "RESCIND_CHANNELOFFER",
     Direction::kHostToGuest, 12, ProtocolVersion::kWs2008},
    {MessageType::kRequestOffers, "REQUESTOFFERS", Direction::kGuestToHost, 8,
     ProtocolVersion::kWs2008},
    {MessageType::kAllOffersDelivered, "ALLOFFERS_DELIVERED",
     Direction::kHostToGuest, 8, ProtocolVersion::kWs2008},
    {MessageType::kOpenChannel, "OPENCHANNEL", Direction::kGuestToHost, 148,
     ProtocolVersion::kWs2008},
    {MessageType::kOpenChannelResult, "OPENCHANNEL_RESULT",
     Direction::kHostToGuest, 20, ProtocolVersion::kWs2008},
    {MessageType::kCloseChannel, "CLOSECHANNEL", Direction::kGuestToHost, 12,
     ProtocolVersion::kWs2008},
    {MessageType::kGpadlHeader, "GPADL_HEADER", Direction::kGuestToHost, 28,
     ProtocolVersion::kWs2008},
    {MessageType::kGpadlBody, "GPADL_BODY", Direction::kGuestToHost, 16,
     ProtocolVersion::kWs2008},
    {MessageType::kGpadlCreated, "GPADL_CREATED", Direction::kHostToGuest, 20,
     ProtocolVersion::kWs2008},
    {MessageType::kGpadlTeardown, "GPADL_TEARDOWN", Direction::kGuestToHost, 16,
     ProtocolVersion::kWs2008},
    {MessageType::kGpadlTorndown, "GPADL_TORNDOWN", Direction::kHostToGuest, 12,
     ProtocolVersion::kWs2008},
    {MessageType::kRelidReleased, "RELID_RELEASED", Direction::kGuestToHost, 12,
     ProtocolVersion::kWs2008},
    {MessageType::kInitiateContact, "INITIATE_CONTACT", Direction::kGuestToHost,
     40, ProtocolVersion::kWs2008},
    {MessageType::kVersionResponse, "VERSION_RESPONSE", Direction::kHostToGuest,
     16, ProtocolVersion::kWs2008},
    {MessageType::kUnload, "UNLOAD", Direction::kGuestToHost, 8,
     ProtocolVersion::kWs2008},
    {MessageType::kUnloadResponse, "UNLOAD_RESPONSE", Direction::kHostToGuest,
     8, ProtocolVersion::kWs2008},
    {MessageType::kOpenReservedChannel, "OPEN_RESERVED_CHANNEL",
     Direction::kGuestToHost, 28, ProtocolVersion::kWin10},
    {MessageType::kCloseReservedChannel, "CLOSE_RESERVED_CHANNEL",
     Direction::kGuestToHost, 20, ProtocolVersion::kWs2008},
    {MessageType::kCloseReservedResponse, "CLOSE_RESERVED_RESPONSE",
     Direction::kHostToGuest, 12, ProtocolVersion::kWs2008},
    {MessageType::kTlConnectRequest, "TL_CONNECT_REQUEST",
     Direction::kGuestToHost, 40, ProtocolVersion::kWin10},
    {MessageType::kModifyChannel, "MODIFYCHANNEL", Direction::kGuestToHost, 16,
     ProtocolVersion::kWin10Rs3},
    {MessageType::kTlConnectResult, "TL_CONNECT_RESULT",
     Direction::kHostToGuest, 44, ProtocolVersion::kWin10Rs3},
    {MessageType::kModifyChannelResponse, "MODIFYCHANNEL_RESPONSE",
     Direction::kHostToGuest, 16, ProtocolVersion::kIron},
    {MessageType::kModifyConnection, "MODIFY_CONNECTION",
     Direction::kGuestToHost, 24, ProtocolVersion::kCopper,
     kFeatureModifyConnection},
    {MessageType::kModifyConnectionResponse, "MODIFY_CONNECTION_RESPONSE",
     Direction::kHostToGuest, 9, ProtocolVersion::kCopper,
     kFeatureModifyConnection},
    {MessageType::kPause, "PAUSE", Direction::kGuestToHost, 8,
     ProtocolVersion::kCopper, kFeaturePauseResume},
    {MessageType::kPauseResponse, "PAUSE_RESPONSE", Direction::kHostToGuest, 8,
     ProtocolVersion::kCopper, kFeaturePauseResume},
    {MessageType::kResume, "RESUME", Direction::kGuestToHost, 8,
     ProtocolVersion::kCopper, kFeaturePauseResume},
}};

constexpr bool TraitsAreInOrder() {
  for (size_t i = 0; i < kTraits.size(); ++i) {
    if (static_cast<size_t>(kTraits[i].type) != i + 1) return false;
  }
  return true;
}
static_assert(TraitsAreInOrder());

// INITIATE_CONTACT that announces a client id is longer.
bool HasClientId(uint32_t version, uint32_t feature_flags) {
  return IsKnownProtocolVersion(version) &&
         version >= static_cast<uint32_t>(ProtocolVersion::kCopper) &&
         (feature_flags & kFeatureClientId) != 0;
}

bool OpenHasSignalParameters(uint32_t features) {
  return (features &
          (kFeatureGuestSignalParameters | kFeatureInterruptRedirection)) != 0;
}

// Size that a message needs under what was agreed.
size_t MinimumSize(const MessageTraits& traits,
                   const ProtocolContext& context) {
  switch (traits.type) {
    case MessageType::kOfferChannel:
      return context.AtLeast(ProtocolVersion::kWin7) ? 196 : 190;
    case MessageType::kOpenChannel:
      return OpenHasSignalParameters(context.features) ? 156 : 148;
    case MessageType::kTlConnectRequest:
      return context.AtLeast(ProtocolVersion::kWin10Rs5) ? 56 : 40;
    default:
      return traits.size_bytes_min;
  }
}

absl::StatusOr<MessageType> CheckMessage(absl::Span<const std::byte> payload,
                                         Direction direction,
                                         const ProtocolContext& context) {
  if (payload.size() > kMaxMessageSizeBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("channel message of ", payload.size(), " bytes; at most ",
                     kMaxMessageSizeBytes, " allowed"));
  }
  if (payload.size() < sizeof(MessageHeader)) {
    return absl::InvalidArgumentError(
        absl::StrCat("channel message of ", payload.size(),
                     " bytes has no whole header of 8 bytes"));
  }
  uint32_t type = 0;
  std::memcpy(&type, payload.data(), sizeof(type));
  if (type == 0 || type > kMaxMessageType) {
    return absl::InvalidArgumentError(
        absl::StrCat("unknown channel message type ", type));
  }
  const MessageTraits& traits = kTraits[type - 1];
  if (traits.direction != direction) {
    return absl::PermissionDeniedError(
        absl::StrCat(traits.name, " came from the wrong side; only the ",
                     direction == Direction::kGuestToHost ? "host" : "guest",
                     " may send it"));
  }
  if (context.version.has_value() &&
      (*context.version < traits.version_min ||
       (context.features & traits.feature) != traits.feature)) {
    return absl::UnimplementedError(absl::StrCat(
        traits.name, " needs version ",
        ProtocolVersionToString(traits.version_min), " and feature flags ",
        traits.feature, "; the connection has version ",
        ProtocolVersionToString(*context.version), " and flags ",
        context.features));
  }
  const size_t size_min = MinimumSize(traits, context);
  if (payload.size() < size_min) {
    return absl::InvalidArgumentError(
        absl::StrCat(traits.name, " of ", payload.size(), " bytes; at least ",
                     size_min, " needed"));
  }
  return traits.type;
}

// The structure at the start of the payload, with `size_bytes_max` of it
// taken; the rest is zero.
template <typename Message>
Message CopyOut(absl::Span<const std::byte> payload,
                size_t size_bytes_max = sizeof(Message)) {
  Message message;
  std::memcpy(static_cast<void*>(&message), payload.data(),
              std::min(payload.size(), size_bytes_max));
  return message;
}

// What follows the structure, in whole 8-byte words: a padded message may end
// in the middle of one.
template <typename Message>
absl::Span<const std::byte> RangeBytes(absl::Span<const std::byte> payload) {
  absl::Span<const std::byte> rest = payload.subspan(sizeof(Message));
  return rest.first(rest.size() / 8 * 8);
}

absl::StatusOr<GuestMessage> DecodeContact(
    absl::Span<const std::byte> payload) {
  auto contact = CopyOut<InitiateContactMessage>(payload);
  if (!HasClientId(contact.version, contact.feature_flags)) {
    contact.client_id = Guid{};
  } else if (payload.size() < sizeof(InitiateContactMessage)) {
    return absl::InvalidArgumentError(
        absl::StrCat("INITIATE_CONTACT with a client id of ", payload.size(),
                     " bytes; at least 56 needed"));
  }
  return contact;
}

OpenChannelMessage DecodeOpen(absl::Span<const std::byte> payload,
                              const ProtocolContext& context) {
  // Microsoft's firmware always sends the tail, agreed on or not.
  return CopyOut<OpenChannelMessage>(
      payload, OpenHasSignalParameters(context.features) ? 156 : 148);
}

}  // namespace

absl::StatusOr<GuestMessage> DecodeGuestMessage(
    absl::Span<const std::byte> payload, const ProtocolContext& context) {
  absl::StatusOr<MessageType> type =
      CheckMessage(payload, Direction::kGuestToHost, context);
  if (!type.ok()) return type.status();
  switch (*type) {
    case MessageType::kRequestOffers:
      return CopyOut<RequestOffersMessage>(payload);
    case MessageType::kOpenChannel:
      return DecodeOpen(payload, context);
    case MessageType::kCloseChannel:
      return CopyOut<CloseChannelMessage>(payload);
    case MessageType::kGpadlHeader:
      return DecodedGpadlHeader{CopyOut<GpadlHeaderMessage>(payload),
                                RangeBytes<GpadlHeaderMessage>(payload)};
    case MessageType::kGpadlBody:
      return DecodedGpadlBody{CopyOut<GpadlBodyMessage>(payload),
                              RangeBytes<GpadlBodyMessage>(payload)};
    case MessageType::kGpadlTeardown:
      return CopyOut<GpadlTeardownMessage>(payload);
    case MessageType::kRelidReleased:
      return CopyOut<RelidReleasedMessage>(payload);
    case MessageType::kInitiateContact:
      return DecodeContact(payload);
    case MessageType::kUnload:
      return CopyOut<UnloadMessage>(payload);
    case MessageType::kOpenReservedChannel:
      return CopyOut<OpenReservedChannelMessage>(payload);
    case MessageType::kCloseReservedChannel:
      return CopyOut<CloseReservedChannelMessage>(payload);
    case MessageType::kTlConnectRequest:
      return CopyOut<TlConnectRequestMessage>(
          payload, context.AtLeast(ProtocolVersion::kWin10Rs5) ? 56 : 40);
    case MessageType::kModifyChannel:
      return CopyOut<ModifyChannelMessage>(payload);
    case MessageType::kModifyConnection:
      return CopyOut<ModifyConnectionMessage>(payload);
    case MessageType::kPause:
      return CopyOut<PauseMessage>(payload);
    case MessageType::kResume:
      return CopyOut<ResumeMessage>(payload);
    default:
      return absl::InternalError("guest message without a decoder");
  }
}

absl::StatusOr<HostMessage> DecodeHostMessage(
    absl::Span<const std::byte> payload, const ProtocolContext& context) {
  absl::StatusOr<MessageType> type =
      CheckMessage(payload, Direction::kHostToGuest, context);
  if (!type.ok()) return type.status();
  switch (*type) {
    case MessageType::kOfferChannel:
      return CopyOut<OfferChannelMessage>(
          payload, context.AtLeast(ProtocolVersion::kWin7) ? 196 : 190);
    case MessageType::kRescindChannelOffer:
      return CopyOut<RescindChannelOfferMessage>(payload);
    case MessageType::kAllOffersDelivered:
      return CopyOut<AllOffersDeliveredMessage>(payload);
    case MessageType::kOpenChannelResult:
      return CopyOut<OpenChannelResultMessage>(payload);
    case MessageType::kGpadlCreated:
      return CopyOut<GpadlCreatedMessage>(payload);
    case MessageType::kGpadlTorndown:
      return CopyOut<GpadlTorndownMessage>(payload);
    case MessageType::kVersionResponse:
      return CopyOut<VersionResponseMessage>(payload);
    case MessageType::kUnloadResponse:
      return CopyOut<UnloadResponseMessage>(payload);
    case MessageType::kCloseReservedResponse:
      return CopyOut<CloseReservedResponseMessage>(payload);
    case MessageType::kTlConnectResult:
      return CopyOut<TlConnectResultMessage>(payload);
    case MessageType::kModifyChannelResponse:
      return CopyOut<ModifyChannelResponseMessage>(payload);
    case MessageType::kModifyConnectionResponse:
      return CopyOut<ModifyConnectionResponseMessage>(payload, 9);
    case MessageType::kPauseResponse:
      return CopyOut<PauseResponseMessage>(payload);
    default:
      return absl::InternalError("host message without a decoder");
  }
}

void EncodedMessage::Append(const void* data, size_t size_bytes) {
  const size_t room = bytes_.size() - size_bytes_;
  size_bytes = std::min(size_bytes, room);
  if (size_bytes == 0) return;  // data may be null then
  std::memcpy(bytes_.data() + size_bytes_, data, size_bytes);
  size_bytes_ += size_bytes;
}

EncodedMessage EncodeOfferChannel(const OfferChannelMessage& message,
                                  ProtocolVersion version) {
  EncodedMessage encoded;
  encoded.Append(&message, version >= ProtocolVersion::kWin7 ? 196 : 190);
  return encoded;
}

EncodedMessage EncodeOpenChannel(const OpenChannelMessage& message,
                                 uint32_t features) {
  EncodedMessage encoded;
  encoded.Append(&message, OpenHasSignalParameters(features) ? 156 : 148);
  return encoded;
}

EncodedMessage EncodeInitiateContact(const InitiateContactMessage& message) {
  EncodedMessage encoded;
  encoded.Append(&message,
                 HasClientId(message.version, message.feature_flags) ? 56 : 40);
  return encoded;
}

EncodedMessage EncodeVersionResponse(const VersionResponseMessage& message,
                                     ProtocolVersion version) {
  size_t size_bytes = 16;
  if (message.version_supported != 0 && version >= ProtocolVersion::kCopper) {
    size_bytes = (message.supported_features & kFeatureServerMonitorPages) != 0
                     ? 40
                     : 20;
  }
  EncodedMessage encoded;
  encoded.Append(&message, size_bytes);
  return encoded;
}

EncodedMessage EncodeTlConnectRequest(const TlConnectRequestMessage& message,
                                      ProtocolVersion version) {
  EncodedMessage encoded;
  encoded.Append(&message, version >= ProtocolVersion::kWin10Rs5 ? 56 : 40);
  return encoded;
}

EncodedMessage EncodeModifyConnectionResponse(
    const ModifyConnectionResponseMessage& message) {
  EncodedMessage encoded;
  encoded.Append(&message, 9);
  return encoded;
}

EncodedMessage EncodeGpadlHeader(const GpadlHeaderMessage& message,
                                 absl::Span<const std::byte> range_bytes) {
  EncodedMessage encoded;
  encoded.Append(&message, sizeof(message));
  encoded.Append(range_bytes.data(), range_bytes.size());
  return encoded;
}

EncodedMessage EncodeGpadlBody(const GpadlBodyMessage& message,
                               absl::Span<const std::byte> range_bytes) {
  EncodedMessage encoded;
  encoded.Append(&message, sizeof(message));
  encoded.Append(range_bytes.data(), range_bytes.size());
  return encoded;
}

uint32_t GpadlPageCount(uint32_t byte_count, uint32_t byte_offset) {
  if (byte_count == 0 || byte_offset >= kGpadlPageSizeBytes) return 0;
  const uint64_t end = uint64_t{byte_offset} + byte_count;
  const uint64_t pages = (end + kGpadlPageSizeBytes - 1) / kGpadlPageSizeBytes;
  return pages > kGpadlPagesMax ? 0 : static_cast<uint32_t>(pages);
}

}  // namespace ferrybus
