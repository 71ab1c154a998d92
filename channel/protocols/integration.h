// SPDX-License-Identifier: MIT
//
// Messages of the integration services (heartbeat, shutdown, time
// synchronisation, key-value exchange) as they stand in their channel's
// datagrams: wire structures, and the functions that put messages together
// and take them apart.
//
// The host speaks first, and the guest answers in place: same length, same
// transaction, flags kTransaction | kResponse.  The first exchange agrees on
// two versions, the framework's and the service's.
//
// Trust: the Parse functions take any bytes.  Plain values; no state.
//
//   std::vector<std::byte> message = ic::BuildMessage(header, body);
//   if (!ic::ParseMessage(payload, &header, &body)) return;  // malformed
//
// Source: docs/WIRE_FORMAT.md, "Integration services".

#ifndef FERRYBUS_CHANNEL_PROTOCOLS_INTEGRATION_H_
#define FERRYBUS_CHANNEL_PROTOCOLS_INTEGRATION_H_

#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "absl/types/span.h"

namespace ferrybus::ic {

enum class MessageType : uint16_t {
  kNegotiate = 0,
  kHeartbeat = 1,
  kKeyValue = 2,
  kShutdown = 3,
  kTimeSync = 4,
};

inline constexpr uint8_t kFlagTransaction = 1;
inline constexpr uint8_t kFlagRequest = 2;
inline constexpr uint8_t kFlagResponse = 4;

// What guests put into Header::status.
inline constexpr uint32_t kStatusOk = 0;
inline constexpr uint32_t kStatusFail = 0x80004005;
inline constexpr uint32_t kStatusNoMoreItems = 0x80070103;

struct Version {
  uint16_t major = 0;
  uint16_t minor = 0;

