// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/storage/storage_device.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "ferrybus/vsp/storage/guest_copy.h"

namespace ferrybus::vsp {
namespace {

// REPORT LUNS: a length, and then the list.
constexpr size_t kEmptyLunListBytes = 8;

using vstor::Operation;

// An unaligned transfer of whole pages touches one page more.
constexpr uint32_t kMaxTransferBytesLimit =
    (kIovecsMax - 1) * kPhysicalBlockBytes;

absl::Status CheckOptions(const StorageDeviceOptions& options) {
  const bool printable =
      std::all_of(options.serial.begin(), options.serial.end(), [](char c) {
        return absl::ascii_isprint(static_cast<unsigned char>(c));
      });
  if (!printable || options.serial.size() > kSerialBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "storage device: serial of ", options.serial.size(),
        " bytes must be printable ASCII of at most ", kSerialBytesMax));
  }
  if (options.max_transfer_bytes == 0 ||
      options.max_transfer_bytes % kPhysicalBlockBytes != 0 ||
      options.max_transfer_bytes > kMaxTransferBytesLimit) {
    return absl::InvalidArgumentError(absl::StrCat(
        "storage device: max_transfer_bytes is ", options.max_transfer_bytes,
        ", must be a positive multiple of ", kPhysicalBlockBytes, ", at most ",
        kMaxTransferBytesLimit));
  }
  if (options.requests_max == 0 || options.requests_max > 65536) {
    return absl::InvalidArgumentError(
        absl::StrCat("storage device: requests_max is ", options.requests_max,
                     ", must be 1 to 65536"));
  }
  if (options.sub_channels_max > kSubChannelsMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "storage device: sub_channels_max is ", options.sub_channels_max,
        ", must be at most ", kSubChannelsMax));
  }
  return absl::OkStatus();
}

DiskModel MakeModel(const BlockBackendInfo& info,
                    const StorageDeviceOptions& options) {
  DiskModel model;
  model.size_bytes = info.size_bytes;
  model.read_only = info.read_only;
  model.can_discard = info.can_discard;
  model.max_transfer_bytes = options.max_transfer_bytes;
  model.serial = options.serial;
  model.uuid = options.uuid;
  return model;
}

SrbResult CheckCondition(uint8_t srb_status, const scsi::Sense& sense) {
  SrbResult result;
  result.srb_status = srb_status;
  result.scsi_status = scsi::Status::kCheckCondition;
  result.has_sense = true;
  result.sense = sense;
  return result;
}

// The packet as the guest wrote it; nothing if it is too short.
std::optional<vstor::Packet> ReadPacket(const IncomingPacket& packet) {
  vstor::Packet copy;
  if (packet.payload().size() < sizeof(copy)) return std::nullopt;
  std::memcpy(&copy, packet.payload().data(), sizeof(copy));
  return copy;
}

DataDirection DirectionOf(const vstor::Srb& srb) {
  if (srb.transfer_bytes == 0) return DataDirection::kNone;
  return srb.data_in == vstor::kDataIn ? DataDirection::kIn
                                       : DataDirection::kOut;
}

}  // namespace

absl::StatusOr<std::unique_ptr<StorageDevice>> StorageDevice::Create(
    std::unique_ptr<BlockBackend> backend,
    const StorageDeviceOptions& options) {
  if (absl::Status status = CheckOptions(options); !status.ok()) return status;
  return std::unique_ptr<StorageDevice>(
      new StorageDevice(std::move(backend), options));
}

StorageDevice::StorageDevice(std::unique_ptr<BlockBackend> backend,
                             const StorageDeviceOptions& options)
    : backend_(std::move(backend)),
      options_(options),
      disk_(MakeModel(backend_->info(), options)),
      session_(options.max_transfer_bytes, options.sub_channels_max),
      requests_((options.sub_channels_max + size_t{1}) * options.requests_max),
      restored_(options.sub_channels_max + size_t{1}) {
  for (uint32_t i = 1; i <= options.sub_channels_max; ++i) {
    sub_channels_.emplace_back(this, i);
  }
}

// The backend goes first: it waits for I/O into the buffers of packets that
// the requests still hold.
StorageDevice::~StorageDevice() { backend_.reset(); }

// -- Packets in, answers out -------------------------------------------------

void StorageDevice::ProcessPacketOf(uint32_t channel, IncomingPacket packet) {
  ++counters_.packets;
  Request* request = Acquire(channel, packet);
  if (request != nullptr) {
    Dispatch(*request);
    return;
  }
  // No entry: the channel's quota is larger than the table.
  ++counters_.refused;
  vstor::Packet answer = ReadPacket(packet).value_or(vstor::Packet());
  answer.operation = Operation::kCompleteIo;
  answer.flags = 0;
  auto srb = vstor::GetBody<vstor::Srb>(answer);
  srb.srb_status = vstor::kSrbBusy;
  srb.scsi_status = static_cast<uint8_t>(scsi::Status::kBusy);
  srb.transfer_bytes = 0;
  vstor::SetBody(srb, answer);
  (void)packet.Complete(absl::MakeConstSpan(
      reinterpret_cast<const std::byte*>(&answer), sizeof(answer)));
}

