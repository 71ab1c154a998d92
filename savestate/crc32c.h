// SPDX-License-Identifier: MIT
//
// CRC32C (Castagnoli polynomial, reflected, initial value and final xor all
// ones: the CRC of iSCSI and ext4).  Crc32c of "123456789" is 0xE3069283.
//
// It finds accidents (torn writes, flipped bits), not attackers: whoever can
// write a file can also write its CRC.  So whatever passes the check is still
// hostile input.
//
// Thread safety: pure functions.
// Cost: ISA-L, several bytes per cycle where the CPU has the instruction.

#ifndef FERRYBUS_SAVESTATE_CRC32C_H_
#define FERRYBUS_SAVESTATE_CRC32C_H_

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"

namespace ferrybus::savestate {

// The CRC of A followed by B, given `crc` = the CRC of A.  The CRC of nothing
// is 0, so a running checksum starts from 0.
uint32_t ExtendCrc32c(uint32_t crc, absl::Span<const std::byte> bytes);

inline uint32_t Crc32c(absl::Span<const std::byte> bytes) {
  return ExtendCrc32c(0, bytes);
}

}  // namespace ferrybus::savestate

#endif  // FERRYBUS_SAVESTATE_CRC32C_H_
