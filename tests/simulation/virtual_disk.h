// SPDX-License-Identifier: MIT
//
// A disk image that two hosts reach, with a cache: what was written and not
// flushed may be lost when power is.  And the backends through which its owner
// of the moment uses it.
//
// The fence: a backend holds the image's lock from its first I/O to its end.
// One that ends waits for what it began; that of a process that is killed
// leaves it to the kernel, which holds the lock until it is done.
//
// Each I/O has three moments: it is submitted, it takes effect, it is reaped.
// Chance puts other things between them.
//
// Ownership: backends borrow the image.  Thread safety: none.

#ifndef FERRYBUS_TESTS_SIMULATION_VIRTUAL_DISK_H_
#define FERRYBUS_TESTS_SIMULATION_VIRTUAL_DISK_H_

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "ferrybus/tests/simulation/context.h"
#include "ferrybus/vsp/storage/block_backend.h"

namespace ferrybus::simulation {

struct ImageIo {
  vsp::BlockRequest request;
  std::vector<iovec> buffers;
  bool is_done = false;
  int32_t result = 0;
};

class ImageBackend;

class VirtualDisk {
 public:
  VirtualDisk(Context* context, uint64_t sectors);

  uint64_t size_bytes() const { return bytes_.size(); }
  // I/O takes effect only between the two.
  void set_is_slow(bool is_slow) { is_slow_ = is_slow; }
  void FailNext() { fail_next_ = true; }
  void Heal() { is_slow_ = fail_next_ = false; }

  // The kernel goes on with what killed processes had begun: one I/O, or all.
  void AdvanceOrphans(bool all);
  // Power ends them: each happens in part, or not at all.
  void TearOrphans();
  bool has_orphans() const { return !orphans_.empty(); }
  // Each sector that was written and not flushed is lost, or not.
  void PowerLoss();

 private:
  friend class ImageBackend;

  int32_t Execute(const ImageIo& io);
  int32_t Transfer(const ImageIo& io, uint64_t bytes);
  // A write that ends in the middle.
  void ExecutePart(const ImageIo& io);
  void MarkWritten(uint64_t offset, uint64_t bytes, bool durable);

  Context* const context_;
  std::vector<std::byte> bytes_;
  std::vector<std::byte> durable_;
  std::vector<bool> is_cached_;  // by sector: differs perhaps from durable_
  bool is_slow_ = false;
  bool fail_next_ = false;
  const ImageBackend* owner_ = nullptr;
  std::deque<ImageIo> orphans_;
};

class ImageBackend final : public vsp::BlockBackend {
 public:
  ImageBackend(Context* context, VirtualDisk* disk);
  ~ImageBackend() override;

  // The process is killed; the backend ends right after.
  void Kill();
  // One I/O takes effect, or all, if the lock is there.
  void Advance(bool all);
  size_t in_flight() const { return batch_.size() + submitted_.size(); }

  const vsp::BlockBackendInfo& info() const override { return info_; }
  vsp::EnqueueResult Enqueue(const vsp::BlockRequest& request) override;
  void SubmitBatch() override;
  size_t Reap(ReapFunction done) override;
  int event_fd() const override { return -1; }

 private:
  static constexpr size_t kDepth = 6;

  bool TryLock();

  Context* const context_;
  VirtualDisk* const disk_;
  vsp::BlockBackendInfo info_;
  std::vector<ImageIo> batch_;
  std::deque<ImageIo> submitted_;
};

}  // namespace ferrybus::simulation

#endif  // FERRYBUS_TESTS_SIMULATION_VIRTUAL_DISK_H_
