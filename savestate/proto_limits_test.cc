// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/proto_limits.h"

#include <malloc.h>
#include <sys/mman.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "ferrybus/savestate/proto_limits_proto2_test.pb.h"
#include "ferrybus/savestate/proto_limits_test.pb.h"
#include "ferrybus/savestate/wire_scan.h"
#include "gmock/gmock.h"
#include "google/protobuf/util/message_differencer.h"
#include "gtest/gtest.h"

namespace {

// Heap in use by operator new, and its peak since it was last reset.
std::atomic<size_t> heap_bytes{0};
std::atomic<size_t> heap_bytes_peak{0};

}  // namespace

void* operator new(size_t size_bytes) {
  void* block = std::malloc(size_bytes == 0 ? 1 : size_bytes);
  if (block == nullptr) std::abort();
  const size_t now = heap_bytes += malloc_usable_size(block);
  size_t peak = heap_bytes_peak;
  while (now > peak && !heap_bytes_peak.compare_exchange_weak(peak, now)) {
  }
  return block;
}
void operator delete(void* block) noexcept {
  if (block == nullptr) return;
  heap_bytes -= malloc_usable_size(block);
  std::free(block);
}
void operator delete(void* block, size_t) noexcept { operator delete(block); }

namespace ferrybus::savestate {
namespace {

using ::ferrybus::savestate::testing::Everything;
using ::ferrybus::savestate::testing::Old;
using ::testing::HasSubstr;

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return absl::MakeConstSpan(reinterpret_cast<const std::byte*>(text.data()),
                             text.size());
}

void AppendVarint(uint64_t value, std::string* bytes) {
  for (; value >= 0x80; value >>= 7) {
    bytes->push_back(static_cast<char>(value | 0x80));
  }
  bytes->push_back(static_cast<char>(value));
}

// A length-delimited field.
std::string Field(int number, const std::string& value) {
  std::string bytes;
  AppendVarint(static_cast<uint64_t>(number) << 3 | 2, &bytes);
  AppendVarint(value.size(), &bytes);
  return bytes + value;
}

std::string VarintField(int number, uint64_t value) {
  std::string bytes;
  AppendVarint(static_cast<uint64_t>(number) << 3, &bytes);
  AppendVarint(value, &bytes);
  return bytes;
}

absl::Status Parse(const std::string& bytes, const ProtoLimits& limits = {}) {
  Everything message;
  message.set_number(7);
  const absl::Status status =
      ParseBounded(AsBytes(bytes), limits, &message, "section demo");
  if (!status.ok()) {
    EXPECT_EQ(message.ByteSizeLong(), 0u) << "something was left behind";
    EXPECT_THAT(std::string(status.message()), HasSubstr("section demo"));
  }
  return status;
}

void ExpectRefused(const std::string& bytes, absl::StatusCode code,
                   const std::string& text, const ProtoLimits& limits = {}) {
  const absl::Status status = Parse(bytes, limits);
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(text));
}

constexpr auto kMalformed = absl::StatusCode::kInvalidArgument;
constexpr auto kTooMuch = absl::StatusCode::kResourceExhausted;

Everything Sample() {
  Everything message;
  message.set_number(1);
  message.set_signed_number(-1);
  message.set_zigzag(-2);
  message.set_word(3);
  message.set_long_word(4);
  message.set_flag(true);
  message.set_real(0.5);
  message.set_text("gr\xc3\xbc\xc3\x9f");
  message.set_blob(std::string("\xff\0", 2));
  message.set_color(testing::COLOR_RED);
  for (uint32_t i = 0; i < 5; ++i) {
    message.add_packed(uint64_t{1} << (12 * i));
    message.add_unpacked(i);
    message.add_words(i);
    message.add_texts("text");
    message.add_blobs("blob");
    message.add_flags(true);
    (*message.mutable_table())[i * 3 % 5] = "value";
  }
  message.set_right("right");
  message.mutable_child()->set_number(2);
  message.add_children()->mutable_child()->set_number(3);
  message.add_children();
  return message;
}

TEST(ParseBoundedTest, AcceptsEveryKindOfField) {
  const Everything sample = Sample();
  Everything parsed;
  const absl::Status status = ParseBounded(
      AsBytes(SerializeDeterministic(sample)), {}, &parsed, "sample");
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_TRUE(
      google::protobuf::util::MessageDifferencer::Equals(sample, parsed));
  EXPECT_TRUE(Parse("").ok());
}

TEST(ParseBoundedTest, AcceptsRepeatedFieldsPackedAndUnpacked) {
  EXPECT_TRUE(Parse(Field(12, "\1\2\3")).ok());
  EXPECT_TRUE(Parse(VarintField(11, 5) + VarintField(11, 6)).ok());
}

