// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/storage/fake_storage_guest.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/status/status.h"

namespace ferrybus::vsp {
namespace {

using vstor::Operation;

// What the extension of a packet with external data looks like does not
// matter to a device; only that there is one.
constexpr std::byte kExtension[8] = {};

absl::Span<const std::byte> AsBytes(const vstor::Packet& packet) {
  return absl::MakeConstSpan(reinterpret_cast<const std::byte*>(&packet),
                             sizeof(packet));
}

}  // namespace

ServerChannel& FakeStorageGuest::Channel() {
  // Never looked at: the storage device has no use for its channel.
  alignas(64) static std::byte nothing[64];
  return *reinterpret_cast<ServerChannel*>(nothing);
}

iovec FakeStorageGuest::Buffer(size_t offset, size_t bytes) {
  return {memory_.subspan(offset, bytes).data(), bytes};
}

IncomingPacket FakeStorageGuest::NewPacket(absl::Span<const std::byte> payload,
                                           std::vector<iovec> buffers,
                                           uint64_t* id) {
  *id = packets_.size();
  Packet& packet = packets_.emplace_back();
  packet.payload.assign(payload.begin(), payload.end());
  packet.buffers = std::move(buffers);
  packet.in_flight = true;
  if (free_slots_.empty()) {
    packet.info.slot = static_cast<uint32_t>(slot_ids_.size());
    slot_ids_.push_back(*id);
  } else {
    packet.info.slot = free_slots_.back();
    free_slots_.pop_back();
    slot_ids_[packet.info.slot] = *id;
  }
  packet.info.generation = static_cast<uint32_t>(*id + 1);
  packet.info.completion_requested = true;
  packet.info.transaction_id = *id + 1;
  packet.info.payload = packet.payload;
  for (const iovec& buffer : packet.buffers) {
    packet.info.external_bytes += buffer.iov_len;
  }
  if (!packet.buffers.empty()) {
    packet.info.type = ringbuffer::PacketType::kDataUsingGpaDirect;
    packet.info.extension = kExtension;
  }
  ++outstanding_;
  return IncomingPacket(this, &packet.info);
}

uint64_t FakeStorageGuest::Send(Device& device,
                                absl::Span<const std::byte> payload,
                                std::vector<iovec> buffers) {
  uint64_t id = 0;
  device.ProcessPacket(NewPacket(payload, std::move(buffers), &id));
  if (batch_device_ != nullptr) {
    ++batch_packets_;
  } else {
    device.ProcessingComplete(1);
  }
  return id;
}

uint64_t FakeStorageGuest::Send(Device& device, const vstor::Packet& packet,
                                std::vector<iovec> buffers) {
  return Send(device, AsBytes(packet), std::move(buffers));
}

uint64_t FakeStorageGuest::ExecuteSrb(Device& device,
                                      absl::Span<const uint8_t> cdb,
                                      uint8_t data_in,
                                      std::vector<iovec> buffers) {
  uint32_t transfer_bytes = 0;
  for (const iovec& buffer : buffers) {
    transfer_bytes += static_cast<uint32_t>(buffer.iov_len);
  }
  return Send(device, MakeSrb(cdb, data_in, transfer_bytes),
              std::move(buffers));
}

void FakeStorageGuest::HoldBatch(Device* device) { batch_device_ = device; }

void FakeStorageGuest::EndBatch() {
  Device* device = std::exchange(batch_device_, nullptr);
  const size_t count = std::exchange(batch_packets_, 0);
  if (count > 0) device->ProcessingComplete(count);
}

bool FakeStorageGuest::Initialize(Device& device) {
  vstor::Packet version = MakeOperation(Operation::kQueryProtocolVersion);
  vstor::SetBody(vstor::ProtocolVersion{vstor::kVersionWin10, 0}, version);
  for (const vstor::Packet& step :
       {MakeOperation(Operation::kBeginInitialization), version,
        MakeOperation(Operation::kQueryProperties),
        MakeOperation(Operation::kEndInitialization)}) {
    const uint64_t id = Send(device, step);
    if (!answered(id) || Reply(id).status != vstor::kStatusSuccess) {
      return false;
    }
  }
  return true;
}

vstor::Packet FakeStorageGuest::MakeSrb(absl::Span<const uint8_t> cdb,
                                        uint8_t data_in,
                                        uint32_t transfer_bytes) {
  vstor::Srb srb = {};
  srb.length_bytes = sizeof(srb);
  srb.cdb_bytes = static_cast<uint8_t>(cdb.size());
  srb.sense_bytes = vstor::kSenseBytesMax;
  srb.data_in = data_in;
  srb.transfer_bytes = transfer_bytes;
  std::memcpy(srb.cdb_or_sense, cdb.data(),
              std::min(cdb.size(), sizeof(srb.cdb_or_sense)));
  vstor::Packet packet = MakeOperation(Operation::kExecuteSrb);
  vstor::SetBody(srb, packet);
  return packet;
}

vstor::Packet FakeStorageGuest::MakeOperation(Operation operation) {
  vstor::Packet packet = {};
  packet.operation = operation;
  packet.flags = vstor::kFlagRequestCompletion;
  return packet;
}

vstor::Packet FakeStorageGuest::Reply(uint64_t id) const {
  vstor::Packet packet;
  std::memset(&packet, 0xff, sizeof(packet));
  if (packets_[id].reply.size() == sizeof(packet)) {
    std::memcpy(&packet, packets_[id].reply.data(), sizeof(packet));
  }
  return packet;
}

vstor::Srb FakeStorageGuest::SrbReply(uint64_t id) const {
  return vstor::GetBody<vstor::Srb>(Reply(id));
}

IncomingPacket FakeStorageGuest::Adopt(const FakeStorageGuest& from,
                                       uint64_t from_id, uint64_t* id) {
  const Packet& packet = from.packets_[from_id];
  return NewPacket(packet.payload, packet.buffers, id);
}

FakeStorageGuest::Packet* FakeStorageGuest::End(uint32_t slot,
                                                uint32_t generation) {
  if (slot >= slot_ids_.size()) return nullptr;
  Packet& packet = packets_[slot_ids_[slot]];
  if (!packet.in_flight || packet.info.generation != generation) return nullptr;
  packet.in_flight = false;
  --outstanding_;
  free_slots_.push_back(slot);
  return &packet;
}

CompleteResult FakeStorageGuest::CompletePacket(
    uint32_t slot, uint32_t generation, absl::Span<const std::byte> payload) {
  Packet* packet = End(slot, generation);
  if (packet == nullptr) return CompleteResult::kGone;
  packet->reply.assign(payload.begin(), payload.end());
  packet->answered = true;
  return CompleteResult::kOk;
}

void FakeStorageGuest::DropPacket(uint32_t slot, uint32_t generation) {
  if (End(slot, generation) != nullptr) ++dropped_;
}

void FakeStorageGuest::FailPacket(uint32_t slot, uint32_t generation,
                                  std::string_view reason) {
  (void)reason;
  if (End(slot, generation) != nullptr) ++failed_;
}

absl::StatusOr<absl::Span<const iovec>> FakeStorageGuest::MapGuestBuffers(
    uint32_t slot) {
  if (refuse_mapping_) {
    return absl::OutOfRangeError("a page lies outside guest RAM");
  }
  return absl::MakeConstSpan(packets_[slot_ids_[slot]].buffers);
}

}  // namespace ferrybus::vsp