void StorageDevice::ProcessingComplete(size_t count) {
  (void)count;
  FinishResets();
  SubmitEnqueued();
}

absl::Span<StorageDevice::Request> StorageDevice::RequestsOf(uint32_t channel) {
  return absl::MakeSpan(requests_).subspan(
      size_t{channel} * options_.requests_max, options_.requests_max);
}

uint32_t StorageDevice::IndexOf(const Request& request) const {
  return static_cast<uint32_t>(&request - requests_.data());
}

StorageDevice::Request* StorageDevice::Acquire(uint32_t channel,
                                               IncomingPacket& packet) {
  const uint32_t slot = packet.info().slot;
  if (slot >= options_.requests_max) return nullptr;
  Request& request = RequestsOf(channel)[slot];
  if (request.state != Request::State::kFree) return nullptr;
  request.state = Request::State::kWaiting;
  request.abandoned = false;
  request.packet = std::move(packet);
  request.sequence = next_sequence_++;
  request.guest_buffers = {};
  request.saved_result.reset();
  ++in_flight_;
  return &request;
}

void StorageDevice::Finish(Request& request, const vstor::Packet& answer) {
  if (request.state == Request::State::kResetting) --resetting_;
  request.state = Request::State::kFree;
  --in_flight_;
  // The entry is free before the channel may give its slot to another packet.
  IncomingPacket packet = std::move(request.packet);
  (void)packet.Complete(absl::MakeConstSpan(
      reinterpret_cast<const std::byte*>(&answer), sizeof(answer)));
}

void StorageDevice::FinishWithStatus(Request& request, uint32_t status) {
  vstor::Packet answer = {};
  answer.operation = Operation::kCompleteIo;
  answer.status = status;
  if (status != vstor::kStatusSuccess) {
    ++counters_.refused;
    // A guest that takes this for the answer to an SRB sees a failure, too.
    vstor::Srb srb = {};
    srb.srb_status = vstor::kSrbInvalidRequest;
    vstor::SetBody(srb, answer);
  }
  Finish(request, answer);
}

void StorageDevice::FinishSrb(Request& request, const SrbResult& result) {
  vstor::Srb& srb = request.srb;
  srb.srb_status = result.srb_status;
  srb.scsi_status = static_cast<uint8_t>(result.scsi_status);
  srb.transfer_bytes = result.transferred_bytes;
  srb.sense_bytes = 0;
  std::memset(srb.cdb_or_sense, 0, sizeof(srb.cdb_or_sense));
  if (result.has_sense) {
    static_assert(scsi::kFixedSenseBytes <= vstor::kSenseBytesMax);
    srb.srb_status |= vstor::kSrbAutosenseValid;
    srb.sense_bytes = scsi::kFixedSenseBytes;
    scsi::StoreFixedSense(result.sense, srb.cdb_or_sense);
  }
  vstor::Packet answer = {};
  answer.operation = Operation::kCompleteIo;
  vstor::SetBody(srb, answer);
  Finish(request, answer);
}

void StorageDevice::Dispatch(Request& request) {
  const std::optional<vstor::Packet> packet = ReadPacket(request.packet);
  if (!packet.has_value()) {
    FinishWithStatus(request, vstor::kStatusInvalidParameter);
    return;
  }
  switch (packet->operation) {
    case Operation::kExecuteSrb:
      if (!session_.ready()) {
        FinishWithStatus(request, vstor::kStatusInvalidDeviceState);
        return;
      }
      request.srb = vstor::GetBody<vstor::Srb>(*packet);
      ExecuteSrb(request);
      return;
    case Operation::kResetLun:
    case Operation::kResetAdapter:
    case Operation::kResetBus:
      if (!session_.ready()) {
        FinishWithStatus(request, vstor::kStatusInvalidDeviceState);
        return;
      }
      request.state = Request::State::kResetting;
      ++resetting_;
      return;
    default: {
      if (IndexOf(request) >= options_.requests_max) {
        FinishWithStatus(request, vstor::kStatusInvalidDeviceState);
        return;
      }
      const vstor::Packet answer = session_.Answer(*packet);
      if (answer.status != vstor::kStatusSuccess) ++counters_.refused;
      Finish(request, answer);
      return;
    }
  }
}

// -- SRBs --------------------------------------------------------------------

