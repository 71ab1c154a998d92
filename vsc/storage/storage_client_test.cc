// SPDX-License-Identifier: MIT

// The client against a scripted host: the handshake's words, and answers that
// a hostile host might give.

#include "ferrybus/vsc/storage/storage_client.h"

#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "ferrybus/channel/protocols/scsi.h"
#include "ferrybus/channel/protocols/vstor.h"
#include "ferrybus/vsc/storage/fake_client_channel.h"
#include "gtest/gtest.h"

namespace ferrybus::vsc {
namespace {

using vstor::Operation;

constexpr uint64_t kScratchGpa = 0x10000;

class StorageClientTest : public testing::Test, public StorageClient::Events {
 protected:
  StorageClientTest() : scratch_(4096) { Make(256); }

  void Make(uint32_t depth) {
    StorageClientOptions options;
    options.queue_depth = depth;
    options.scratch = {kScratchGpa, 4096};
    options.scratch_memory = scratch_.data();
    client_ = std::make_unique<StorageClient>(this, options);
  }

  void OnReady(const StorageClientDisk&) override { ++ready_; }
  void OnFailed(const absl::Status& status) override { failure_ = status; }
  void OnIoDone(uint64_t cookie, const StorageIoResult& result) override {
    done_.emplace_back(cookie, result);
    if (on_done_) on_done_();
  }
  void OnRoom() override { ++rooms_; }

  FakeClientChannel::Sent Take() {
    if (channel_.sent.empty()) {
      ADD_FAILURE() << "nothing was sent";
      return {};
    }
    FakeClientChannel::Sent sent = channel_.sent.front();
    channel_.sent.pop_front();
    return sent;
  }
  void AnswerBytes(uint64_t tag, const vstor::Packet& packet,
                   size_t bytes = sizeof(vstor::Packet)) {
    client_->OnCompletion(
        tag, absl::MakeConstSpan(reinterpret_cast<const std::byte*>(&packet),
                                 bytes));
  }
  // Answers the oldest request; `edit` spoils the answer.
  void Answer(uint32_t status = 0,
              const std::function<void(vstor::Packet&)>& edit = {}) {
    const FakeClientChannel::Sent sent = Take();
    vstor::Packet answer = sent.packet;
    answer.operation = Operation::kCompleteIo;
    answer.status = status;
    if (sent.packet.operation == Operation::kExecuteSrb) {
      auto srb = vstor::GetBody<vstor::Srb>(answer);
      srb.srb_status = vstor::kSrbSuccess;
      srb.sense_bytes = 0;
      vstor::SetBody(srb, answer);
    }
    if (edit) edit(answer);
    AnswerBytes(sent.tag, answer);
  }
  void AnswerSrb(const std::function<void(vstor::Srb&)>& edit) {
    Answer(0, [&](vstor::Packet& packet) {
      auto srb = vstor::GetBody<vstor::Srb>(packet);
      edit(srb);
      vstor::SetBody(srb, packet);
    });
  }
  void AnswerProperties(uint32_t max_transfer_bytes = 1 << 20) {
    Answer(0, [&](vstor::Packet& packet) {
      vstor::ChannelProperties properties = {};
      properties.max_transfer_bytes = max_transfer_bytes;
      vstor::SetBody(properties, packet);
    });
  }
  void PutCapacity(uint64_t last_block, uint32_t block_bytes,
                   bool can_unmap = true) {
    uint8_t data[32] = {};
    scsi::StoreBe64(last_block, &data[0]);
    scsi::StoreBe32(block_bytes, &data[8]);
    data[14] = can_unmap ? 0x80 : 0;
    std::memcpy(scratch_.data(), data, sizeof(data));
  }
  void GoToProperties() {
    client_->OnOpened(channel_);
    Answer();  // BEGIN_INITIALIZATION
    Answer();  // QUERY_PROTOCOL_VERSION
  }
  void GoToCapacity() {
    GoToProperties();
    AnswerProperties();
    Answer();  // END_INITIALIZATION
    std::memset(scratch_.data(), 0, 64);
    Answer();  // INQUIRY
  }
  void GoToReady() {
    GoToCapacity();
    PutCapacity(999, 512);
    Answer();
    uint8_t limits[64] = {0, 0xb0, 0, 60};
    scsi::StoreBe32(100, &limits[20]);
    std::memcpy(scratch_.data(), limits, sizeof(limits));
    Answer();
    ASSERT_TRUE(client_->ready());
  }

