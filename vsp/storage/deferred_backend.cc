// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/storage/deferred_backend.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"

namespace ferrybus::vsp {
namespace {

absl::StatusOr<uint64_t> SizeOf(const std::string& path) {
  UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file.valid()) {
    return absl::ErrnoToStatus(errno, absl::StrCat(path, ": open"));
  }
  struct stat about = {};
  if (fstat(file.get(), &about) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat(path, ": fstat"));
  }
  uint64_t size = static_cast<uint64_t>(about.st_size);
  if (S_ISBLK(about.st_mode)) {
    if (ioctl(file.get(), BLKGETSIZE64, &size) != 0) {
      return absl::ErrnoToStatus(errno, absl::StrCat(path, ": BLKGETSIZE64"));
    }
  } else if (!S_ISREG(about.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": neither a file nor a block device"));
  }
  if (size == 0 || size % kLogicalBlockBytes != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": ", size, " bytes, not whole blocks of ", kLogicalBlockBytes));
  }
  return size;
}

void Watch(int epoll, int event) {
  epoll_event wanted = {.events = EPOLLIN, .data = {.fd = event}};
  epoll_ctl(epoll, EPOLL_CTL_ADD, event, &wanted);
}

}  // namespace

absl::StatusOr<std::unique_ptr<DeferredBackend>> DeferredBackend::Create(
    const std::string& path, const BlockBackendOptions& options) {
  absl::StatusOr<uint64_t> size = SizeOf(path);
  if (!size.ok()) return size.status();
  UniqueFd event(epoll_create1(EPOLL_CLOEXEC));
  if (!event.valid()) {
    return absl::ErrnoToStatus(errno, absl::StrCat(path, ": epoll_create1"));
  }
  UniqueFd failed_event(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!failed_event.valid()) {
    return absl::ErrnoToStatus(errno, absl::StrCat(path, ": eventfd"));
  }
  return absl::WrapUnique(
      new DeferredBackend(path, options,
                          {.size_bytes = *size,
                           .read_only = options.image.read_only,
                           .can_discard = true,
                           .description = "not opened yet"},
                          std::move(event), std::move(failed_event)));
}

absl::Status DeferredBackend::Open() {
  if (was_opened_) return status_;
  was_opened_ = true;
  absl::StatusOr<std::unique_ptr<BlockBackend>> backend =
      OpenBlockBackend(path_, options_);
  if (backend.ok() && (*backend)->info().size_bytes != info_.size_bytes) {
    backend = absl::FailedPreconditionError(
        absl::StrCat(path_, ": ", (*backend)->info().size_bytes, " bytes, was ",
                     info_.size_bytes));
  }
  status_ = backend.status();
  if (backend.ok()) {
    backend_ = *std::move(backend);
    Watch(event_.get(), backend_->event_fd());
  } else {
    Watch(event_.get(), failed_event_.get());
  }
  return status_;
}

EnqueueResult DeferredBackend::Enqueue(const BlockRequest& request) {
  if (Open().ok()) return backend_->Enqueue(request);
  if (!IsValidRequest(info_, request)) return EnqueueResult::kInvalid;
  if (failed_.size() >= options_.queue_depth) return EnqueueResult::kFull;
  failed_.push_back(request.cookie);
  return EnqueueResult::kAccepted;
}

void DeferredBackend::SubmitBatch() {
  if (backend_ != nullptr) return backend_->SubmitBatch();
  if (!failed_.empty()) eventfd_write(failed_event_.get(), 1);
}

size_t DeferredBackend::Reap(ReapFunction done) {
  if (backend_ != nullptr) return backend_->Reap(done);
  if (failed_.empty()) return 0;
  eventfd_t ignored = 0;
  eventfd_read(failed_event_.get(), &ignored);
  const std::deque<uint64_t> failed = std::exchange(failed_, {});
  for (uint64_t cookie : failed) done(cookie, -EIO);
  return failed.size();
}

}  // namespace ferrybus::vsp
