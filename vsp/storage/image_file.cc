// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/storage/image_file.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "ferrybus/vsp/storage/block_backend.h"

namespace ferrybus::vsp {
namespace {

constexpr absl::Duration kLockPollInterval = absl::Milliseconds(2);

absl::Status ErrnoStatus(int error, absl::string_view what,
                         const std::string& path) {
  return absl::Status(absl::ErrnoToStatusCode(error),
                      absl::StrCat("disk image ", path, ": ", what, ": ",
                                   std::strerror(error)));
}

}  // namespace

absl::StatusOr<ImageFile> ImageFile::Open(const std::string& path,
                                          const ImageFileOptions& options) {
  const int access = options.read_only ? O_RDONLY : O_RDWR;
  const int fd = open(path.c_str(), access | O_CLOEXEC | O_NOCTTY);
  if (fd < 0) return ErrnoStatus(errno, "open", path);
  ImageFile file(fd, options.read_only);
  // The size is looked at under the lock: the old owner may have grown it.
  if (absl::Status status = file.Lock(path, options.lock_deadline);
      !status.ok()) {
    return status;
  }
  if (absl::Status status = file.FindSize(path); !status.ok()) return status;
  file.ChooseDirect(options.direct);
  file.ProbeDiscard();
  return file;
}

ImageFile::ImageFile(ImageFile&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      read_only_(other.read_only_),
      direct_(other.direct_),
      can_discard_(other.can_discard_),
      size_bytes_(other.size_bytes_),
      description_(std::move(other.description_)) {}

ImageFile::~ImageFile() {
  if (fd_ >= 0) close(fd_);
}

uint32_t ImageFile::alignment_bytes() const {
  return direct_ ? kLogicalBlockBytes : 1;
}

absl::Status ImageFile::Lock(const std::string& path, absl::Duration deadline) {
  const int operation = (read_only_ ? LOCK_SH : LOCK_EX) | LOCK_NB;
  const auto end =
      std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(deadline);
  while (flock(fd_, operation) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) {
      return ErrnoStatus(errno, "flock", path);
    }
    if (std::chrono::steady_clock::now() >= end) {
      return absl::DeadlineExceededError(absl::StrCat(
          "disk image ", path, ": still locked after ",
          absl::FormatDuration(deadline),
          "; another owner has it open or its I/O has not ended yet: stop that "
          "owner or raise lock_deadline"));
    }
    absl::SleepFor(kLockPollInterval);
  }
  return absl::OkStatus();
}

absl::Status ImageFile::FindSize(const std::string& path) {
  struct stat status = {};
  if (fstat(fd_, &status) != 0) return ErrnoStatus(errno, "fstat", path);
  if (S_ISREG(status.st_mode)) {
    size_bytes_ = static_cast<uint64_t>(status.st_size);
  } else if (S_ISBLK(status.st_mode)) {
    if (ioctl(fd_, BLKGETSIZE64, &size_bytes_) != 0) {
      return ErrnoStatus(errno, "BLKGETSIZE64", path);
    }
  } else {
    return absl::InvalidArgumentError(absl::StrCat(
        "disk image ", path, ": neither a regular file nor a block device"));
  }
  if (size_bytes_ == 0 || size_bytes_ % kLogicalBlockBytes != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("disk image ", path, ": ", size_bytes_,
                     " bytes, must be a positive multiple of ",
                     kLogicalBlockBytes, ": grow it with truncate -s"));
  }
  return absl::OkStatus();
}

// O_DIRECT is set on the open file: opening twice would need two locks.  Some
// file systems take the flag and then refuse the transfers, so one is tried.
void ImageFile::ChooseDirect(bool wanted) {
  if (!wanted) {
    description_ = "buffered (as asked)";
    return;
  }
  const int flags = fcntl(fd_, F_GETFL);
  if (flags < 0 || fcntl(fd_, F_SETFL, flags | O_DIRECT) != 0) {
    description_ =
        absl::StrCat("buffered (O_DIRECT refused: ", std::strerror(errno), ")");
    return;
  }
  // At an odd block of the page, so that weaker alignment shows.
  alignas(kPhysicalBlockBytes) char page[kPhysicalBlockBytes];
  const ssize_t got =
      pread(fd_, page + kLogicalBlockBytes, kLogicalBlockBytes, 0);
  if (got != kLogicalBlockBytes) {
    const std::string reason = got < 0 ? std::strerror(errno) : "short read";
    (void)fcntl(fd_, F_SETFL, flags);
    description_ = absl::StrCat("buffered (O_DIRECT cannot read ",
                                kLogicalBlockBytes, " bytes: ", reason, ")");
    return;
  }
  direct_ = true;
  description_ = "O_DIRECT";
}

// Punching a hole behind the end changes nothing, but says whether it could.
void ImageFile::ProbeDiscard() {
  if (read_only_) return;
  struct stat status = {};
  if (fstat(fd_, &status) != 0 || !S_ISREG(status.st_mode)) return;
  can_discard_ =
      fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                static_cast<off_t>(size_bytes_), kPhysicalBlockBytes) == 0;
}

}  // namespace ferrybus::vsp
