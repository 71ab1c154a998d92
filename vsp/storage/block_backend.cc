// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/storage/block_backend.h"

#include <limits>

namespace ferrybus::vsp {

uint64_t TotalBytes(absl::Span<const iovec> buffers) {
  uint64_t total = 0;
  for (const iovec& buffer : buffers) {
    if (__builtin_add_overflow(total, buffer.iov_len, &total)) {
      return std::numeric_limits<uint64_t>::max();
    }
  }
  return total;
}

bool IsValidRequest(const BlockBackendInfo& info, const BlockRequest& request) {
  if (request.op == BlockOp::kFlush) return true;
  if (info.read_only && request.op != BlockOp::kRead) return false;
  uint64_t length_bytes = request.length_bytes;
  if (request.op == BlockOp::kDiscard) {
    if (!info.can_discard) return false;
  } else {
    if (request.buffers.size() > kIovecsMax) return false;
    length_bytes = TotalBytes(request.buffers);
    if (length_bytes > kTransferBytesMax) return false;
  }
  return length_bytes > 0 && length_bytes % kLogicalBlockBytes == 0 &&
         request.offset_bytes % kLogicalBlockBytes == 0 &&
         length_bytes <= info.size_bytes &&
         request.offset_bytes <= info.size_bytes - length_bytes;
}

}  // namespace ferrybus::vsp
