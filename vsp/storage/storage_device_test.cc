// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/storage/storage_device.h"

#include <poll.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "ferrybus/channel/protocols/scsi.h"
#include "ferrybus/channel/protocols/vstor.h"
#include "ferrybus/vsp/storage/fake_storage_guest.h"
#include "ferrybus/vsp/storage/memory_backend.h"
#include "ferrybus/vsp/storage/storage_device_test_util.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

using vstor::Operation;

// -- Handshake ---------------------------------------------------------------

// vector:P9 vector:P10 (the payloads; descriptors are the channel's)
TEST_F(StorageDeviceTest, AnswersBeginInitializationAsLinuxExpects) {
  std::byte request[64] = {};
  request[0] = std::byte{7};
  request[4] = std::byte{1};
  std::byte answer[64] = {};
  answer[0] = std::byte{1};
  const uint64_t id = guest_.Send(*device_, request);
  ASSERT_EQ(guest_.reply(id).size(), sizeof(answer));
  EXPECT_EQ(std::memcmp(guest_.reply(id).data(), answer, sizeof(answer)), 0);
}

TEST_F(StorageDeviceTest, HandshakeEndsReadyAndTellsItsLimits) {
  EXPECT_EQ(device_->phase(), VstorPhase::kStart);
  Initialize();
  EXPECT_EQ(device_->phase(), VstorPhase::kReady);
  const auto properties =
      vstor::GetBody<vstor::ChannelProperties>(guest_.Reply(2));
  EXPECT_EQ(properties.max_transfer_bytes, 1u << 20);
  EXPECT_EQ(properties.flags, 0u);
  EXPECT_EQ(properties.max_channels, 0u);
  EXPECT_EQ(device_->counters().refused, 0u);
}

TEST_F(StorageDeviceTest, RefusesAVersionAndTakesTheNext) {
  guest_.Send(*device_,
              FakeStorageGuest::MakeOperation(Operation::kBeginInitialization));
  vstor::Packet query =
      FakeStorageGuest::MakeOperation(Operation::kQueryProtocolVersion);
  for (const int bad : {0x0000, 0x0603, 0x0200, 0xffff}) {
    vstor::SetBody(vstor::ProtocolVersion{static_cast<uint16_t>(bad), 0},
                   query);
    EXPECT_EQ(guest_.Reply(guest_.Send(*device_, query)).status,
              vstor::kStatusRevisionMismatch);
    EXPECT_EQ(device_->phase(), VstorPhase::kBegun);
  }
  vstor::SetBody(vstor::ProtocolVersion{vstor::kVersionWin8, 0}, query);
  EXPECT_EQ(guest_.Reply(guest_.Send(*device_, query)).status, 0u);
  EXPECT_EQ(device_->phase(), VstorPhase::kVersionAgreed);
}

// bad:P1
TEST_F(StorageDeviceTest, OperationsOutOfTurnFailAndChangeNothing) {
  const std::vector<Operation> in_order = {
      Operation::kBeginInitialization, Operation::kQueryProtocolVersion,
      Operation::kQueryProperties, Operation::kEndInitialization,
      Operation::kExecuteSrb};
  for (size_t step = 0; step < in_order.size(); ++step) {
    const VstorPhase phase = device_->phase();
    for (uint32_t op = 0; op < 20; ++op) {
      if (Operation{op} == in_order[step]) continue;
      // Once ready, SRBs and resets are always in turn.
      if (step == 4 && op >= 4 && op <= 6) continue;
      vstor::Packet packet = FakeStorageGuest::MakeOperation(Operation{op});
      vstor::SetBody(vstor::ProtocolVersion{vstor::kVersionWin10, 0}, packet);
      const uint64_t id = guest_.Send(*device_, packet);
      ASSERT_TRUE(guest_.answered(id)) << step << " " << op;
      EXPECT_NE(guest_.Reply(id).status, 0u) << step << " " << op;
      EXPECT_EQ(guest_.SrbReply(id).srb_status == vstor::kSrbSuccess, false);
      EXPECT_EQ(device_->phase(), phase);
    }
    vstor::Packet packet = FakeStorageGuest::MakeOperation(in_order[step]);
    vstor::SetBody(vstor::ProtocolVersion{vstor::kVersionWin10, 0}, packet);
    if (step < 4) {
      EXPECT_EQ(guest_.Reply(guest_.Send(*device_, packet)).status, 0u);
    }
  }
  EXPECT_EQ(guest_.failed() + guest_.dropped(), 0u);
}

