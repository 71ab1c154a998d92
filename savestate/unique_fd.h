// SPDX-License-Identifier: MIT
//
// A file descriptor with one owner, closed when the owner ends.
//
// Ownership: moving hands the descriptor on; Release() gives it up.
// Thread safety: none of its own.

#ifndef FERRYBUS_SAVESTATE_UNIQUE_FD_H_
#define FERRYBUS_SAVESTATE_UNIQUE_FD_H_

#include <unistd.h>

#include <utility>

namespace ferrybus::savestate {

class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.Release()) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~UniqueFd() {
    if (fd_ >= 0) close(fd_);
  }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int Release() { return std::exchange(fd_, -1); }

 private:
  int fd_ = -1;
};

}  // namespace ferrybus::savestate

#endif  // FERRYBUS_SAVESTATE_UNIQUE_FD_H_
