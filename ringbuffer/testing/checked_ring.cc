// SPDX-License-Identifier: MIT

#include "ferrybus/ringbuffer/testing/checked_ring.h"

#include <algorithm>

namespace ferrybus::ringbuffer::testing {

CheckedConsumer::CheckedConsumer(TestRing* ring, RingMutator* mutator,
                                 uint32_t max_packet_bytes)
    : ring_(ring),
      max_packet_bytes_(std::max(max_packet_bytes, kDescriptorBytes)),
      recorder_(ring->view(), RingRole::kConsumer),
      consumer_(ring->view(), max_packet_bytes,
                HostileAccess(mutator, CountingAccess(&recorder_))) {
  read_ = recorder_.loaded_values(kReadIndexOffset).at(0);
  published_ = write_ = read_;
  const bool sound =
      read_ < ring->data_bytes() && read_ % 8 == 0 && TakeWriteIndex();
  Check(corrupt() == !sound, "attach: fault() is wrong");
  Finish();
}

bool CheckedConsumer::Next() {
  BasicPacketView<HostileAccess> view;
  const bool was_corrupt = corrupt();
  recorder_.BeginOperation();
  const ReadResult result = consumer_.Next(&view);
  if (was_corrupt) {
    Check(result == ReadResult::kCorrupt, "a fault was forgotten");
    return Finish();
  }
  if (result == ReadResult::kOk) {
    Check(TakeWriteIndex(), "an impossible index was believed");
    return NextIsPacket(view) && Finish();
  }
  return CheckEnd(result);
}

bool CheckedConsumer::TakeBatch(const BatchBound& bound) {
  const bool was_corrupt = corrupt();
  const uint64_t first = read_;
  uint32_t packets = 0;
  recorder_.BeginOperation();
  const ReadResult result = consumer_.TakeBatch(
      bound, [&](const BasicPacketView<HostileAccess>& view) {
        Check(packets < std::max(bound.packets, 1u) &&
                  (packets == 0 || Distance(first, read_) < bound.bytes),
              "a batch beyond its bound");
        ++packets;
        Check(TakeWriteIndex(), "an impossible index was believed");
        NextIsPacket(view);
      });
  if (was_corrupt) {
    Check(result == ReadResult::kCorrupt && packets == 0,
          "a fault was forgotten");
    return Finish();
  }
  if (result != ReadResult::kOk) return CheckEnd(result);
  Check(packets != 0 && (packets >= bound.packets || read_ == write_ ||
                         Distance(first, read_) >= bound.bytes),
        "a batch that ended too early");
  return Finish();
}

bool CheckedConsumer::CheckEnd(ReadResult result) {
  if (!TakeWriteIndex()) {
    Check(result == ReadResult::kCorrupt, "an impossible index was believed");
    return Finish();
  }
  if (result == ReadResult::kEmpty) {
    Check(read_ == write_, "empty, but bytes are there");
    return Finish();
  }
  ModelPacket model;
  uint64_t ring_bytes = 0;
  Check(ModelParse(
            [this](uint64_t at) { return recorder_.Seen(at, ring_->At(at)); },
            read_, Distance(read_, write_), max_packet_bytes_, &model,
            &ring_bytes) == ModelResult::kCorrupt,
        "corrupt, but what was fetched is a packet");
  return Finish();
}

bool CheckedConsumer::NextIsPacket(const BasicPacketView<HostileAccess>& view) {
  ModelPacket packet;
  packet.type = static_cast<uint16_t>(view.type);
  packet.flags = view.completion_requested ? 1 : 0;
  packet.transaction_id = view.transaction_id;
  packet.extension.resize(view.extension.size());
  packet.payload.resize(view.payload.size());
  view.extension.CopyTo(absl::MakeSpan(packet.extension));
  view.payload.CopyTo(absl::MakeSpan(packet.payload));
  ModelPacket model;
  uint64_t ring_bytes = 0;
  const ModelResult result = ModelParse(
      [this](uint64_t at) { return recorder_.Seen(at, std::byte{0xee}); },
      read_, Distance(read_, write_), max_packet_bytes_, &model, &ring_bytes);
  Check(result == ModelResult::kPacket, "a packet that the model refuses");
  Check(packet == model, "a packet that is in no snapshot");
  read_ = (read_ + ring_bytes) % ring_->data_bytes();
  ++packets_;
  return error_.empty();
}

bool CheckedConsumer::Release() {
  recorder_.BeginOperation();
  const uint64_t before = published_;
  const size_t pending_loads =
      recorder_.loaded_values(kPendingSendSizeOffset).size();
  const bool acts = read_ != published_ && !corrupt();
  const bool signal = consumer_.Release();
  signals_ += signal;
  if (!acts) {
    Check(!signal, "a signal for nothing");
    return Finish();
  }
  published_ = read_;
  const auto& pending = recorder_.loaded_values(kPendingSendSizeOffset);
  Check(pending.size() == pending_loads + 1, "pending size not looked at");
  if (pending.back() == 0 || !TakeWriteIndex()) {
    Check(!signal, "a signal that nobody asked for");
    return Finish();
  }
  const uint64_t size = ring_->data_bytes();
  const uint64_t free_before = size - Distance(before, write_);
  const uint64_t free_after = size - Distance(published_, write_);
  Check(
      signal == (free_before <= pending.back() && free_after > pending.back()),
      "a wrong signal decision");
  return Finish();
}

bool CheckedConsumer::Rollback() {
  consumer_.Rollback();
  recorder_.BeginBatch();
  read_ = published_;
  return Finish();
}

bool CheckedConsumer::Unmask() {
  const bool was_corrupt = corrupt();
  recorder_.BeginOperation();
  const bool go_on = consumer_.UnmaskSignals();
  const bool sound = !was_corrupt && TakeWriteIndex();
  Check(go_on == (!sound || read_ != write_), "a wrong re-check");
  return Finish();
}

bool CheckedConsumer::TakeWriteIndex() {
  const auto& loaded = recorder_.loaded_values(kWriteIndexOffset);
  if (loaded.size() == write_loads_) return true;
  write_loads_ = loaded.size();
  const uint64_t now = loaded.back();
  if (now >= ring_->data_bytes() || now % 8 != 0) return false;
  if (Distance(published_, now) < Distance(published_, write_)) return false;
  write_ = now;
  return true;
}

uint64_t CheckedConsumer::Distance(uint64_t from, uint64_t to) const {
  return (to + ring_->data_bytes() - from) % ring_->data_bytes();
}

bool CheckedConsumer::Check(bool good, const char* what) {
  if (!good && error_.empty()) error_ = what;
  return good;
}

bool CheckedConsumer::Finish() {
  if (error_.empty()) error_ = recorder_.violation();
  return error_.empty() && !corrupt();
}

CheckedProducer::CheckedProducer(TestRing* ring, RingMutator* mutator)
    : ring_(ring),
      recorder_(ring->view(), RingRole::kProducer),
      producer_(ring->view(),
                HostileAccess(mutator, CountingAccess(&recorder_))) {
  const uint64_t size = ring->data_bytes();
  write_ = recorder_.loaded_values(kWriteIndexOffset).at(0);
  published_ = write_;
  read_ = recorder_.loaded_values(kReadIndexOffset).at(0);
  read_loads_ = 1;
  const bool sound =
      write_ < size && write_ % 8 == 0 && read_ < size && read_ % 8 == 0;
  Check(corrupt() == !sound, "attach: fault() is wrong");
  Finish();
}

WriteResult CheckedProducer::ExpectedResult(uint64_t ring_bytes) {
  const bool index_sound = TakeReadIndex();
  if (ring_bytes > ring_->data_bytes() - 16 || ring_bytes - 8 > 0xffff * 8) {
    return WriteResult::kTooLarge;
  }
  if (!index_sound) return WriteResult::kCorrupt;
  return ring_bytes < Free() ? WriteResult::kOk : WriteResult::kFull;
}

bool CheckedProducer::Write(const ModelPacket& packet) {
  const bool was_corrupt = corrupt();
  const Bytes image = ModelImage(packet, static_cast<uint32_t>(write_));
  recorder_.BeginOperation();
  const WriteResult result =
      producer_.Write({static_cast<PacketType>(packet.type), packet.flags,
                       packet.transaction_id},
                      packet.extension, packet.payload);
  if (was_corrupt) {
    Check(result == WriteResult::kCorrupt, "a fault was forgotten");
    return Finish();
  }
  Check(result == ExpectedResult(image.size()), "a wrong write result");
  if (result == WriteResult::kOk) {
    Check(ring_->Read(write_, image.size()) == image, "wrong packet bytes");
    write_ = (write_ + image.size()) % ring_->data_bytes();
    ++packets_;
  }
  return Finish();
}

bool CheckedProducer::WriteBatch(const std::vector<ModelPacket>& packets,
                                 const BatchBound& bound) {
  const bool was_corrupt = corrupt();
  recorder_.BeginOperation();
  bool sound = true;
  const BatchResult batch = producer_.WriteBatch(
      static_cast<uint32_t>(packets.size()), bound, [&](uint32_t i) {
        // Each packet may look for room once.
        sound = TakeReadIndex() && sound;
        recorder_.BeginOperation();
        const ModelPacket& packet = packets[i];
        return OutgoingPacket{{static_cast<PacketType>(packet.type),
                               packet.flags, packet.transaction_id},
                              packet.extension,
                              packet.payload};
      });
  if (was_corrupt) {
    const bool asked =
        !packets.empty() && bound.packets != 0 && bound.bytes != 0;
    Check(
        batch.packets == 0 && (batch.result == WriteResult::kCorrupt) == asked,
        "a fault was forgotten");
    return Finish();
  }
  uint64_t bytes = 0;
  for (uint32_t i = 0; i < batch.packets; ++i) {
    Check(i < bound.packets && bytes < bound.bytes, "a batch beyond its bound");
    const Bytes image = ModelImage(packets[i], static_cast<uint32_t>(write_));
    Check(ring_->Read(write_, image.size()) == image, "wrong packet bytes");
    write_ = (write_ + image.size()) % ring_->data_bytes();
    bytes += image.size();
    ++packets_;
  }
  if (batch.result == WriteResult::kOk) {
    Check(batch.packets == packets.size() || batch.packets == bound.packets ||
              bytes >= bound.bytes,
          "a batch that ended too early");
    Check(TakeReadIndex() && sound, "an impossible index was believed");
    Check(Distance(read_, write_) < ring_->data_bytes() &&
              Distance(read_, published_) <= Distance(read_, write_),
          "more than there was room for");
    return Finish();
  }
  const Bytes next =
      ModelImage(packets[batch.packets], static_cast<uint32_t>(write_));
  Check(batch.result == ExpectedResult(next.size()), "a wrong batch result");
  return Finish();
}

bool CheckedProducer::Publish() {
  const bool acts = write_ != published_ && !corrupt();
  const uint64_t before = published_;
  const size_t mask_loads =
      recorder_.loaded_values(kInterruptMaskOffset).size();
  recorder_.BeginOperation();
  const bool signal = producer_.Publish();
  signals_ += signal;
  if (!acts) {
    Check(!signal, "a signal for nothing");
    return Finish();
  }
  published_ = write_;
  const auto& mask = recorder_.loaded_values(kInterruptMaskOffset);
  Check(mask.size() == mask_loads + 1, "mask not looked at");
  const bool sound = mask.back() == 0 && TakeReadIndex();
  Check(signal == (sound && read_ == before), "a wrong signal decision");
  return Finish();
}

bool CheckedProducer::Arm(uint64_t ring_bytes) {
  const bool was_corrupt = corrupt();
  recorder_.BeginOperation();
  const bool write_again = producer_.ArmPendingSend(ring_bytes);
  const uint64_t wanted =
      std::min<uint64_t>(ring_bytes, ring_->data_bytes() - 1);
  const bool sound = !was_corrupt && TakeReadIndex();
  Check(write_again == (!sound || wanted < Free()), "a wrong re-check");
  return Finish();
}

bool CheckedProducer::TakeReadIndex() {
  const auto& loaded = recorder_.loaded_values(kReadIndexOffset);
  if (loaded.size() == read_loads_) return true;
  read_loads_ = loaded.size();
  const uint64_t now = loaded.back();
  if (now >= ring_->data_bytes() || now % 8 != 0) return false;
  if (Distance(read_, now) > Distance(read_, published_)) return false;
  read_ = now;
  return true;
}

uint64_t CheckedProducer::Distance(uint64_t from, uint64_t to) const {
  return (to + ring_->data_bytes() - from) % ring_->data_bytes();
}

uint64_t CheckedProducer::Free() const {
  return ring_->data_bytes() - Distance(read_, write_);
}

bool CheckedProducer::Check(bool good, const char* what) {
  if (!good && error_.empty()) error_ = what;
  return good;
}

bool CheckedProducer::Finish() {
  if (error_.empty()) error_ = recorder_.violation();
  return error_.empty() && !corrupt();
}

}  // namespace ferrybus::ringbuffer::testing
