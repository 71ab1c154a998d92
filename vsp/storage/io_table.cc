// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/storage/io_table.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace ferrybus::vsp {
namespace {

// EINTR and EAGAIN are retried, but not for ever.
constexpr uint32_t kIdleAttemptsMax = 64;

}  // namespace

bool PendingIo::Account(int64_t system_result) {
  if (system_result == -EINTR || system_result == -EAGAIN) {
    if (++idle_attempts < kIdleAttemptsMax) return false;
  }
  if (system_result < 0) {
    result = static_cast<int32_t>(system_result);
    return true;
  }
  if (op == BlockOp::kFlush || op == BlockOp::kDiscard) {
    result = 0;
    return true;
  }
  uint64_t done =
      std::min(static_cast<uint64_t>(system_result), remaining_bytes);
  if (done == 0) {
    // The file became shorter than the disk.
    result = -EIO;
    return true;
  }
  idle_attempts = 0;
  offset_bytes += done;
  remaining_bytes -= done;
  if (remaining_bytes == 0) {
    result = static_cast<int32_t>(total_bytes);
    return true;
  }
  while (done >= buffers[first_buffer].iov_len) {
    done -= buffers[first_buffer++].iov_len;
  }
  iovec& first = buffers[first_buffer];
  first.iov_base = static_cast<std::byte*>(first.iov_base) + done;
  first.iov_len -= done;
  return false;
}

IoTable::IoTable(size_t depth, uint32_t alignment_bytes,
                 uint64_t bounce_bytes_max)
    : alignment_bytes_(alignment_bytes),
      bounce_bytes_max_(bounce_bytes_max),
      entries_(depth) {
  free_.reserve(depth);
  for (size_t i = depth; i > 0; --i) {
    free_.push_back(static_cast<uint32_t>(i - 1));
  }
}

EnqueueResult IoTable::Start(const BlockRequest& request, uint32_t* index) {
  if (free_.empty()) return EnqueueResult::kFull;
  PendingIo& io = entries_[free_.back()];
  const bool transfers =
      request.op == BlockOp::kRead || request.op == BlockOp::kWrite;
  io.op = request.op;
  io.durable = request.durable;
  io.cookie = request.cookie;
  io.offset_bytes = request.offset_bytes;
  io.total_bytes =
      transfers ? TotalBytes(request.buffers) : request.length_bytes;
  io.remaining_bytes = io.total_bytes;
  io.first_buffer = 0;
  io.idle_attempts = 0;
  io.result = 0;
  io.buffers.clear();
  if (transfers) {
    if (NeedsBounce(request)) {
      if (!Bounce(request, io)) return EnqueueResult::kFull;
    } else {
      io.buffers.assign(request.buffers.begin(), request.buffers.end());
    }
  }
  *index = free_.back();
  free_.pop_back();
  return EnqueueResult::kAccepted;
}

bool IoTable::NeedsBounce(const BlockRequest& request) const {
  for (const iovec& buffer : request.buffers) {
    const auto address = reinterpret_cast<uintptr_t>(buffer.iov_base);
    if ((address | buffer.iov_len) % alignment_bytes_ != 0) return true;
  }
  return false;
}

bool IoTable::Bounce(const BlockRequest& request, PendingIo& io) {
  if (bounce_bytes_ > 0 && bounce_bytes_ + io.total_bytes > bounce_bytes_max_) {
    return false;
  }
  // aligned_alloc wants a multiple of the alignment.
  const size_t room_bytes = (io.total_bytes + kPhysicalBlockBytes - 1) /
                            kPhysicalBlockBytes * kPhysicalBlockBytes;
  io.bounce.reset(static_cast<std::byte*>(
      std::aligned_alloc(kPhysicalBlockBytes, room_bytes)));
  if (io.bounce == nullptr) return false;
  bounce_bytes_ += io.total_bytes;
  if (request.op == BlockOp::kWrite) {
    std::byte* to = io.bounce.get();
    for (const iovec& from : request.buffers) {
      if (from.iov_len > 0) std::memcpy(to, from.iov_base, from.iov_len);
      to += from.iov_len;
    }
  } else {
    io.guest_buffers.assign(request.buffers.begin(), request.buffers.end());
  }
  io.buffers.push_back({io.bounce.get(), io.total_bytes});
  return true;
}

int32_t IoTable::Finish(uint32_t index) {
  PendingIo& io = entries_[index];
  if (io.bounce != nullptr) {
    // Only after a whole read: a failed one would show stale heap bytes.
    if (io.op == BlockOp::kRead && io.result >= 0) {
      const std::byte* from = io.bounce.get();
      for (const iovec& to : io.guest_buffers) {
        if (to.iov_len > 0) std::memcpy(to.iov_base, from, to.iov_len);
        from += to.iov_len;
      }
    }
    io.guest_buffers.clear();
    io.bounce.reset();
    bounce_bytes_ -= io.total_bytes;
  }
  free_.push_back(index);
  return io.result;
}

}  // namespace ferrybus::vsp