void StorageDevice::ExecuteSrb(Request& request) {
  if (std::optional<SrbResult> refusal = CheckSrb(request)) {
    ++counters_.refused;
    FinishSrb(request, *refusal);
    return;
  }
  const vstor::Srb& srb = request.srb;
  if (srb.path != 0 || srb.target != 0 || srb.lun != 0) {
    AnswerForAbsentLun(request);
    return;
  }
  ScsiCommand command;
  command.cdb = absl::MakeConstSpan(srb.cdb_or_sense, srb.cdb_bytes);
  command.direction = DirectionOf(srb);
  command.transfer_bytes = srb.transfer_bytes;
  std::array<uint8_t, kParameterBytesMax> parameters;
  const size_t parameter_bytes = CopyFromGuest(
      request.guest_buffers,
      absl::MakeSpan(parameters).first(ScsiDisk::ParameterBytes(command)));
  command.parameters = absl::MakeConstSpan(parameters).first(parameter_bytes);
  StartOutcome(request, disk_.Execute(command));
}

std::optional<SrbResult> StorageDevice::CheckSrb(Request& request) {
  const vstor::Srb& srb = request.srb;
  const SrbResult invalid =
      CheckCondition(vstor::kSrbInvalidRequest, scsi::kInvalidFieldInCdb);
  if (srb.cdb_bytes == 0 || srb.cdb_bytes > vstor::kCdbBytesMax) {
    return invalid;
  }
  if (srb.data_in > vstor::kDataNone) return invalid;
  if (srb.transfer_bytes == 0) return std::nullopt;
  if (srb.data_in == vstor::kDataNone ||
      srb.transfer_bytes > options_.max_transfer_bytes) {
    return invalid;
  }
  absl::StatusOr<absl::Span<const iovec>> buffers =
      request.packet.guest_buffers();
  if (!buffers.ok()) return invalid;
  // The SRB may use less than the ranges describe, never more.
  if (TotalBytes(*buffers) < srb.transfer_bytes) {
    return CheckCondition(vstor::kSrbDataOverrun, scsi::kInvalidFieldInCdb);
  }
  request.guest_buffers = *buffers;
  return std::nullopt;
}

// INQUIRY tells the guest that nothing is there, REPORT LUNS that there are
// none.  Both have to succeed: Linux takes any failure of INQUIRY for a success
// with no data, and asks whoever answers it for LUNs.  "Invalid LUN" has it
// remove the LUN of that target and number on path 0, whatever path it had
// asked.
void StorageDevice::AnswerForAbsentLun(Request& request) {
  const vstor::Srb& srb = request.srb;
  const uint8_t* const cdb = srb.cdb_or_sense;
  const bool reads = DirectionOf(srb) == DataDirection::kIn;
  ScsiOutcome outcome;
  size_t allowed = 0;
  if (reads && cdb[0] == static_cast<uint8_t>(scsi::Op::kInquiry) &&
      srb.cdb_bytes >= 6 && (cdb[1] & 0x01) == 0) {
    outcome.data_bytes = FillAbsentInquiry(outcome.data.data());
    allowed = scsi::LoadBe16(&cdb[3]);
  } else if (reads && cdb[0] == static_cast<uint8_t>(scsi::Op::kReportLuns) &&
             srb.cdb_bytes >= 12) {
    outcome.data_bytes = kEmptyLunListBytes;  // zeroes
    allowed = scsi::LoadBe32(&cdb[6]);
  } else {
    FinishSrb(request, CheckCondition(srb.path == 0 ? vstor::kSrbInvalidLun
                                                    : vstor::kSrbError,
                                      scsi::kLunNotSupported));
    return;
  }
  outcome.data_bytes =
      std::min<size_t>({outcome.data_bytes, srb.transfer_bytes, allowed});
  StartOutcome(request, outcome);
}

void StorageDevice::StartOutcome(Request& request, const ScsiOutcome& outcome) {
  if (outcome.kind == ScsiOutcome::Kind::kBlock) {
    request.op = outcome.op;
    request.durable = outcome.durable;
    request.ranges.assign(outcome.ranges().begin(), outcome.ranges().end());
    request.next_range = 0;
    Enqueue(request);
    return;
  }
  if (outcome.status != scsi::Status::kGood) {
    if (outcome.malformed) ++counters_.refused;
    FinishSrb(request,
              CheckCondition(outcome.malformed ? vstor::kSrbInvalidRequest
                                               : vstor::kSrbError,
                             outcome.sense));
    return;
  }
  TakePrefix(request.guest_buffers, outcome.data_bytes, scratch_buffers_);
  CopyToGuest(absl::MakeConstSpan(outcome.data).first(outcome.data_bytes),
              scratch_buffers_);
  SrbResult result;
  result.transferred_bytes = static_cast<uint32_t>(outcome.data_bytes);
  FinishSrb(request, result);
}