TEST_F(StorageDeviceTest, MultiChannelIsNotOffered) {
  Initialize();
  const uint64_t id = guest_.Send(
      *device_,
      FakeStorageGuest::MakeOperation(Operation::kCreateMultiChannels));
  EXPECT_EQ(guest_.Reply(id).status, vstor::kStatusNotSupported);
}

// bad:P1 (short payloads)
TEST_F(StorageDeviceTest, ShortPayloadsGetAFailureWholePacketLong) {
  Initialize();
  const vstor::Packet packet =
      FakeStorageGuest::MakeSrb(kTestUnitReady, vstor::kDataNone, 0);
  const auto bytes = absl::MakeConstSpan(
      reinterpret_cast<const std::byte*>(&packet), sizeof(packet));
  for (size_t size = 0; size < sizeof(packet); ++size) {
    const uint64_t id = guest_.Send(*device_, bytes.first(size));
    ASSERT_EQ(guest_.reply(id).size(), sizeof(packet));
    EXPECT_EQ(guest_.Reply(id).operation, Operation::kCompleteIo);
    EXPECT_NE(guest_.Reply(id).status, 0u);
    EXPECT_EQ(guest_.SrbReply(id).srb_status, vstor::kSrbInvalidRequest);
  }
  EXPECT_EQ(device_->in_flight(), 0u);
}

TEST_F(StorageDeviceTest, ReopenedChannelStartsFromTheBeginning) {
  Initialize();
  device_->OnClosed();
  ASSERT_TRUE(device_->OnOpened(FakeStorageGuest::Channel(), {}).ok());
  EXPECT_EQ(device_->phase(), VstorPhase::kStart);
  Initialize();
}

// -- Commands ----------------------------------------------------------------

TEST_F(StorageDeviceTest, AnswersInquiryIntoScatteredBuffers) {
  Initialize();
  const vstor::Srb srb = Run(kInquiry, vstor::kDataIn,
                             {guest_.Buffer(4090, 6), guest_.Buffer(8192, 10),
                              guest_.Buffer(100, 100)});
  EXPECT_TRUE(IsGood(srb, 36));
  EXPECT_EQ(std::memcmp(guest_.at(8194), "FERRYBUS", 8), 0);
  EXPECT_EQ(*guest_.at(100 + 20), std::byte{0});  // nothing behind byte 36
}

TEST_F(StorageDeviceTest, ReadsAndWritesGuestBuffers) {
  Initialize();
  EXPECT_TRUE(IsGood(Run(Read10(16, 8), vstor::kDataIn,
                         {guest_.Buffer(0, 1000), guest_.Buffer(4096, 3096)}),
                     4096));
  EXPECT_EQ(std::memcmp(guest_.at(0), &disk_[16 * 512], 1000), 0);
  EXPECT_EQ(std::memcmp(guest_.at(4096), &disk_[16 * 512 + 1000], 3096), 0);

  std::memset(guest_.at(0), 0x99, 4096);
  EXPECT_TRUE(IsGood(
      Run(Write10(100, 8), vstor::kDataOut, {guest_.Buffer(0, 4096)}), 4096));
  EXPECT_EQ(disk_[100 * 512], std::byte{0x99});
  EXPECT_EQ(disk_[108 * 512 - 1], std::byte{0x99});
  EXPECT_NE(disk_[108 * 512], std::byte{0x99});
}

TEST_F(StorageDeviceTest, TransferUsesOnlyWhatTheSrbSays) {
  Initialize();
  // Guest buffers larger than the transfer, the transfer larger than the CDB.
  vstor::Packet packet =
      FakeStorageGuest::MakeSrb(Read10(0, 1), vstor::kDataIn, 1024);
  const vstor::Srb srb = RunPacket(packet, {guest_.Buffer(0, 8192)});
  EXPECT_TRUE(IsGood(srb, 512));
  EXPECT_EQ(std::memcmp(guest_.at(0), &disk_[0], 512), 0);
  EXPECT_EQ(*guest_.at(512), std::byte{0});
}

