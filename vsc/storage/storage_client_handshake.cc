// SPDX-License-Identifier: MIT

// StorageClient's handshake, in the order of Linux's hv_storvsc, and the
// commands that find out what the disk is.

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ferrybus/vsc/storage/srb_packet.h"
#include "ferrybus/vsc/storage/storage_client.h"

namespace ferrybus::vsc {
namespace {

using vstor::Operation;

constexpr uint16_t kVersions[] = {vstor::kVersionWin10, vstor::kVersionWin8_1,
                                  vstor::kVersionWin8};

// What this driver sends at most, whatever the host allows.
constexpr uint32_t kTransferBytesCap = 4u << 20;
constexpr uint32_t kPageBytes = ringbuffer::kPageBytes;

constexpr uint32_t kInquiryBytes = 36;
constexpr uint32_t kCapacityBytes = 32;
constexpr uint32_t kLimitsBytes = 64;

constexpr uint8_t kInquiryCdb[] = {0x12, 0, 0, 0, kInquiryBytes, 0};
constexpr uint8_t kCapacityCdb[] = {0x9e, scsi::kReadCapacity16Action,
                                    0,    0,
                                    0,    0,
                                    0,    0,
                                    0,    0,
                                    0,    0,
                                    0,    kCapacityBytes,
                                    0,    0};
constexpr uint8_t kLimitsCdb[] = {0x12, 1, 0xb0, 0, kLimitsBytes, 0};

// The step's SRB; an empty CDB for the steps before.
struct StepCommand {
  absl::Span<const uint8_t> cdb;
  uint32_t bytes = 0;
};

vstor::Packet MakeOperation(Operation operation) {
  vstor::Packet packet = {};
  packet.operation = operation;
  packet.flags = vstor::kFlagRequestCompletion;
  return packet;
}

}  // namespace

void StorageClient::OnOpened(ClientChannel& channel) {
  channel_ = &channel;
  disk_ = StorageClientDisk();
  version_index_ = 0;
  can_unmap_ = false;
  Enter(Step::kBegin);
}

void StorageClient::Enter(Step step) {
  step_ = step;
  if (step == Step::kReady) {
    events_->OnReady(disk_);
    return;
  }
  SendStep();
}

void StorageClient::SendStep() {
  absl::Span<const GuestBuffer> buffers;
  const vstor::Packet packet = StepPacket(&buffers);
  const SendResult sent = channel_->Send(
      {.payload = absl::MakeConstSpan(
           reinterpret_cast<const std::byte*>(&packet), sizeof(packet)),
       .buffers = buffers,
       .tag = kStepTag});
  switch (sent) {
    case SendResult::kOk:
      step_in_flight_ = true;
      channel_->Flush();
      return;
    case SendResult::kFull:
      return;  // OnRoom() tries again
    case SendResult::kNotSupported:
    case SendResult::kTooLarge:
      Fail(absl::InternalError(
          "storage client: the channel's ring is too small for 64 bytes"));
      return;
    case SendResult::kClosed:
      return;  // OnClosed() follows
  }
}

vstor::Packet StorageClient::StepPacket(
    absl::Span<const GuestBuffer>* buffers) {
  StepCommand command;
  switch (step_) {
    case Step::kBegin:
      return MakeOperation(Operation::kBeginInitialization);
    case Step::kVersion: {
      vstor::Packet packet = MakeOperation(Operation::kQueryProtocolVersion);
      vstor::SetBody(vstor::ProtocolVersion{kVersions[version_index_], 0},
                     packet);
      return packet;
    }
    case Step::kProperties:
      return MakeOperation(Operation::kQueryProperties);
    case Step::kInquiry:
      command = {kInquiryCdb, kInquiryBytes};
      break;
    case Step::kCapacity:
      command = {kCapacityCdb, kCapacityBytes};
      break;
    case Step::kLimits:
      command = {kLimitsCdb, kLimitsBytes};
      break;
    default:
      return MakeOperation(Operation::kEndInitialization);
  }
  step_transfer_bytes_ = command.bytes;
  step_buffer_ = {options_.scratch.gpa, command.bytes};
  *buffers = absl::MakeConstSpan(&step_buffer_, 1);
  return MakeSrbPacket(command.cdb, vstor::kDataIn, command.bytes);
}

void StorageClient::OnStepAnswer(absl::Span<const std::byte> reply) {
  const std::optional<vstor::Packet> answer = ReadAnswer(reply);
  if (!answer.has_value()) {
    ++bad_answers_;
    Fail(absl::InvalidArgumentError(absl::StrCat(
        "storage client: handshake step ", static_cast<int>(step_),
        ": the host's answer of ", reply.size(),
        " bytes is not a completion packet of ", sizeof(vstor::Packet))));
    return;
  }
  if (step_ >= Step::kInquiry) {
    OnStepData(*answer);
  } else {
    OnStepPacket(*answer);
  }
}

void StorageClient::OnStepPacket(const vstor::Packet& answer) {
  const bool good = answer.status == vstor::kStatusSuccess;
  if (!good && step_ == Step::kVersion &&
      version_index_ + 1 < std::size(kVersions)) {
    ++version_index_;
    SendStep();
    return;
  }
  if (!good) {
    Fail(absl::FailedPreconditionError(absl::StrCat(
        "storage client: handshake step ", static_cast<int>(step_),
        " refused by the host with status 0x", absl::Hex(answer.status))));
    return;
  }
  switch (step_) {
    case Step::kBegin:
      Enter(Step::kVersion);
      return;
    case Step::kVersion:
      disk_.protocol_version = kVersions[version_index_];
      Enter(Step::kProperties);
      return;
    case Step::kProperties: {
      const auto properties = vstor::GetBody<vstor::ChannelProperties>(answer);
      const uint32_t bytes =
          std::min(properties.max_transfer_bytes, kTransferBytesCap) /
          kPageBytes * kPageBytes;
      if (bytes == 0) {
        Fail(absl::InvalidArgumentError(absl::StrCat(
            "storage client: the host allows transfers of ",
            properties.max_transfer_bytes, " bytes, less than a page")));
        return;
      }
      disk_.max_transfer_bytes = bytes;
      Enter(Step::kEnd);
      return;
    }
    default:
      Enter(Step::kInquiry);
      return;
  }
}

void StorageClient::OnStepData(const vstor::Packet& answer) {
  const StorageIoResult result = InterpretSrb(answer, step_transfer_bytes_);
  if (result.status == StorageIoStatus::kBadAnswer) ++bad_answers_;
  if (result.status != StorageIoStatus::kOk) {
    // A disk without the limits page can be used, without UNMAP.
    if (step_ == Step::kLimits &&
        result.status == StorageIoStatus::kCheckCondition) {
      Enter(Step::kReady);
      return;
    }
    Fail(absl::UnavailableError(
        absl::StrCat("storage client: step ", static_cast<int>(step_),
                     " ended with srb status 0x", absl::Hex(result.srb_status),
                     ", sense key ", result.sense.key)));
    return;
  }
  // Copied first: the host goes on sharing this memory.
  uint8_t copy[kLimitsBytes] = {};
  std::memcpy(copy, options_.scratch_memory, result.transferred_bytes);
  const auto data = absl::MakeConstSpan(copy, result.transferred_bytes);
  switch (step_) {
    case Step::kInquiry:
      TakeInquiry(data);
      return;
    case Step::kCapacity:
      TakeCapacity(data);
      return;
    default:
      TakeLimits(data);
      return;
  }
}

void StorageClient::TakeInquiry(absl::Span<const uint8_t> data) {
  if (data.size() < kInquiryBytes || data[0] != 0x00) {
    Fail(absl::NotFoundError(absl::StrCat(
        "storage client: LUN 0 is no connected disk (INQUIRY gave ",
        data.size(), " bytes, device type 0x",
        absl::Hex(data.empty() ? 0xff : data[0]), ")")));
    return;
  }
  std::copy_n(data.begin(), kInquiryBytes, disk_.inquiry.begin());
  Enter(Step::kCapacity);
}

void StorageClient::TakeCapacity(absl::Span<const uint8_t> data) {
  if (data.size() < kCapacityBytes) {
    Fail(absl::InvalidArgumentError(
        absl::StrCat("storage client: capacity of ", data.size(),
                     " bytes, must be ", kCapacityBytes)));
    return;
  }
  const uint64_t last_block = scsi::LoadBe64(&data[0]);
  const uint32_t block_bytes = scsi::LoadBe32(&data[8]);
  const bool power_of_two = (block_bytes & (block_bytes - 1)) == 0;
  if (block_bytes < 512 || block_bytes > kPageBytes || !power_of_two ||
      last_block >= std::numeric_limits<uint64_t>::max() / block_bytes) {
    Fail(absl::InvalidArgumentError(absl::StrCat(
        "storage client: the host's disk of ", last_block, " + 1 blocks of ",
        block_bytes, " bytes cannot be; blocks must have 512 to 4096 bytes")));
    return;
  }
  disk_.block_count = last_block + 1;
  disk_.block_bytes = block_bytes;
  can_unmap_ = (data[14] & 0x80) != 0;
  Enter(can_unmap_ ? Step::kLimits : Step::kReady);
}

void StorageClient::TakeLimits(absl::Span<const uint8_t> data) {
  if (data.size() >= kLimitsBytes && data[1] == 0xb0) {
    disk_.max_unmap_bytes =
        uint64_t{scsi::LoadBe32(&data[20])} * disk_.block_bytes;
  }
  Enter(Step::kReady);
}

void StorageClient::Fail(const absl::Status& status) {
  step_ = Step::kFailed;
  events_->OnFailed(status);
}

}  // namespace ferrybus::vsc
