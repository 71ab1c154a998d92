// SPDX-License-Identifier: MIT
//
// The command queue of the software accelerator, over a channel of its own:
// layout, numbers, and the two small functions that both sides must agree on.
//
// The guest sends a Command, after it the bytes of an inline write.  The
// completion carries a Reply, after it the bytes of an inline read or of a
// query: as many as size_bytes and data_bytes say, since a packet is a multiple
// of 8 bytes.  Longer data lies in the packet's GPA-direct ranges
// (kGuestBuffers).
//
// Commands take effect one after the other, in the order of sending; so are
// they answered.  A Reply also tells the registers that every command changes:
// what went wrong once is seen in all later ones.
//
//   op           target  source  source_b  size_bytes   value
//   kQuery                                              (data: all registers)
//   kSetRegister                                        what; which: columns
//   kFill        x                         of target    8 bytes, repeated
//   kRandomFill  x                         of target    (changes the register)
//   kCopy        x       x                 of both
//   kHash                x                 of source    (reply: the hash)
//   kMultiply    x       x       x         0            (rows, inner, columns)
//   kRead                x                 of source
//   kWrite       x                         of target
//
// A matrix lies row after row.  Integers wrap around.  Floats are multiplied
// and added up in double, in the order of `inner`, and rounded at the end; a
// result that is no number is kNotANumber: the same bits on every machine.
//
// All integers are little-endian.
// Trust: the peer wrote every byte.  Copy out (memcpy), check, use.

#ifndef FERRYBUS_CHANNEL_PROTOCOLS_ACCELERATOR_H_
#define FERRYBUS_CHANNEL_PROTOCOLS_ACCELERATOR_H_

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "ferrybus/channel/guid.h"

namespace ferrybus::accelerator {

inline constexpr Guid kInterface =
    GuidLiteral("5d1c8e2b-7a43-4f60-9b52-c0ffee5eed01");

// Commands that wait or run; one more is answered with kBusy.
inline constexpr uint32_t kCommandsMax = 256;
// Data beside a Command or a Reply; and in GPA-direct ranges.
inline constexpr uint32_t kInlineBytesMax = 4096;
inline constexpr uint32_t kTransferBytesMax = 1 << 20;
// Rows, columns, and what is between.
inline constexpr uint32_t kMatrixSideMax = 4096;

enum class Op : uint16_t {
  kQuery = 1,
  kSetRegister = 2,
  kFill = 3,
  kRandomFill = 4,
  kCopy = 5,
  kHash = 6,
  kMultiply = 7,
  kRead = 8,
  kWrite = 9,
};

// Command::flags.
inline constexpr uint16_t kInterrupt = 1;     // raise `vector` when it is done
inline constexpr uint16_t kGuestBuffers = 2;  // of kRead, kWrite
inline constexpr uint16_t kFlagsMask = 3;

enum class Element : uint16_t { kInt32 = 0, kFloat32 = 1 };
inline constexpr uint32_t kNotANumber = 0x7fc00000;

enum class Status : uint32_t {
  kOk = 0,
  kMalformed = 1,  // shorter than a Command, or reserved bits
  kUnknownOp = 2,
  kBadSize = 3,  // 0, or above a limit
  kMisaligned = 4,
  kOutside = 5,  // no such segment, or not all of it inside
  kOverlap = 6,  // of the target and a source
  kBadRegister = 7,
  kBadVector = 8,
  kNoData = 9,        // a write with fewer bytes, a read without the room
  kDataLost = 10,     // guest memory went away meanwhile
  kBusy = 11,         // not taken
  kReset = 12,        // the device was reset
  kNotExecuted = 13,  // the device does not know it any more
};

// Registers, as kQuery shows them.
inline constexpr uint32_t kRegisters = 16;
inline constexpr uint32_t kCompleted = 0;    // commands answered
inline constexpr uint32_t kFailed = 1;       // of these, not with kOk
inline constexpr uint32_t kAccumulator = 2;  // of all answers
inline constexpr uint32_t kRandom = 3;       // never 0
inline constexpr uint32_t kInterrupts = 4;   // raised
inline constexpr uint32_t kWritten = 5;      // bytes of device memory
// From here on those that kSetRegister may write; the first is XORed into the
// value of kFill.
inline constexpr uint32_t kFirstWritable = 8;
inline constexpr uint32_t kFillMask = 8;

inline constexpr uint64_t kRandomSeed = 0x9e3779b97f4a7c15;

// 16 bytes.
struct Place {
  uint32_t segment;
  uint32_t reserved;
  uint64_t offset_bytes;

  friend bool operator==(const Place&, const Place&) = default;
};

struct Command {
  Op op;
  uint16_t flags;
  uint16_t vector;
  Element element;
  uint64_t sequence;  // the client's; comes back
  Place target;
  Place source;
  Place source_b;
  uint64_t size_bytes;
  uint64_t value;
  uint32_t rows;
  uint32_t inner;
  uint32_t columns;
  uint32_t reserved;

  friend bool operator==(const Command&, const Command&) = default;
};

struct Reply {
  Status status;
  uint32_t data_bytes;
  uint64_t sequence;
  uint64_t value;
  // After the command.
  uint64_t completed;
  uint64_t accumulator;
  uint64_t random;

  friend bool operator==(const Reply&, const Reply&) = default;
};

static_assert(sizeof(Place) == 16 && sizeof(Command) == 96);
static_assert(offsetof(Command, target) == 16);
static_assert(offsetof(Command, size_bytes) == 64);
static_assert(offsetof(Command, rows) == 80);
static_assert(sizeof(Reply) == 48 && offsetof(Reply, completed) == 24);
static_assert(std::is_trivially_copyable_v<Command> &&
              std::is_trivially_copyable_v<Reply>);

// Of kHash: begins with kHashSeed, takes each 8 bytes of the source.
inline constexpr uint64_t kHashSeed = 0xcbf29ce484222325;
constexpr uint64_t HashStep(uint64_t hash, uint64_t word) {
  hash = (hash ^ word) * 0x100000001b3;
  return hash ^ (hash >> 29);
}

// The register kRandom moves on by one for each command answered, and for each
// 8 bytes of kRandomFill, which are its value then.
constexpr uint64_t NextRandom(uint64_t random) {
  random ^= random << 13;
  random ^= random >> 7;
  return random ^ (random << 17);
}

// The register kAccumulator after an answer.
constexpr uint64_t Accumulate(uint64_t accumulator, Status status,
                              uint64_t sequence, uint64_t value) {
  return HashStep(
      HashStep(HashStep(accumulator, static_cast<uint32_t>(status)), sequence),
      value);
}

}  // namespace ferrybus::accelerator

#endif  // FERRYBUS_CHANNEL_PROTOCOLS_ACCELERATOR_H_
