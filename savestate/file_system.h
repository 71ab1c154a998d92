// SPDX-License-Identifier: MIT
//
// The system calls that a checkpoint folder makes, one virtual function each,
// so that a test can make any of them fail.  The production implementation
// passes them on and adds nothing; retries and policy are in checkpoint.cc.
//
// Every call returns what the system call returns, or -errno.
//
// Ownership: file descriptors belong to the caller, who closes them.
// Thread safety: PosixFileSystem has no state.

#ifndef FERRYBUS_SAVESTATE_FILE_SYSTEM_H_
#define FERRYBUS_SAVESTATE_FILE_SYSTEM_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace ferrybus::savestate {

class FileSystem {
 public:
  virtual ~FileSystem() = default;

  virtual int MakeFolder(const std::string& path, mode_t mode) = 0;
  virtual int OpenFolder(const std::string& path) = 0;
  // `name` is relative to `folder`; symbolic links are not followed.
  virtual int Open(int folder, const std::string& name, int flags,
                   mode_t mode) = 0;
  virtual int Close(int file) = 0;
  // Takes the exclusive flock, or returns -EWOULDBLOCK at once.
  virtual int TryLock(int file) = 0;
  virtual ssize_t Write(int file, const void* data, size_t size_bytes) = 0;
  virtual ssize_t Read(int file, void* data, size_t size_bytes) = 0;
  // -EINVAL for anything but a regular file.
  virtual int64_t FileSize(int file) = 0;
  // Of a file or a folder.
  virtual int Sync(int file) = 0;
  virtual int Rename(int folder, const std::string& from,
                     const std::string& to) = 0;
  virtual int Unlink(int folder, const std::string& name) = 0;
  // Appends every name but "." and "..", in no order; -EOVERFLOW when there
  // are more than `names_max`.
  virtual int List(int folder, size_t names_max,
                   std::vector<std::string>* names) = 0;
};

class PosixFileSystem final : public FileSystem {
 public:
  // One for the process; never destroyed.
  static PosixFileSystem& Get();

  int MakeFolder(const std::string& path, mode_t mode) override;
  int OpenFolder(const std::string& path) override;
  int Open(int folder, const std::string& name, int flags,
           mode_t mode) override;
  int Close(int file) override;
  int TryLock(int file) override;
  ssize_t Write(int file, const void* data, size_t size_bytes) override;
  ssize_t Read(int file, void* data, size_t size_bytes) override;
  int64_t FileSize(int file) override;
  int Sync(int file) override;
  int Rename(int folder, const std::string& from,
             const std::string& to) override;
  int Unlink(int folder, const std::string& name) override;
  int List(int folder, size_t names_max,
           std::vector<std::string>* names) override;
};

}  // namespace ferrybus::savestate

#endif  // FERRYBUS_SAVESTATE_FILE_SYSTEM_H_
