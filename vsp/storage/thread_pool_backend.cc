// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/storage/thread_pool_backend.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace ferrybus::vsp {

absl::StatusOr<std::unique_ptr<BlockBackend>> ThreadPoolBackend::Create(
    ImageFile& file, const ThreadPoolBackendOptions& options) {
  if (options.queue_depth == 0 || options.thread_count == 0 ||
      options.thread_count > 64) {
    return absl::InvalidArgumentError(
        absl::StrCat("thread backend: queue depth ", options.queue_depth,
                     " and ", options.thread_count,
                     " threads; both must be positive, threads <= 64"));
  }
  const int event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (event_fd < 0) {
    return absl::UnavailableError(
        absl::StrCat("thread backend: eventfd: ", std::strerror(errno)));
  }
  return std::unique_ptr<BlockBackend>(
      new ThreadPoolBackend(std::move(file), event_fd, options));
}

ThreadPoolBackend::ThreadPoolBackend(ImageFile file, int event_fd,
                                     const ThreadPoolBackendOptions& options)
    : file_(std::move(file)),
      event_fd_(event_fd),
      table_(options.queue_depth, file_.alignment_bytes(),
             options.bounce_bytes_max) {
  info_.size_bytes = file_.size_bytes();
  info_.read_only = file_.read_only();
  info_.can_discard = file_.can_discard();
  info_.description =
      absl::StrCat(options.thread_count, " threads, ", file_.description());
  if (!options.note.empty()) {
    absl::StrAppend(&info_.description, "; ", options.note);
  }
  threads_.reserve(options.thread_count);
  for (uint32_t i = 0; i < options.thread_count; ++i) {
    threads_.emplace_back([this] { RunWorker(); });
  }
}

ThreadPoolBackend::~ThreadPoolBackend() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  has_work_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  close(event_fd_);
}

EnqueueResult ThreadPoolBackend::Enqueue(const BlockRequest& request) {
  if (!IsValidRequest(info_, request)) return EnqueueResult::kInvalid;
  uint32_t index = 0;
  const EnqueueResult result = table_.Start(request, &index);
  if (result == EnqueueResult::kAccepted) batch_.push_back(index);
  return result;
}

void ThreadPoolBackend::SubmitBatch() {
  if (batch_.empty()) return;
  {
    const std::lock_guard lock(mutex_);
    work_.insert(work_.end(), batch_.begin(), batch_.end());
  }
  if (batch_.size() == 1) {
    has_work_.notify_one();
  } else {
    has_work_.notify_all();
  }
  batch_.clear();
}

size_t ThreadPoolBackend::Reap(ReapFunction done) {
  // The counter goes first: a completion after this signals again.
  uint64_t signals = 0;
  if (read(event_fd_, &signals, sizeof(signals)) < 0) return 0;
  {
    const std::lock_guard lock(mutex_);
    reaping_.swap(done_);
  }
  for (uint32_t index : reaping_) {
    const uint64_t cookie = table_.at(index).cookie;
    done(cookie, table_.Finish(index));
  }
  const size_t reaped = reaping_.size();
  reaping_.clear();
  return reaped;
}

bool ThreadPoolBackend::NextWork(uint32_t* index) {
  std::unique_lock lock(mutex_);
  has_work_.wait(lock, [this] { return stopping_ || !work_.empty(); });
  if (stopping_) return false;
  *index = work_.front();
  work_.pop_front();
  return true;
}

void ThreadPoolBackend::RunWorker() {
  uint32_t index = 0;
  while (NextWork(&index)) {
    PendingIo& io = table_.at(index);
    while (!io.Account(RunOnce(io))) {
    }
    {
      const std::lock_guard lock(mutex_);
      done_.push_back(index);
    }
    const uint64_t one = 1;
    // Fails only when the counter is full, and then it is readable anyway.
    if (write(event_fd_, &one, sizeof(one)) < 0) continue;
  }
}

// One system call; returns bytes or a negative errno.
int64_t ThreadPoolBackend::RunOnce(const PendingIo& io) {
  const int count = static_cast<int>(io.iovec_count());
  const auto offset = static_cast<off_t>(io.offset_bytes);
  int64_t result = 0;
  switch (io.op) {
    case BlockOp::kRead:
      result = preadv(file_.fd(), io.iovecs(), count, offset);
      break;
    case BlockOp::kWrite:
      result = pwritev2(file_.fd(), io.iovecs(), count, offset,
                        io.durable ? RWF_DSYNC : 0);
      break;
    case BlockOp::kFlush:
      result = fdatasync(file_.fd());
      break;
    case BlockOp::kDiscard:
      result = fallocate(file_.fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                         offset, static_cast<off_t>(io.remaining_bytes));
      break;
  }
  return result < 0 ? -errno : result;
}

}  // namespace ferrybus::vsp
