// SPDX-License-Identifier: MIT
//
// The part of SCSI that a virtual disk speaks (SPC-3, SBC-3): operation codes,
// status and sense, big-endian fields.  Numbers only; the disk is in
// vsp/storage, the initiator in vsc/storage.

#ifndef FERRYBUS_CHANNEL_PROTOCOLS_SCSI_H_
#define FERRYBUS_CHANNEL_PROTOCOLS_SCSI_H_

#include <cstddef>
#include <cstdint>

namespace ferrybus::scsi {

enum class Op : uint8_t {
  kTestUnitReady = 0x00,
  kRequestSense = 0x03,
  kRead6 = 0x08,
  kWrite6 = 0x0a,
  kInquiry = 0x12,
  kModeSense6 = 0x1a,
  kStartStopUnit = 0x1b,
  kReadCapacity10 = 0x25,
  kRead10 = 0x28,
  kWrite10 = 0x2a,
  kVerify10 = 0x2f,
  kSynchronizeCache10 = 0x35,
  kUnmap = 0x42,
  kModeSense10 = 0x5a,
  kRead16 = 0x88,
  kWrite16 = 0x8a,
  kSynchronizeCache16 = 0x91,
  kWriteSame16 = 0x93,
  kServiceActionIn16 = 0x9e,
  kReportLuns = 0xa0,
  kRead12 = 0xa8,
  kWrite12 = 0xaa,
};

// Of kServiceActionIn16.
inline constexpr uint8_t kReadCapacity16Action = 0x10;

enum class Status : uint8_t {
  kGood = 0x00,
  kCheckCondition = 0x02,
  kBusy = 0x08,
};

// Sense key, additional sense code and its qualifier.
struct Sense {
  uint8_t key = 0;
  uint8_t asc = 0;
  uint8_t ascq = 0;

  friend bool operator==(const Sense&, const Sense&) = default;
};

inline constexpr Sense kNoSense = {0x0, 0x00, 0x00};
inline constexpr Sense kWriteError = {0x3, 0x0c, 0x00};
inline constexpr Sense kUnrecoveredReadError = {0x3, 0x11, 0x00};
inline constexpr Sense kInternalTargetFailure = {0x4, 0x44, 0x00};
inline constexpr Sense kParameterListLengthError = {0x5, 0x1a, 0x00};
inline constexpr Sense kInvalidOpcode = {0x5, 0x20, 0x00};
inline constexpr Sense kLbaOutOfRange = {0x5, 0x21, 0x00};
inline constexpr Sense kInvalidFieldInCdb = {0x5, 0x24, 0x00};
inline constexpr Sense kLunNotSupported = {0x5, 0x25, 0x00};
inline constexpr Sense kInvalidFieldInParameters = {0x5, 0x26, 0x00};
inline constexpr Sense kSavingParametersNotSupported = {0x5, 0x39, 0x00};
inline constexpr Sense kWriteProtected = {0x7, 0x27, 0x00};
inline constexpr Sense kSpaceAllocationFailed = {0x7, 0x27, 0x07};

// Sense data in fixed format.
inline constexpr size_t kFixedSenseBytes = 18;

inline void StoreFixedSense(const Sense& sense, uint8_t* out) {
  for (size_t i = 0; i < kFixedSenseBytes; ++i) out[i] = 0;
  out[0] = 0x70;  // current, fixed format
  out[2] = sense.key;
  out[7] = kFixedSenseBytes - 8;
  out[12] = sense.asc;
  out[13] = sense.ascq;
}

inline uint16_t LoadBe16(const uint8_t* from) {
  return static_cast<uint16_t>(from[0] << 8 | from[1]);
}
inline uint32_t LoadBe32(const uint8_t* from) {
  return uint32_t{LoadBe16(from)} << 16 | LoadBe16(from + 2);
}
inline uint64_t LoadBe64(const uint8_t* from) {
  return uint64_t{LoadBe32(from)} << 32 | LoadBe32(from + 4);
}
inline void StoreBe16(uint16_t value, uint8_t* to) {
  to[0] = static_cast<uint8_t>(value >> 8);
  to[1] = static_cast<uint8_t>(value);
}
inline void StoreBe32(uint32_t value, uint8_t* to) {
  StoreBe16(static_cast<uint16_t>(value >> 16), to);
  StoreBe16(static_cast<uint16_t>(value), to + 2);
}
inline void StoreBe64(uint64_t value, uint8_t* to) {
  StoreBe32(static_cast<uint32_t>(value >> 32), to);
  StoreBe32(static_cast<uint32_t>(value), to + 4);
}

}  // namespace ferrybus::scsi

#endif  // FERRYBUS_CHANNEL_PROTOCOLS_SCSI_H_
