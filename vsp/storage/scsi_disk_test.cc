// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/storage/scsi_disk.h"

#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "ferrybus/vsp/storage/scsi_disk_test_util.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

using scsi::LoadBe16;
using scsi::LoadBe32;
using scsi::LoadBe64;

// -- Who are you -------------------------------------------------------------

TEST(ScsiDiskTest, StandardInquiryIsWhatLinuxTakesForAnSpc3Disk) {
  const ScsiOutcome outcome = In({0x12, 0, 0, 0, 36, 0});
  ASSERT_TRUE(Good(outcome, 36));
  EXPECT_EQ(outcome.data[0], 0x00);
  EXPECT_EQ(outcome.data[2], 0x05);
  EXPECT_EQ(outcome.data[3] & 0x0f, 0x02);
  EXPECT_EQ(outcome.data[4] + 5, 36);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(&outcome.data[8]), 28),
            "FERRYBUSVIRTUAL DISK    1.0 ");
}

TEST(ScsiDiskTest, InquiryIsCutToAllocationLengthAndBuffer) {
  EXPECT_TRUE(Good(In({0x12, 0, 0, 0, 5, 0}), 5));
  EXPECT_TRUE(Good(In({0x12, 0, 0, 0, 255, 0}, 8), 8));
  EXPECT_TRUE(Good(In({0x12, 0, 0, 0, 0, 0}), 0));
  EXPECT_TRUE(Good(In({0x12, 0, 0, 1, 0, 0}), 36));
}

TEST(ScsiDiskTest, EveryListedVitalProductDataPageIsThere) {
  const ScsiOutcome list = In({0x12, 1, 0, 0, 255, 0});
  ASSERT_EQ(list.status, scsi::Status::kGood);
  const size_t count = LoadBe16(&list.data[2]);
  ASSERT_TRUE(Good(list, 4 + count));
  EXPECT_EQ(count, 6u);
  for (size_t i = 0; i < count; ++i) {
    const uint8_t page = list.data[4 + i];
    const ScsiOutcome outcome = In({0x12, 1, page, 1, 0, 0});
    ASSERT_EQ(outcome.status, scsi::Status::kGood) << int{page};
    EXPECT_EQ(outcome.data[1], page);
    EXPECT_EQ(outcome.data_bytes, 4u + LoadBe16(&outcome.data[2]));
  }
  EXPECT_TRUE(Fails(In({0x12, 1, 0x81, 0, 255, 0}), scsi::kInvalidFieldInCdb));
  EXPECT_TRUE(Fails(In({0x12, 0, 0x80, 0, 255, 0}), scsi::kInvalidFieldInCdb));
}

TEST(ScsiDiskTest, SerialAndIdentificationComeFromTheModel) {
  const ScsiOutcome serial = In({0x12, 1, 0x80, 0, 255, 0});
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(&serial.data[4]),
                        serial.data_bytes - 4),
            "SERIAL-0042");
  const ScsiOutcome id = In({0x12, 1, 0x83, 0, 255, 0});
  EXPECT_EQ(id.data[5], 0x01);
  EXPECT_EQ(id.data[7], 8 + 11);
  const uint8_t* name = &id.data[4 + 4 + 19];
  EXPECT_EQ(name[1], 0x03);
  EXPECT_EQ(name[3], 8);
  EXPECT_EQ(name[4], 0x30);
  EXPECT_EQ(name[5], 0xa1);
}

TEST(ScsiDiskTest, LongestSerialFitsTheAnswerBuffer) {
  DiskModel model = Model();
  model.serial.assign(kSerialBytesMax + 100, 'x');
  const ScsiOutcome id = In(model, {0x12, 1, 0x83, 1, 0, 0});
  EXPECT_TRUE(Good(id, 4 + 4 + 8 + kSerialBytesMax + 12));
}

