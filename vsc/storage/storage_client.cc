// SPDX-License-Identifier: MIT

#include "ferrybus/vsc/storage/storage_client.h"

#include <cstring>
#include <optional>
#include <utility>

#include "ferrybus/vsc/storage/srb_packet.h"

namespace ferrybus::vsc {
namespace {

// An UNMAP parameter list with one descriptor, and the room it has in scratch
// memory.
constexpr uint32_t kUnmapListBytes = 24;
constexpr uint32_t kUnmapSlotBytes = 32;

absl::Span<const std::byte> AsBytes(const vstor::Packet& packet) {
  return absl::MakeConstSpan(reinterpret_cast<const std::byte*>(&packet),
                             sizeof(packet));
}

// 16-byte CDB with a block range.
std::array<uint8_t, 16> RangeCdb(scsi::Op op, uint64_t block, uint32_t blocks) {
  std::array<uint8_t, 16> cdb = {};
  cdb[0] = static_cast<uint8_t>(op);
  scsi::StoreBe64(block, &cdb[2]);
  scsi::StoreBe32(blocks, &cdb[10]);
  return cdb;
}

}  // namespace

StorageClient::StorageClient(Events* events,
                             const StorageClientOptions& options)
    : events_(events), options_(options), entries_(options.queue_depth) {
  for (uint32_t i = options.queue_depth; i > 0; --i) free_.push_back(i - 1);
  const uint32_t unmap_slots = options.scratch.byte_count / kUnmapSlotBytes;
  for (uint32_t i = unmap_slots; i > 0; --i) free_unmap_slots_.push_back(i - 1);
}

// -- Requests ----------------------------------------------------------------

StorageStart StorageClient::Read(uint64_t offset_bytes,
                                 absl::Span<const GuestBuffer> buffers,
                                 uint64_t cookie) {
  return Transfer(scsi::Op::kRead16, offset_bytes, buffers, cookie,
                  /*durable=*/false);
}

StorageStart StorageClient::Write(uint64_t offset_bytes,
                                  absl::Span<const GuestBuffer> buffers,
                                  uint64_t cookie, bool durable) {
  return Transfer(scsi::Op::kWrite16, offset_bytes, buffers, cookie, durable);
}

StorageStart StorageClient::Transfer(scsi::Op op, uint64_t offset_bytes,
                                     absl::Span<const GuestBuffer> buffers,
                                     uint64_t cookie, bool durable) {
  if (!ready()) return StorageStart::kNotReady;
  uint64_t bytes = 0;
  for (const GuestBuffer& buffer : buffers) bytes += buffer.byte_count;
  if (bytes > disk_.max_transfer_bytes || !InRange(offset_bytes, bytes)) {
    return StorageStart::kInvalid;
  }
  Entry* entry = Acquire(cookie);
  if (entry == nullptr) return StorageStart::kFull;
  const uint64_t block = offset_bytes / disk_.block_bytes;
  const auto blocks = static_cast<uint32_t>(bytes / disk_.block_bytes);
  std::array<uint8_t, 16> cdb = RangeCdb(op, block, blocks);
  if (durable) cdb[1] = 0x08;
  entry->transfer_bytes = static_cast<uint32_t>(bytes);
  entry->must_transfer_all = true;
  entry->packet = MakeSrbPacket(
      cdb, op == scsi::Op::kRead16 ? vstor::kDataIn : vstor::kDataOut,
      entry->transfer_bytes);
  entry->buffers.assign(buffers.begin(), buffers.end());
  return Start(*entry);
}

StorageStart StorageClient::Flush(uint64_t cookie) {
  if (!ready()) return StorageStart::kNotReady;
  Entry* entry = Acquire(cookie);
  if (entry == nullptr) return StorageStart::kFull;
  entry->packet = MakeSrbPacket(RangeCdb(scsi::Op::kSynchronizeCache16, 0, 0),
                                vstor::kDataNone, 0);
  return Start(*entry);
}

StorageStart StorageClient::Unmap(uint64_t offset_bytes, uint64_t length_bytes,
                                  uint64_t cookie) {
  if (!ready()) return StorageStart::kNotReady;
  if (length_bytes > disk_.max_unmap_bytes ||
      !InRange(offset_bytes, length_bytes)) {
    return StorageStart::kInvalid;
  }
  Entry* entry = nullptr;
  if (free_unmap_slots_.empty() || (entry = Acquire(cookie)) == nullptr) {
    user_waits_ = true;
    return StorageStart::kFull;
  }
  const uint32_t slot = free_unmap_slots_.back();
  free_unmap_slots_.pop_back();
  uint8_t list[kUnmapListBytes] = {};
  scsi::StoreBe16(kUnmapListBytes - 2, &list[0]);
  scsi::StoreBe16(16, &list[2]);
  scsi::StoreBe64(offset_bytes / disk_.block_bytes, &list[8]);
  scsi::StoreBe32(static_cast<uint32_t>(length_bytes / disk_.block_bytes),
                  &list[16]);
  std::memcpy(options_.scratch_memory + size_t{slot} * kUnmapSlotBytes, list,
              sizeof(list));
  std::array<uint8_t, 10> cdb = {};
  cdb[0] = static_cast<uint8_t>(scsi::Op::kUnmap);
  cdb[8] = kUnmapListBytes;
  entry->unmap_slot = static_cast<int32_t>(slot);
  entry->transfer_bytes = kUnmapListBytes;
  entry->packet = MakeSrbPacket(cdb, vstor::kDataOut, kUnmapListBytes);
  entry->buffers.push_back(
      {options_.scratch.gpa + size_t{slot} * kUnmapSlotBytes, kUnmapListBytes});
  return Start(*entry);
}

void StorageClient::Publish() {
  if (channel_ != nullptr) channel_->Flush();
}

bool StorageClient::InRange(uint64_t offset_bytes,
                            uint64_t length_bytes) const {
  return length_bytes > 0 && offset_bytes % disk_.block_bytes == 0 &&
         length_bytes % disk_.block_bytes == 0 &&
         offset_bytes <= disk_.size_bytes() &&
         length_bytes <= disk_.size_bytes() - offset_bytes;
}

StorageClient::Entry* StorageClient::Acquire(uint64_t cookie) {
  if (free_.empty()) {
    user_waits_ = true;
    return nullptr;
  }
  Entry& entry = entries_[free_.back()];
  free_.pop_back();
  entry.used = true;
  entry.cookie = cookie;
  entry.must_transfer_all = false;
  entry.transfer_bytes = 0;
  entry.unmap_slot = -1;
  entry.buffers.clear();
  return &entry;
}

// In order: what waits for the channel already goes first.
StorageStart StorageClient::Start(Entry& entry) {
  const auto index = static_cast<uint32_t>(&entry - entries_.data());
  if (!waiting_.empty()) {
    waiting_.push_back(index);
    return StorageStart::kOk;
  }
  switch (Send(entry)) {
    case SendResult::kOk:
      return StorageStart::kOk;
    case SendResult::kFull:
      waiting_.push_back(index);
      return StorageStart::kOk;
    case SendResult::kNotSupported:
    case SendResult::kTooLarge:
      Release(entry);
      return StorageStart::kInvalid;
    case SendResult::kClosed:
      Release(entry);
      return StorageStart::kNotReady;
  }
  return StorageStart::kNotReady;
}

SendResult StorageClient::Send(const Entry& entry) {
  return channel_->Send(
      {.payload = AsBytes(entry.packet),
       .buffers = entry.buffers,
       .tag = static_cast<uint64_t>(&entry - entries_.data())});
}

void StorageClient::Release(Entry& entry) {
  entry.used = false;
  if (entry.unmap_slot >= 0) {
    free_unmap_slots_.push_back(static_cast<uint32_t>(entry.unmap_slot));
  }
  free_.push_back(static_cast<uint32_t>(&entry - entries_.data()));
}

void StorageClient::Finish(Entry& entry, const StorageIoResult& result) {
  const uint64_t cookie = entry.cookie;
  Release(entry);
  events_->OnIoDone(cookie, result);
  if (ready() && std::exchange(user_waits_, false)) events_->OnRoom();
}

void StorageClient::OnIoAnswer(Entry& entry,
                               absl::Span<const std::byte> reply) {
  StorageIoResult result;
  result.status = StorageIoStatus::kBadAnswer;
  if (const std::optional<vstor::Packet> answer = ReadAnswer(reply)) {
    result = InterpretSrb(*answer, entry.transfer_bytes);
  }
  if (result.status == StorageIoStatus::kOk && entry.must_transfer_all &&
      result.transferred_bytes != entry.transfer_bytes) {
    result.status = StorageIoStatus::kHostError;
  }
  if (result.status == StorageIoStatus::kBadAnswer) ++bad_answers_;
  Finish(entry, result);
}

// -- Driver ------------------------------------------------------------------

void StorageClient::OnCompletion(uint64_t tag,
                                 absl::Span<const std::byte> reply) {
  if (tag == kStepTag && std::exchange(step_in_flight_, false)) {
    OnStepAnswer(reply);
    return;
  }
  if (tag >= entries_.size() || !entries_[tag].used) {
    ++bad_answers_;
    return;
  }
  OnIoAnswer(entries_[tag], reply);
}

void StorageClient::OnRoom() {
  const bool handshake = step_ > Step::kClosed && step_ < Step::kReady;
  if (handshake && !step_in_flight_) SendStep();
  while (!waiting_.empty()) {
    Entry& entry = entries_[waiting_.front()];
    const SendResult sent = Send(entry);
    // After kClosed comes OnClosed(), which ends them all.
    if (sent == SendResult::kFull || sent == SendResult::kClosed) return;
    waiting_.pop_front();
    if (sent == SendResult::kOk) continue;
    StorageIoResult result;
    result.status = StorageIoStatus::kHostError;
    Finish(entry, result);
  }
}

void StorageClient::OnClosed() {
  step_ = Step::kClosed;
  step_in_flight_ = false;
  channel_ = nullptr;
  waiting_.clear();
  user_waits_ = false;
  for (Entry& entry : entries_) {
    if (!entry.used) continue;
    StorageIoResult result;
    result.status = StorageIoStatus::kClosed;
    Finish(entry, result);
  }
}

}  // namespace ferrybus::vsc
