// SPDX-License-Identifier: MIT
//
// Commands and expectations for tests of ScsiDisk.
//
// Builders give command descriptor blocks as an initiator sends them, wrong
// ones included; expectations look at status, sense and data.

#ifndef FERRYBUS_VSP_STORAGE_SCSI_DISK_TEST_UTIL_H_
#define FERRYBUS_VSP_STORAGE_SCSI_DISK_TEST_UTIL_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "ferrybus/vsp/storage/scsi_disk.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {

using Cdb = std::vector<uint8_t>;

inline constexpr uint64_t kBlocks = 8192;

inline DiskModel Model() {
  DiskModel model;
  model.size_bytes = kBlocks * 512;
  model.can_discard = true;
  model.max_transfer_bytes = 1 << 20;
  model.serial = "SERIAL-0042";
  for (size_t i = 0; i < model.uuid.size(); ++i) {
    model.uuid[i] = static_cast<uint8_t>(0xa0 + i);
  }
  return model;
}

inline ScsiOutcome In(const DiskModel& model, const Cdb& cdb,
                      uint32_t transfer_bytes = 4096) {
  return ScsiDisk(model).Execute({.cdb = cdb,
                                  .direction = DataDirection::kIn,
                                  .transfer_bytes = transfer_bytes});
}
inline ScsiOutcome In(const Cdb& cdb, uint32_t transfer_bytes = 4096) {
  return In(Model(), cdb, transfer_bytes);
}
inline ScsiOutcome Out(const DiskModel& model, const Cdb& cdb,
                       uint32_t transfer_bytes = 4096,
                       absl::Span<const uint8_t> parameters = {}) {
  return ScsiDisk(model).Execute({.cdb = cdb,
                                  .direction = DataDirection::kOut,
                                  .transfer_bytes = transfer_bytes,
                                  .parameters = parameters});
}
inline ScsiOutcome Out(const Cdb& cdb, uint32_t transfer_bytes = 4096,
                       absl::Span<const uint8_t> parameters = {}) {
  return Out(Model(), cdb, transfer_bytes, parameters);
}
inline ScsiOutcome None(const Cdb& cdb) {
  return ScsiDisk(Model()).Execute({.cdb = cdb});
}

inline Cdb Read16(uint64_t block, uint32_t blocks, uint8_t op = 0x88) {
  Cdb cdb(16);
  cdb[0] = op;
  scsi::StoreBe64(block, &cdb[2]);
  scsi::StoreBe32(blocks, &cdb[10]);
  return cdb;
}
inline Cdb Read10(uint32_t block, uint16_t blocks, uint8_t op = 0x28) {
  Cdb cdb(10);
  cdb[0] = op;
  scsi::StoreBe32(block, &cdb[2]);
  scsi::StoreBe16(blocks, &cdb[7]);
  return cdb;
}

inline testing::AssertionResult Fails(const ScsiOutcome& outcome,
                                      const scsi::Sense& sense) {
  if (outcome.kind != ScsiOutcome::Kind::kAnswer ||
      outcome.status != scsi::Status::kCheckCondition) {
    return testing::AssertionFailure() << "did not fail";
  }
  if (outcome.sense == sense && outcome.data_bytes == 0) {
    return testing::AssertionSuccess();
  }
  return testing::AssertionFailure()
         << std::hex << "sense " << int{outcome.sense.key} << "/"
         << int{outcome.sense.asc} << "/" << int{outcome.sense.ascq};
}

inline testing::AssertionResult Good(const ScsiOutcome& outcome,
                                     size_t data_bytes) {
  if (outcome.kind == ScsiOutcome::Kind::kAnswer &&
      outcome.status == scsi::Status::kGood &&
      outcome.data_bytes == data_bytes) {
    return testing::AssertionSuccess();
  }
  return testing::AssertionFailure()
         << "status " << static_cast<int>(outcome.status) << ", "
         << outcome.data_bytes << " bytes, asc " << int{outcome.sense.asc};
}

inline testing::AssertionResult Does(const ScsiOutcome& outcome, BlockOp op,
                                     uint64_t offset_bytes,
                                     uint64_t length_bytes) {
  if (outcome.kind != ScsiOutcome::Kind::kBlock || outcome.op != op ||
      outcome.range_count != 1) {
    return testing::AssertionFailure()
           << "asc " << int{outcome.sense.asc} << ", " << outcome.range_count
           << " ranges";
  }
  if (outcome.ranges()[0].offset_bytes == offset_bytes &&
      outcome.ranges()[0].length_bytes == length_bytes) {
    return testing::AssertionSuccess();
  }
  return testing::AssertionFailure()
         << "offset " << outcome.ranges()[0].offset_bytes << " length "
         << outcome.ranges()[0].length_bytes;
}

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_STORAGE_SCSI_DISK_TEST_UTIL_H_
