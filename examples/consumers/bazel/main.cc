// SPDX-License-Identifier: MIT
//
// Packets through a ring that two sides share: here both are in one process.

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>

#include "absl/types/span.h"
#include "ferrybus/ringbuffer/ring_consumer.h"
#include "ferrybus/ringbuffer/ring_mapping.h"
#include "ferrybus/ringbuffer/ring_producer.h"

using ferrybus::ringbuffer::PacketType;
using ferrybus::ringbuffer::ReadResult;
using ferrybus::ringbuffer::RingConsumer;
using ferrybus::ringbuffer::RingMapping;
using ferrybus::ringbuffer::RingProducer;
using ferrybus::ringbuffer::WriteResult;

int main() {
  // A control page and a page of data, in shared memory.
  constexpr uint64_t kPages[] = {0, 4096};
  const int file = memfd_create("ring", MFD_CLOEXEC);
  RingMapping mapping;
  if (file < 0 || ftruncate(file, 8192) != 0 ||
      RingMapping::Map(file, kPages, &mapping) != 0) {
    return 1;
  }

  RingProducer producer(mapping.view());
  for (uint64_t i = 0; i < 10; ++i) {
    const auto payload =
        absl::MakeConstSpan(reinterpret_cast<const std::byte*>(&i), sizeof(i));
    if (producer.Write({PacketType::kDataInBand, 0, i}, {}, payload) !=
        WriteResult::kOk) {
      return 1;
    }
  }
  const bool must_signal = producer.Publish();

  RingConsumer consumer(mapping.view(), /*max_packet_bytes=*/1024);
  RingConsumer::PacketView packet;
  uint64_t packets = 0;
  while (consumer.Next(&packet) == ReadResult::kOk) {
    if (packet.payload.Load64(0) != packets++) return 1;
  }
  std::printf("%d packets through the ring\n", static_cast<int>(packets));
  close(file);
  return packets == 10 && must_signal ? 0 : 1;
}
