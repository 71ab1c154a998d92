// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/file_system.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <string_view>

namespace ferrybus::savestate {
namespace {

template <typename T>
T OrErrno(T result) {
  return result < 0 ? static_cast<T>(-errno) : result;
}

}  // namespace

PosixFileSystem& PosixFileSystem::Get() {
  static PosixFileSystem* const instance = new PosixFileSystem;
  return *instance;
}

int PosixFileSystem::MakeFolder(const std::string& path, mode_t mode) {
  return OrErrno(mkdir(path.c_str(), mode));
}

int PosixFileSystem::OpenFolder(const std::string& path) {
  return OrErrno(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

int PosixFileSystem::Open(int folder, const std::string& name, int flags,
                          mode_t mode) {
  // O_NONBLOCK: a FIFO that someone put here must not hang the caller.
  return OrErrno(openat(folder, name.c_str(),
                        flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, mode));
}

int PosixFileSystem::Close(int file) { return OrErrno(close(file)); }

int PosixFileSystem::TryLock(int file) {
  return OrErrno(flock(file, LOCK_EX | LOCK_NB));
}

ssize_t PosixFileSystem::Write(int file, const void* data, size_t size_bytes) {
  return OrErrno(write(file, data, size_bytes));
}

ssize_t PosixFileSystem::Read(int file, void* data, size_t size_bytes) {
  return OrErrno(read(file, data, size_bytes));
}

int64_t PosixFileSystem::FileSize(int file) {
  struct stat info;
  if (fstat(file, &info) < 0) return -errno;
  return S_ISREG(info.st_mode) ? int64_t{info.st_size} : -EINVAL;
}

int PosixFileSystem::Sync(int file) { return OrErrno(fsync(file)); }

int PosixFileSystem::Rename(int folder, const std::string& from,
                            const std::string& to) {
  return OrErrno(renameat(folder, from.c_str(), folder, to.c_str()));
}

int PosixFileSystem::Unlink(int folder, const std::string& name) {
  return OrErrno(unlinkat(folder, name.c_str(), 0));
}

int PosixFileSystem::List(int folder, size_t names_max,
                          std::vector<std::string>* names) {
  // fdopendir takes the descriptor over and moves its position: use another.
  const int copy = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (copy < 0) return -errno;
  DIR* stream = fdopendir(copy);
  if (stream == nullptr) {
    const int error = errno;
    close(copy);
    return -error;
  }
  int result = 0;
  errno = 0;
  while (const dirent* entry = readdir(stream)) {
    const std::string_view name = entry->d_name;
    if (name == "." || name == "..") continue;
    if (names->size() == names_max) {
      result = -EOVERFLOW;
      break;
    }
    names->emplace_back(name);
    errno = 0;
  }
  if (result == 0 && errno != 0) result = -errno;
  closedir(stream);
  return result;
}

}  // namespace ferrybus::savestate
