// SPDX-License-Identifier: MIT
//
// The SCSI command interpreter of a virtual disk: one command in, an answer or
// a block operation out.
//
// What it is: a pure function of the disk's model and the command.  It does no
// I/O, keeps no state and allocates nothing.
//
// Thread safety: const.
//
// Trust: the guest wrote every byte of the command, and may write any.  Wrong
// commands get CHECK CONDITION with the sense that a real disk gives.  Sums of
// block numbers are made in 64 bits after a range check.
//
//   ScsiDisk disk(model);
//   ScsiOutcome outcome = disk.Execute({.cdb = cdb,
//                                       .direction = DataDirection::kIn,
//                                       .transfer_bytes = 4096});
//   if (outcome.kind == ScsiOutcome::Kind::kBlock) ... outcome.ranges()

#ifndef FERRYBUS_VSP_STORAGE_SCSI_DISK_H_
#define FERRYBUS_VSP_STORAGE_SCSI_DISK_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "ferrybus/channel/protocols/scsi.h"
#include "ferrybus/vsp/storage/block_backend.h"
#include "ferrybus/vsp/storage/scsi_pages.h"

namespace ferrybus::vsp {

enum class DataDirection { kNone, kIn, kOut };

// Data-out bytes that a command may need in order to be understood.
inline constexpr size_t kParameterBytesMax = kLogicalBlockBytes;

struct ScsiCommand {
  absl::Span<const uint8_t> cdb = {};
  DataDirection direction = DataDirection::kNone;
  // Bytes of guest memory that go with it.
  uint32_t transfer_bytes = 0;
  // A private copy of the data-out bytes; see ParameterBytes().
  absl::Span<const uint8_t> parameters = {};
};

struct ByteRange {
  uint64_t offset_bytes = 0;
  uint64_t length_bytes = 0;
};

struct ScsiOutcome {
  enum class Kind {
    // Done: `status`, `sense`, `data`.
    kAnswer,
    // `op` is to be done on `ranges()`, one after the other; kFlush has none.
    kBlock,
  };
  Kind kind = Kind::kAnswer;

  scsi::Status status = scsi::Status::kGood;
  scsi::Sense sense;
  // The command does not fit its own data direction or transfer length.
  bool malformed = false;
  size_t data_bytes = 0;
  std::array<uint8_t, kScsiDataBytesMax> data = {};

  BlockOp op = BlockOp::kRead;
  bool durable = false;
  size_t range_count = 0;
  std::array<ByteRange, kUnmapDescriptorsMax> range_array;

  absl::Span<const ByteRange> ranges() const {
    return absl::MakeConstSpan(range_array.data(), range_count);
  }
};

class ScsiDisk {
 public:
  explicit ScsiDisk(DiskModel model) : model_(std::move(model)) {}

  const DiskModel& model() const { return model_; }

  // How many data-out bytes Execute() wants to see for this command; 0 for
  // most.  At most kParameterBytesMax.
  static size_t ParameterBytes(const ScsiCommand& command);

  ScsiOutcome Execute(const ScsiCommand& command) const;

  // The answer when a block operation failed with this (positive) errno.
  static scsi::Sense SenseForError(BlockOp op, int error);

 private:
  ScsiOutcome Transfer(const ScsiCommand& command, uint64_t block,
                       uint64_t blocks) const;
  ScsiOutcome Inquiry(const ScsiCommand& command) const;
  ScsiOutcome ModeSense(const ScsiCommand& command, bool ten) const;
  ScsiOutcome RequestSense(const ScsiCommand& command) const;
  ScsiOutcome ReadCapacity10(const ScsiCommand& command) const;
  ScsiOutcome ReadCapacity16(const ScsiCommand& command) const;
  ScsiOutcome ReportLuns(const ScsiCommand& command) const;
  ScsiOutcome Verify(const ScsiCommand& command) const;
  ScsiOutcome SynchronizeCache(uint64_t block, uint64_t blocks) const;
  ScsiOutcome Unmap(const ScsiCommand& command) const;
  ScsiOutcome WriteSame(const ScsiCommand& command) const;
  bool InRange(uint64_t block, uint64_t blocks) const;

  const DiskModel model_;
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_STORAGE_SCSI_DISK_H_