// -- Block I/O ---------------------------------------------------------------

// In order of arrival: what waits already goes first.
void StorageDevice::Enqueue(Request& request) {
  if (waiting_.empty() && TryEnqueue(request)) return;
  request.state = Request::State::kWaiting;
  waiting_.push_back(IndexOf(request));
}

// False: the backend is full.
bool StorageDevice::TryEnqueue(Request& request) {
  BlockRequest io;
  io.op = request.op;
  io.durable = request.durable;
  io.cookie = IndexOf(request);
  if (request.op != BlockOp::kFlush) {
    const ByteRange& range = request.ranges[request.next_range];
    io.offset_bytes = range.offset_bytes;
    io.length_bytes = range.length_bytes;
    if (request.op != BlockOp::kDiscard) {
      TakePrefix(request.guest_buffers, range.length_bytes, scratch_buffers_);
      io.buffers = scratch_buffers_;
    }
  }
  switch (backend_->Enqueue(io)) {
    case EnqueueResult::kFull:
      return false;
    case EnqueueResult::kInvalid:
      // More buffers than one system call takes, if the guest cut them small.
      ++counters_.refused;
      FinishSrb(request, CheckCondition(vstor::kSrbInvalidRequest,
                                        scsi::kInternalTargetFailure));
      return true;
    case EnqueueResult::kAccepted:
      request.state = Request::State::kSubmitted;
      enqueued_ = true;
      return true;
  }
  return false;
}

void StorageDevice::OnIoDone(uint32_t index, int32_t result) {
  Request& request = requests_[index];
  if (request.abandoned) {
    FinishWithStatus(request, vstor::kStatusSuccess);
    return;
  }
  if (result < 0) {
    ++counters_.io_errors;
    FinishSrb(request,
              CheckCondition(vstor::kSrbError,
                             ScsiDisk::SenseForError(request.op, -result)));
    return;
  }
  if (request.next_range + 1 < request.ranges.size()) {
    ++request.next_range;
    Enqueue(request);
    return;
  }
  SrbResult good;
  good.transferred_bytes = request.op == BlockOp::kDiscard
                               ? request.srb.transfer_bytes
                               : static_cast<uint32_t>(result);
  FinishSrb(request, good);
}

size_t StorageDevice::Poll() {
  const size_t reaped = backend_->Reap([this](uint64_t cookie, int32_t result) {
    OnIoDone(static_cast<uint32_t>(cookie), result);
  });
  EnqueueWaiting();
  FinishResets();
  SubmitEnqueued();
  return reaped;
}

void StorageDevice::EnqueueWaiting() {
  while (!waiting_.empty()) {
    if (!TryEnqueue(requests_[waiting_.front()])) return;
    waiting_.pop_front();
  }
}

void StorageDevice::SubmitEnqueued() {
  if (!std::exchange(enqueued_, false)) return;
  backend_->SubmitBatch();
}

// A reset is answered once every request that came before it was.
void StorageDevice::FinishResets() {
  if (resetting_ == 0) return;
  uint64_t oldest_io = next_sequence_;
  for (const Request& request : requests_) {
    const bool is_io = request.state == Request::State::kWaiting ||
                       request.state == Request::State::kSubmitted;
    if (is_io) oldest_io = std::min(oldest_io, request.sequence);
  }
  for (Request& request : requests_) {
    if (request.state == Request::State::kResetting &&
        request.sequence < oldest_io) {
      FinishWithStatus(request, vstor::kStatusSuccess);
    }
  }
}

// -- Life of the channel -----------------------------------------------------

absl::Status StorageDevice::OnOpened(ServerChannel& channel,
                                     absl::Span<const std::byte> user_data) {
  (void)channel, (void)user_data;
  session_.Reset();
  return absl::OkStatus();
}

void StorageDevice::OnClosed() {
  session_.Reset();
  CloseChannel(0);
}

// What the backend does not have is given up; the rest ends as its I/O does,
// since until then it may touch guest memory.
void StorageDevice::CloseChannel(uint32_t channel) {
  const absl::Span<Request> closing = RequestsOf(channel);
  const uint32_t first = IndexOf(closing.front());
  waiting_.erase(std::remove_if(waiting_.begin(), waiting_.end(),
                                [&](uint32_t index) {
                                  return index - first < closing.size();
                                }),
                 waiting_.end());
  restored_[channel].clear();
  for (Request& request : closing) {
    if (request.state == Request::State::kFree) continue;
    if (request.state == Request::State::kSubmitted) {
      request.abandoned = true;
    } else {
      FinishWithStatus(request, vstor::kStatusSuccess);
    }
  }
}

}  // namespace ferrybus::vsp
