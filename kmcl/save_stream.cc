// SPDX-License-Identifier: MIT

#include "ferrybus/kmcl/save_stream.h"

#include <cstring>

#include "ferrybus/savestate/crc32c.h"

namespace ferrybus::kmcl {
namespace {

struct ChunkHeader {
  uint32_t magic = 0x4b6d636c;
  uint16_t version = 1;
  uint16_t kind = 0;
  uint32_t sequence = 0;
  uint32_t body_bytes = 0;
};
static_assert(sizeof(ChunkHeader) == 16);

}  // namespace

std::string MakeChunk(ChunkKind kind, uint32_t sequence,
                      const std::string& body) {
  ChunkHeader header;
  header.kind = static_cast<uint16_t>(kind);
  header.sequence = sequence;
  header.body_bytes = static_cast<uint32_t>(body.size());
  std::string chunk(sizeof(header), '\0');
  std::memcpy(chunk.data(), &header, sizeof(header));
  chunk += body;
  const uint32_t crc = savestate::Crc32c(
      {reinterpret_cast<const std::byte*>(chunk.data()), chunk.size()});
  chunk.append(reinterpret_cast<const char*>(&crc), sizeof(crc));
  return chunk;
}

bool TakeChunk(absl::Span<const std::byte>* bytes, Chunk* chunk) {
  ChunkHeader header;
  const ChunkHeader known;
  uint32_t crc = 0;
  if (bytes->size() < sizeof(header) + sizeof(crc)) return false;
  std::memcpy(&header, bytes->data(), sizeof(header));
  if (header.magic != known.magic || header.version != known.version ||
      header.body_bytes > bytes->size() - sizeof(header) - sizeof(crc)) {
    return false;
  }
  const size_t checked = sizeof(header) + header.body_bytes;
  std::memcpy(&crc, bytes->data() + checked, sizeof(crc));
  if (crc != savestate::Crc32c(bytes->first(checked))) return false;
  chunk->kind = static_cast<ChunkKind>(header.kind);
  chunk->sequence = header.sequence;
  chunk->body = bytes->subspan(sizeof(header), header.body_bytes);
  bytes->remove_prefix(checked + sizeof(crc));
  return true;
}

}  // namespace ferrybus::kmcl
