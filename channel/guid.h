// SPDX-License-Identifier: MIT
#ifndef FERRYBUS_CHANNEL_GUID_H_
#define FERRYBUS_CHANNEL_GUID_H_

// A GUID in the byte order it has on the wire.
//
// VMBus names device classes and device instances by GUID.  The wire order
// differs from the printed one: the first three fields are little-endian, the
// last eight bytes are in printed order.  `bytes` is always the wire order, so
// a Guid can be a member of a message structure.
//
// A plain value; no allocation except in the text functions.
//
//   constexpr Guid kScsi = GuidLiteral("ba6163d9-04a1-4d29-b605-72e2ffb1dc7f");

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace ferrybus {

struct Guid {
  std::array<uint8_t, 16> bytes{};

  // "ba6163d9-04a1-4d29-b605-72e2ffb1dc7f"
  std::string ToString() const;

  friend constexpr bool operator==(const Guid&, const Guid&) = default;
  // Byte by byte: an order, though not that of the printed form.
  friend constexpr bool operator<(const Guid& a, const Guid& b) {
    return a.bytes < b.bytes;
  }

  template <typename H>
  friend H AbslHashValue(H h, const Guid& guid) {
    return H::combine(std::move(h), guid.bytes);
  }
};

static_assert(sizeof(Guid) == 16 && alignof(Guid) == 1);
static_assert(std::is_trivially_copyable_v<Guid>);

// Reads the printed form, 36 characters without braces, either case.
// nullopt for anything else.
constexpr std::optional<Guid> ParseGuid(std::string_view text) {
  // Where each byte of the printed form goes on the wire.
  constexpr std::array<int, 16> kWirePosition = {3, 2, 1,  0,  5,  4,  7,  6,
                                                 8, 9, 10, 11, 12, 13, 14, 15};
  auto nibble = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  };
  if (text.size() != 36) return std::nullopt;
  Guid guid;
  size_t printed = 0;
  for (size_t i = 0; i < text.size();) {
    if (i == 8 || i == 13 || i == 18 || i == 23) {
      if (text[i++] != '-') return std::nullopt;
      continue;
    }
    const int high = nibble(text[i]);
    const int low = nibble(text[i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    guid.bytes[kWirePosition[printed++]] =
        static_cast<uint8_t>(high * 16 + low);
    i += 2;
  }
  return guid;
}

// For constants: text that is not a GUID does not compile.
consteval Guid GuidLiteral(std::string_view text) {
  return ParseGuid(text).value();
}

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_GUID_H_