// promise:P11
TEST(SerializeDeterministicTest, SortsMaps) {
  Everything up;
  Everything down;
  for (uint32_t i = 0; i < 1000; ++i) {
    (*up.mutable_table())[i] = "v";
    (*down.mutable_table())[999 - i] = "v";
  }
  EXPECT_EQ(SerializeDeterministic(up), SerializeDeterministic(down));
}

std::string Nested(int depth) {
  std::string bytes;
  for (int i = 0; i < depth; ++i) bytes = Field(17, bytes);
  return bytes;
}

// bad:S8
TEST(ParseBoundedTest, BoundsTheDepth) {
  EXPECT_TRUE(Parse(Nested(16)).ok());
  for (int depth : {17, 18, 100, 101, 10000}) {
    ExpectRefused(Nested(depth), kTooMuch, "nested deeper than 16");
  }
  ProtoLimits deep;
  deep.depth_max = 200;
  EXPECT_TRUE(Parse(Nested(200), deep).ok());
  ExpectRefused(Nested(201), kTooMuch, "nested deeper than 200", deep);
}

// bad:S8
TEST(ParseBoundedTest, MapEntriesCountAsDepth) {
  ProtoLimits shallow;
  shallow.depth_max = 1;
  const std::string entry = Field(18, VarintField(1, 3) + Field(2, "v"));
  EXPECT_TRUE(Parse(entry, shallow).ok());
  ExpectRefused(Field(17, entry), kTooMuch, "deeper than 1", shallow);
}

TEST(ParseBoundedTest, BoundsTheSize) {
  ProtoLimits limits;
  limits.bytes_max = 10;
  EXPECT_TRUE(Parse(Field(9, std::string(8, 'x')), limits).ok());
  ExpectRefused(Field(9, std::string(9, 'x')), kTooMuch,
                "11 bytes, the limit is 10", limits);
}

TEST(ParseBoundedTest, BoundsTheNumberOfFieldsAndElements) {
  ProtoLimits limits;
  limits.fields_max = 10;
  EXPECT_TRUE(Parse(Field(21, std::string(10, '\1')), limits).ok());
  ExpectRefused(Field(21, std::string(11, '\1')), kTooMuch,
                "more than 10 fields", limits);
  std::string many;
  for (int i = 0; i < 11; ++i) many += Field(16, "");
  ExpectRefused(many, kTooMuch, "more than 10 fields", limits);
}

