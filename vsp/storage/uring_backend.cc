// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/storage/uring_backend.h"

#include <linux/falloc.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace ferrybus::vsp {

absl::StatusOr<std::unique_ptr<BlockBackend>> UringBackend::Create(
    ImageFile& file, const UringBackendOptions& options) {
  if (options.queue_depth == 0 || options.queue_depth > 4096) {
    return absl::InvalidArgumentError(absl::StrCat(
        "io_uring: queue depth ", options.queue_depth, ", must be 1 to 4096"));
  }
  io_uring ring;
  if (int error = io_uring_queue_init(options.queue_depth, &ring, 0);
      error < 0) {
    return absl::UnavailableError(
        absl::StrCat("io_uring_queue_init: ", std::strerror(-error)));
  }
  const int event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (event_fd < 0) {
    const int error = errno;
    io_uring_queue_exit(&ring);
    return absl::UnavailableError(
        absl::StrCat("io_uring: eventfd: ", std::strerror(error)));
  }
  if (int error = io_uring_register_eventfd(&ring, event_fd); error < 0) {
    close(event_fd);
    io_uring_queue_exit(&ring);
    return absl::UnavailableError(
        absl::StrCat("io_uring_register_eventfd: ", std::strerror(-error)));
  }
  return std::unique_ptr<BlockBackend>(
      new UringBackend(std::move(file), ring, event_fd, options));
}

UringBackend::UringBackend(ImageFile file, const io_uring& ring, int event_fd,
                           const UringBackendOptions& options)
    : file_(std::move(file)),
      ring_(ring),
      event_fd_(event_fd),
      table_(options.queue_depth, file_.alignment_bytes(),
             options.bounce_bytes_max) {
  info_.size_bytes = file_.size_bytes();
  info_.read_only = file_.read_only();
  info_.can_discard = file_.can_discard();
  info_.description = absl::StrCat("io_uring, ", file_.description());
}

UringBackend::~UringBackend() {
  // Entries that the kernel has not taken are dropped with the ring.
  size_t in_kernel = table_.used() - io_uring_sq_ready(&ring_);
  while (in_kernel > 0) {
    io_uring_cqe* completion = nullptr;
    // Retried whatever it says: going on would let the kernel write into
    // memory that the caller is about to take back.
    if (io_uring_wait_cqe(&ring_, &completion) < 0) continue;
    io_uring_cqe_seen(&ring_, completion);
    --in_kernel;
  }
  io_uring_queue_exit(&ring_);
  close(event_fd_);
}

EnqueueResult UringBackend::Enqueue(const BlockRequest& request) {
  if (!IsValidRequest(info_, request)) return EnqueueResult::kInvalid;
  uint32_t index = 0;
  if (EnqueueResult result = table_.Start(request, &index);
      result != EnqueueResult::kAccepted) {
    return result;
  }
  // The ring has an entry for each table entry, so this cannot be full.
  if (!Prepare(index)) {
    (void)table_.Finish(index);
    return EnqueueResult::kFull;
  }
  return EnqueueResult::kAccepted;
}

// Puts what remains of a request into the submission ring.
bool UringBackend::Prepare(uint32_t index) {
  io_uring_sqe* entry = io_uring_get_sqe(&ring_);
  if (entry == nullptr) return false;
  const PendingIo& io = table_.at(index);
  switch (io.op) {
    case BlockOp::kRead:
      io_uring_prep_readv(entry, file_.fd(), io.iovecs(), io.iovec_count(),
                          io.offset_bytes);
      break;
    case BlockOp::kWrite:
      io_uring_prep_writev2(entry, file_.fd(), io.iovecs(), io.iovec_count(),
                            io.offset_bytes, io.durable ? RWF_DSYNC : 0);
      break;
    case BlockOp::kFlush:
      io_uring_prep_fsync(entry, file_.fd(), IORING_FSYNC_DATASYNC);
      break;
    case BlockOp::kDiscard:
      io_uring_prep_fallocate(entry, file_.fd(),
                              FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                              static_cast<off_t>(io.offset_bytes),
                              static_cast<off_t>(io.remaining_bytes));
      break;
  }
  io_uring_sqe_set_data64(entry, index);
  return true;
}

void UringBackend::SubmitBatch() {
  while (io_uring_sq_ready(&ring_) > 0) {
    const int taken = io_uring_submit(&ring_);
    if (taken > 0 || taken == -EINTR) continue;
    // The kernel is out of memory or wants completions reaped first.  What is
    // left stays in the ring; Reap() submits it again.
    WakeReaper();
    return;
  }
}

void UringBackend::WakeReaper() {
  const uint64_t one = 1;
  // Fails only when the counter is full, and then it is readable anyway.
  if (write(event_fd_, &one, sizeof(one)) < 0) return;
}

size_t UringBackend::Reap(ReapFunction done) {
  // The counter goes first: a completion after this signals again.
  uint64_t signals = 0;
  if (read(event_fd_, &signals, sizeof(signals)) < 0) signals = 0;
  size_t reaped = 0;
  io_uring_cqe* completion = nullptr;
  while (io_uring_peek_cqe(&ring_, &completion) == 0) {
    const auto index =
        static_cast<uint32_t>(io_uring_cqe_get_data64(completion));
    const int32_t system_result = completion->res;
    io_uring_cqe_seen(&ring_, completion);
    PendingIo& io = table_.at(index);
    if (!io.Account(system_result)) {
      if (Prepare(index)) continue;
      io.result = -EAGAIN;  // not reached: see Enqueue()
    }
    const uint64_t cookie = io.cookie;
    done(cookie, table_.Finish(index));
    ++reaped;
  }
  SubmitBatch();
  return reaped;
}

}  // namespace ferrybus::vsp