TEST_F(StorageDeviceTest, FlushDurableWriteAndUnmapReachTheBackend) {
  Initialize();
  EXPECT_TRUE(IsGood(Run(kFlush, vstor::kDataNone), 0));
  EXPECT_EQ(backend_->flushes(), 1u);
  std::vector<uint8_t> durable = Write10(0, 8);
  durable[1] = 0x08;
  EXPECT_TRUE(
      IsGood(Run(durable, vstor::kDataOut, {guest_.Buffer(0, 4096)}), 4096));
  EXPECT_EQ(backend_->durable_writes(), 1u);

  uint8_t list[40] = {0, 38, 0, 32};
  scsi::StoreBe64(10, &list[8]);
  scsi::StoreBe32(2, &list[16]);
  scsi::StoreBe64(20, &list[24]);
  scsi::StoreBe32(3, &list[32]);
  std::memcpy(guest_.at(500), list, sizeof(list));
  const uint64_t id =
      guest_.ExecuteSrb(*device_, Transfer10(0x42, 0, 40), vstor::kDataOut,
                        {guest_.Buffer(500, 3), guest_.Buffer(503, 37)});
  // Once taken, the list is no longer looked at.
  std::memset(guest_.at(500), 0xff, sizeof(list));
  device_->Poll();
  EXPECT_FALSE(guest_.answered(id));  // the second range follows the first
  device_->Poll();
  ASSERT_TRUE(guest_.answered(id));
  EXPECT_TRUE(IsGood(guest_.SrbReply(id), 40));
  EXPECT_NE(disk_[9 * 512 + 1], std::byte{0});
  for (const size_t block : {10, 11, 20, 22}) {
    EXPECT_EQ(disk_[block * 512 + 1], std::byte{0}) << block;
  }
  EXPECT_NE(disk_[23 * 512 + 1], std::byte{0});
}

TEST_F(StorageDeviceTest, BackendErrorsBecomeSenseData) {
  Initialize();
  backend_->FailNext(EIO);
  EXPECT_TRUE(IsCheckCondition(
      Run(Read10(0, 8), vstor::kDataIn, {guest_.Buffer(0, 4096)}),
      vstor::kSrbError, scsi::kUnrecoveredReadError));
  backend_->FailNext(ENOSPC);
  EXPECT_TRUE(IsCheckCondition(
      Run(Write10(0, 8), vstor::kDataOut, {guest_.Buffer(0, 4096)}),
      vstor::kSrbError, scsi::kSpaceAllocationFailed));
  EXPECT_EQ(device_->counters().io_errors, 2u);
  EXPECT_TRUE(IsGood(Run(kTestUnitReady, vstor::kDataNone), 0));
}

// -- Malformed SRBs ----------------------------------------------------------

// bad:P5
TEST_F(StorageDeviceTest, CdbLengthsThatCannotBeAreInvalidRequests) {
  Initialize();
  for (const int length : {0, 17, 20, 52, 255}) {
    vstor::Packet packet =
        FakeStorageGuest::MakeSrb(kTestUnitReady, vstor::kDataNone, 0);
    auto srb = vstor::GetBody<vstor::Srb>(packet);
    srb.cdb_bytes = static_cast<uint8_t>(length);
    vstor::SetBody(srb, packet);
    EXPECT_TRUE(IsCheckCondition(RunPacket(packet), vstor::kSrbInvalidRequest,
                                 scsi::kInvalidFieldInCdb))
        << length;
  }
}

// bad:P5
TEST_F(StorageDeviceTest, TransferLongerThanTheGuestsBuffersIsAnOverrun) {
  Initialize();
  vstor::Packet packet =
      FakeStorageGuest::MakeSrb(Read10(0, 8), vstor::kDataIn, 4096);
  EXPECT_TRUE(IsCheckCondition(RunPacket(packet, {guest_.Buffer(0, 4095)}),
                               vstor::kSrbDataOverrun,
                               scsi::kInvalidFieldInCdb));
  packet = FakeStorageGuest::MakeSrb(Read10(0, 8), vstor::kDataIn, ~0u);
  EXPECT_TRUE(IsCheckCondition(RunPacket(packet, {guest_.Buffer(0, 4096)}),
                               vstor::kSrbInvalidRequest,
                               scsi::kInvalidFieldInCdb));
  EXPECT_EQ(*guest_.at(0), std::byte{0});
}