  std::vector<std::byte> scratch_;
  FakeClientChannel channel_;
  std::unique_ptr<StorageClient> client_;
  int ready_ = 0;
  int rooms_ = 0;
  absl::Status failure_;
  std::vector<std::pair<uint64_t, StorageIoResult>> done_;
  std::function<void()> on_done_;
};

constexpr GuestBuffer kPage[] = {{0x40000, 4096}};

// -- Handshake ---------------------------------------------------------------

// vector:P9 (the payload)
TEST_F(StorageClientTest, SpeaksLinuxsHandshakeInItsOrder) {
  client_->OnOpened(channel_);
  uint8_t begin[64] = {7, 0, 0, 0, 1};
  EXPECT_EQ(std::memcmp(&channel_.sent.front().packet, begin, 64), 0);
  Answer();
  EXPECT_EQ(channel_.sent.front().packet.operation,
            Operation::kQueryProtocolVersion);
  Answer();
  EXPECT_EQ(channel_.sent.front().packet.operation,
            Operation::kQueryProperties);
  AnswerProperties();
  EXPECT_EQ(channel_.sent.front().packet.operation,
            Operation::kEndInitialization);
  Answer();
  EXPECT_EQ(channel_.sent.front().packet.operation, Operation::kExecuteSrb);
  EXPECT_EQ(channel_.sent.front().buffers[0].gpa, kScratchGpa);
  EXPECT_EQ(channel_.flushes, 5);
  EXPECT_FALSE(client_->ready());
  EXPECT_EQ(client_->Read(0, kPage, 1), StorageStart::kNotReady);
}

TEST_F(StorageClientTest, TriesItsVersionsFromTheNewestDown) {
  client_->OnOpened(channel_);
  Answer();
  for (const int version : {0x0602, 0x0600, 0x0501}) {
    EXPECT_EQ(
        vstor::GetBody<vstor::ProtocolVersion>(channel_.sent.front().packet)
            .major_minor,
        version);
    Answer(vstor::kStatusRevisionMismatch);
  }
  EXPECT_EQ(failure_.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(channel_.sent.empty());
}

TEST_F(StorageClientTest, LearnsTheDisk) {
  GoToReady();
  EXPECT_EQ(ready_, 1);
  EXPECT_EQ(client_->disk().block_count, 1000u);
  EXPECT_EQ(client_->disk().size_bytes(), 512000u);
  EXPECT_EQ(client_->disk().max_unmap_bytes, 51200u);
  EXPECT_EQ(client_->disk().max_transfer_bytes, 1u << 20);
  EXPECT_EQ(client_->disk().protocol_version, vstor::kVersionWin10);
}

TEST_F(StorageClientTest, HandshakeWaitsForRoomInTheRing) {
  channel_.room = 0;
  client_->OnOpened(channel_);
  EXPECT_TRUE(channel_.sent.empty());
  channel_.room = 1;
  client_->OnRoom();
  ASSERT_EQ(channel_.sent.size(), 1u);
  client_->OnRoom();  // not sent twice
  EXPECT_EQ(channel_.sent.size(), 1u);
}

TEST_F(StorageClientTest, PropertiesThatAllowNoPageFail) {
  GoToProperties();
  AnswerProperties(4095);
  EXPECT_EQ(failure_.code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(StorageClientTest, TransferLimitOfTheHostIsCapped) {
  GoToProperties();
  AnswerProperties(~0u);
  EXPECT_EQ(client_->disk().max_transfer_bytes, 4u << 20);
}

TEST_F(StorageClientTest, ShortOrStrangeHandshakeAnswersFail) {
  for (const size_t bytes : {0, 12, 63}) {
    client_->OnClosed();
    channel_.sent.clear();
    failure_ = absl::OkStatus();
    client_->OnOpened(channel_);
    vstor::Packet answer = {};
    answer.operation = Operation::kCompleteIo;
    AnswerBytes(Take().tag, answer, bytes);
    EXPECT_EQ(failure_.code(), absl::StatusCode::kInvalidArgument) << bytes;
  }
  client_->OnClosed();
  client_->OnOpened(channel_);
  Answer(0, [](vstor::Packet& packet) {
    packet.operation = Operation::kRemoveDevice;
  });
  EXPECT_EQ(failure_.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(client_->bad_answers(), 4u);
}

TEST_F(StorageClientTest, CapacitiesThatCannotBeFail) {
  const std::pair<uint64_t, uint32_t> bad[] = {{~uint64_t{0}, 512},
                                               {uint64_t{1} << 55, 512},
                                               {999, 0},
                                               {999, 256},
                                               {999, 8192},
                                               {999, 520}};
  for (const auto& [last_block, block_bytes] : bad) {
    client_->OnClosed();
    channel_.sent.clear();
    failure_ = absl::OkStatus();
    GoToCapacity();
    PutCapacity(last_block, block_bytes);
    Answer();
    EXPECT_EQ(failure_.code(), absl::StatusCode::kInvalidArgument)
        << last_block << " " << block_bytes;
  }
  client_->OnClosed();
  channel_.sent.clear();
  failure_ = absl::OkStatus();
  GoToCapacity();
  AnswerSrb([](vstor::Srb& srb) { srb.transfer_bytes = 31; });
  EXPECT_EQ(failure_.code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(StorageClientTest, AbsentDiskFails) {
  GoToProperties();
  AnswerProperties();
  Answer();
  scratch_[0] = std::byte{0x7f};
  Answer();
  EXPECT_EQ(failure_.code(), absl::StatusCode::kNotFound);
}

TEST_F(StorageClientTest, InquiryLongerThanItsBufferIsNotRead) {
  GoToProperties();
  AnswerProperties();
  Answer();
  AnswerSrb([](vstor::Srb& srb) { srb.transfer_bytes = 4096; });
  EXPECT_FALSE(failure_.ok());
  EXPECT_EQ(client_->bad_answers(), 1u);
}

// -- Requests ----------------------------------------------------------------

TEST_F(StorageClientTest, ReadBecomesRead16WithTheCallersBuffers) {
  GoToReady();
  ASSERT_EQ(client_->Read(5120, kPage, 77), StorageStart::kOk);
  EXPECT_EQ(client_->in_flight(), 1u);
  const FakeClientChannel::Sent sent = channel_.sent.front();
  const auto srb = vstor::GetBody<vstor::Srb>(sent.packet);
  EXPECT_EQ(srb.length_bytes, 52);
  EXPECT_EQ(srb.cdb_bytes, 16);
  EXPECT_EQ(srb.data_in, vstor::kDataIn);
  EXPECT_EQ(srb.transfer_bytes, 4096u);
  EXPECT_EQ(srb.cdb_or_sense[0], 0x88);
  EXPECT_EQ(scsi::LoadBe64(&srb.cdb_or_sense[2]), 10u);
  EXPECT_EQ(scsi::LoadBe32(&srb.cdb_or_sense[10]), 8u);
  ASSERT_EQ(sent.buffers.size(), 1u);
  EXPECT_EQ(sent.buffers[0].gpa, 0x40000u);
  Answer();
  ASSERT_EQ(done_.size(), 1u);
  EXPECT_EQ(done_[0].first, 77u);
  EXPECT_EQ(done_[0].second.status, StorageIoStatus::kOk);
  EXPECT_EQ(client_->in_flight(), 0u);
}

TEST_F(StorageClientTest, DurableWriteFlushAndUnmap) {
  GoToReady();
  ASSERT_EQ(client_->Write(0, kPage, 1, /*durable=*/true), StorageStart::kOk);
  auto srb = vstor::GetBody<vstor::Srb>(channel_.sent.front().packet);
  EXPECT_EQ(srb.cdb_or_sense[0], 0x8a);
  EXPECT_EQ(srb.cdb_or_sense[1], 0x08);
  EXPECT_EQ(srb.data_in, vstor::kDataOut);
  Answer();
  ASSERT_EQ(client_->Flush(2), StorageStart::kOk);
  EXPECT_TRUE(channel_.sent.front().buffers.empty());
  Answer();
  ASSERT_EQ(client_->Unmap(1024, 4096, 3), StorageStart::kOk);
  const uint64_t offset = channel_.sent.front().buffers[0].gpa - kScratchGpa;
  ASSERT_LE(offset + 24, scratch_.size());
  uint8_t list[24];
  std::memcpy(list, &scratch_[offset], sizeof(list));
  EXPECT_EQ(scsi::LoadBe64(&list[8]), 2u);
  EXPECT_EQ(scsi::LoadBe32(&list[16]), 8u);
  Answer();
  EXPECT_EQ(done_.size(), 3u);
}

TEST_F(StorageClientTest, RangesOutsideTheDiskAreNotSent) {
  GoToReady();
  const GuestBuffer block[] = {{0x40000, 512}};
  const GuestBuffer odd[] = {{0x40000, 513}};
  const GuestBuffer large[] = {{0x40000, 1 << 20}, {0x40000, 512}};
  const GuestBuffer overflow[] = {{0, ~0u}, {0, ~0u}, {0, ~0u}};
  EXPECT_EQ(client_->Read(512000, block, 1), StorageStart::kInvalid);
  EXPECT_EQ(client_->Read(511999, block, 1), StorageStart::kInvalid);
  EXPECT_EQ(client_->Read(~uint64_t{511}, block, 1), StorageStart::kInvalid);
  EXPECT_EQ(client_->Read(0, odd, 1), StorageStart::kInvalid);
  EXPECT_EQ(client_->Read(0, {}, 1), StorageStart::kInvalid);
  EXPECT_EQ(client_->Read(0, large, 1), StorageStart::kInvalid);
  EXPECT_EQ(client_->Read(0, overflow, 1), StorageStart::kInvalid);
  EXPECT_EQ(client_->Unmap(0, 51200 + 512, 1), StorageStart::kInvalid);
  EXPECT_EQ(client_->Unmap(511488, 1024, 1), StorageStart::kInvalid);
  EXPECT_TRUE(channel_.sent.empty());
  EXPECT_EQ(client_->Read(511488, block, 1), StorageStart::kOk);
}

TEST_F(StorageClientTest, HostileAnswersEndTheirRequestOnly) {
  GoToReady();
  using Edit = std::function<void(vstor::Packet&)>;
  const auto srb_edit = [](std::function<void(vstor::Srb&)> edit) {
    return [edit](vstor::Packet& packet) {
      auto srb = vstor::GetBody<vstor::Srb>(packet);
      edit(srb);
      vstor::SetBody(srb, packet);
    };
  };
  const std::pair<StorageIoStatus, Edit> cases[] = {
      {StorageIoStatus::kBadAnswer,
       [](vstor::Packet& p) { p.operation = Operation::kEnumerateBus; }},
      {StorageIoStatus::kBadAnswer,
       srb_edit([](vstor::Srb& s) { s.transfer_bytes = 4097; })},
      {StorageIoStatus::kBadAnswer,
       srb_edit([](vstor::Srb& s) { s.transfer_bytes = ~0u; })},
      {StorageIoStatus::kHostError,
       srb_edit([](vstor::Srb& s) { s.transfer_bytes = 512; })},
      {StorageIoStatus::kHostError,
       srb_edit([](vstor::Srb& s) { s.srb_status = 0; })},
      {StorageIoStatus::kHostError,
       [](vstor::Packet& p) { p.status = 0xc0000001; }},
      {StorageIoStatus::kNoDevice,
       srb_edit([](vstor::Srb& s) { s.srb_status = vstor::kSrbInvalidLun; })},
      {StorageIoStatus::kBusy,
       srb_edit([](vstor::Srb& s) { s.srb_status = vstor::kSrbBusy; })},
      // Sense announced, but not there.
      {StorageIoStatus::kHostError, srb_edit([](vstor::Srb& s) {
         s.srb_status = vstor::kSrbError | vstor::kSrbAutosenseValid;
         s.scsi_status = 2;
       })},
      // Sense too short to name an additional code.
      {StorageIoStatus::kHostError, srb_edit([](vstor::Srb& s) {
         s.srb_status = vstor::kSrbError | vstor::kSrbAutosenseValid;
         s.scsi_status = 2;
         scsi::StoreFixedSense(scsi::kUnrecoveredReadError, s.cdb_or_sense);
         s.sense_bytes = 13;
       })},
      {StorageIoStatus::kCheckCondition, srb_edit([](vstor::Srb& s) {
         s.srb_status = vstor::kSrbError | vstor::kSrbAutosenseValid;
         s.scsi_status = 2;
         s.sense_bytes = 255;  // cut to the 20 that there are
         scsi::StoreFixedSense(scsi::kUnrecoveredReadError, s.cdb_or_sense);
       })},
  };
  for (const auto& [status, edit] : cases) {
    done_.clear();
    ASSERT_EQ(client_->Read(0, kPage, 5), StorageStart::kOk);
    Answer(0, edit);
    ASSERT_EQ(done_.size(), 1u);
    EXPECT_EQ(done_[0].second.status, status) << (&edit - &cases[0].second);
  }
  EXPECT_EQ(done_[0].second.sense, scsi::kUnrecoveredReadError);
  ASSERT_EQ(client_->Read(0, kPage, 5), StorageStart::kOk);
  vstor::Packet answer = {};
  AnswerBytes(Take().tag, answer, 63);
  EXPECT_EQ(done_.back().second.status, StorageIoStatus::kBadAnswer);
  EXPECT_TRUE(client_->ready());
}

TEST_F(StorageClientTest, AnswersThatMatchNothingAreCounted) {
  GoToReady();
  vstor::Packet answer = {};
  for (const uint64_t tag : {uint64_t{0}, uint64_t{256}, ~uint64_t{0}}) {
    AnswerBytes(tag, answer);
  }
  EXPECT_EQ(client_->bad_answers(), 3u);
  EXPECT_TRUE(done_.empty());
}

TEST_F(StorageClientTest, DepthIsTheCallersLimit) {
  Make(2);
  GoToReady();
  EXPECT_EQ(client_->Read(0, kPage, 1), StorageStart::kOk);
  EXPECT_EQ(client_->Read(0, kPage, 2), StorageStart::kOk);
  EXPECT_EQ(client_->Read(0, kPage, 3), StorageStart::kFull);
  EXPECT_EQ(rooms_, 0);
  Answer();
  EXPECT_EQ(rooms_, 1);
  EXPECT_EQ(client_->Read(0, kPage, 3), StorageStart::kOk);
  Answer();
  EXPECT_EQ(rooms_, 1);  // nobody waits
}

TEST_F(StorageClientTest, FullRingKeepsRequestsInOrder) {
  GoToReady();
  channel_.room = 1;
  const auto read = [&](uint64_t i) {
    ASSERT_EQ(client_->Read(i * 512, {{0x40000, 512}}, i), StorageStart::kOk);
  };
  for (uint64_t i = 0; i < 4; ++i) read(i);
  EXPECT_EQ(channel_.sent.size(), 1u);
  // Room without OnRoom() yet: a new request does not overtake.
  channel_.room = 3;
  read(4);
  EXPECT_EQ(channel_.sent.size(), 1u);
  for (uint64_t i = 0; i < 5; ++i) {
    client_->OnRoom();
    const auto srb = vstor::GetBody<vstor::Srb>(channel_.sent.front().packet);
    EXPECT_EQ(scsi::LoadBe64(&srb.cdb_or_sense[2]), i);
    Answer();
  }
  EXPECT_EQ(done_.size(), 5u);
}

TEST_F(StorageClientTest, RequestTooLargeForTheRingIsInvalid) {
  GoToReady();
  channel_.result = SendResult::kTooLarge;
  EXPECT_EQ(client_->Read(0, kPage, 1), StorageStart::kInvalid);
  EXPECT_EQ(client_->in_flight(), 0u);
}

TEST_F(StorageClientTest, ClosingEndsEveryRequest) {
  GoToReady();
  channel_.room = 2;
  for (uint64_t i = 0; i < 4; ++i) {
    ASSERT_EQ(client_->Read(0, kPage, i), StorageStart::kOk);
  }
  // A user that starts again from its callback finds a closed door.
  on_done_ = [&] {
    EXPECT_EQ(client_->Read(0, kPage, 9), StorageStart::kNotReady);
  };
  client_->OnClosed();
  ASSERT_EQ(done_.size(), 4u);
  for (const auto& [cookie, result] : done_) {
    EXPECT_EQ(result.status, StorageIoStatus::kClosed) << cookie;
  }
  EXPECT_EQ(client_->in_flight(), 0u);
  on_done_ = nullptr;
  channel_.sent.clear();
  GoToReady();
}

TEST_F(StorageClientTest, UnmapsAreLimitedByScratchMemory) {
  GoToReady();
  for (int i = 0; i < 128; ++i) {
    ASSERT_EQ(client_->Unmap(0, 512, 1), StorageStart::kOk);
  }
  EXPECT_EQ(client_->Unmap(0, 512, 1), StorageStart::kFull);
  EXPECT_EQ(client_->Read(0, kPage, 1), StorageStart::kOk);
  Answer();
  EXPECT_EQ(rooms_, 1);
  EXPECT_EQ(client_->Unmap(0, 512, 1), StorageStart::kOk);
}

}  // namespace
}  // namespace ferrybus::vsc
