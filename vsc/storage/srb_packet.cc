// SPDX-License-Identifier: MIT

#include "ferrybus/vsc/storage/srb_packet.h"

#include <algorithm>
#include <cstring>

namespace ferrybus::vsc {
namespace {

constexpr uint32_t kTimeoutSeconds = 60;

// Fixed format only: nothing else was asked for.
bool ReadSense(const vstor::Srb& srb, scsi::Sense* sense) {
  const size_t bytes =
      std::min<size_t>(srb.sense_bytes, sizeof(srb.cdb_or_sense));
  const uint8_t* data = srb.cdb_or_sense;
  if (bytes < 14 || (data[0] & 0x7e) != 0x70) return false;
  *sense = {static_cast<uint8_t>(data[2] & 0x0f), data[12], data[13]};
  return true;
}

}  // namespace

vstor::Packet MakeSrbPacket(absl::Span<const uint8_t> cdb, uint8_t data_in,
                            uint32_t transfer_bytes) {
  vstor::Srb srb = {};
  srb.length_bytes = sizeof(srb);
  srb.cdb_bytes = static_cast<uint8_t>(cdb.size());
  srb.sense_bytes = vstor::kSenseBytesMax;
  srb.data_in = data_in;
  srb.transfer_bytes = transfer_bytes;
  std::memcpy(srb.cdb_or_sense, cdb.data(), cdb.size());
  srb.queue_tag = vstor::kSrbUntagged;
  srb.queue_action = vstor::kSrbSimpleTagRequest;
  srb.srb_flags = vstor::kSrbFlagQueueActionEnable |
                  vstor::kSrbFlagNoQueueFreeze |
                  vstor::kSrbFlagDisableSynchTransfer;
  if (data_in == vstor::kDataIn) srb.srb_flags |= vstor::kSrbFlagDataIn;
  if (data_in == vstor::kDataOut) srb.srb_flags |= vstor::kSrbFlagDataOut;
  srb.timeout_s = kTimeoutSeconds;
  vstor::Packet packet = {};
  packet.operation = vstor::Operation::kExecuteSrb;
  packet.flags = vstor::kFlagRequestCompletion;
  vstor::SetBody(srb, packet);
  return packet;
}

std::optional<vstor::Packet> ReadAnswer(absl::Span<const std::byte> reply) {
  vstor::Packet answer;
  if (reply.size() < sizeof(answer)) return std::nullopt;
  std::memcpy(&answer, reply.data(), sizeof(answer));
  if (answer.operation != vstor::Operation::kCompleteIo) return std::nullopt;
  return answer;
}

StorageIoResult InterpretSrb(const vstor::Packet& answer,
                             uint32_t transfer_bytes) {
  const auto srb = vstor::GetBody<vstor::Srb>(answer);
  StorageIoResult result;
  result.srb_status = srb.srb_status;
  if (srb.transfer_bytes > transfer_bytes) {
    result.status = StorageIoStatus::kBadAnswer;
    return result;
  }
  result.transferred_bytes = srb.transfer_bytes;
  const uint8_t code = srb.srb_status & vstor::kSrbCodeMask;
  const scsi::Status status{srb.scsi_status};
  const bool has_sense = (srb.srb_status & vstor::kSrbAutosenseValid) != 0 &&
                         ReadSense(srb, &result.sense);
  if (code == vstor::kSrbSuccess && status == scsi::Status::kGood &&
      answer.status == vstor::kStatusSuccess) {
    result.status = StorageIoStatus::kOk;
  } else if (code == vstor::kSrbInvalidLun) {
    result.status = StorageIoStatus::kNoDevice;
  } else if (code == vstor::kSrbBusy || status == scsi::Status::kBusy) {
    result.status = StorageIoStatus::kBusy;
  } else if (status == scsi::Status::kCheckCondition && has_sense) {
    result.status = StorageIoStatus::kCheckCondition;
  } else {
    result.status = StorageIoStatus::kHostError;
  }
  return result;
}

}  // namespace ferrybus::vsc