// bad:P5
TEST_F(StorageDeviceTest, DirectionMismatchIsAnInvalidRequest) {
  Initialize();
  const std::vector<iovec> buffers = {guest_.Buffer(0, 4096)};
  const MemoryDisk before = disk_;
  for (const int data_in : {0, 2, 3, 255}) {
    EXPECT_TRUE(IsCheckCondition(
        Run(Read10(0, 8), static_cast<uint8_t>(data_in), buffers),
        vstor::kSrbInvalidRequest, scsi::kInvalidFieldInCdb));
  }
  for (const int data_in : {1, 2, 3, 255}) {
    EXPECT_TRUE(IsCheckCondition(
        Run(Write10(0, 8), static_cast<uint8_t>(data_in), buffers),
        vstor::kSrbInvalidRequest, scsi::kInvalidFieldInCdb));
  }
  EXPECT_TRUE(IsCheckCondition(Run(kInquiry, vstor::kDataOut, buffers),
                               vstor::kSrbInvalidRequest,
                               scsi::kInvalidFieldInCdb));
  EXPECT_TRUE(disk_ == before);
  EXPECT_EQ(device_->counters().refused, 9u);
}

// bad:P6
TEST_F(StorageDeviceTest, TransferWithoutExternalDataIsAnOverrun) {
  Initialize();
  const vstor::Packet packet =
      FakeStorageGuest::MakeSrb(Read10(0, 8), vstor::kDataIn, 4096);
  EXPECT_TRUE(IsCheckCondition(RunPacket(packet), vstor::kSrbDataOverrun,
                               scsi::kInvalidFieldInCdb));
  EXPECT_TRUE(IsCheckCondition(RunPacket(packet, {guest_.Buffer(0, 0)}),
                               vstor::kSrbDataOverrun,
                               scsi::kInvalidFieldInCdb));
}

TEST_F(StorageDeviceTest, BuffersOutsideGuestMemoryAreAnInvalidRequest) {
  Initialize();
  guest_.RefuseMapping(true);
  EXPECT_TRUE(IsCheckCondition(
      Run(Read10(0, 8), vstor::kDataIn, {guest_.Buffer(0, 4096)}),
      vstor::kSrbInvalidRequest, scsi::kInvalidFieldInCdb));
}

TEST_F(StorageDeviceTest, MoreBuffersThanASystemCallTakesAreRefused) {
  Initialize();
  std::vector<iovec> crumbs;
  for (size_t i = 0; i < 2048; ++i) crumbs.push_back(guest_.Buffer(i * 2, 2));
  EXPECT_TRUE(IsCheckCondition(Run(Read10(0, 8), vstor::kDataIn, crumbs),
                               vstor::kSrbInvalidRequest,
                               scsi::kInternalTargetFailure));
}

// bad:P5 (LUN absent)
TEST_F(StorageDeviceTest, AbsentLunsSaySoAndInquiryStillSucceeds) {
  Initialize();
  for (int field = 0; field < 3; ++field) {
    vstor::Packet packet =
        FakeStorageGuest::MakeSrb(Read10(0, 8), vstor::kDataIn, 4096);
    auto srb = vstor::GetBody<vstor::Srb>(packet);
    (field == 0 ? srb.path : field == 1 ? srb.target : srb.lun) = 1;
    // Linux would remove the LUN of that number on path 0.
    const uint8_t refusal =
        field == 0 ? vstor::kSrbError : vstor::kSrbInvalidLun;
    vstor::SetBody(srb, packet);
    EXPECT_TRUE(IsCheckCondition(RunPacket(packet, {guest_.Buffer(0, 4096)}),
                                 refusal, scsi::kLunNotSupported));
    std::memcpy(srb.cdb_or_sense, kInquiry.data(), kInquiry.size());
    srb.cdb_bytes = 6;
    vstor::SetBody(srb, packet);
    EXPECT_TRUE(IsGood(RunPacket(packet, {guest_.Buffer(0, 4096)}), 36));
    EXPECT_EQ(*guest_.at(0), std::byte{0x7f});
    srb.cdb_or_sense[1] = 1;  // its vital product data do not exist
    vstor::SetBody(srb, packet);
    EXPECT_TRUE(IsCheckCondition(RunPacket(packet, {guest_.Buffer(0, 4096)}),
                                 refusal, scsi::kLunNotSupported));
  }
}

