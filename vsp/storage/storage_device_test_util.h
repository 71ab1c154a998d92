// SPDX-License-Identifier: MIT
//
// A storage device on a disk in memory with a fake guest before it, and
// expectations about its answers.
//
// Thread safety: none; one test, one thread.

#ifndef FERRYBUS_VSP_STORAGE_STORAGE_DEVICE_TEST_UTIL_H_
#define FERRYBUS_VSP_STORAGE_STORAGE_DEVICE_TEST_UTIL_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "ferrybus/channel/protocols/scsi.h"
#include "ferrybus/channel/protocols/vstor.h"
#include "ferrybus/vsp/storage/fake_storage_guest.h"
#include "ferrybus/vsp/storage/memory_backend.h"
#include "ferrybus/vsp/storage/storage_device.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {

inline constexpr uint64_t kDiskBlocks = 2048;

inline std::vector<uint8_t> Transfer10(uint8_t op, uint32_t block,
                                       uint16_t blocks) {
  std::vector<uint8_t> cdb(10);
  cdb[0] = op;
  scsi::StoreBe32(block, &cdb[2]);
  scsi::StoreBe16(blocks, &cdb[7]);
  return cdb;
}
inline std::vector<uint8_t> Read10(uint32_t block, uint16_t blocks) {
  return Transfer10(0x28, block, blocks);
}
inline std::vector<uint8_t> Write10(uint32_t block, uint16_t blocks) {
  return Transfer10(0x2a, block, blocks);
}
inline const std::vector<uint8_t> kTestUnitReady(6);
inline const std::vector<uint8_t> kInquiry = {0x12, 0, 0, 0, 36, 0};
inline const std::vector<uint8_t> kFlush = Transfer10(0x35, 0, 0);

class StorageDeviceTest : public testing::Test {
 protected:
  StorageDeviceTest() : disk_(kDiskBlocks * 512), memory_(1 << 20) {
    for (size_t i = 0; i < disk_.size(); ++i) {
      disk_[i] = std::byte(i / 512 + i);
    }
    Make({}, {.serial = "S1"});
  }

  void Make(MemoryBackendOptions backend_options,
            StorageDeviceOptions options) {
    auto backend = std::make_unique<MemoryBackend>(&disk_, backend_options);
    backend_ = backend.get();
    auto device = StorageDevice::Create(std::move(backend), options);
    ASSERT_TRUE(device.ok()) << device.status();
    device_ = *std::move(device);
    ASSERT_TRUE(device_->OnOpened(FakeStorageGuest::Channel(), {}).ok());
    device_->OnStarted();
  }

  void Initialize() { ASSERT_TRUE(guest_.Initialize(*device_)); }

  // Runs an SRB to its end.
  vstor::Srb Run(const std::vector<uint8_t>& cdb, uint8_t data_in,
                 std::vector<iovec> buffers = {}) {
    const uint64_t id =
        guest_.ExecuteSrb(*device_, cdb, data_in, std::move(buffers));
    device_->Poll();
    EXPECT_TRUE(guest_.answered(id));
    return guest_.SrbReply(id);
  }
  vstor::Srb RunPacket(const vstor::Packet& packet,
                       std::vector<iovec> buffers = {}) {
    const uint64_t id = guest_.Send(*device_, packet, std::move(buffers));
    device_->Poll();
    EXPECT_TRUE(guest_.answered(id));
    return guest_.SrbReply(id);
  }

  MemoryDisk disk_;
  std::vector<std::byte> memory_;
  FakeStorageGuest guest_{absl::MakeSpan(memory_)};
  MemoryBackend* backend_ = nullptr;
  std::unique_ptr<StorageDevice> device_;
};

inline testing::AssertionResult IsCheckCondition(const vstor::Srb& srb,
                                                 uint8_t srb_status,
                                                 const scsi::Sense& sense) {
  if (srb.srb_status == (srb_status | vstor::kSrbAutosenseValid) &&
      srb.scsi_status == 0x02 && srb.sense_bytes == 18 &&
      srb.transfer_bytes == 0 && srb.cdb_or_sense[0] == 0x70 &&
      srb.cdb_or_sense[2] == sense.key && srb.cdb_or_sense[12] == sense.asc &&
      srb.cdb_or_sense[13] == sense.ascq) {
    return testing::AssertionSuccess();
  }
  return testing::AssertionFailure()
         << std::hex << "srb " << int{srb.srb_status} << " scsi "
         << int{srb.scsi_status} << " sense " << int{srb.cdb_or_sense[2]} << "/"
         << int{srb.cdb_or_sense[12]} << "/" << int{srb.cdb_or_sense[13]};
}

inline testing::AssertionResult IsGood(const vstor::Srb& srb,
                                       uint32_t transfer_bytes) {
  if (srb.srb_status == vstor::kSrbSuccess && srb.scsi_status == 0 &&
      srb.transfer_bytes == transfer_bytes && srb.sense_bytes == 0) {
    return testing::AssertionSuccess();
  }
  return testing::AssertionFailure()
         << std::hex << "srb " << int{srb.srb_status} << " scsi "
         << int{srb.scsi_status} << " bytes " << srb.transfer_bytes << " asc "
         << int{srb.cdb_or_sense[12]};
}

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_STORAGE_STORAGE_DEVICE_TEST_UTIL_H_
