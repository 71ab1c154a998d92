// SPDX-License-Identifier: MIT

#include "ferrybus/ringbuffer/wide_copy.h"

#include <algorithm>
#include <cstddef>
#include <vector>

#include "gtest/gtest.h"

namespace ferrybus::ringbuffer {
namespace {

// Every length up to some packets, every alignment of both sides: the bytes
// are there and none beside them changed.
TEST(WideCopyTest, CopiesEveryLengthExactly) {
  constexpr size_t kMax = 300;
  constexpr size_t kMargin = 32;
  std::vector<std::byte> from(kMax + kMargin);
  for (size_t i = 0; i < from.size(); ++i) {
    from[i] = static_cast<std::byte>(i * 7 + 1);
  }
  for (size_t bytes = 0; bytes <= kMax; ++bytes) {
    for (size_t offset = 0; offset < 16; offset += bytes % 8 == 0 ? 1 : 5) {
      std::vector<std::byte> to(kMargin + kMax + kMargin, std::byte{0xee});
      std::vector<std::byte> expected = to;
      WideCopy(to.data() + offset, from.data() + offset, bytes);
      std::copy_n(from.begin() + static_cast<ptrdiff_t>(offset), bytes,
                  expected.begin() + static_cast<ptrdiff_t>(offset));
      ASSERT_EQ(to, expected) << bytes << " bytes at " << offset;
    }
  }
}

}  // namespace
}  // namespace ferrybus::ringbuffer
