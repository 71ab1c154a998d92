// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/seal.h"

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "ferrybus/savestate/frame.h"
#include "ferrybus/savestate/frame_fixup.h"
#include "ferrybus/savestate/frame_layout.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ferrybus::savestate {
namespace {

using ::absl::StatusCode;
using ::testing::HasSubstr;

constexpr uint64_t kCounter = 0x0102030405060708;

absl::Span<const std::byte> AsBytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

class SealTest : public ::testing::Test {
 protected:
  SealTest() {
    FrameWriter writer("seal_test");
    writer.AddSection("connection", 0, 1, SectionKind::kRequired, "hello");
    writer.AddSection("counters", 3, 2, SectionKind::kOptional, "12345678");
    frame_ = *writer.Finish();
    sealed_ = *Seal(AsBytes(frame_), key_, kCounter);
  }

  absl::StatusOr<OpenedSeal> Open(std::string_view file,
                                  uint64_t minimum = 0) const {
    return OpenSeal(AsBytes(file), {key_}, minimum);
  }
  StatusCode Code(std::string_view file, uint64_t minimum = 0) const {
    return Open(file, minimum).status().code();
  }
  // The sealed file with its last section's body, version and kind replaced,
  // and one more section behind it if there is a name.
  std::string WithSeal(std::string body, uint32_t version = kSealVersion,
                       SectionKind kind = SectionKind::kRequired,
                       std::string behind = "") const {
    FrameWriter writer("seal_test");
    writer.AddSection("connection", 0, 1, SectionKind::kRequired, "hello");
    writer.AddSection("counters", 3, 2, SectionKind::kOptional, "12345678");
    writer.AddSection(std::string(kSealSection), 0, version, kind,
                      std::move(body));
    if (!behind.empty()) {
      writer.AddSection(behind, 0, 1, SectionKind::kOptional, "");
    }
    return *writer.Finish();
  }
  std::string SealBody() const {
    return sealed_.substr(sealed_.size() - kSealBodyBytes);
  }

