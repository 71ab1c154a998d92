// SPDX-License-Identifier: MIT
//
// A second, deliberately naive implementation of the documented ring layout:
// what tests compare the real producer and consumer with.
//
// What it is: written from docs/WIRE_FORMAT.md alone, one byte at a time, with
// stream positions that only grow and a modulo wherever a byte is touched.  It
// shares nothing with the library; keep it slow and obvious.
//
// Thread safety: one thread at a time.

#ifndef FERRYBUS_RINGBUFFER_TESTING_MODEL_RING_H_
#define FERRYBUS_RINGBUFFER_TESTING_MODEL_RING_H_

#include <cstddef>
#include <cstdint>

#include "ferrybus/ringbuffer/testing/test_ring.h"

namespace ferrybus::ringbuffer::testing {

struct ModelPacket {
  uint16_t type = 6;
  uint16_t flags = 0;
  uint64_t transaction_id = 0;
  Bytes extension;
  // What a reader gives back is padded to a multiple of 8.
  Bytes payload;

  friend bool operator==(const ModelPacket&, const ModelPacket&) = default;
};

// `bytes` with zeros added up to a multiple of 8.
Bytes PaddedTo8(Bytes bytes);

// The packet's bytes in a ring, trailer included, if it starts at `index`.
Bytes ModelImage(const ModelPacket& packet, uint32_t index);

// A peer that writes.
class ModelWriter {
 public:
  // Continues at the write index of the control page.
  explicit ModelWriter(TestRing* ring);

  // False: it does not fit now.  Publishes at once.
  bool Write(const ModelPacket& packet);

 private:
  TestRing* ring_;
  uint64_t position_;
};

enum class ModelResult { kPacket, kEmpty, kCorrupt };

namespace internal {
// `bytes` bytes from `position`, the last one the most significant.
template <class At>
uint64_t ModelNumber(At at, uint64_t position, int bytes) {
  uint64_t value = 0;
  for (int i = bytes - 1; i >= 0; --i) {
    value = value * 256 + static_cast<uint64_t>(at(position + i));
  }
  return value;
}
}  // namespace internal

// Reads one packet at `position` from the bytes that `at(ring index)` gives,
// where `used` bytes are present.  On kPacket, `*ring_bytes` is what it took.
template <class At>
ModelResult ModelParse(At at, uint64_t position, uint64_t used,
                       uint64_t max_packet_bytes, ModelPacket* packet,
                       uint64_t* ring_bytes) {
  if (used == 0) return ModelResult::kEmpty;
  if (used < 16) return ModelResult::kCorrupt;
  packet->type = static_cast<uint16_t>(internal::ModelNumber(at, position, 2));
  const uint64_t header = 8 * internal::ModelNumber(at, position + 2, 2);
  const uint64_t length = 8 * internal::ModelNumber(at, position + 4, 2);
  packet->flags =
      static_cast<uint16_t>(internal::ModelNumber(at, position + 6, 2));
  packet->transaction_id = internal::ModelNumber(at, position + 8, 8);
  const bool ranges = packet->type == 7 || packet->type == 9;
  if (!ranges && packet->type != 6 && packet->type != 11) {
    return ModelResult::kCorrupt;
  }
  if (packet->flags > 1) return ModelResult::kCorrupt;
  if (header < (ranges ? 24u : 16u)) return ModelResult::kCorrupt;
  if (length < header) return ModelResult::kCorrupt;
  if (length + 8 > used) return ModelResult::kCorrupt;
  if (length > max_packet_bytes) return ModelResult::kCorrupt;
  packet->extension.clear();
  packet->payload.clear();
  for (uint64_t i = 16; i < length; ++i) {
    (i < header ? packet->extension : packet->payload)
        .push_back(at(position + i));
  }
  *ring_bytes = length + 8;
  return ModelResult::kPacket;
}

// A peer that reads.
class ModelReader {
 public:
  // Continues at the read index of the control page.
  explicit ModelReader(TestRing* ring);

  // Takes a packet and gives its bytes back at once.
  ModelResult Next(ModelPacket* packet);

 private:
  TestRing* ring_;
  uint64_t position_;
};

}  // namespace ferrybus::ringbuffer::testing

#endif  // FERRYBUS_RINGBUFFER_TESTING_MODEL_RING_H_
