// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/storage/scsi_disk.h"

#include <algorithm>
#include <cerrno>

namespace ferrybus::vsp {
namespace {

using scsi::LoadBe16;
using scsi::LoadBe32;
using scsi::LoadBe64;
using scsi::Op;
using scsi::Sense;

constexpr size_t kUnmapHeaderBytes = 8;
constexpr size_t kUnmapDescriptorBytes = 16;
static_assert(kUnmapHeaderBytes +
                  kUnmapDescriptorsMax * kUnmapDescriptorBytes <=
              kParameterBytesMax);

// By the operation code's group, its upper three bits; 0: not one of ours.
size_t CdbBytes(uint8_t op) {
  switch (op >> 5) {
    case 0:
      return 6;
    case 1:
    case 2:
      return 10;
    case 4:
      return 16;
    case 5:
      return 12;
    default:
      return 0;
  }
}

ScsiOutcome Fail(const Sense& sense) {
  ScsiOutcome outcome;
  outcome.status = scsi::Status::kCheckCondition;
  outcome.sense = sense;
  return outcome;
}

ScsiOutcome Malformed() {
  ScsiOutcome outcome = Fail(scsi::kInvalidFieldInCdb);
  outcome.malformed = true;
  return outcome;
}

// Cuts an answer of `bytes` to what CDB and buffer allow.
void FinishDataIn(const ScsiCommand& command, size_t bytes, uint64_t allowed,
                  ScsiOutcome& outcome) {
  outcome.data_bytes = static_cast<size_t>(
      std::min<uint64_t>({bytes, allowed, command.transfer_bytes}));
  if (outcome.data_bytes > 0 && command.direction != DataDirection::kIn) {
    outcome = Malformed();
  }
}

void AddRange(uint64_t block, uint64_t blocks, ScsiOutcome& outcome) {
  outcome.range_array[outcome.range_count++] = {block * kLogicalBlockBytes,
                                                blocks * kLogicalBlockBytes};
}

}  // namespace

size_t ScsiDisk::ParameterBytes(const ScsiCommand& command) {
  if (command.cdb.empty() || command.direction != DataDirection::kOut) return 0;
  const Op op{command.cdb[0]};
  if (op != Op::kUnmap && op != Op::kWriteSame16) return 0;
  return std::min<size_t>(command.transfer_bytes, kParameterBytesMax);
}

ScsiOutcome ScsiDisk::Execute(const ScsiCommand& command) const {
  const absl::Span<const uint8_t> cdb = command.cdb;
  if (cdb.empty()) return Malformed();
  const size_t cdb_bytes = CdbBytes(cdb[0]);
  if (cdb_bytes == 0) return Fail(scsi::kInvalidOpcode);
  if (cdb.size() < cdb_bytes) return Malformed();
  switch (Op{cdb[0]}) {
    case Op::kTestUnitReady:
    case Op::kStartStopUnit:
      return ScsiOutcome();
    case Op::kRequestSense:
      return RequestSense(command);
    case Op::kInquiry:
      return Inquiry(command);
    case Op::kModeSense6:
      return ModeSense(command, /*ten=*/false);
    case Op::kModeSense10:
      return ModeSense(command, /*ten=*/true);
    case Op::kReadCapacity10:
      return ReadCapacity10(command);
    case Op::kServiceActionIn16:
      return ReadCapacity16(command);
    case Op::kReportLuns:
      return ReportLuns(command);
    case Op::kVerify10:
      return Verify(command);
    case Op::kRead6:
    case Op::kWrite6: {
      const uint64_t block = LoadBe32(cdb.data()) & 0x1f'ffff;
      return Transfer(command, block, cdb[4] == 0 ? 256 : cdb[4]);
    }
    case Op::kRead10:
    case Op::kWrite10:
      return Transfer(command, LoadBe32(&cdb[2]), LoadBe16(&cdb[7]));
    case Op::kRead12:
    case Op::kWrite12:
      return Transfer(command, LoadBe32(&cdb[2]), LoadBe32(&cdb[6]));
    case Op::kRead16:
    case Op::kWrite16:
      return Transfer(command, LoadBe64(&cdb[2]), LoadBe32(&cdb[10]));
    case Op::kSynchronizeCache10:
      return SynchronizeCache(LoadBe32(&cdb[2]), LoadBe16(&cdb[7]));
    case Op::kSynchronizeCache16:
      return SynchronizeCache(LoadBe64(&cdb[2]), LoadBe32(&cdb[10]));
    case Op::kUnmap:
      return Unmap(command);
    case Op::kWriteSame16:
      return WriteSame(command);
  }
  return Fail(scsi::kInvalidOpcode);
}

bool ScsiDisk::InRange(uint64_t block, uint64_t blocks) const {
  const uint64_t count = model_.block_count();
  return block <= count && blocks <= count - block;
}

ScsiOutcome ScsiDisk::Transfer(const ScsiCommand& command, uint64_t block,
                               uint64_t blocks) const {
  const Op op{command.cdb[0]};
  const bool write = op == Op::kWrite6 || op == Op::kWrite10 ||
                     op == Op::kWrite12 || op == Op::kWrite16;
  const bool six = op == Op::kRead6 || op == Op::kWrite6;
  // In the 6-byte form these bits belong to the block number.
  const bool protect = !six && (command.cdb[1] & 0xe0) != 0;
  const bool durable = !six && (command.cdb[1] & 0x08) != 0;
  if (protect) return Fail(scsi::kInvalidFieldInCdb);
  if (!InRange(block, blocks)) return Fail(scsi::kLbaOutOfRange);
  if (write && model_.read_only) return Fail(scsi::kWriteProtected);
  if (blocks == 0) return ScsiOutcome();
  const DataDirection wanted = write ? DataDirection::kOut : DataDirection::kIn;
  if (command.direction != wanted) return Malformed();
  if (blocks * kLogicalBlockBytes > command.transfer_bytes) return Malformed();
  ScsiOutcome outcome;
  outcome.kind = ScsiOutcome::Kind::kBlock;
  outcome.op = write ? BlockOp::kWrite : BlockOp::kRead;
  outcome.durable = write && durable;
  AddRange(block, blocks, outcome);
  return outcome;
}

ScsiOutcome ScsiDisk::Inquiry(const ScsiCommand& command) const {
  const bool vital_product_data = (command.cdb[1] & 0x01) != 0;
  const uint8_t page = command.cdb[2];
  ScsiOutcome outcome;
  size_t bytes = 0;
  if (vital_product_data) {
    bytes = FillVitalProductData(model_, page, outcome.data.data());
  } else if (page == 0) {
    bytes = FillStandardInquiry(outcome.data.data());
  }
  if (bytes == 0) return Fail(scsi::kInvalidFieldInCdb);
  FinishDataIn(command, bytes, LoadBe16(&command.cdb[3]), outcome);
  return outcome;
}

ScsiOutcome ScsiDisk::ModeSense(const ScsiCommand& command, bool ten) const {
  const absl::Span<const uint8_t> cdb = command.cdb;
  const uint8_t control = cdb[2] >> 6;
  const uint8_t page = cdb[2] & 0x3f;
  const uint8_t subpage = cdb[3];
  if (control == 3) return Fail(scsi::kSavingParametersNotSupported);
  if (subpage != 0 && subpage != 0xff) return Fail(scsi::kInvalidFieldInCdb);
  ScsiOutcome outcome;
  const size_t header_bytes = ten ? 8 : 4;
  const size_t page_bytes = FillModePages(page, /*changeable=*/control == 1,
                                          outcome.data.data() + header_bytes);
  if (page_bytes == 0) return Fail(scsi::kInvalidFieldInCdb);
  const size_t bytes = header_bytes + page_bytes;
  if (ten) {
    scsi::StoreBe16(static_cast<uint16_t>(bytes - 2), outcome.data.data());
    outcome.data[3] = ModeDeviceParameter(model_);
  } else {
    outcome.data[0] = static_cast<uint8_t>(bytes - 1);
    outcome.data[2] = ModeDeviceParameter(model_);
  }
  FinishDataIn(command, bytes, ten ? LoadBe16(&cdb[7]) : cdb[4], outcome);
  return outcome;
}

ScsiOutcome ScsiDisk::RequestSense(const ScsiCommand& command) const {
  const bool descriptor_format = (command.cdb[1] & 0x01) != 0;
  if (descriptor_format) return Fail(scsi::kInvalidFieldInCdb);
  ScsiOutcome outcome;
  scsi::StoreFixedSense(scsi::kNoSense, outcome.data.data());
  FinishDataIn(command, scsi::kFixedSenseBytes, command.cdb[4], outcome);
  return outcome;
}

ScsiOutcome ScsiDisk::ReadCapacity10(const ScsiCommand& command) const {
  const bool partial = (command.cdb[8] & 0x01) != 0;
  if (!partial && LoadBe32(&command.cdb[2]) != 0) {
    return Fail(scsi::kInvalidFieldInCdb);
  }
  ScsiOutcome outcome;
  const size_t bytes = FillReadCapacity10(model_, outcome.data.data());
  FinishDataIn(command, bytes, bytes, outcome);
  return outcome;
}

ScsiOutcome ScsiDisk::ReadCapacity16(const ScsiCommand& command) const {
  if ((command.cdb[1] & 0x1f) != scsi::kReadCapacity16Action) {
    return Fail(scsi::kInvalidFieldInCdb);
  }
  ScsiOutcome outcome;
  const size_t bytes = FillReadCapacity16(model_, outcome.data.data());
  FinishDataIn(command, bytes, LoadBe32(&command.cdb[10]), outcome);
  return outcome;
}

ScsiOutcome ScsiDisk::ReportLuns(const ScsiCommand& command) const {
  const uint8_t select = command.cdb[2];
  const uint32_t allowed = LoadBe32(&command.cdb[6]);
  if (select > 2 || allowed < 16) return Fail(scsi::kInvalidFieldInCdb);
  ScsiOutcome outcome;
  // 1 asks for well-known LUNs only, of which there are none.
  const bool has_lun_0 = select != 1;
  if (has_lun_0) scsi::StoreBe32(8, outcome.data.data());
  FinishDataIn(command, has_lun_0 ? 16 : 8, allowed, outcome);
  return outcome;
}

ScsiOutcome ScsiDisk::Verify(const ScsiCommand& command) const {
  // BYTCHK asks for a comparison with data-out; protection is not supported.
  if ((command.cdb[1] & (0xe0 | 0x06)) != 0) {
    return Fail(scsi::kInvalidFieldInCdb);
  }
  if (!InRange(LoadBe32(&command.cdb[2]), LoadBe16(&command.cdb[7]))) {
    return Fail(scsi::kLbaOutOfRange);
  }
  return ScsiOutcome();
}

// The whole disk is flushed; the range is only checked.
ScsiOutcome ScsiDisk::SynchronizeCache(uint64_t block, uint64_t blocks) const {
  if (!InRange(block, blocks)) return Fail(scsi::kLbaOutOfRange);
  ScsiOutcome outcome;
  outcome.kind = ScsiOutcome::Kind::kBlock;
  outcome.op = BlockOp::kFlush;
  return outcome;
}

ScsiOutcome ScsiDisk::Unmap(const ScsiCommand& command) const {
  if (!model_.can_discard) return Fail(scsi::kInvalidOpcode);
  const bool anchor = (command.cdb[1] & 0x01) != 0;
  if (anchor) return Fail(scsi::kInvalidFieldInCdb);
  if (model_.read_only) return Fail(scsi::kWriteProtected);
  const size_t list_bytes = LoadBe16(&command.cdb[7]);
  if (list_bytes == 0) return ScsiOutcome();
  if (list_bytes < kUnmapHeaderBytes) {
    return Fail(scsi::kParameterListLengthError);
  }
  if (command.direction != DataDirection::kOut ||
      command.transfer_bytes < list_bytes) {
    return Malformed();
  }
  const absl::Span<const uint8_t> list = command.parameters;
  if (list.size() < kUnmapHeaderBytes) return Malformed();
  const size_t descriptor_bytes = LoadBe16(&list[2]);
  const size_t count = descriptor_bytes / kUnmapDescriptorBytes;
  if (descriptor_bytes > list_bytes - kUnmapHeaderBytes) {
    return Fail(scsi::kParameterListLengthError);
  }
  if (count > kUnmapDescriptorsMax ||
      kUnmapHeaderBytes + count * kUnmapDescriptorBytes > list.size()) {
    return Fail(scsi::kInvalidFieldInParameters);
  }
  ScsiOutcome outcome;
  outcome.op = BlockOp::kDiscard;
  for (size_t i = 0; i < count; ++i) {
    const uint8_t* at = &list[kUnmapHeaderBytes + i * kUnmapDescriptorBytes];
    const uint64_t block = LoadBe64(at);
    const uint32_t blocks = LoadBe32(at + 8);
    if (!InRange(block, blocks)) return Fail(scsi::kLbaOutOfRange);
    if (blocks > kDiscardBlocksMax) {
      return Fail(scsi::kInvalidFieldInParameters);
    }
    if (blocks > 0) AddRange(block, blocks, outcome);
  }
  if (outcome.range_count > 0) outcome.kind = ScsiOutcome::Kind::kBlock;
  return outcome;
}

// Only zeroes can be written this way: a discarded range reads as zeroes.
ScsiOutcome ScsiDisk::WriteSame(const ScsiCommand& command) const {
  if (!model_.can_discard) return Fail(scsi::kInvalidOpcode);
  const uint8_t flags = command.cdb[1];
  const bool no_data_out = (flags & 0x01) != 0;
  const bool unsupported = (flags & (0xe0 | 0x10 | 0x06)) != 0;
  if (unsupported) return Fail(scsi::kInvalidFieldInCdb);
  if (model_.read_only) return Fail(scsi::kWriteProtected);
  const uint64_t block = LoadBe64(&command.cdb[2]);
  const uint32_t blocks = LoadBe32(&command.cdb[10]);
  if (blocks == 0 || blocks > kDiscardBlocksMax) {
    return Fail(scsi::kInvalidFieldInCdb);
  }
  if (!InRange(block, blocks)) return Fail(scsi::kLbaOutOfRange);
  if (!no_data_out) {
    const absl::Span<const uint8_t> pattern = command.parameters;
    if (pattern.size() < kLogicalBlockBytes) return Malformed();
    if (std::any_of(pattern.begin(), pattern.begin() + kLogicalBlockBytes,
                    [](uint8_t byte) { return byte != 0; })) {
      return Fail(scsi::kInvalidFieldInCdb);
    }
  }
  ScsiOutcome outcome;
  outcome.kind = ScsiOutcome::Kind::kBlock;
  outcome.op = BlockOp::kDiscard;
  AddRange(block, blocks, outcome);
  return outcome;
}

Sense ScsiDisk::SenseForError(BlockOp op, int error) {
  switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return scsi::kSpaceAllocationFailed;
    case EROFS:
    case EPERM:
      return scsi::kWriteProtected;
    case EIO:
      return op == BlockOp::kRead ? scsi::kUnrecoveredReadError
                                  : scsi::kWriteError;
    default:
      return scsi::kInternalTargetFailure;
  }
}

}  // namespace ferrybus::vsp
