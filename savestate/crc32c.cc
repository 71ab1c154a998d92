// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/crc32c.h"

#include <isa-l.h>

#include <algorithm>

namespace ferrybus::savestate {
namespace {

// crc32_iscsi takes an int length; larger inputs go in pieces.
constexpr size_t kPieceBytesMax = size_t{1} << 30;

}  // namespace

uint32_t ExtendCrc32c(uint32_t crc, absl::Span<const std::byte> bytes) {
  // crc32_iscsi works on the raw register: no inversion at either end.
  uint32_t register_value = ~crc;
  while (!bytes.empty()) {
    const size_t piece_bytes = std::min(bytes.size(), kPieceBytesMax);
    // The prototype lacks a const; the function only reads.
    auto* data = const_cast<unsigned char*>(
        reinterpret_cast<const unsigned char*>(bytes.data()));
    register_value =
        crc32_iscsi(data, static_cast<int>(piece_bytes), register_value);
    bytes.remove_prefix(piece_bytes);
  }
  return ~register_value;
}

}  // namespace ferrybus::savestate