TEST(ScsiDiskTest, LimitsAndProvisioningPagesFollowTheModel) {
  DiskModel model = Model();
  ScsiOutcome limits = In(model, {0x12, 1, 0xb0, 0, 255, 0});
  EXPECT_EQ(LoadBe32(&limits.data[8]), 2048u);
  EXPECT_EQ(LoadBe32(&limits.data[20]), kDiscardBlocksMax);
  EXPECT_EQ(LoadBe32(&limits.data[24]), kUnmapDescriptorsMax);
  ScsiOutcome provisioning = In(model, {0x12, 1, 0xb2, 0, 255, 0});
  EXPECT_EQ(provisioning.data[5], 0xc4);
  EXPECT_EQ(provisioning.data[6], 0x02);
  EXPECT_EQ(LoadBe16(&In({0x12, 1, 0xb1, 0, 255, 0}).data[4]), 1);

  model.can_discard = false;
  limits = In(model, {0x12, 1, 0xb0, 0, 255, 0});
  EXPECT_EQ(LoadBe32(&limits.data[20]), 0u);
  provisioning = In(model, {0x12, 1, 0xb2, 0, 255, 0});
  EXPECT_EQ(provisioning.data[5], 0x00);
  EXPECT_EQ(In(model,
               [] {
                 Cdb cdb = Read16(0, 32, 0x9e);
                 cdb[1] = 0x10;
                 return cdb;
               }())
                .data[14],
            0x00);
}

TEST(ScsiDiskTest, CapacityNamesTheLastBlock) {
  const ScsiOutcome ten = In(Read10(0, 0, 0x25));
  ASSERT_TRUE(Good(ten, 8));
  EXPECT_EQ(LoadBe32(&ten.data[0]), kBlocks - 1);
  EXPECT_EQ(LoadBe32(&ten.data[4]), 512u);
  EXPECT_TRUE(Fails(In(Read10(1, 0, 0x25)), scsi::kInvalidFieldInCdb));

  Cdb cdb = Read16(0, 32, 0x9e);
  cdb[1] = 0x10;
  const ScsiOutcome sixteen = In(cdb);
  ASSERT_TRUE(Good(sixteen, 32));
  EXPECT_EQ(LoadBe64(&sixteen.data[0]), kBlocks - 1);
  EXPECT_EQ(sixteen.data[13], 3);
  EXPECT_EQ(sixteen.data[14], 0xc0);
  cdb[1] = 0x12;
  EXPECT_TRUE(Fails(In(cdb), scsi::kInvalidFieldInCdb));
}