// bad:S9
TEST(ParseBoundedTest, RefusesAGigabyteUnread) {
  constexpr size_t kBytes = size_t{1} << 30;
  // Never touched, so never backed by memory.
  void* const mapping =
      mmap(nullptr, kBytes, PROT_NONE,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  ASSERT_NE(mapping, MAP_FAILED);
  Everything message;
  const absl::Status status = ParseBounded(
      absl::MakeConstSpan(static_cast<const std::byte*>(mapping), kBytes), {},
      &message, "huge");
  EXPECT_EQ(status.code(), kTooMuch) << status;
  munmap(mapping, kBytes);
}

// bad:S9 promise:P9
TEST(ParseBoundedTest, TakesNoMoreMemoryThanItsBudget) {
  const auto repeat = [](const std::string& unit, size_t total_bytes) {
    std::string bytes;
    bytes.reserve(total_bytes + unit.size());
    while (bytes.size() < total_bytes) bytes += unit;
    return bytes;
  };
  ProtoLimits limits;
  limits.fields_max = ~uint64_t{0};
  for (size_t size_bytes : {100u << 10, 4u << 20, 8u << 20}) {
    const std::string bombs[] = {
        repeat(Field(16, ""), size_bytes),                 // empty messages
        Field(11, std::string(size_bytes, '\1')),          // 1 byte becomes 8
        repeat(VarintField(12, 1), size_bytes),            // unpacked
        repeat(Field(15, ""), size_bytes),                 // empty strings
        repeat(Field(14, "a"), size_bytes),                //
        repeat(Field(18, VarintField(1, 1)), size_bytes),  // map entries
        repeat(Field(17, ""), size_bytes),                 // merged for ever
        Field(9, std::string(size_bytes, 'x')),            // honest bytes
        repeat(VarintField(99, 1), size_bytes),            // unknown
        repeat(Field(99, "a"), size_bytes),                //
        Field(99, std::string(size_bytes, 'x')),           //
        Field(21, std::string(size_bytes, '\1')),          // flags
    };
    for (const std::string& bomb : bombs) {
      for (auto unknown : {UnknownFields::kRefuse, UnknownFields::kDiscard}) {
        limits.unknown_fields = unknown;
        const size_t before = heap_bytes;
        heap_bytes_peak = before;
        Everything message;
        const absl::Status status =
            ParseBounded(AsBytes(bomb), limits, &message, "bomb");
        EXPECT_LE(heap_bytes_peak - before, 4 * bomb.size() + (16u << 20))
            << status << ", bomb starts with byte " << int{bomb[0]};
      }
    }
  }
}

// The budget rests on the estimate being an upper bound.
TEST(WireScanTest, EstimateIsAnUpperBound) {
  std::vector<Everything> messages(1, Sample());
  for (int i = 0; i < 1000; ++i) {
    messages[0].add_packed(1);
    messages[0].add_flags(true);
  }
  messages.emplace_back();
  for (uint32_t i = 0; i < 1000; ++i) {
    (*messages[1].mutable_table())[i] = std::string(i % 40, 'x');
    *messages[1].add_children() = Sample();
    messages[1].add_texts(std::string(i % 40, 'x'));
  }
  for (const Everything& message : messages) {
    const std::string bytes = SerializeDeterministic(message);
    const ProtoLimits limits;
    WireScan scan(limits, "sample",
                  *google::protobuf::MessageFactory::generated_factory());
    ASSERT_TRUE(scan.Run(AsBytes(bytes), *Everything::descriptor()).ok());
    Everything parsed;
    const size_t before = heap_bytes;
    heap_bytes_peak = before;
    ASSERT_TRUE(parsed.ParseFromString(bytes));
    EXPECT_GE(scan.memory_bytes(), heap_bytes_peak - before);
    EXPECT_GE(scan.memory_bytes(), parsed.SpaceUsedLong());
  }
}

TEST(ParseBoundedTest, RefusesUnknownFieldsAtAnyDepth) {
  const std::string unknown = VarintField(99, 1);
  ExpectRefused(unknown, kMalformed,
                "byte 0: ferrybus.savestate.testing.Everything has no field "
                "99 of wire type 0");
  ExpectRefused(Field(17, Field(17, unknown)), kMalformed, "no field 99");
  // A known field with another wire type is unknown to the parser.
  ExpectRefused(Field(1, "x"), kMalformed, "no field 1 of wire type 2");
  ExpectRefused(VarintField(9, 1), kMalformed, "no field 9 of wire type 0");
}

// Attacker's bytes must not travel on.
TEST(ParseBoundedTest, DiscardsUnknownFieldsWhenAsked) {
  ProtoLimits limits;
  limits.unknown_fields = UnknownFields::kDiscard;
  Everything message;
  const std::string bytes =
      Field(17, VarintField(1, 5) + Field(99, "stranger")) +
      Field(16, Field(98, "stranger")) + VarintField(97, 1);
  ASSERT_TRUE(ParseBounded(AsBytes(bytes), limits, &message, "x").ok());
  EXPECT_EQ(message.child().number(), 5u);
  EXPECT_EQ(SerializeDeterministic(message),
            Field(16, "") + Field(17, VarintField(1, 5)));
}

TEST(ParseBoundedTest, RefusesGroups) {
  ExpectRefused("\x0b\x0c", kMalformed, "byte 0: groups");
  ExpectRefused("\x0c", kMalformed, "groups");
  // Unknown groups would make the parser recurse.
  std::string deep;
  for (int i = 0; i < 100000; ++i) deep += "\x9b\x06";
  ProtoLimits limits;
  limits.unknown_fields = UnknownFields::kDiscard;
  ExpectRefused(deep, kMalformed, "groups", limits);
}

TEST(ParseBoundedTest, RefusesWhatReadersMayReadDifferently) {
  ExpectRefused(VarintField(1, 1) + VarintField(1, 2), kMalformed, "twice");
  ExpectRefused(Field(17, "") + Field(17, ""), kMalformed, "twice");
  ExpectRefused(VarintField(19, 1) + Field(20, "a"), kMalformed, "twice");
  ExpectRefused(std::string("\x08\x81\0", 3), kMalformed,
                "byte 1: a varint is longer");
  ExpectRefused(std::string("\x88\0\x01", 3), kMalformed, "a varint is longer");
  ExpectRefused("\x08" + std::string(9, '\xff') + "\x02", kMalformed,
                "a varint is longer");
  ExpectRefused("\x08" + std::string(10, '\xff') + "\x01", kMalformed,
                "a varint is longer");
  EXPECT_TRUE(Parse("\x10" + std::string(9, '\xff') + "\x01").ok());  // -1
}

TEST(ParseBoundedTest, RefusesStringsThatAreNotUtf8) {
  for (const char* good : {"a", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80",
                           "\xed\x9f\xbf", "\xee\x80\x80", "\xef\xbf\xbf",
                           "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"}) {
    EXPECT_TRUE(Parse(Field(8, good)).ok()) << good;
  }
  for (const char* bad :
       {"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xc3", "\xc3(", "\xe0\x9f\xbf",
        "\xe2\x82", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80",
        "\xf5\x80\x80\x80", "\xff", "ok\xfe"}) {
    ExpectRefused(Field(8, bad), kMalformed, "not UTF-8");
    EXPECT_TRUE(Parse(Field(9, bad)).ok());
  }
}

TEST(ParseBoundedTest, RefusesBrokenWireFormat) {
  ExpectRefused(std::string("\0\1", 2), kMalformed, "field number");
  ExpectRefused("\x0e", kMalformed, "unknown wire type");
  ExpectRefused("\x08", kMalformed, "cut off");
  ExpectRefused("\x08\x80", kMalformed, "cut off");
  ExpectRefused("\x25\x01\x02\x03", kMalformed, "fixed-size value is cut off");
  ExpectRefused("\x4a\x05ok", kMalformed, "length 5, but 2 bytes follow");
  ExpectRefused("\x4a" + std::string(9, '\xff') + "\x01", kMalformed,
                "length 18446744073709551615");
  // Each value stays within the message it is in.
  ExpectRefused(Field(17, "\x4a\x05ok") + "more bytes", kMalformed,
                "but 2 bytes follow");
  ExpectRefused(Field(13, "12345"), kMalformed, "fixed-size value is cut off");
  ExpectRefused(Field(11, "\x80") + "\x01", kMalformed, "varint is cut off");
}

TEST(ParseBoundedTest, RefusesWhatOnlyTheParserSees) {
  Old old;
  const ProtoLimits limits;
  const auto parse = [&](const std::string& bytes) {
    return ParseBounded(AsBytes(bytes), limits, &old, "old");
  };
  EXPECT_TRUE(parse(VarintField(1, 1) + VarintField(2, 2)).ok());
  // A closed enum's unknown value becomes an unknown field.
  EXPECT_EQ(parse(VarintField(1, 1) + VarintField(2, 3)).code(), kMalformed);
  const std::string inner = Field(4, VarintField(1, 1) + VarintField(2, 3));
  EXPECT_EQ(parse(VarintField(1, 1) + inner).code(), kMalformed);
  EXPECT_THAT(std::string(parse("").message()),
              HasSubstr("required fields are missing: id"));
  // A group is refused even where the schema has one.
  EXPECT_THAT(std::string(parse(VarintField(1, 1) + "\x1b\x1c").message()),
              HasSubstr("groups"));
}

// promise:P8
TEST(ParseBoundedTest, SurvivesPrefixesAndBitFlips) {
  const std::string sample = SerializeDeterministic(Sample());
  for (size_t length = 0; length < sample.size(); ++length) {
    const std::vector<char> exact(sample.begin(),
                                  sample.begin() + static_cast<long>(length));
    Parse({exact.data(), exact.size()}).IgnoreError();
  }
  for (size_t bit = 0; bit < sample.size() * 8; ++bit) {
    std::string damaged = sample;
    damaged[bit / 8] ^= static_cast<char>(1 << (bit % 8));
    Parse(damaged).IgnoreError();
  }
}

// What the scan lets through, the parser takes: it is the stricter of the two.
TEST(ParseBoundedTest, ScanIsAtLeastAsStrictAsTheParser) {
  const char* text = std::getenv("FERRYBUS_SEED");
  const uint64_t seed =
      text != nullptr ? std::strtoull(text, nullptr, 10) : 20260101;
  std::printf(
      "seed %ju; repeat: bazel test //savestate:proto_limits_test "
      "--test_env=FERRYBUS_SEED=%ju --test_filter=*Strict*\n",
      uintmax_t{seed}, uintmax_t{seed});
  std::mt19937_64 random(seed);
  const std::string sample = SerializeDeterministic(Sample());
  size_t accepted = 0;
  for (int round = 0; round < 30000; ++round) {
    std::string bytes = sample;
    for (uint64_t edits = random() % 4; edits > 0; --edits) {
      const size_t at = random() % bytes.size();
      switch (random() % 3) {
        case 0:
          bytes[at] = static_cast<char>(random());
          break;
        case 1:
          bytes.erase(at, random() % 4);
          break;
        default:
          bytes.insert(at, sample, random() % sample.size(), random() % 8);
      }
    }
    ProtoLimits limits;
    if (random() % 2 == 0) limits.unknown_fields = UnknownFields::kDiscard;
    Everything message;
    const absl::Status status =
        ParseBounded(AsBytes(bytes), limits, &message, "edited");
    ASSERT_THAT(std::string(status.message()),
                ::testing::Not(HasSubstr("not a ferrybus")));
    if (!status.ok()) continue;
    ++accepted;
    // What was accepted survives another round, byte for byte.
    const std::string again = SerializeDeterministic(message);
    Everything second;
    ASSERT_TRUE(ParseBounded(AsBytes(again), {}, &second, "again").ok());
    ASSERT_EQ(SerializeDeterministic(second), again);
  }
  EXPECT_GT(accepted, 1000u);
}

}  // namespace
}  // namespace ferrybus::savestate
