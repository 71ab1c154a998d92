// SPDX-License-Identifier: MIT
//
// A disk image that one owner has open: file, lock, and what it can do.
//
// The fence.  When a device moves to another process (or the old process was
// killed), requests that the old owner had in flight are executed again by
// the new one.  That is safe only if no write of the old owner can land after
// the new owner's first.  Open() therefore takes an exclusive flock(2), and
// this is why holding it proves that the old owner's I/O has ended:
//
//   * an flock belongs to the open file description, not to a process; the
//     kernel drops it when the last reference to the description goes;
//   * every system call and every io_uring request that works on the file
//     holds a reference of its own until its I/O has completed, whether or
//     not the process still lives;
//   * so after SIGKILL the lock stays until the last write in the kernel has
//     ended, and only then does a waiting Open() succeed.
//
// Three things would break this, and the backends keep from them: files
// registered with io_uring (the request then pins the ring's file table
// instead of the file), mapping the image into memory (dirty pages are written
// after the mapping's reference is gone), and a copy of the descriptor in a
// child process (the lock would outlive its owner: O_CLOEXEC is set; do not
// fork without exec).
//
// The lock binds owners that ask for it, on one host.  A network file system
// may emulate flock without these guarantees: do not use one for images that
// move between hosts.
//
// A read-only image takes a shared lock: many readers, no writer.
//
// Thread safety: immutable after Open().

#ifndef FERRYBUS_VSP_STORAGE_IMAGE_FILE_H_
#define FERRYBUS_VSP_STORAGE_IMAGE_FILE_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace ferrybus::vsp {

struct ImageFileOptions {
  bool read_only = false;
  // O_DIRECT, where the file system takes transfers of 512 bytes with it;
  // buffered otherwise.
  bool direct = true;
  // How long Open() waits for another owner to let go.
  absl::Duration lock_deadline = absl::Seconds(10);
};

class ImageFile {
 public:
  // Opens and locks a regular file or block device of at least one block.
  //
  // NotFound, PermissionDenied, ...: open(2) said so.
  // DeadlineExceeded: another owner still has it, or its I/O still runs.
  // InvalidArgument: neither file nor block device, empty, or not a multiple
  // of 512 bytes.
  static absl::StatusOr<ImageFile> Open(const std::string& path,
                                        const ImageFileOptions& options);

  ImageFile(ImageFile&& other) noexcept;
  ImageFile& operator=(ImageFile&&) = delete;
  // Lets go of the lock, unless I/O in the kernel still holds the file.
  ~ImageFile();

  int fd() const { return fd_; }
  uint64_t size_bytes() const { return size_bytes_; }
  bool read_only() const { return read_only_; }
  bool direct() const { return direct_; }
  bool can_discard() const { return can_discard_; }
  // Buffers must be multiples of this, in address and length.
  uint32_t alignment_bytes() const;
  // For a log line: "O_DIRECT", "buffered (reason)".
  const std::string& description() const { return description_; }

 private:
  ImageFile(int fd, bool read_only) : fd_(fd), read_only_(read_only) {}

  absl::Status Lock(const std::string& path, absl::Duration deadline);
  absl::Status FindSize(const std::string& path);
  void ChooseDirect(bool wanted);
  void ProbeDiscard();

  int fd_;
  bool read_only_;
  bool direct_ = false;
  bool can_discard_ = false;
  uint64_t size_bytes_ = 0;
  std::string description_;
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_STORAGE_IMAGE_FILE_H_
