// SPDX-License-Identifier: MIT
//
// Copies between private memory and a list of guest buffers.  The guest may
// change those bytes at any time: what is copied in is used, never read again.
//
// Thread safety: pure functions.

#ifndef FERRYBUS_VSP_STORAGE_GUEST_COPY_H_
#define FERRYBUS_VSP_STORAGE_GUEST_COPY_H_

#include <sys/uio.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "absl/types/span.h"

namespace ferrybus::vsp {

// Fills the buffers from the front with `data`; what does not fit is left out.
inline void CopyToGuest(absl::Span<const uint8_t> data,
                        absl::Span<const iovec> buffers) {
  for (const iovec& buffer : buffers) {
    const size_t bytes = std::min(data.size(), buffer.iov_len);
    if (bytes == 0) continue;
    std::memcpy(buffer.iov_base, data.data(), bytes);
    data.remove_prefix(bytes);
  }
}

// Fills `data` from the front of the buffers; returns how much there was.
inline size_t CopyFromGuest(absl::Span<const iovec> buffers,
                            absl::Span<uint8_t> data) {
  size_t copied = 0;
  for (const iovec& buffer : buffers) {
    const size_t bytes = std::min(data.size() - copied, buffer.iov_len);
    if (bytes == 0) continue;
    std::memcpy(data.data() + copied, buffer.iov_base, bytes);
    copied += bytes;
  }
  return copied;
}

// Sets `out` to the first `bytes` of `buffers`.
// REQUIRES: the buffers hold that many.
inline void TakePrefix(absl::Span<const iovec> buffers, uint64_t bytes,
                       std::vector<iovec>& out) {
  out.clear();
  for (const iovec& buffer : buffers) {
    if (bytes == 0) break;
    const size_t length = std::min<uint64_t>(buffer.iov_len, bytes);
    if (length == 0) continue;
    out.push_back({buffer.iov_base, length});
    bytes -= length;
  }
}

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_STORAGE_GUEST_COPY_H_
