// SPDX-License-Identifier: MIT
#ifndef FERRYBUS_CHANNEL_MESSAGE_CODEC_H_
#define FERRYBUS_CHANNEL_MESSAGE_CODEC_H_

// Turns message bytes into checked structures, and structures into bytes.
//
// Receiving is lenient in length and strict in everything else: a message may
// be longer than its type needs (Microsoft's firmware pads), never shorter.
// Sending is exact: Microsoft's firmware crashes on a message that is a byte
// too long.  docs/WIRE_FORMAT.md, "Channel messages", has the sizes.
//
// Thread safety: free functions without state.
// Trust: input bytes are the peer's; they are copied once.  Field values are
// not judged here, only what is needed to find the fields.
// Cost: no allocation, except for the text of an error.

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <variant>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/channel/messages.h"
#include "ferrybus/channel/protocol_version.h"

namespace ferrybus {

// What the connection has agreed on; decides sizes and which types exist.
struct ProtocolContext {
  // nullopt while not connected.
  std::optional<ProtocolVersion> version;
  uint32_t features = 0;

  bool AtLeast(ProtocolVersion minimum) const {
    return version.has_value() && *version >= minimum;
  }
};

// A GPADL message with the range bytes that came with it.  They are whole
// 8-byte words, point into the decoded message, and may be more than the
// GPADL still lacks.
struct DecodedGpadlHeader {
  GpadlHeaderMessage message;
  absl::Span<const std::byte> range_bytes;
};
struct DecodedGpadlBody {
  GpadlBodyMessage message;
  absl::Span<const std::byte> range_bytes;
};

using GuestMessage =
    std::variant<RequestOffersMessage, OpenChannelMessage, CloseChannelMessage,
                 DecodedGpadlHeader, DecodedGpadlBody, GpadlTeardownMessage,
                 RelidReleasedMessage, InitiateContactMessage, UnloadMessage,
                 OpenReservedChannelMessage, CloseReservedChannelMessage,
                 TlConnectRequestMessage, ModifyChannelMessage,
                 ModifyConnectionMessage, PauseMessage, ResumeMessage>;

using HostMessage = std::variant<
    OfferChannelMessage, RescindChannelOfferMessage, AllOffersDeliveredMessage,
    OpenChannelResultMessage, GpadlCreatedMessage, GpadlTorndownMessage,
    VersionResponseMessage, UnloadResponseMessage, CloseReservedResponseMessage,
    TlConnectResultMessage, ModifyChannelResponseMessage,
    ModifyConnectionResponseMessage, PauseResponseMessage>;

// Decodes what a guest may send to a host, and the reverse.
//
// InvalidArgument: longer than 240 bytes, no whole header, unknown type, or
// shorter than the type needs.  PermissionDenied: a type of the other
// direction.  Unimplemented: a type that `context` does not have; while
// nothing is agreed (no version) every type passes, and it is the caller that
// refuses.  Fields beyond the end of a short form are zero.
absl::StatusOr<GuestMessage> DecodeGuestMessage(
    absl::Span<const std::byte> payload, const ProtocolContext& context);
absl::StatusOr<HostMessage> DecodeHostMessage(
    absl::Span<const std::byte> payload, const ProtocolContext& context);

// The bytes of one message, ready to post.
class EncodedMessage {
 public:
  EncodedMessage() = default;

  absl::Span<const std::byte> bytes() const {
    return absl::MakeConstSpan(bytes_.data(), size_bytes_);
  }

  // Appends raw bytes.  REQUIRES: the result fits 240 bytes.
  void Append(const void* data, size_t size_bytes);

 private:
  std::array<std::byte, kMaxMessageSizeBytes> bytes_;
  size_t size_bytes_ = 0;
};

// Messages whose length never varies: the whole structure.
template <typename Message>
EncodedMessage EncodeMessage(const Message& message) {
  static_assert(kIsWireStructure<Message>);
  static_assert(!std::is_same_v<Message, OfferChannelMessage> &&
                    !std::is_same_v<Message, OpenChannelMessage> &&
                    !std::is_same_v<Message, GpadlHeaderMessage> &&
                    !std::is_same_v<Message, GpadlBodyMessage> &&
                    !std::is_same_v<Message, InitiateContactMessage> &&
                    !std::is_same_v<Message, VersionResponseMessage> &&
                    !std::is_same_v<Message, TlConnectRequestMessage> &&
                    !std::is_same_v<Message, ModifyConnectionResponseMessage>,
                "the length of this message varies: use its own function");
  EncodedMessage encoded;
  encoded.Append(&message, sizeof(Message));
  return encoded;
}

// 190 bytes before 1.1, else 196.
EncodedMessage EncodeOfferChannel(const OfferChannelMessage& message,
                                  ProtocolVersion version);
// 148 bytes; 156 when feature 0x1 or 0x2 was granted.
EncodedMessage EncodeOpenChannel(const OpenChannelMessage& message,
                                 uint32_t features);
// 40 bytes; 56 when version is 6.0 or later and a client id is announced.
EncodedMessage EncodeInitiateContact(const InitiateContactMessage& message);
// 16 bytes; when `version` (what the guest asked) is 6.0 or later and it is
// supported 20 bytes, or 40 with feature 0x40.
EncodedMessage EncodeVersionResponse(const VersionResponseMessage& message,
                                     ProtocolVersion version);
// 40 bytes; 56 from 5.2.
EncodedMessage EncodeTlConnectRequest(const TlConnectRequestMessage& message,
                                      ProtocolVersion version);
// 9 bytes.
EncodedMessage EncodeModifyConnectionResponse(
    const ModifyConnectionResponseMessage& message);

// GPADL messages with their share of the range bytes.
// REQUIRES: range_bytes fits: at most 220, respectively 224 bytes.
EncodedMessage EncodeGpadlHeader(const GpadlHeaderMessage& message,
                                 absl::Span<const std::byte> range_bytes);
EncodedMessage EncodeGpadlBody(const GpadlBodyMessage& message,
                               absl::Span<const std::byte> range_bytes);

// How many page numbers go with the range header into GPADL_HEADER, and how
// many into each GPADL_BODY.
inline constexpr size_t kGpadlHeaderPagesMax = 26;
inline constexpr size_t kGpadlBodyPagesMax = 28;

// The largest GPADL: range_buffer_size_bytes is 16 bits wide.
inline constexpr size_t kGpadlPagesMax = 8190;

// Number of pages that a range touches; 0 for a range that is not valid (no
// bytes, offset not inside the first page, or more than one GPADL can hold).
uint32_t GpadlPageCount(uint32_t byte_count, uint32_t byte_offset);

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_MESSAGE_CODEC_H_
