// SPDX-License-Identifier: MIT
//
// A disk in memory, for tests of what stands on a BlockBackend.
//
// Requests complete in Reap() in the order submitted; Hold(true) keeps them in
// flight, as a slow disk would, until Hold(false) or ReleaseOne().  A request
// takes effect when it completes.  A disk may be shared by several backends
// (`MemoryDisk` outlives them), as an image is by two owners.
//
// Thread safety: one thread.

#ifndef FERRYBUS_VSP_STORAGE_MEMORY_BACKEND_H_
#define FERRYBUS_VSP_STORAGE_MEMORY_BACKEND_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "ferrybus/vsp/storage/block_backend.h"

namespace ferrybus::vsp {

using MemoryDisk = std::vector<std::byte>;

struct MemoryBackendOptions {
  bool read_only = false;
  bool can_discard = true;
  size_t queue_depth = 256;
};

class MemoryBackend final : public BlockBackend {
 public:
  // Borrows `disk`, a positive multiple of 512 bytes.
  explicit MemoryBackend(MemoryDisk* disk, MemoryBackendOptions options = {});
  ~MemoryBackend() override;
  MemoryBackend(const MemoryBackend&) = delete;
  MemoryBackend& operator=(const MemoryBackend&) = delete;

  const BlockBackendInfo& info() const override { return info_; }
  EnqueueResult Enqueue(const BlockRequest& request) override;
  void SubmitBatch() override;
  size_t Reap(ReapFunction done) override;
  int event_fd() const override { return event_fd_; }

  // -- For tests -----------------------------------------------------------
  void Hold(bool hold);
  // Lets the oldest held request complete at the next Reap().
  void ReleaseOne();
  // The next request to complete fails with this errno.
  void FailNext(int error) { fail_next_ = error; }
  size_t in_flight() const { return batch_.size() + submitted_.size(); }
  uint64_t submit_calls() const { return submit_calls_; }
  uint64_t flushes() const { return flushes_; }
  uint64_t durable_writes() const { return durable_writes_; }

 private:
  struct Io {
    BlockRequest request;
    std::vector<iovec> buffers;
  };

  int32_t Execute(const Io& io);
  void Wake();

  MemoryDisk* const disk_;
  const MemoryBackendOptions options_;
  BlockBackendInfo info_;
  const int event_fd_;
  bool hold_ = false;
  size_t released_ = 0;
  int fail_next_ = 0;
  uint64_t submit_calls_ = 0;
  uint64_t flushes_ = 0;
  uint64_t durable_writes_ = 0;
  std::vector<Io> batch_;
  std::deque<Io> submitted_;
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_STORAGE_MEMORY_BACKEND_H_