// What Linux asks next of a target whose INQUIRY succeeds.
TEST_F(StorageDeviceTest, AbsentTargetsReportNoLuns) {
  Initialize();
  vstor::Packet packet =
      FakeStorageGuest::MakeSrb(Read10(0, 8), vstor::kDataIn, 4096);
  auto srb = vstor::GetBody<vstor::Srb>(packet);
  srb.path = 1;
  std::memset(srb.cdb_or_sense, 0, sizeof(srb.cdb_or_sense));
  srb.cdb_or_sense[0] = static_cast<uint8_t>(scsi::Op::kReportLuns);
  scsi::StoreBe32(4096, &srb.cdb_or_sense[6]);
  srb.cdb_bytes = 12;
  vstor::SetBody(srb, packet);
  std::memset(guest_.at(0), 0xff, 9);
  EXPECT_TRUE(IsGood(RunPacket(packet, {guest_.Buffer(0, 4096)}), 8));
  EXPECT_EQ(scsi::LoadBe32(reinterpret_cast<const uint8_t*>(guest_.at(0))), 0u);
  EXPECT_EQ(*guest_.at(8), std::byte{0xff});
}

// -- Batches, depth and resets -----------------------------------------------

TEST_F(StorageDeviceTest, SubmitsABatchAtOnce) {
  Initialize();
  guest_.HoldBatch(device_.get());
  for (uint32_t i = 0; i < 64; ++i) {
    guest_.ExecuteSrb(*device_, Read10(i * 8, 8), vstor::kDataIn,
                      {guest_.Buffer(i * 4096, 4096)});
  }
  EXPECT_EQ(backend_->submit_calls(), 0u);
  guest_.EndBatch();
  EXPECT_EQ(backend_->submit_calls(), 1u);
  pollfd ready = {device_->wait_fd(), POLLIN, 0};
  EXPECT_EQ(poll(&ready, 1, 0), 1);
  EXPECT_EQ(device_->Poll(), 64u);
  EXPECT_EQ(guest_.outstanding(), 0u);
  EXPECT_EQ(poll(&ready, 1, 0), 0);
  EXPECT_EQ(std::memcmp(guest_.at(0), &disk_[0], 64 * 4096), 0);
}

TEST_F(StorageDeviceTest, RequestsBeyondTheBackendsDepthWaitInOrder) {
  Make({.queue_depth = 4}, {});
  Initialize();
  std::vector<uint64_t> ids;
  for (uint32_t i = 0; i < 10; ++i) {
    ids.push_back(guest_.ExecuteSrb(*device_, Read10(i, 1), vstor::kDataIn,
                                    {guest_.Buffer(i * 512, 512)}));
  }
  EXPECT_EQ(device_->in_flight(), 10u);
  EXPECT_EQ(device_->Poll(), 4u);
  EXPECT_TRUE(guest_.answered(ids[3]));
  EXPECT_FALSE(guest_.answered(ids[4]));
  EXPECT_EQ(device_->Poll(), 4u);
  EXPECT_EQ(device_->Poll(), 2u);
  EXPECT_EQ(guest_.outstanding(), 0u);
  EXPECT_EQ(std::memcmp(guest_.at(0), &disk_[0], 10 * 512), 0);
}

TEST_F(StorageDeviceTest, NextRangeOfAnUnmapQueuesBehindWhatWaits) {
  Make({.queue_depth = 1}, {});
  Initialize();
  backend_->Hold(true);
  uint8_t list[40] = {0, 38, 0, 32};
  scsi::StoreBe32(1, &list[16]);
  scsi::StoreBe32(1, &list[32]);
  std::memcpy(guest_.at(0), list, sizeof(list));
  const uint64_t unmap =
      guest_.ExecuteSrb(*device_, Transfer10(0x42, 0, 40), vstor::kDataOut,
                        {guest_.Buffer(0, 40)});
  const uint64_t read = guest_.ExecuteSrb(
      *device_, Read10(0, 1), vstor::kDataIn, {guest_.Buffer(512, 512)});
  for (int i = 0; i < 2; ++i) {
    backend_->ReleaseOne();
    device_->Poll();
  }
  EXPECT_TRUE(guest_.answered(read));
  EXPECT_FALSE(guest_.answered(unmap));
  backend_->Hold(false);
  device_->Poll();
  EXPECT_TRUE(guest_.answered(unmap));
}

