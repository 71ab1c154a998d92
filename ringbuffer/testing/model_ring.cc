// SPDX-License-Identifier: MIT

#include "ferrybus/ringbuffer/testing/model_ring.h"

namespace ferrybus::ringbuffer::testing {
namespace {

// Where the control words are; the model has its own idea of it.
constexpr uint32_t kModelWriteIndex = 0;
constexpr uint32_t kModelReadIndex = 4;

void Append(Bytes* out, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) {
    out->push_back(static_cast<std::byte>(value >> (8 * i)));
  }
}

}  // namespace

Bytes PaddedTo8(Bytes bytes) {
  while (bytes.size() % 8 != 0) bytes.push_back(std::byte{0});
  return bytes;
}

Bytes ModelImage(const ModelPacket& packet, uint32_t index) {
  const Bytes payload = PaddedTo8(packet.payload);
  Bytes image;
  Append(&image, packet.type, 2);
  Append(&image, (16 + packet.extension.size()) / 8, 2);
  Append(&image, (16 + packet.extension.size() + payload.size()) / 8, 2);
  Append(&image, packet.flags, 2);
  Append(&image, packet.transaction_id, 8);
  image.insert(image.end(), packet.extension.begin(), packet.extension.end());
  image.insert(image.end(), payload.begin(), payload.end());
  Append(&image, 0, 4);
  Append(&image, index, 4);
  return image;
}

ModelWriter::ModelWriter(TestRing* ring)
    : ring_(ring), position_(ring->word(kModelWriteIndex)) {}

bool ModelWriter::Write(const ModelPacket& packet) {
  const uint64_t size = ring_->data_bytes();
  const uint64_t write = position_ % size;
  const uint64_t read = ring_->word(kModelReadIndex);
  const uint64_t unread = (write + size - read) % size;
  const Bytes image = ModelImage(packet, static_cast<uint32_t>(write));
  if (unread + image.size() >= size) return false;  // equal would mean empty
  ring_->Write(position_, image);
  position_ += image.size();
  ring_->set_word(kModelWriteIndex, static_cast<uint32_t>(position_ % size));
  return true;
}

ModelReader::ModelReader(TestRing* ring)
    : ring_(ring), position_(ring->word(kModelReadIndex)) {}

ModelResult ModelReader::Next(ModelPacket* packet) {
  const uint64_t size = ring_->data_bytes();
  const uint64_t write = ring_->word(kModelWriteIndex);
  if (write >= size || write % 8 != 0) return ModelResult::kCorrupt;
  const uint64_t used = (write + size - position_ % size) % size;
  uint64_t ring_bytes = 0;
  const ModelResult result =
      ModelParse([this](uint64_t index) { return ring_->At(index); }, position_,
                 used, UINT64_MAX, packet, &ring_bytes);
  if (result != ModelResult::kPacket) return result;
  position_ += ring_bytes;
  ring_->set_word(kModelReadIndex, static_cast<uint32_t>(position_ % size));
  return result;
}

}  // namespace ferrybus::ringbuffer::testing
