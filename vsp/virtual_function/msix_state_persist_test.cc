// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/virtual_function/msix_state_persist.h"

#include <string>

#include "ferrybus/vsp/virtual_function/msix_state.pb.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

namespace pb = ::ferrybus::vsp::virtual_function::v1;

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return absl::MakeConstSpan(reinterpret_cast<const std::byte*>(text.data()),
                             text.size());
}

MsixTableState Example(uint32_t vectors) {
  MsixTableState state;
  state.is_enabled = true;
  state.is_function_masked = true;
  for (uint32_t i = 0; i < vectors; ++i) {
    state.entries.push_back({~uint64_t{3} - i * 4, ~i, i});
  }
  state.pending.Set(vectors - 1);
  return state;
}

absl::StatusCode Code(const pb::MsixTableState& message) {
  return ParseMsixState(AsBytes(message.SerializeAsString())).status().code();
}

// doc:MX18 promise:P11 bad:S23
TEST(MsixStatePersistTest, ComesBackAsItWasInTheSameBytes) {
  for (uint32_t vectors : {1u, 2u, 64u, 65u, 2047u, 2048u}) {
    const MsixTableState state = Example(vectors);
    const std::string bytes = SerializeMsixState(state);
    EXPECT_LE(bytes.size(), kMsixStateBytesMax);
    const auto parsed = ParseMsixState(AsBytes(bytes));
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(*parsed, state);
    EXPECT_EQ(SerializeMsixState(*parsed), bytes);
  }
}

// bad:M7
TEST(MsixStatePersistTest, StatesOutsideTheirBoundsAreRefused) {
  pb::MsixTableState good;
  ASSERT_TRUE(good.ParseFromString(SerializeMsixState(Example(65))));
  EXPECT_EQ(Code(good), absl::StatusCode::kOk);
  const auto refuses = [&](auto&& change) {
    pb::MsixTableState message = good;
    change(message);
    return Code(message) == absl::StatusCode::kDataLoss;
  };
  using State = pb::MsixTableState;
  EXPECT_TRUE(refuses([](State& m) { m.clear_entries(); }));
  EXPECT_TRUE(refuses([](State& m) {
    while (m.entries_size() <= 2048) m.add_entries();
    m.clear_pending();
  }));
  EXPECT_TRUE(refuses([](State& m) { m.set_pending(1, 2); }));
  EXPECT_TRUE(refuses([](State& m) { m.set_pending(1, 0); }));
  EXPECT_TRUE(refuses([](State& m) { m.add_pending(0); }));
  EXPECT_TRUE(refuses([](State& m) { m.mutable_pending()->RemoveLast(); }));
  EXPECT_TRUE(refuses([](State& m) {
    m.add_entries();
    m.add_pending(1);
  }));
  std::string later = SerializeMsixState(Example(1));
  later += std::string("\xfa\x3f\x03new", 6);  // field 1023, bytes
  EXPECT_EQ(ParseMsixState(AsBytes(later)).status().code(),
            absl::StatusCode::kDataLoss);
}

TEST(MsixStatePersistTest, BytesBeyondTheLimitAreNotDecoded) {
  const std::string bytes(kMsixStateBytesMax + 1, '\0');
  EXPECT_EQ(ParseMsixState(AsBytes(bytes)).status().code(),
            absl::StatusCode::kResourceExhausted);
}

// A state that is cut short is another one, or none: the frame around it has
// the checksum.
TEST(MsixStatePersistTest, EveryPrefixIsReadOrRefused) {
  const std::string bytes = SerializeMsixState(Example(65));
  for (size_t size = 0; size < bytes.size(); ++size) {
    const auto parsed = ParseMsixState(AsBytes(bytes.substr(0, size)));
    EXPECT_TRUE(!parsed.ok() || !(*parsed == Example(65))) << size;
  }
}

}  // namespace
}  // namespace ferrybus::vsp