TEST(ScsiDiskTest, CapacityBeyond32BitsSendsTheGuestToReadCapacity16) {
  DiskModel model = Model();
  model.size_bytes = (uint64_t{1} << 32) * 512;
  EXPECT_EQ(LoadBe32(&In(model, Read10(0, 0, 0x25)).data[0]), 0xffff'ffffu);
  model.size_bytes += 512;
  EXPECT_EQ(LoadBe32(&In(model, Read10(0, 0, 0x25)).data[0]), 0xffff'ffffu);
  EXPECT_TRUE(Does(In(model, Read16(uint64_t{1} << 32, 1)), BlockOp::kRead,
                   uint64_t{1} << 41, 512));
}

TEST(ScsiDiskTest, ModeSenseReportsCacheAndWriteProtection) {
  DiskModel model = Model();
  ScsiOutcome six = In(model, {0x1a, 0, 0x3f, 0, 255, 0});
  ASSERT_TRUE(Good(six, 4 + 20 + 12));
  EXPECT_EQ(six.data[0], 4 + 20 + 12 - 1);
  EXPECT_EQ(six.data[2], 0x10);  // DPOFUA, not write protected
  EXPECT_EQ(six.data[3], 0);     // no block descriptors
  EXPECT_EQ(six.data[4], 0x08);
  EXPECT_EQ(six.data[6] & 0x04, 0x04);

  model.read_only = true;
  const ScsiOutcome ten = In(model, {0x5a, 0, 0x08, 0, 0, 0, 0, 0, 255, 0});
  ASSERT_TRUE(Good(ten, 8 + 20));
  EXPECT_EQ(LoadBe16(&ten.data[0]), 8 + 20 - 2);
  EXPECT_EQ(ten.data[3], 0x90);
  EXPECT_EQ(ten.data[10] & 0x04, 0x04);

  // Nothing can be changed.
  six = In({0x1a, 0, 0x48, 0, 255, 0});
  EXPECT_EQ(six.data[6], 0x00);
  EXPECT_TRUE(Fails(In({0x1a, 0, 0xc8, 0, 255, 0}),
                    scsi::kSavingParametersNotSupported));
  EXPECT_TRUE(Fails(In({0x1a, 0, 0x1c, 0, 255, 0}), scsi::kInvalidFieldInCdb));
  EXPECT_TRUE(Fails(In({0x1a, 0, 0x08, 1, 255, 0}), scsi::kInvalidFieldInCdb));
}

TEST(ScsiDiskTest, ReportLunsListsLunZero) {
  Cdb cdb(12);
  cdb[0] = 0xa0;
  cdb[9] = 16;
  const ScsiOutcome outcome = In(cdb);
  ASSERT_TRUE(Good(outcome, 16));
  EXPECT_EQ(LoadBe32(&outcome.data[0]), 8u);
  EXPECT_EQ(LoadBe64(&outcome.data[8]), 0u);
  cdb[2] = 1;
  EXPECT_TRUE(Good(In(cdb), 8));
  cdb[2] = 3;
  EXPECT_TRUE(Fails(In(cdb), scsi::kInvalidFieldInCdb));
  cdb[2] = 0;
  cdb[9] = 15;
  EXPECT_TRUE(Fails(In(cdb), scsi::kInvalidFieldInCdb));
}

TEST(ScsiDiskTest, SimpleCommandsSucceed) {
  EXPECT_TRUE(Good(None({0x00, 0, 0, 0, 0, 0}), 0));
  EXPECT_TRUE(Good(None({0x1b, 0, 0, 0, 1, 0}), 0));
  const ScsiOutcome sense = In({0x03, 0, 0, 0, 18, 0});
  ASSERT_TRUE(Good(sense, 18));
  EXPECT_EQ(sense.data[0], 0x70);
  EXPECT_EQ(sense.data[2], 0x00);
  EXPECT_TRUE(Fails(In({0x03, 1, 0, 0, 18, 0}), scsi::kInvalidFieldInCdb));
}

// -- Reads and writes --------------------------------------------------------

TEST(ScsiDiskTest, EveryReadAndWriteFormNamesItsRange) {
  EXPECT_TRUE(Does(In(Read10(3, 8)), BlockOp::kRead, 1536, 4096));
  EXPECT_TRUE(Does(Out(Read10(3, 8, 0x2a)), BlockOp::kWrite, 1536, 4096));
  EXPECT_TRUE(Does(In(Read16(3, 8)), BlockOp::kRead, 1536, 4096));
  EXPECT_TRUE(Does(Out(Read16(3, 8, 0x8a)), BlockOp::kWrite, 1536, 4096));
  EXPECT_TRUE(Does(In({0x08, 0, 0x12, 0x34, 2, 0}), BlockOp::kRead,
                   0x1234 * 512, 1024));
  EXPECT_TRUE(Does(Out({0x0a, 0, 0x12, 0x34, 2, 0}), BlockOp::kWrite,
                   0x1234 * 512, 1024));
  const Cdb read12 = {0xa8, 0, 0, 0, 0, 3, 0, 0, 0, 8, 0, 0};
  EXPECT_TRUE(Does(In(read12), BlockOp::kRead, 1536, 4096));
  Cdb write12 = read12;
  write12[0] = 0xaa;
  EXPECT_TRUE(Does(Out(write12), BlockOp::kWrite, 1536, 4096));
}

TEST(ScsiDiskTest, ReadSixOfZeroBlocksMeans256) {
  EXPECT_TRUE(
      Does(In({0x08, 0, 0, 0, 0, 0}, 131072), BlockOp::kRead, 0, 131072));
  // Its upper block bits stand where other forms have flags.
  EXPECT_TRUE(Fails(In({0x08, 0x1f, 0xff, 0xff, 1, 0}), scsi::kLbaOutOfRange));
}

TEST(ScsiDiskTest, ZeroBlocksTransferNothing) {
  EXPECT_TRUE(Good(In(Read10(5, 0)), 0));
  EXPECT_TRUE(Good(None(Read16(kBlocks, 0)), 0));
  EXPECT_TRUE(Fails(None(Read16(kBlocks + 1, 0)), scsi::kLbaOutOfRange));
}

TEST(ScsiDiskTest, RangesAreCheckedToTheLastBlockWithoutOverflow) {
  EXPECT_TRUE(Does(In(Read16(kBlocks - 8, 8)), BlockOp::kRead,
                   (kBlocks - 8) * 512, 4096));
  EXPECT_TRUE(Fails(In(Read16(kBlocks - 7, 8)), scsi::kLbaOutOfRange));
  EXPECT_TRUE(Fails(In(Read16(kBlocks, 1)), scsi::kLbaOutOfRange));
  EXPECT_TRUE(Fails(In(Read16(~uint64_t{0}, 1)), scsi::kLbaOutOfRange));
  EXPECT_TRUE(
      Fails(In(Read16(~uint64_t{0}, ~uint32_t{0})), scsi::kLbaOutOfRange));
  EXPECT_TRUE(Fails(In(Read16(uint64_t{1} << 55, 1)), scsi::kLbaOutOfRange));
  EXPECT_TRUE(Fails(In(Read10(0xffff'ffff, 0xffff)), scsi::kLbaOutOfRange));
}

TEST(ScsiDiskTest, DurableBitIsKeptForWritesOnly) {
  Cdb write = Read10(0, 8, 0x2a);
  EXPECT_FALSE(Out(write).durable);
  write[1] = 0x08;
  EXPECT_TRUE(Out(write).durable);
  Cdb read = Read10(0, 8);
  read[1] = 0x08;
  EXPECT_FALSE(In(read).durable);
  write[1] = 0x20;  // protection information
  EXPECT_TRUE(Fails(Out(write), scsi::kInvalidFieldInCdb));
}

// bad:P5 (direction mismatch, transfer length)
TEST(ScsiDiskTest, TransferThatDoesNotFitItsBuffersIsMalformed) {
  for (const ScsiOutcome& outcome :
       {Out(Read10(0, 8)), In(Read10(0, 8, 0x2a)), None(Read10(0, 8)),
        In(Read10(0, 8), 4095), In(Read10(0, 8), 0),
        Out({0x12, 0, 0, 0, 36, 0}), Out(Read10(0, 0, 0x25))}) {
    EXPECT_TRUE(Fails(outcome, scsi::kInvalidFieldInCdb));
    EXPECT_TRUE(outcome.malformed);
  }
  // More buffer than the command needs is fine.
  EXPECT_TRUE(Does(In(Read10(0, 8), 8192), BlockOp::kRead, 0, 4096));
}

TEST(ScsiDiskTest, ReadOnlyDiskIsWriteProtected) {
  DiskModel model = Model();
  model.read_only = true;
  EXPECT_TRUE(Fails(Out(model, Read10(0, 8, 0x2a)), scsi::kWriteProtected));
  EXPECT_TRUE(Fails(Out(model, Read16(0, 8, 0x93)), scsi::kWriteProtected));
  EXPECT_TRUE(Fails(Out(model, Read10(0, 24, 0x42)), scsi::kWriteProtected));
  EXPECT_TRUE(Does(In(model, Read10(0, 8)), BlockOp::kRead, 0, 4096));
}

TEST(ScsiDiskTest, SynchronizeCacheFlushesAndVerifyChecksTheRange) {
  for (const Cdb& cdb : {Read10(0, 0, 0x35), Read16(0, 0, 0x91)}) {
    const ScsiOutcome outcome = None(cdb);
    EXPECT_EQ(outcome.kind, ScsiOutcome::Kind::kBlock);
    EXPECT_EQ(outcome.op, BlockOp::kFlush);
    EXPECT_EQ(outcome.range_count, 0u);
  }
  EXPECT_TRUE(Fails(None(Read10(kBlocks, 1, 0x35)), scsi::kLbaOutOfRange));
  EXPECT_TRUE(Good(None(Read10(0, 16, 0x2f)), 0));
  EXPECT_TRUE(Fails(None(Read10(kBlocks, 1, 0x2f)), scsi::kLbaOutOfRange));
  Cdb compare = Read10(0, 16, 0x2f);
  compare[1] = 0x02;
  EXPECT_TRUE(Fails(None(compare), scsi::kInvalidFieldInCdb));
}

// -- UNMAP and WRITE SAME ----------------------------------------------------

std::vector<uint8_t> UnmapList(
    const std::vector<std::pair<uint64_t, uint32_t>>& ranges) {
  std::vector<uint8_t> list(8 + 16 * ranges.size());
  scsi::StoreBe16(static_cast<uint16_t>(list.size() - 2), &list[0]);
  scsi::StoreBe16(static_cast<uint16_t>(list.size() - 8), &list[2]);
  for (size_t i = 0; i < ranges.size(); ++i) {
    scsi::StoreBe64(ranges[i].first, &list[8 + 16 * i]);
    scsi::StoreBe32(ranges[i].second, &list[16 + 16 * i]);
  }
  return list;
}

ScsiOutcome RunUnmap(const std::vector<uint8_t>& list) {
  const auto bytes = static_cast<uint32_t>(list.size());
  const Cdb cdb = Read10(0, static_cast<uint16_t>(bytes), 0x42);
  const ScsiCommand command = {
      .cdb = cdb, .direction = DataDirection::kOut, .transfer_bytes = bytes};
  const size_t wanted = ScsiDisk::ParameterBytes(command);
  EXPECT_LE(wanted, kParameterBytesMax);
  return Out(cdb, bytes, absl::MakeConstSpan(list).first(wanted));
}

TEST(ScsiDiskTest, UnmapNamesEachRange) {
  EXPECT_TRUE(
      Does(RunUnmap(UnmapList({{8, 16}})), BlockOp::kDiscard, 4096, 8192));
  const ScsiOutcome three = RunUnmap(UnmapList({{0, 1}, {100, 0}, {200, 2}}));
  ASSERT_EQ(three.range_count, 2u);
  EXPECT_EQ(three.ranges()[1].offset_bytes, 200u * 512);
  EXPECT_TRUE(Good(RunUnmap(UnmapList({})), 0));
  EXPECT_TRUE(Good(Out(Read10(0, 0, 0x42), 0), 0));
  EXPECT_EQ(RunUnmap(UnmapList(std::vector<std::pair<uint64_t, uint32_t>>(
                         kUnmapDescriptorsMax, {7, 1})))
                .range_count,
            kUnmapDescriptorsMax);
}

TEST(ScsiDiskTest, UnmapListsThatLieAreRefused) {
  EXPECT_TRUE(
      Fails(RunUnmap(UnmapList({{0, 1}, {kBlocks, 1}})), scsi::kLbaOutOfRange));
  EXPECT_TRUE(
      Fails(RunUnmap(UnmapList({{~uint64_t{0}, 2}})), scsi::kLbaOutOfRange));
  EXPECT_TRUE(
      Fails(RunUnmap(UnmapList(std::vector<std::pair<uint64_t, uint32_t>>(
                kUnmapDescriptorsMax + 1, {7, 1}))),
            scsi::kInvalidFieldInParameters));
  // Far longer than what is copied.
  EXPECT_TRUE(Fails(
      RunUnmap(
          UnmapList(std::vector<std::pair<uint64_t, uint32_t>>(1000, {7, 1}))),
      scsi::kInvalidFieldInParameters));
  std::vector<uint8_t> list = UnmapList({{8, 16}});
  scsi::StoreBe16(17, &list[2]);
  EXPECT_TRUE(Fails(RunUnmap(list), scsi::kParameterListLengthError));
  EXPECT_TRUE(Fails(RunUnmap(std::vector<uint8_t>(7)),
                    scsi::kParameterListLengthError));
  // CDB says 24 bytes, the buffer has 8.
  EXPECT_TRUE(Fails(Out(Read10(0, 24, 0x42), 8, std::vector<uint8_t>(8)),
                    scsi::kInvalidFieldInCdb));
  Cdb anchor = Read10(0, 24, 0x42);
  anchor[1] = 1;
  EXPECT_TRUE(Fails(Out(anchor, 24), scsi::kInvalidFieldInCdb));
  DiskModel large = Model();
  large.size_bytes = uint64_t{1} << 50;
  const std::vector<uint8_t> long_range =
      UnmapList({{0, kDiscardBlocksMax + 1}});
  EXPECT_TRUE(Fails(Out(large, Read10(0, 24, 0x42), 24, long_range),
                    scsi::kInvalidFieldInParameters));
}

TEST(ScsiDiskTest, WriteSameOfZeroesIsADiscard) {
  std::vector<uint8_t> block(512);
  EXPECT_TRUE(Does(Out(Read16(8, 16, 0x93), 512, block), BlockOp::kDiscard,
                   4096, 8192));
  Cdb unmap = Read16(8, 16, 0x93);
  unmap[1] = 0x08;
  EXPECT_TRUE(Does(Out(unmap, 512, block), BlockOp::kDiscard, 4096, 8192));
  Cdb without_data = Read16(8, 16, 0x93);
  without_data[1] = 0x01;
  EXPECT_TRUE(Does(None(without_data), BlockOp::kDiscard, 4096, 8192));

  block[511] = 1;
  EXPECT_TRUE(
      Fails(Out(Read16(8, 16, 0x93), 512, block), scsi::kInvalidFieldInCdb));
  block[511] = 0;
  EXPECT_TRUE(
      Fails(Out(Read16(8, 0, 0x93), 512, block), scsi::kInvalidFieldInCdb));
  EXPECT_TRUE(Fails(Out(Read16(kBlocks - 1, 2, 0x93), 512, block),
                    scsi::kLbaOutOfRange));
  EXPECT_TRUE(
      Out(Read16(8, 16, 0x93), 511, absl::MakeConstSpan(block).first(511))
          .malformed);
  EXPECT_TRUE(None(Read16(8, 16, 0x93)).malformed);
}

TEST(ScsiDiskTest, DiskWithoutDiscardDoesNotKnowUnmapAndWriteSame) {
  DiskModel model = Model();
  model.can_discard = false;
  EXPECT_TRUE(Fails(Out(model, Read10(0, 24, 0x42), 24), scsi::kInvalidOpcode));
  EXPECT_TRUE(Fails(Out(model, Read16(0, 8, 0x93)), scsi::kInvalidOpcode));
}

// -- Hostile CDBs ------------------------------------------------------------

// bad:P5
TEST(ScsiDiskTest, EveryOperationCodeAndCdbLengthHasAnAnswer) {
  for (int op = 0; op < 256; ++op) {
    for (size_t bytes = 0; bytes <= 16; ++bytes) {
      for (const uint8_t fill : {uint8_t{0x00}, uint8_t{0xff}}) {
        Cdb cdb(bytes, fill);
        if (bytes > 0) cdb[0] = static_cast<uint8_t>(op);
        for (const ScsiOutcome& outcome : {In(cdb), Out(cdb), None(cdb)}) {
          if (outcome.kind == ScsiOutcome::Kind::kBlock) {
            for (const ByteRange& range : outcome.ranges()) {
              ASSERT_LE(range.offset_bytes + range.length_bytes, kBlocks * 512);
            }
          } else if (outcome.status == scsi::Status::kGood) {
            ASSERT_LE(outcome.data_bytes, outcome.data.size());
          } else {
            ASSERT_NE(outcome.sense.key, 0);
          }
        }
      }
    }
  }
}

TEST(ScsiDiskTest, UnknownOperationsAreIllegalRequests) {
  EXPECT_TRUE(Fails(None({0x1d, 0, 0, 0, 0, 0}), scsi::kInvalidOpcode));
  EXPECT_TRUE(Fails(In(Cdb(16, 0x7f)), scsi::kInvalidOpcode));
  EXPECT_TRUE(Fails(In(Cdb(16, 0xff)), scsi::kInvalidOpcode));
  Cdb maintenance_in(12);
  maintenance_in[0] = 0xa3;
  EXPECT_TRUE(Fails(In(maintenance_in), scsi::kInvalidOpcode));
  // The CDB ends before its group's length.
  EXPECT_TRUE(In({0x28, 0, 0, 0, 0, 0}).malformed);
}

TEST(ScsiDiskTest, ErrorsOfTheBackendBecomeSense) {
  EXPECT_EQ(ScsiDisk::SenseForError(BlockOp::kRead, EIO),
            scsi::kUnrecoveredReadError);
  EXPECT_EQ(ScsiDisk::SenseForError(BlockOp::kWrite, EIO), scsi::kWriteError);
  EXPECT_EQ(ScsiDisk::SenseForError(BlockOp::kWrite, ENOSPC),
            scsi::kSpaceAllocationFailed);
  EXPECT_EQ(ScsiDisk::SenseForError(BlockOp::kFlush, EBADF),
            scsi::kInternalTargetFailure);
}

}  // namespace
}  // namespace ferrybus::vsp