  const std::string secret_ = std::string(32, 's');
  const SealKey key_{"guest-7", AsBytes(secret_)};
  std::string frame_;
  std::string sealed_;
};

TEST_F(SealTest, OpensToTheFrameThatWasSealed) {
  const auto opened = Open(sealed_, kCounter);
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(opened->frame, frame_);
  EXPECT_EQ(opened->seal.key_id, "guest-7");
  EXPECT_EQ(opened->seal.counter, kCounter);
  EXPECT_EQ(sealed_.size(), frame_.size() + 64 + kSealBodyBytes);
}

// promise:P11
TEST_F(SealTest, TheSameFrameKeyAndCounterGiveTheSameBytes) {
  EXPECT_EQ(Seal(AsBytes(frame_), key_, kCounter).value(), sealed_);
  EXPECT_NE(Seal(AsBytes(frame_), key_, kCounter + 1).value(), sealed_);
}

// The tag is from another implementation of docs/SAVE_STATE.md: Python's hmac
// over bytes that were put together there.
TEST_F(SealTest, TheBodyIsAsDocumented) {
  const std::string body = SealBody();
  EXPECT_EQ(absl::BytesToHexString(body.substr(0, kSealTagOffset)),
            "0100000000000000"    // algorithm, reserved
            "0807060504030201"    // counter
            "67756573742d3700"    // key id
            "0000000000000000"    //
            "0000000000000000");  //
  EXPECT_EQ(absl::BytesToHexString(body.substr(kSealTagOffset)),
            "fd6c265142d6233e12809360c5907e91"
            "a81ca4150354273ea45ba8d6dba778f9");
}

// bad:S22
TEST_F(SealTest, TellsWhyItRefuses) {
  EXPECT_EQ(Code(frame_), StatusCode::kFailedPrecondition);
  EXPECT_THAT(Open(frame_).status().message(), HasSubstr("not sealed"));

  // The key of another guest: not known here, or known under that id.
  const SealKey other_id{"guest-8", AsBytes(secret_)};
  const auto unknown = Open(*Seal(AsBytes(frame_), other_id, kCounter));
  EXPECT_EQ(unknown.status().code(), StatusCode::kNotFound);
  EXPECT_THAT(unknown.status().message(), HasSubstr("\"guest-8\""));
  const std::string secret(32, 't');
  const SealKey other_secret{"guest-7", AsBytes(secret)};
  EXPECT_EQ(Code(*Seal(AsBytes(frame_), other_secret, kCounter)),
            StatusCode::kUnauthenticated);

  EXPECT_TRUE(Open(sealed_, kCounter).ok());
  const auto old = Open(sealed_, kCounter + 1);
  EXPECT_EQ(old.status().code(), StatusCode::kOutOfRange);
  EXPECT_THAT(old.status().message(), HasSubstr("72623859790382856"));
}

TEST_F(SealTest, TheRightOneOfSeveralKeysIsTaken) {
  const std::string others(40, 'o');
  const SealKey keys[] = {{"guest-6", AsBytes(others)}, key_};
  EXPECT_TRUE(OpenSeal(AsBytes(sealed_), keys, 0).ok());
  EXPECT_EQ(OpenSeal(AsBytes(sealed_), {}, 0).status().code(),
            StatusCode::kNotFound);
}

// A hostile author makes the checksums right, but not the tag.
// bad:S3 bad:S22 promise:P8
TEST_F(SealTest, EveryChangedBitIsNoticed) {
  int wrong_tags = 0;
  for (size_t bit = 0; bit < sealed_.size() * 8; ++bit) {
    std::string changed = sealed_;
    changed[bit / 8] = static_cast<char>(changed[bit / 8] ^ (1 << bit % 8));
    EXPECT_EQ(Code(changed), StatusCode::kDataLoss);
    FixChecksums(&changed);
    // A flip in a checksum is undone by that.
    if (changed == sealed_) continue;
    EXPECT_FALSE(Open(changed).ok()) << bit;
    wrong_tags += Code(changed) == StatusCode::kUnauthenticated ? 1 : 0;
  }
  // Producer, bodies, names, instances, versions, kinds, counter and tag.
  EXPECT_GT(wrong_tags, 8 * (8 + 13 + 8 + 32));
}

// bad:S1
TEST_F(SealTest, EveryPrefixIsDataLoss) {
  for (size_t size = 0; size < sealed_.size(); ++size) {
    EXPECT_EQ(Code(sealed_.substr(0, size)), StatusCode::kDataLoss) << size;
  }
}

TEST_F(SealTest, SectionsOfAnotherFrameDoNotFitUnderTheSeal) {
  FrameWriter writer("seal_test");
  writer.AddSection("counters", 3, 2, SectionKind::kOptional, "12345678");
  writer.AddSection("connection", 0, 1, SectionKind::kRequired, "hello");
  writer.AddSection(std::string(kSealSection), 0, kSealVersion,
                    SectionKind::kRequired, SealBody());
  EXPECT_EQ(Code(*writer.Finish()), StatusCode::kUnauthenticated);
  // The same, as it was.
  EXPECT_EQ(WithSeal(SealBody()), sealed_);
}

// bad:S22
TEST_F(SealTest, AMalformedSealIsRefusedBeforeAnyKeyIsUsed) {
  const std::string body = SealBody();
  EXPECT_EQ(Code(WithSeal("")), StatusCode::kInvalidArgument);
  EXPECT_EQ(Code(WithSeal(body + '\0')), StatusCode::kInvalidArgument);
  EXPECT_EQ(Code(WithSeal(body.substr(1))), StatusCode::kInvalidArgument);
  EXPECT_EQ(Code(WithSeal(body, kSealVersion, SectionKind::kOptional)),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(
      Code(WithSeal(body, kSealVersion, SectionKind::kRequired, "behind")),
      StatusCode::kInvalidArgument);
  EXPECT_EQ(Code(WithSeal(body, kSealVersion + 1)), StatusCode::kUnimplemented);
  const auto with = [&](size_t offset, char value) {
    std::string changed = body;
    changed[offset] = value;
    return Code(WithSeal(changed));
  };
  EXPECT_EQ(with(kSealAlgorithmOffset, 2), StatusCode::kUnimplemented);
  EXPECT_EQ(with(kSealReservedOffset, 1), StatusCode::kUnimplemented);
  EXPECT_EQ(with(kSealKeyIdOffset, 0), StatusCode::kInvalidArgument);
  EXPECT_EQ(with(kSealKeyIdOffset, '/'), StatusCode::kInvalidArgument);
  EXPECT_EQ(with(kSealKeyIdOffset + 23, 'x'), StatusCode::kInvalidArgument);
}

// Nobody takes a sealed frame whose seal was not checked, and a seal that was
// made to look optional is not skipped.
// bad:S22 promise:P5
TEST_F(SealTest, AReaderOfSectionsRefusesASealedFrame) {
  const KnownSection known[] = {{"connection", 1}, {"counters", 2}};
  for (const auto kind : {SectionKind::kRequired, SectionKind::kOptional}) {
    const std::string file = WithSeal(SealBody(), kSealVersion, kind);
    const auto frame = Frame::Parse(AsBytes(file));
    ASSERT_TRUE(frame.ok());
    EXPECT_TRUE(frame->HasSeal());
    const auto skipped = CheckKnownSections(*frame, known);
    EXPECT_EQ(skipped.status().code(), StatusCode::kFailedPrecondition);
    EXPECT_THAT(skipped.status().message(), HasSubstr("OpenSeal"));
  }
  const auto frame = Frame::Parse(AsBytes(frame_));
  EXPECT_FALSE(frame->HasSeal());
  EXPECT_TRUE(CheckKnownSections(*frame, known).ok());
}

TEST_F(SealTest, DescribesWithoutAKey) {
  const auto frame = Frame::Parse(AsBytes(sealed_));
  const auto seal = DescribeSeal(*frame);
  ASSERT_TRUE(seal.ok()) << seal.status();
  EXPECT_EQ(seal->key_id, "guest-7");
  EXPECT_EQ(seal->counter, kCounter);
  EXPECT_EQ(DescribeSeal(*Frame::Parse(AsBytes(frame_))).status().code(),
            StatusCode::kFailedPrecondition);
}

TEST_F(SealTest, RefusesToSealWhatCannotBeOpened) {
  const auto seal = [&](std::string_view frame, const SealKey& key) {
    return Seal(AsBytes(frame), key, 1).status().code();
  };
  EXPECT_EQ(seal(sealed_, key_), StatusCode::kAlreadyExists);
  EXPECT_EQ(seal("FERRYBUS", key_), StatusCode::kDataLoss);
  const SealKey short_secret{"a", AsBytes(secret_).subspan(1)};
  EXPECT_EQ(seal(frame_, short_secret), StatusCode::kInvalidArgument);
  EXPECT_EQ(seal(frame_, {"", key_.secret}), StatusCode::kInvalidArgument);
  EXPECT_EQ(seal(frame_, {"a b", key_.secret}), StatusCode::kInvalidArgument);
  EXPECT_EQ(OpenSeal(AsBytes(sealed_), {short_secret}, 0).status().code(),
            StatusCode::kInvalidArgument);
  FrameLimits limits;
  limits.total_bytes_max = frame_.size();
  EXPECT_EQ(Seal(AsBytes(frame_), key_, 1, limits).status().code(),
            StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace ferrybus::savestate
