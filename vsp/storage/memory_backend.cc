// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/storage/memory_backend.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cstring>
#include <utility>

namespace ferrybus::vsp {

MemoryBackend::MemoryBackend(MemoryDisk* disk, MemoryBackendOptions options)
    : disk_(disk),
      options_(options),
      event_fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  info_.size_bytes = disk->size();
  info_.read_only = options.read_only;
  info_.can_discard = options.can_discard;
  info_.description = "memory";
}

MemoryBackend::~MemoryBackend() { close(event_fd_); }

EnqueueResult MemoryBackend::Enqueue(const BlockRequest& request) {
  if (!IsValidRequest(info_, request)) return EnqueueResult::kInvalid;
  if (in_flight() >= options_.queue_depth) return EnqueueResult::kFull;
  Io io;
  io.request = request;
  io.buffers.assign(request.buffers.begin(), request.buffers.end());
  io.request.buffers = {};
  batch_.push_back(std::move(io));
  return EnqueueResult::kAccepted;
}

void MemoryBackend::SubmitBatch() {
  if (batch_.empty()) return;
  ++submit_calls_;
  for (Io& io : batch_) submitted_.push_back(std::move(io));
  batch_.clear();
  if (!hold_) Wake();
}

size_t MemoryBackend::Reap(ReapFunction done) {
  uint64_t signals = 0;
  if (read(event_fd_, &signals, sizeof(signals)) < 0) signals = 0;
  size_t count = submitted_.size();
  if (hold_ && released_ < count) count = released_;
  released_ = 0;
  for (size_t i = 0; i < count; ++i) {
    const Io io = std::move(submitted_.front());
    submitted_.pop_front();
    done(io.request.cookie, Execute(io));
  }
  return count;
}

int32_t MemoryBackend::Execute(const Io& io) {
  if (fail_next_ != 0) return -std::exchange(fail_next_, 0);
  std::byte* at = disk_->data() + io.request.offset_bytes;
  int32_t total_bytes = 0;
  switch (io.request.op) {
    case BlockOp::kFlush:
      ++flushes_;
      return 0;
    case BlockOp::kDiscard:
      std::memset(at, 0, io.request.length_bytes);
      return 0;
    case BlockOp::kRead:
    case BlockOp::kWrite:
      for (const iovec& buffer : io.buffers) {
        if (buffer.iov_len == 0) continue;
        if (io.request.op == BlockOp::kRead) {
          std::memcpy(buffer.iov_base, at, buffer.iov_len);
        } else {
          std::memcpy(at, buffer.iov_base, buffer.iov_len);
        }
        at += buffer.iov_len;
        total_bytes += static_cast<int32_t>(buffer.iov_len);
      }
      if (io.request.durable) ++durable_writes_;
      return total_bytes;
  }
  return 0;
}

void MemoryBackend::Hold(bool hold) {
  hold_ = hold;
  if (!hold && !submitted_.empty()) Wake();
}

void MemoryBackend::ReleaseOne() {
  ++released_;
  Wake();
}

void MemoryBackend::Wake() {
  const uint64_t one = 1;
  if (write(event_fd_, &one, sizeof(one)) < 0) return;
}

}  // namespace ferrybus::vsp
