// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/storage/storage_state_persist.h"

#include <string>

#include "absl/status/status.h"
#include "ferrybus/vsp/storage/storage_state.h"
#include "ferrybus/vsp/storage/storage_state.pb.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

namespace pb = ::ferrybus::vsp::storage::v1;

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return absl::MakeConstSpan(reinterpret_cast<const std::byte*>(text.data()),
                             text.size());
}

StorageDeviceState Ready() {
  StorageDeviceState state;
  state.phase = VstorPhase::kReady;
  state.version = vstor::kVersionWin10;
  state.max_transfer_bytes = 1 << 20;
  state.disk.size_bytes = uint64_t{1} << 40;
  state.disk.block_bytes = 512;
  state.disk.can_discard = true;
  state.disk.serial = "serial";
  state.disk.uuid[15] = 0xfe;
  return state;
}

pb::DeviceState ReadyMessage() {
  pb::DeviceState message;
  EXPECT_TRUE(message.ParseFromString(SerializeDeviceState(Ready())));
  return message;
}

absl::StatusCode Code(const pb::DeviceState& message) {
  return ParseDeviceState(AsBytes(message.SerializeAsString())).status().code();
}
absl::StatusCode Code(const pb::PacketState& message) {
  return ParsePacketState(AsBytes(message.SerializeAsString())).status().code();
}

TEST(StorageStatePersistTest, ComesBackAsItWas) {
  const std::string bytes = SerializeDeviceState(Ready());
  const auto parsed = ParseDeviceState(AsBytes(bytes));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(*parsed, Ready());
  EXPECT_EQ(SerializeDeviceState(*parsed), bytes);

  StoragePacketState done;
  done.done = true;
  done.result = {vstor::kSrbError, scsi::Status::kCheckCondition, true,
                 scsi::kWriteError, 17};
  for (const StoragePacketState& state : {StoragePacketState(), done}) {
    const std::string packet = SerializePacketState(state);
    EXPECT_FALSE(packet.empty());
    const auto back = ParsePacketState(AsBytes(packet));
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_EQ(*back, state);
  }
}

TEST(StorageStatePersistTest, FieldsOfLaterVersionsAreIgnored) {
  std::string bytes = SerializeDeviceState(Ready());
  bytes += std::string("\xfa\x3f\x03new", 6);  // field 1023, bytes
  const auto parsed = ParseDeviceState(AsBytes(bytes));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(*parsed, Ready());
}

TEST(StorageStatePersistTest, DeviceStateOutsideItsBoundsIsRefused) {
  EXPECT_EQ(Code(ReadyMessage()), absl::StatusCode::kOk);
  pb::DeviceState message = ReadyMessage();
  message.set_phase(pb::SESSION_PHASE_UNSPECIFIED);
  EXPECT_EQ(Code(message), absl::StatusCode::kDataLoss);
  message.set_phase(static_cast<pb::SessionPhase>(6));
  EXPECT_EQ(Code(message), absl::StatusCode::kDataLoss);

  message = ReadyMessage();
  for (const uint32_t version : {0u, 0x0603u, 0x10602u}) {
    message.set_protocol_version(version);
    EXPECT_EQ(Code(message), absl::StatusCode::kDataLoss) << version;
  }
  message = ReadyMessage();
  message.set_phase(pb::SESSION_PHASE_BEGUN);
  EXPECT_EQ(Code(message), absl::StatusCode::kDataLoss);
  message.set_protocol_version(0);
  EXPECT_EQ(Code(message), absl::StatusCode::kOk);

  message = ReadyMessage();
  message.mutable_disk()->set_uuid("short");
  EXPECT_EQ(Code(message), absl::StatusCode::kDataLoss);
  message = ReadyMessage();
  message.mutable_disk()->set_serial(std::string(33, 'x'));
  EXPECT_EQ(Code(message), absl::StatusCode::kDataLoss);
  message = ReadyMessage();
  message.clear_disk();
  EXPECT_EQ(Code(message), absl::StatusCode::kDataLoss);
}

TEST(StorageStatePersistTest, PacketStateOutsideItsBoundsIsRefused) {
  pb::PacketState good;
  good.set_phase(pb::PACKET_PHASE_DONE);
  good.mutable_result()->set_srb_status(1);
  EXPECT_EQ(Code(good), absl::StatusCode::kOk);

  EXPECT_EQ(Code(pb::PacketState()), absl::StatusCode::kDataLoss);
  pb::PacketState message = good;
  message.set_phase(pb::PACKET_PHASE_PENDING);
  EXPECT_EQ(Code(message), absl::StatusCode::kDataLoss);
  message = good;
  message.clear_result();
  EXPECT_EQ(Code(message), absl::StatusCode::kDataLoss);
  for (const uint32_t status : {0u, 64u, 0x104u}) {
    message = good;
    message.mutable_result()->set_srb_status(status);
    EXPECT_EQ(Code(message), absl::StatusCode::kDataLoss) << status;
  }
  for (const uint32_t status : {1u, 0x100u, 0x28u}) {
    message = good;
    message.mutable_result()->set_scsi_status(status);
    EXPECT_EQ(Code(message), absl::StatusCode::kDataLoss) << status;
  }
  message = good;
  message.mutable_result()->set_sense_key(16);
  EXPECT_EQ(Code(message), absl::StatusCode::kDataLoss);
  message = good;
  message.mutable_result()->set_sense_ascq(256);
  EXPECT_EQ(Code(message), absl::StatusCode::kDataLoss);
}

TEST(StorageStatePersistTest, BlobsBeyondTheLimitAreNotDecoded) {
  std::string bytes = SerializeDeviceState(Ready());
  bytes.resize(kStorageStateBytesMax + 1);
  EXPECT_EQ(ParseDeviceState(AsBytes(bytes)).status().code(),
            absl::StatusCode::kDataLoss);
}

// Cut at each byte and with each bit flipped: refused, or a state that a live
// device could have.
TEST(StorageStatePersistTest, EveryCutAndBitFlipIsHandled) {
  const std::string bytes = SerializeDeviceState(Ready());
  for (size_t cut = 0; cut < bytes.size(); ++cut) {
    EXPECT_FALSE(ParseDeviceState(AsBytes(bytes.substr(0, cut))).ok()) << cut;
  }
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string flipped = bytes;
    flipped[bit / 8] ^= static_cast<char>(1 << bit % 8);
    const auto parsed = ParseDeviceState(AsBytes(flipped));
    if (!parsed.ok()) continue;
    EXPECT_EQ(parsed->phase >= VstorPhase::kVersionAgreed,
              VstorSession::IsSupported(parsed->version));
  }
}

}  // namespace
}  // namespace ferrybus::vsp
