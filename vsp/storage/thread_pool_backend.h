// SPDX-License-Identifier: MIT
//
// Block I/O on an image file with a few threads and blocking system calls,
// for machines where io_uring is missing or forbidden.
//
// Each system call holds its own reference to the file, as the fence in
// image_file.h needs.
//
// Thread safety and cost: block_backend.h; two lock round trips and one
// eventfd write per request on top.

#ifndef FERRYBUS_VSP_STORAGE_THREAD_POOL_BACKEND_H_
#define FERRYBUS_VSP_STORAGE_THREAD_POOL_BACKEND_H_

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "ferrybus/vsp/storage/block_backend.h"
#include "ferrybus/vsp/storage/image_file.h"
#include "ferrybus/vsp/storage/io_table.h"

namespace ferrybus::vsp {

struct ThreadPoolBackendOptions {
  uint32_t queue_depth = 256;
  uint64_t bounce_bytes_max = uint64_t{8} << 20;
  uint32_t thread_count = 4;
  // Put into info().description.
  std::string note;
};

class ThreadPoolBackend final : public BlockBackend {
 public:
  // Moves from `file` only on success.
  static absl::StatusOr<std::unique_ptr<BlockBackend>> Create(
      ImageFile& file, const ThreadPoolBackendOptions& options);

  ~ThreadPoolBackend() override;
  ThreadPoolBackend(const ThreadPoolBackend&) = delete;
  ThreadPoolBackend& operator=(const ThreadPoolBackend&) = delete;

  const BlockBackendInfo& info() const override { return info_; }
  EnqueueResult Enqueue(const BlockRequest& request) override;
  void SubmitBatch() override;
  size_t Reap(ReapFunction done) override;
  int event_fd() const override { return event_fd_; }

 private:
  ThreadPoolBackend(ImageFile file, int event_fd,
                    const ThreadPoolBackendOptions& options);

  void RunWorker();
  bool NextWork(uint32_t* index);
  int64_t RunOnce(const PendingIo& io);

  ImageFile file_;
  BlockBackendInfo info_;
  const int event_fd_;
  IoTable table_;
  // Enqueued, not submitted yet.
  std::vector<uint32_t> batch_;
  // Reap()'s copy of done_; a member so that its memory is kept.
  std::vector<uint32_t> reaping_;

  // Guards the three below it.  std::, not absl::, so that the thread
  // sanitizer sees it although Abseil comes without instrumentation.
  std::mutex mutex_;
  std::deque<uint32_t> work_;
  std::vector<uint32_t> done_;
  bool stopping_ = false;
  std::condition_variable has_work_;
  std::vector<std::thread> threads_;
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_STORAGE_THREAD_POOL_BACKEND_H_
