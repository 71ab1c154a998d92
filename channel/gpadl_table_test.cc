// SPDX-License-Identifier: MIT
#include "ferrybus/channel/gpadl_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <initializer_list>
#include <utility>
#include <vector>

#include "ferrybus/channel/connection_test_util.h"
#include "ferrybus/channel/message_codec.h"

namespace ferrybus {
namespace {

using ::absl::StatusCode;
using ::testing::ElementsAre;

constexpr ChannelId kChannel{1};
constexpr GpadlId kId{0xe1e10};
constexpr GpadlLimits kLimits = {.count_max = 8,
                                 .in_progress_max = 4,
                                 .pages_max = 10000,
                                 .ram_page_count = kTestRamPages};

// A range as words: byte count and offset, then pages.
struct Range {
  uint32_t byte_count = 4096;
  uint32_t byte_offset = 0;
  std::vector<uint64_t> pages = {0x100};

  Bytes bytes() const {
    Bytes bytes(8 + pages.size() * 8);
    std::memcpy(bytes.data(), &byte_count, 4);
    std::memcpy(bytes.data() + 4, &byte_offset, 4);
    if (!pages.empty()) {
      std::memcpy(bytes.data() + 8, pages.data(), pages.size() * 8);
    }
    return bytes;
  }
};

GpadlHeaderMessage Header(size_t size_bytes, GpadlId id = kId,
                          uint16_t range_count = 1) {
  return {.channel_id = kChannel,
          .gpadl_id = id,
          .range_buffer_size_bytes = static_cast<uint16_t>(size_bytes),
          .range_count = range_count};
}

absl::StatusOr<GpadlState> Begin(GpadlTable& table, const Range& range,
                                 GpadlId id = kId) {
  const Bytes bytes = range.bytes();
  return table.Begin(Header(bytes.size(), id), bytes);
}

absl::StatusOr<GpadlState> Append(GpadlTable& table,
                                  const std::vector<uint64_t>& pages,
                                  GpadlId id = kId) {
  return table.Append(
      id, absl::MakeConstSpan(reinterpret_cast<const std::byte*>(pages.data()),
                              pages.size() * 8));
}

// Starts a GPADL of two pages, of which one comes with the header.
absl::StatusOr<GpadlState> BeginTwoPages(GpadlTable& table, GpadlId id,
                                         uint64_t page) {
  const Bytes bytes = Range{.byte_count = 8192, .pages = {page}}.bytes();
  return table.Begin(Header(24, id), bytes);
}

TEST(GpadlTableTest, KeepsAGpadlOfOneMessage) {
  GpadlTable table(kLimits);
  ASSERT_EQ(
      *Begin(table,
             {.byte_count = 5000, .byte_offset = 100, .pages = {7, 0xfffff}}),
      GpadlState::kCreated);
  const GpadlView view = table.Find(kId)->view();
  EXPECT_EQ(view.id, kId);
  EXPECT_EQ(view.channel_id, kChannel);
  EXPECT_EQ(view.byte_count, 5000u);
  EXPECT_EQ(view.byte_offset, 100u);
  EXPECT_THAT(view.pages, ElementsAre(7, 0xfffff));
  EXPECT_EQ(table.page_count(), 2u);
}

// bad:G1
TEST(GpadlTableTest, RefusesWrongRangeBufferSizeAndRangeCount) {
  GpadlTable table(kLimits);
  const Bytes bytes = Range().bytes();
  for (size_t size : {0, 1, 8, 15, 17, 24, 65535}) {
    EXPECT_EQ(table.Begin(Header(size), bytes).status().code(),
              StatusCode::kInvalidArgument)
        << size;
  }
  for (uint16_t count : std::initializer_list<uint16_t>{0, 2, 65535}) {
    EXPECT_EQ(table.Begin(Header(16, kId, count), bytes).status().code(),
              StatusCode::kInvalidArgument)
        << count;
  }
  EXPECT_EQ(table.Begin(Header(16), {}).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_TRUE(table.gpadls().empty());
  EXPECT_EQ(table.page_count(), 0u);
}

// bad:G2
TEST(GpadlTableTest, RefusesRangesThatDoNotMatchTheirPages) {
  GpadlTable table(kLimits);
  for (const auto& [count, offset] :
       std::vector<std::pair<uint32_t, uint32_t>>{{0, 0},
                                                  {0xfffff001, 0},
                                                  {0xffffffff, 0xfff},
                                                  {4096, 0x1000},
                                                  {4096, 1},
                                                  {4097, 0},
                                                  {4096, 0xffffffff}}) {
    EXPECT_EQ(Begin(table, {.byte_count = count, .byte_offset = offset})
                  .status()
                  .code(),
              StatusCode::kInvalidArgument)
        << count << " at " << offset;
  }
  // One page too many.
  EXPECT_EQ(Begin(table, {.pages = {1, 2}}).status().code(),
            StatusCode::kInvalidArgument);
}

// bad:G3
TEST(GpadlTableTest, RefusesBodyWithoutHeaderAndOfFinishedGpadl) {
  GpadlTable table(kLimits);
  EXPECT_EQ(Append(table, {1}).status().code(), StatusCode::kNotFound);
  ASSERT_TRUE(Begin(table, {}).ok());
  EXPECT_EQ(Append(table, {1}).status().code(),
            StatusCode::kFailedPrecondition);
  EXPECT_THAT(table.Find(kId)->pages, ElementsAre(0x100));
}

// bad:G3
TEST(GpadlTableTest, DropsAnUnfinishedGpadlOnABadBody) {
  GpadlTable table(kLimits);
  for (const std::vector<uint64_t>& pages :
       {std::vector<uint64_t>{}, {kTestRamPages}}) {
    ASSERT_EQ(*BeginTwoPages(table, kId, 1), GpadlState::kInProgress);
    EXPECT_EQ(Append(table, pages).status().code(),
              StatusCode::kInvalidArgument);
    EXPECT_EQ(table.Find(kId), nullptr);
    EXPECT_EQ(table.page_count(), 0u);
  }
}

// bad:G3
// quirk:D20
TEST(GpadlTableTest, IgnoresPagesBeyondTheEnd) {
  GpadlTable table(kLimits);
  ASSERT_TRUE(BeginTwoPages(table, kId, 1).ok());
  // The second word would be no valid page; it is padding.
  EXPECT_EQ(*Append(table, {2, 0, 0}), GpadlState::kCreated);
  EXPECT_THAT(table.Find(kId)->pages, ElementsAre(1, 2));
}

// bad:G4
// quirk:D21
TEST(GpadlTableTest, RefusesAnIdInUseAndTakesAnyOther) {
  GpadlTable table(kLimits);
  ASSERT_TRUE(BeginTwoPages(table, kId, 1).ok());
  EXPECT_EQ(Begin(table, {}).status().code(), StatusCode::kAlreadyExists);
  ASSERT_EQ(*Append(table, {2}), GpadlState::kCreated);
  EXPECT_EQ(Begin(table, {}).status().code(), StatusCode::kAlreadyExists);
  table.MarkTearingDown(kId);
  EXPECT_EQ(Begin(table, {}).status().code(), StatusCode::kAlreadyExists);
  EXPECT_EQ(table.tearing_down_count(), 1u);
  table.Remove(kId);
  EXPECT_EQ(table.tearing_down_count(), 0u);
  for (uint32_t id : {0u, 1u, 0xe1e10u, 0xffffffffu}) {
    EXPECT_TRUE(Begin(table, {}, GpadlId{id}).ok()) << id;
  }
}

// bad:G5
TEST(GpadlTableTest, CapsUnfinishedGpadlsAllGpadlsAndPages) {
  GpadlTable table(kLimits);
  for (uint32_t id = 1; id <= 4; ++id) {
    ASSERT_TRUE(BeginTwoPages(table, GpadlId{id}, id).ok());
  }
  EXPECT_EQ(BeginTwoPages(table, GpadlId{5}, 5).status().code(),
            StatusCode::kResourceExhausted);
  for (uint32_t id = 5; id <= 8; ++id) {
    ASSERT_TRUE(Begin(table, {}, GpadlId{id}).ok());
  }
  EXPECT_EQ(Begin(table, {}, GpadlId{9}).status().code(),
            StatusCode::kResourceExhausted);

  // Pages count from the header on: a guest that never sends the rest holds
  // its share all the same.
  table.EndConnection({});
  const Bytes start = Range{.byte_count = 8190 * 4096}.bytes();
  ASSERT_TRUE(table.Begin(Header(8 + 8190 * 8, GpadlId{1}), start).ok());
  EXPECT_EQ(
      table.Begin(Header(8 + 8190 * 8, GpadlId{2}), start).status().code(),
      StatusCode::kResourceExhausted);
  table.Remove(GpadlId{1});
  EXPECT_TRUE(table.Begin(Header(8 + 8190 * 8, GpadlId{2}), start).ok());
}

// bad:G10
TEST(GpadlTableTest, RefusesPagesOutsideRam) {
  GpadlTable table(kLimits);
  for (uint64_t page : {uint64_t{0}, kTestRamPages, uint64_t{1} << 40,
                        uint64_t{1} << 52, ~uint64_t{0}}) {
    EXPECT_EQ(Begin(table, {.pages = {page}}).status().code(),
              StatusCode::kInvalidArgument)
        << page;
  }
}

// bad:C17
TEST(GpadlTableTest, AssemblesInterleavedGpadls) {
  GpadlTable table(kLimits);
  const GpadlId other{2};
  const Bytes start = Range{.byte_count = 3 * 4096, .pages = {1}}.bytes();
  ASSERT_TRUE(table.Begin(Header(32), start).ok());
  ASSERT_TRUE(BeginTwoPages(table, other, 11).ok());
  EXPECT_EQ(*Append(table, {2}), GpadlState::kInProgress);
  EXPECT_EQ(*Append(table, {12}, other), GpadlState::kCreated);
  EXPECT_EQ(*Append(table, {3}), GpadlState::kCreated);
  EXPECT_THAT(table.Find(kId)->pages, ElementsAre(1, 2, 3));
  EXPECT_THAT(table.Find(other)->pages, ElementsAre(11, 12));
}

TEST(GpadlTableTest, TakesTheLargestGpadl) {
  GpadlTable table(kLimits);
  const std::vector<Bytes> messages = GpadlMessages(1, 5, 8190, 0x1000);
  ASSERT_EQ(messages.size(), 1u + (8190 - 26 + 27) / 28);
  absl::StatusOr<GpadlState> state;
  for (const Bytes& bytes : messages) {
    absl::StatusOr<GuestMessage> message = DecodeGuestMessage(bytes, {});
    ASSERT_TRUE(message.ok());
    if (const auto* header = std::get_if<DecodedGpadlHeader>(&*message)) {
      state = table.Begin(header->message, header->range_bytes);
    } else {
      const auto& body = std::get<DecodedGpadlBody>(*message);
      state = table.Append(body.message.gpadl_id, body.range_bytes);
    }
    ASSERT_TRUE(state.ok()) << state.status();
  }
  EXPECT_EQ(*state, GpadlState::kCreated);
  EXPECT_EQ(table.Find(GpadlId{5})->pages.back(), 0x1000u + 8189);
}

// --- Rings ------------------------------------------------------------------

absl::StatusCode Geometry(uint32_t byte_count, uint32_t byte_offset,
                          const std::vector<uint64_t>& pages,
                          uint32_t downstream, uint32_t pages_max = 8190) {
  return CheckRingGeometry({kId, kChannel, byte_count, byte_offset, pages},
                           downstream, pages_max)
      .code();
}

// bad:R24
TEST(RingGeometryTest, NeedsAControlAndADataPageForEachRing) {
  const std::vector<uint64_t> pages = {1, 2, 3, 4, 5};
  for (uint32_t offset : {0u, 1u, 4u, 5u, 6u, 0xffffffffu}) {
    EXPECT_EQ(Geometry(5 * 4096, 0, pages, offset),
              StatusCode::kInvalidArgument)
        << offset;
  }
  EXPECT_EQ(Geometry(5 * 4096, 0, pages, 2), StatusCode::kOk);
  EXPECT_EQ(Geometry(5 * 4096, 0, pages, 3), StatusCode::kOk);
  EXPECT_EQ(Geometry(3 * 4096, 0, {1, 2, 3}, 2), StatusCode::kInvalidArgument);
  EXPECT_EQ(Geometry(1 * 4096, 0, {1}, 2), StatusCode::kInvalidArgument);
}

// bad:R24
TEST(RingGeometryTest, NeedsWholePagesEachOnce) {
  EXPECT_EQ(Geometry(4 * 4096 - 1, 0, {1, 2, 3, 4}, 2),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(Geometry(4 * 4096 - 8, 8, {1, 2, 3, 4}, 2),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(Geometry(4 * 4096, 0, {1, 2, 3, 1}, 2),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(Geometry(4 * 4096, 0, {1, 2, 3, 4}, 2, 3),
            StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace ferrybus
