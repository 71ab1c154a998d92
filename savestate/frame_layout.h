// SPDX-License-Identifier: MIT
//
// The save-state frame as bytes: where each field of the header and of a
// section table entry stands.  Layout only; frame.h writes and checks it,
// docs/SAVE_STATE.md is the prose.  All integers are little-endian.
//
//   header, 64 bytes                    section table entry, 64 bytes
//   @0   magic "FERRYBUS"               @0   name, 24 bytes, NUL padded
//   @8   u32 frame_version              @24  u64 instance
//   @12  u32 header_bytes               @32  u32 section_version
//   @16  u32 section_count              @36  u32 flags
//   @20  u32 flags                      @40  u64 offset of the body
//   @24  u64 total_bytes                @48  u64 length of the body
//   @32  producer, 24 bytes             @56  u32 CRC32C of the body
//   @56  u32 CRC32C of the table        @60  u32 reserved, 0
//   @60  u32 CRC32C of bytes 0..59
//
// The first 64 bytes never change, in any frame version.
//
//   body of the section "authentication" (seal.h), 72 bytes
//   @0   u32 algorithm, 1: HMAC-SHA-256
//   @4   u32 reserved, 0
//   @8   u64 counter
//   @16  key id, 24 bytes, NUL padded
//   @40  tag, 32 bytes
//
// Trust: the Load functions read what is there; whoever calls them has
// checked that the bytes exist, and checks the value afterwards.

#ifndef FERRYBUS_SAVESTATE_FRAME_LAYOUT_H_
#define FERRYBUS_SAVESTATE_FRAME_LAYOUT_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace ferrybus::savestate {

inline constexpr std::string_view kFrameMagic = "FERRYBUS";
inline constexpr uint32_t kFrameVersion = 1;
inline constexpr uint32_t kFrameHeaderBytes = 64;
inline constexpr uint32_t kSectionEntryBytes = 64;
inline constexpr uint64_t kBodyAlignmentBytes = 8;
inline constexpr size_t kFrameNameBytes = 24;  // section and producer names

// Header.
inline constexpr size_t kFrameVersionOffset = 8;
inline constexpr size_t kHeaderBytesOffset = 12;
inline constexpr size_t kSectionCountOffset = 16;
inline constexpr size_t kFrameFlagsOffset = 20;
inline constexpr size_t kTotalBytesOffset = 24;
inline constexpr size_t kProducerOffset = 32;
inline constexpr size_t kTableCrcOffset = 56;
inline constexpr size_t kHeaderCrcOffset = 60;

// Section table entry.
inline constexpr size_t kInstanceOffset = 24;
inline constexpr size_t kSectionVersionOffset = 32;
inline constexpr size_t kSectionFlagsOffset = 36;
inline constexpr size_t kBodyOffsetOffset = 40;
inline constexpr size_t kBodyLengthOffset = 48;
inline constexpr size_t kBodyCrcOffset = 56;
inline constexpr size_t kReservedOffset = 60;

// Section flags; every other bit is zero.
inline constexpr uint32_t kSectionFlagRequired = 1;

// The seal: a section of its own, last in the table.
inline constexpr std::string_view kSealSection = "authentication";
inline constexpr uint32_t kSealVersion = 1;
inline constexpr uint32_t kSealHmacSha256 = 1;
inline constexpr size_t kSealAlgorithmOffset = 0;
inline constexpr size_t kSealReservedOffset = 4;
inline constexpr size_t kSealCounterOffset = 8;
inline constexpr size_t kSealKeyIdOffset = 16;
inline constexpr size_t kSealTagOffset = 40;
inline constexpr size_t kSealTagBytes = 32;
inline constexpr size_t kSealBodyBytes = kSealTagOffset + kSealTagBytes;

inline uint64_t LoadLittleEndian(const std::byte* at, size_t size_bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < size_bytes; ++i) {
    value |= std::to_integer<uint64_t>(at[i]) << (8 * i);
  }
  return value;
}

inline uint32_t LoadU32(const std::byte* at) {
  return static_cast<uint32_t>(LoadLittleEndian(at, 4));
}

inline uint64_t LoadU64(const std::byte* at) { return LoadLittleEndian(at, 8); }

inline void StoreLittleEndian(char* at, size_t size_bytes, uint64_t value) {
  for (size_t i = 0; i < size_bytes; ++i) {
    at[i] = static_cast<char>(static_cast<uint8_t>(value >> (8 * i)));
  }
}

inline void StoreU32(char* at, uint32_t value) {
  StoreLittleEndian(at, 4, value);
}

inline void StoreU64(char* at, uint64_t value) {
  StoreLittleEndian(at, 8, value);
}

// Where section table entry `index` stands.
inline constexpr uint64_t SectionEntryOffset(uint64_t index) {
  return kFrameHeaderBytes + index * kSectionEntryBytes;
}

// Names stay within ASCII that is safe to print and to compare.
inline bool IsSectionName(std::string_view name) {
  return !name.empty() && name.size() <= kFrameNameBytes &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                  (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
         });
}

// A NUL-padded field without its padding.  False when a byte after the first
// NUL is not NUL: two spellings of one name would let two readers disagree.
inline bool ReadPaddedName(const std::byte* at, std::string_view* name) {
  const std::string_view field(reinterpret_cast<const char*>(at),
                               kFrameNameBytes);
  const size_t end = std::min(field.find('\0'), field.size());
  *name = field.substr(0, end);
  return field.find_first_not_of('\0', end) == std::string_view::npos;
}

inline bool IsProducerName(std::string_view name) {
  return name.size() <= kFrameNameBytes &&
         std::all_of(name.begin(), name.end(),
                     [](char c) { return c >= 0x20 && c <= 0x7e; });
}

// `offset` up to the next body boundary.  REQUIRES: offset <= 2^64 - 8.
inline constexpr uint64_t AlignBody(uint64_t offset) {
  return (offset + kBodyAlignmentBytes - 1) & ~(kBodyAlignmentBytes - 1);
}

}  // namespace ferrybus::savestate

#endif  // FERRYBUS_SAVESTATE_FRAME_LAYOUT_H_