  friend constexpr auto operator<=>(const Version&, const Version&) = default;
};
static_assert(sizeof(Version) == 4);

struct Header {
  Version framework;
  MessageType type = MessageType::kNegotiate;
  Version message;
  uint16_t body_bytes = 0;
  uint32_t status = kStatusOk;
  uint8_t transaction = 0;
  uint8_t flags = kFlagTransaction | kFlagRequest;
  uint16_t reserved = 0;
};
static_assert(sizeof(Header) == 20 && offsetof(Header, body_bytes) == 10 &&
              offsetof(Header, status) == 12 && offsetof(Header, flags) == 17);
static_assert(std::is_trivially_copyable_v<Header>);

// Framework versions, then message versions follow.
struct NegotiateHead {
  uint16_t framework_count = 0;
  uint16_t message_count = 0;
  uint32_t reserved = 0;
};
static_assert(sizeof(NegotiateHead) == 8);
// Both counts together; guests refuse more.
inline constexpr size_t kMaxNegotiateVersions = 100;

struct HeartbeatBody {
  uint64_t sequence = 0;  // the guest answers with the next one
  uint8_t reserved[32] = {};
};
static_assert(sizeof(HeartbeatBody) == 40);

inline constexpr uint32_t kShutdownForce = 1;
inline constexpr uint32_t kShutdownRestart = 2;
inline constexpr uint32_t kShutdownHibernate = 4;  // from 3.2

struct ShutdownBody {
  uint32_t reason = 0;
  uint32_t timeout_seconds = 0;
  uint32_t flags = 0;        // kShutdown...
  char16_t text[1024] = {};  // for the guest's screen
};
static_assert(sizeof(ShutdownBody) == 2060);

inline constexpr uint8_t kTimeSyncSet = 1;     // "set your clock to this"
inline constexpr uint8_t kTimeSyncSample = 2;  // "correct it slowly"

// Times are in units of 100 ns; the host's counts from 1601.

#pragma pack(push, 1)
// Before 4.0.
struct TimeSyncBody {
  uint64_t host_time = 0;
  uint64_t guest_time = 0;
  uint64_t round_trip_time = 0;
  uint8_t flags = 0;
};
// From 4.0 on.
struct TimeSyncReferenceBody {
  uint64_t host_time = 0;
  uint64_t reference_time = 0;  // of the partition, at the same moment
  uint8_t flags = 0;
  uint8_t leap_flags = 0;
  uint8_t stratum = 0;
  uint8_t reserved[3] = {};
};
#pragma pack(pop)
static_assert(sizeof(TimeSyncBody) == 25);
static_assert(sizeof(TimeSyncReferenceBody) == 22);

// -- Key-value exchange ------------------------------------------------------

enum class KvpOperation : uint8_t {
  kGet = 0,
  kSet = 1,
  kDelete = 2,
  kEnumerate = 3,
};

enum class KvpPool : uint8_t {
  kExternal = 0,  // the host's, for the guest to read
  kGuest = 1,     // the guest's, for the host to read
  kAuto = 2,      // of the guest's kernel and services
  kAutoExternal = 3,
  kAutoInternal = 4,
};

inline constexpr uint32_t kKvpString = 1;  // UTF-16
inline constexpr uint32_t kKvpUint32 = 4;
// Linux's number for it, and Windows'.
inline constexpr uint32_t kKvpUint64Linux = 8;
inline constexpr uint32_t kKvpUint64 = 11;

// In UTF-16 units, the final zero included.
inline constexpr size_t kKvpKeyUnitsMax = 256;
inline constexpr size_t kKvpValueUnitsMax = 1024;

struct KvpHead {
  KvpOperation operation = KvpOperation::kGet;
  KvpPool pool = KvpPool::kExternal;
  uint16_t reserved = 0;
};

struct KvpPair {
  uint32_t value_type = 0;
  uint32_t key_bytes = 0;  // both with the final zero
  uint32_t value_bytes = 0;
  char16_t key[kKvpKeyUnitsMax] = {};
  char16_t value[kKvpValueUnitsMax] = {};  // or a number
};
static_assert(sizeof(KvpPair) == 2572);

struct KvpPairBody {  // kGet, kSet
  KvpHead head;
  KvpPair pair;
};
struct KvpDeleteBody {
  KvpHead head;
  uint32_t key_bytes = 0;
  char16_t key[kKvpKeyUnitsMax] = {};
};
struct KvpEnumerateBody {
  KvpHead head;
  uint32_t index = 0;
  KvpPair pair;
};
static_assert(sizeof(KvpHead) == 4 && sizeof(KvpPairBody) == 2576 &&
              sizeof(KvpDeleteBody) == 520 && sizeof(KvpEnumerateBody) == 2580);

// -- Messages as bytes -------------------------------------------------------

// Longest message: far more than any, and what a pipe's datagram holds.
inline constexpr size_t kMaxMessageBytes = 16384;

template <typename Body>
absl::Span<const std::byte> BytesOf(const Body& body) {
  static_assert(std::is_trivially_copyable_v<Body>);
  return absl::MakeConstSpan(reinterpret_cast<const std::byte*>(&body),
                             sizeof(body));
}

// False: too short.  What follows the structure is ignored.
template <typename Body>
bool ReadBody(absl::Span<const std::byte> bytes, Body* body) {
  static_assert(std::is_trivially_copyable_v<Body>);
  if (bytes.size() < sizeof(*body)) return false;
  std::memcpy(body, bytes.data(), sizeof(*body));
  return true;
}

// `header` with the body's size, then the body.
// REQUIRES: both together at most kMaxMessageBytes.
std::vector<std::byte> BuildMessage(Header header,
                                    absl::Span<const std::byte> body);
// False: shorter than a header, or than the header says.
bool ParseMessage(absl::Span<const std::byte> message, Header* header,
                  absl::Span<const std::byte>* body);

std::vector<std::byte> BuildNegotiateBody(
    absl::Span<const Version> framework_versions,
    absl::Span<const Version> message_versions);
// False: too many versions, or more than there are bytes for.
bool ParseNegotiateBody(absl::Span<const std::byte> body,
                        std::vector<Version>* framework_versions,
                        std::vector<Version>* message_versions);

}  // namespace ferrybus::ic

#endif  // FERRYBUS_CHANNEL_PROTOCOLS_INTEGRATION_H_
