// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/crc32c.h"

#include <string>
#include <string_view>

#include "gtest/gtest.h"

namespace ferrybus::savestate {
namespace {

absl::Span<const std::byte> AsBytes(std::string_view text) {
  return absl::MakeConstSpan(reinterpret_cast<const std::byte*>(text.data()),
                             text.size());
}

// Bit by bit from the definition; slow, and hard to get wrong.
uint32_t ReferenceCrc32c(absl::Span<const std::byte> bytes) {
  constexpr uint32_t kReflectedPolynomial = 0x82F63B78;
  uint32_t crc = ~uint32_t{0};
  for (std::byte byte : bytes) {
    crc ^= std::to_integer<uint32_t>(byte);
    for (int bit = 0; bit < 8; ++bit) {
      crc = (crc >> 1) ^ ((crc & 1) != 0 ? kReflectedPolynomial : 0);
    }
  }
  return ~crc;
}

TEST(Crc32cTest, MatchesPublishedVectors) {
  EXPECT_EQ(Crc32c(AsBytes("123456789")), 0xE3069283u);
  EXPECT_EQ(Crc32c({}), 0u);
  // RFC 3720, B.4: 32 bytes of zeros and of ones.
  EXPECT_EQ(Crc32c(AsBytes(std::string(32, '\0'))), 0x8A9136AAu);
  EXPECT_EQ(Crc32c(AsBytes(std::string(32, '\xff'))), 0x62A8AB43u);
}

TEST(Crc32cTest, MatchesTheDefinitionAtEveryLengthAndAlignment) {
  std::string text;
  for (int i = 0; i < 600; ++i) {
    text.push_back(static_cast<char>(i * 37 + (i >> 3)));
  }
  for (size_t start = 0; start < 16; ++start) {
    for (size_t length = 0; length < 560; length += 1 + length / 16) {
      const auto bytes = AsBytes(text).subspan(start, length);
      ASSERT_EQ(Crc32c(bytes), ReferenceCrc32c(bytes))
          << "start " << start << ", length " << length;
    }
  }
}

TEST(Crc32cTest, ExtendingEqualsOneGo) {
  const std::string text = "save state that travels";
  const uint32_t whole = Crc32c(AsBytes(text));
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    const uint32_t first = Crc32c(AsBytes(text).subspan(0, cut));
    EXPECT_EQ(ExtendCrc32c(first, AsBytes(text).subspan(cut)), whole) << cut;
  }
}

}  // namespace
}  // namespace ferrybus::savestate
