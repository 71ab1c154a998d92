// SPDX-License-Identifier: MIT
//
// A server channel's packets as a stream of chunks.  Internal to kmcl/.
//
// A chunk: magic, version, kind, sequence number, body length, body, CRC32C of
// all before.  First the channel, then each packet (the library's bytes, then
// the user's), then the end with the number of packets.
//
// Ownership: the channel's.  Thread safety: none.
// Trust: a stream that is restored may be any bytes; a chunk is checked before
// a callback sees it, the whole before the channel changes.

#ifndef FERRYBUS_KMCL_SAVE_STREAM_H_
#define FERRYBUS_KMCL_SAVE_STREAM_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "ferrybus/channel/endpoint_persist.h"
#include "ferrybus/kmcl/kmcl.h"

namespace ferrybus::kmcl {

enum class ChunkKind : uint16_t { kChannel = 1, kPacket = 2, kEnd = 3 };

// The library's bytes of a packet, before its payload if that is not sent.
struct PacketRecord {
  enum State : uint8_t { kAwaiting = 1, kQueued = 2, kUnsent = 3 };
  uint64_t transaction_id = 0;
  uint8_t state = 0;
  uint8_t waits = 0;
  uint16_t reserved = 0;
  uint32_t payload_bytes = 0;
};
static_assert(sizeof(PacketRecord) == 16);

struct SaveStream {
  struct Item {
    VMBPACKET packet = nullptr;
    std::string record;
  };
  std::string channel_body;
  std::vector<Item> items;
  uint32_t next = 0;  // chunk; 0 is the channel's
  std::string chunk;  // made, and not fitted yet
};

struct RestoreStream {
  uint32_t next = 0;
  bool was_open = false;
  ChannelSnapshot snapshot;
  std::vector<VMBPACKET> packets;  // restored
  std::string current;             // record of the packet being restored
  bool is_current_restored = false;
};

// A chunk of a stream, and what follows it.  False: it is none.
struct Chunk {
  ChunkKind kind = ChunkKind::kEnd;
  uint32_t sequence = 0;
  absl::Span<const std::byte> body;
};
std::string MakeChunk(ChunkKind kind, uint32_t sequence,
                      const std::string& body);
bool TakeChunk(absl::Span<const std::byte>* bytes, Chunk* chunk);

}  // namespace ferrybus::kmcl

#endif  // FERRYBUS_KMCL_SAVE_STREAM_H_
