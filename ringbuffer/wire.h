// SPDX-License-Identifier: MIT
//
// The VMBus ring as bytes: control page, packet descriptor and the
// extensions that follow it.  Layout only; the algorithms are in
// ring_producer.h and ring_consumer.h, the prose in docs/WIRE_FORMAT.md.
//
// A ring is one control page (4096 bytes) followed by its data area, whole
// pages.  All integers are little-endian.
//
//   control page                         packet at ring offset s
//   @0   write_index     producer        @0  u16 type
//   @4   read_index      consumer        @2  u16 offset8   header / 8
//   @8   interrupt_mask  consumer        @4  u16 length8   packet / 8
//   @12  pending_send    producer        @6  u16 flags
//   @64  feature_bits    producer        @8  u64 transaction_id
//   @4096 data area                      @16 extension, then payload
//                                        @length8*8  u32 0, u32 s  (trailer)
//
// Trust: nothing read through these structures can be believed before it was
// copied into private memory and checked.

#ifndef FERRYBUS_RINGBUFFER_WIRE_H_
#define FERRYBUS_RINGBUFFER_WIRE_H_

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace ferrybus::ringbuffer {

inline constexpr uint32_t kPageBytes = 4096;

// Offsets of the control words in the control page.
inline constexpr uint32_t kWriteIndexOffset = 0;
inline constexpr uint32_t kReadIndexOffset = 4;
inline constexpr uint32_t kInterruptMaskOffset = 8;
inline constexpr uint32_t kPendingSendSizeOffset = 12;
inline constexpr uint32_t kFeatureBitsOffset = 64;

// feature_bits: this producer writes pending_send_size.
inline constexpr uint32_t kFeaturePendingSendSize = 1;

enum class PacketType : uint16_t {
  kDataInBand = 6,
  kDataUsingTransferPages = 7,
  kDataUsingGpaDirect = 9,
  kCompletion = 11,
};

// PacketDescriptor::flags; every other bit is zero.
inline constexpr uint16_t kFlagCompletionRequested = 1;

struct PacketDescriptor {
  uint16_t type;
  uint16_t offset8;  // where the payload starts, in units of 8 bytes
  uint16_t length8;  // header and payload, padded, in units of 8 bytes
  uint16_t flags;
  uint64_t transaction_id;
};
static_assert(sizeof(PacketDescriptor) == 16);
static_assert(offsetof(PacketDescriptor, transaction_id) == 8);
static_assert(std::is_trivially_copyable_v<PacketDescriptor>);

inline constexpr uint32_t kDescriptorBytes = sizeof(PacketDescriptor);
inline constexpr uint32_t kTrailerBytes = 8;
// Smallest room any packet takes: a descriptor and its trailer.
inline constexpr uint32_t kMinPacketBytes = kDescriptorBytes + kTrailerBytes;

// Extension of kDataUsingGpaDirect, at @16: this header, then `range_count`
// ranges {u32 byte_count, u32 byte_offset, u64 page_frame_numbers[]}.
struct GpaDirectHeader {
  uint32_t reserved;  // may hold garbage
  uint32_t range_count;
};
static_assert(sizeof(GpaDirectHeader) == 8);

struct GpaRangeHeader {
  uint32_t byte_count;
  uint32_t byte_offset;  // into the first page, below 4096
};
static_assert(sizeof(GpaRangeHeader) == 8);

// Extension of kDataUsingTransferPages, at @16: this header, then ranges.
struct TransferPageHeader {
  uint16_t transfer_page_set_id;
  uint16_t reserved;  // one peer keeps "sender owns set" in the low byte
  uint32_t range_count;
};
static_assert(sizeof(TransferPageHeader) == 8);

struct TransferPageRange {
  uint32_t byte_count;
  uint32_t byte_offset;  // from the start of the set's buffer
};
static_assert(sizeof(TransferPageRange) == 8);

// Page frames of one GPA range.
inline constexpr uint32_t kMaxPagesPerRange = 0xfffff;

}  // namespace ferrybus::ringbuffer

#endif  // FERRYBUS_RINGBUFFER_WIRE_H_