TEST_F(StorageDeviceTest, RequestsBeyondItsTableAreBusy) {
  Make({}, {.requests_max = 2});
  Initialize();
  backend_->Hold(true);
  for (int i = 0; i < 2; ++i) {
    guest_.ExecuteSrb(*device_, Read10(0, 1), vstor::kDataIn,
                      {guest_.Buffer(0, 512)});
  }
  const uint64_t id = guest_.ExecuteSrb(*device_, kTestUnitReady);
  ASSERT_TRUE(guest_.answered(id));
  EXPECT_EQ(guest_.SrbReply(id).srb_status, vstor::kSrbBusy);
  EXPECT_EQ(guest_.SrbReply(id).scsi_status, 0x08);
  backend_->Hold(false);
  device_->Poll();
  EXPECT_EQ(guest_.outstanding(), 0u);
}

TEST_F(StorageDeviceTest, ResetIsAnsweredAfterTheRequestsBeforeIt) {
  Initialize();
  backend_->Hold(true);
  const uint64_t first = guest_.ExecuteSrb(
      *device_, Write10(0, 1), vstor::kDataOut, {guest_.Buffer(0, 512)});
  const uint64_t reset = guest_.Send(
      *device_, FakeStorageGuest::MakeOperation(Operation::kResetBus));
  const uint64_t later = guest_.ExecuteSrb(
      *device_, Write10(8, 1), vstor::kDataOut, {guest_.Buffer(0, 512)});
  device_->Poll();
  EXPECT_FALSE(guest_.answered(reset));
  backend_->ReleaseOne();
  device_->Poll();
  EXPECT_TRUE(guest_.answered(first));
  ASSERT_TRUE(guest_.answered(reset));
  EXPECT_EQ(guest_.Reply(reset).status, 0u);
  EXPECT_FALSE(guest_.answered(later));
  // With nothing before it, at once.
  backend_->Hold(false);
  device_->Poll();
  EXPECT_TRUE(guest_.answered(guest_.Send(
      *device_, FakeStorageGuest::MakeOperation(Operation::kResetLun))));
}

TEST_F(StorageDeviceTest, ClosingKeepsHandlesOnlyForIoThatRuns) {
  Make({.queue_depth = 1}, {});
  Initialize();
  backend_->Hold(true);
  for (uint32_t i = 0; i < 3; ++i) {
    guest_.ExecuteSrb(*device_, Read10(i, 1), vstor::kDataIn,
                      {guest_.Buffer(i * 512, 512)});
  }
  guest_.Send(*device_, FakeStorageGuest::MakeOperation(Operation::kResetBus));
  EXPECT_EQ(guest_.outstanding(), 4u);
  device_->OnClosed();
  EXPECT_EQ(guest_.outstanding(), 1u);
  EXPECT_EQ(device_->in_flight(), 1u);
  backend_->Hold(false);
  device_->Poll();
  EXPECT_EQ(guest_.outstanding(), 0u);
  EXPECT_EQ(guest_.dropped(), 0u);
  EXPECT_EQ(backend_->in_flight(), 0u);
}

TEST(StorageDeviceOptionsTest, AreChecked) {
  MemoryDisk disk(4096);
  const auto code = [&](StorageDeviceOptions options) {
    return StorageDevice::Create(std::make_unique<MemoryBackend>(&disk),
                                 std::move(options))
        .status()
        .code();
  };
  EXPECT_EQ(code({.serial = std::string(33, 'x')}),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.serial = "tab\t"}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.max_transfer_bytes = 0}),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.max_transfer_bytes = 4097}),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.max_transfer_bytes = 4u << 20}),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.requests_max = 0}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.serial = std::string(32, 'x')}), absl::StatusCode::kOk);
}

}  // namespace
}  // namespace ferrybus::vsp
