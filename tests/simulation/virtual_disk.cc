// SPDX-License-Identifier: MIT

#include "ferrybus/tests/simulation/virtual_disk.h"

#include <errno.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace ferrybus::simulation {

using vsp::BlockOp;
using vsp::EnqueueResult;

// ---- The image

VirtualDisk::VirtualDisk(Context* context, uint64_t sectors)
    : context_(context),
      bytes_(sectors * vsp::kLogicalBlockBytes),
      durable_(bytes_.size()),
      is_cached_(sectors) {}

void VirtualDisk::MarkWritten(uint64_t offset, uint64_t bytes, bool durable) {
  const uint64_t first = offset / vsp::kLogicalBlockBytes;
  for (uint64_t i = 0; i < bytes / vsp::kLogicalBlockBytes; ++i) {
    is_cached_[first + i] = !durable;
  }
  if (durable) std::memcpy(&durable_[offset], &bytes_[offset], bytes);
}

int32_t VirtualDisk::Transfer(const ImageIo& io, uint64_t bytes) {
  const bool reads = io.request.op == BlockOp::kRead;
  uint64_t at = io.request.offset_bytes;
  uint64_t left = bytes;
  for (const iovec& buffer : io.buffers) {
    const uint64_t part = std::min<uint64_t>(buffer.iov_len, left);
    if (part == 0) continue;
    if (reads) {
      std::memcpy(buffer.iov_base, &bytes_[at], part);
    } else {
      std::memcpy(&bytes_[at], buffer.iov_base, part);
    }
    at += part;
    left -= part;
  }
  if (!reads) MarkWritten(io.request.offset_bytes, bytes, io.request.durable);
  return static_cast<int32_t>(bytes);
}

void VirtualDisk::ExecutePart(const ImageIo& io) {
  if (io.request.op != BlockOp::kWrite) return;
  const uint64_t sectors =
      vsp::TotalBytes(io.buffers) / vsp::kLogicalBlockBytes;
  ImageIo part = io;
  part.request.durable = false;
  (void)Transfer(part,
                 context_->random.Below(sectors + 1) * vsp::kLogicalBlockBytes);
}

int32_t VirtualDisk::Execute(const ImageIo& io) {
  if (std::exchange(fail_next_, false)) {
    ++context_->image_errors;
    ExecutePart(io);
    return -EIO;
  }
  switch (io.request.op) {
    case BlockOp::kFlush:
      durable_ = bytes_;
      is_cached_.assign(is_cached_.size(), false);
      return 0;
    case BlockOp::kDiscard:
      std::memset(&bytes_[io.request.offset_bytes], 0, io.request.length_bytes);
      MarkWritten(io.request.offset_bytes, io.request.length_bytes, false);
      return 0;
    case BlockOp::kRead:
    case BlockOp::kWrite:
      return Transfer(io, vsp::TotalBytes(io.buffers));
  }
  return -EINVAL;
}

void VirtualDisk::AdvanceOrphans(bool all) {
  while (!orphans_.empty() && (all || !is_slow_)) {
    const size_t index = context_->random.Below(orphans_.size());
    (void)Execute(orphans_[index]);
    orphans_.erase(orphans_.begin() + static_cast<ptrdiff_t>(index));
    if (!all) return;
  }
}

void VirtualDisk::TearOrphans() {
  for (const ImageIo& io : orphans_) {
    if (context_->random.OneIn(2)) ExecutePart(io);
  }
  orphans_.clear();
}

void VirtualDisk::PowerLoss() {
  for (size_t sector = 0; sector < is_cached_.size(); ++sector) {
    if (!is_cached_[sector] || context_->random.OneIn(2)) continue;
    const size_t at = sector * vsp::kLogicalBlockBytes;
    std::memcpy(&bytes_[at], &durable_[at], vsp::kLogicalBlockBytes);
  }
  durable_ = bytes_;
  is_cached_.assign(is_cached_.size(), false);
}

// ---- Backends

ImageBackend::ImageBackend(Context* context, VirtualDisk* disk)
    : context_(context), disk_(disk) {
  info_.size_bytes = disk->size_bytes();
  info_.can_discard = true;
  info_.description = "simulated";
}

ImageBackend::~ImageBackend() {
  for (const ImageIo& io : submitted_) {
    // What was begun ends; the rest never happens.
    if (disk_->owner_ == this && !io.is_done && context_->random.OneIn(2)) {
      (void)disk_->Execute(io);
    }
  }
  if (disk_->owner_ == this) disk_->owner_ = nullptr;
}

void ImageBackend::Kill() {
  if (disk_->owner_ != this) return;
  for (ImageIo& io : submitted_) {
    if (!io.is_done) disk_->orphans_.push_back(std::move(io));
  }
  submitted_.clear();
}

bool ImageBackend::TryLock() {
  if (disk_->owner_ == nullptr && disk_->orphans_.empty()) {
    disk_->owner_ = this;
  }
  return disk_->owner_ == this;
}

void ImageBackend::Advance(bool all) {
  if (submitted_.empty() || disk_->is_slow_ || !TryLock()) return;
  const size_t first = context_->random.Below(submitted_.size());
  for (size_t i = 0; i < submitted_.size(); ++i) {
    ImageIo& io = submitted_[(first + i) % submitted_.size()];
    if (io.is_done) continue;
    io.result = disk_->Execute(io);
    io.is_done = true;
    if (!all) return;
  }
}

EnqueueResult ImageBackend::Enqueue(const vsp::BlockRequest& request) {
  if (!vsp::IsValidRequest(info_, request)) return EnqueueResult::kInvalid;
  if (in_flight() >= kDepth) return EnqueueResult::kFull;
  ImageIo io;
  io.request = request;
  io.buffers.assign(request.buffers.begin(), request.buffers.end());
  io.request.buffers = {};
  batch_.push_back(std::move(io));
  return EnqueueResult::kAccepted;
}

void ImageBackend::SubmitBatch() {
  for (ImageIo& io : batch_) submitted_.push_back(std::move(io));
  batch_.clear();
}

size_t ImageBackend::Reap(ReapFunction done) {
  std::vector<std::pair<uint64_t, int32_t>> ended;
  for (auto io = submitted_.begin(); io != submitted_.end();) {
    if (!io->is_done) {
      ++io;
      continue;
    }
    ended.emplace_back(io->request.cookie, io->result);
    io = submitted_.erase(io);
  }
  for (const auto& [cookie, result] : ended) done(cookie, result);
  return ended.size();
}

}  // namespace ferrybus::simulation
