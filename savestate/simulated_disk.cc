// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/simulated_disk.h"

#include <errno.h>
#include <fcntl.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace ferrybus::savestate {

std::vector<SimulatedDisk> SimulatedDisk::CrashStates() const {
  enum Loss { kOld, kNew, kHalf, kZeros, kLossCount };
  std::vector<SimulatedDisk> states;
  const size_t subsets = size_t{1} << pending_.size();
  for (size_t subset = 0; subset < subsets; ++subset) {
    for (int loss = kOld; loss < kLossCount; ++loss) {
      SimulatedDisk after;
      after.folder_made_ = after.folder_synced_ = folder_synced_;
      after.next_ = next_;
      after.inodes_ = inodes_;
      for (auto& [number, inode] : after.inodes_) {
        if (inode.bytes == inode.synced) continue;
        if (loss == kOld) inode.bytes = inode.synced;
        if (loss == kHalf) inode.bytes.resize(inode.bytes.size() / 2);
        if (loss == kZeros) inode.bytes.assign(inode.bytes.size(), '\0');
        inode.synced = inode.bytes;
      }
      after.entries_ = synced_entries_;
      for (size_t i = 0; i < pending_.size(); ++i) {
        if ((subset >> i & 1) != 0) Apply(pending_[i], &after.entries_);
      }
      if (!folder_synced_) after.entries_.clear();
      after.synced_entries_ = after.entries_;
      states.push_back(std::move(after));
    }
  }
  return states;
}

std::vector<std::string> SimulatedDisk::names() const {
  std::vector<std::string> names;
  for (const auto& [name, inode] : entries_) names.push_back(name);
  return names;
}

void SimulatedDisk::Apply(const Change& change, Entries* entries) const {
  if (!change.removed.empty()) entries->erase(change.removed);
  if (!change.added.empty()) (*entries)[change.added] = change.inode;
}

void SimulatedDisk::Do(Change change) {
  Apply(change, &entries_);
  pending_.push_back(std::move(change));
}

int SimulatedDisk::NewHandle(int inode) {
  handles_[next_] = {inode, 0};
  return next_++;
}

int SimulatedDisk::MakeFolder(const std::string&, mode_t) {
  BeforeCall();
  if (folder_made_) return -EEXIST;
  folder_made_ = true;
  return 0;
}

int SimulatedDisk::OpenFolder(const std::string& path) {
  BeforeCall();
  if (!folder_made_) return -ENOENT;
  const bool parent = path.size() > 3 && path.ends_with("/..");
  return NewHandle(parent ? kParent : kFolder);
}

int SimulatedDisk::Open(int, const std::string& name, int flags, mode_t) {
  BeforeCall();
  const auto found = entries_.find(name);
  if (found != entries_.end()) {
    if ((flags & O_EXCL) != 0) return -EEXIST;
    return NewHandle(found->second);
  }
  if ((flags & O_CREAT) == 0) return -ENOENT;
  const int inode = next_++;
  inodes_[inode] = {};
  Do({name, inode, ""});
  return NewHandle(inode);
}

int SimulatedDisk::Close(int file) {
  BeforeCall();
  if (locked_by_ == file) locked_by_ = -1;
  return handles_.erase(file) == 1 ? 0 : -EBADF;
}

int SimulatedDisk::TryLock(int file) {
  BeforeCall();
  if (locked_by_ != -1) return -EWOULDBLOCK;
  locked_by_ = file;
  return 0;
}

ssize_t SimulatedDisk::Write(int file, const void* data, size_t size_bytes) {
  BeforeCall();
  const size_t stored_bytes = std::min(size_bytes, write_bytes_max_);
  inodes_.at(handles_.at(file).inode)
      .bytes.append(static_cast<const char*>(data), stored_bytes);
  return static_cast<ssize_t>(stored_bytes);
}

ssize_t SimulatedDisk::Read(int file, void* data, size_t size_bytes) {
  BeforeCall();
  Handle& handle = handles_.at(file);
  const std::string& bytes = inodes_.at(handle.inode).bytes;
  const size_t got = std::min(size_bytes, bytes.size() - handle.position);
  std::memcpy(data, bytes.data() + handle.position, got);
  handle.position += got;
  return static_cast<ssize_t>(got);
}

int64_t SimulatedDisk::FileSize(int file) {
  BeforeCall();
  return static_cast<int64_t>(inodes_.at(handles_.at(file).inode).bytes.size());
}

int SimulatedDisk::Sync(int file) {
  BeforeCall();
  const int inode = handles_.at(file).inode;
  if (inode == kParent) {
    folder_synced_ = true;
  } else if (inode == kFolder) {
    synced_entries_ = entries_;
    pending_.clear();
  } else {
    inodes_.at(inode).synced = inodes_.at(inode).bytes;
  }
  return 0;
}

int SimulatedDisk::Rename(int, const std::string& from, const std::string& to) {
  BeforeCall();
  const auto found = entries_.find(from);
  if (found == entries_.end()) return -ENOENT;
  Do({to, found->second, from});
  return 0;
}

int SimulatedDisk::Unlink(int, const std::string& name) {
  BeforeCall();
  if (entries_.count(name) == 0) return -ENOENT;
  Do({"", 0, name});
  return 0;
}

int SimulatedDisk::List(int, size_t names_max,
                        std::vector<std::string>* names) {
  BeforeCall();
  for (const auto& [name, inode] : entries_) {
    if (names->size() == names_max) return -EOVERFLOW;
    names->push_back(name);
  }
  return 0;
}

bool FaultyFileSystem::Fails(const char* name) {
  const size_t call = calls_++;
  const bool fails = call == fail_at_ || (sticky_ && call > fail_at_);
  if (fails && failed_call_ == nullptr) failed_call_ = name;
  return fails;
}

int FaultyFileSystem::MakeFolder(const std::string& path, mode_t mode) {
  return Fails("MakeFolder") ? -error_ : inner_.MakeFolder(path, mode);
}

int FaultyFileSystem::OpenFolder(const std::string& path) {
  return Fails("OpenFolder") ? -error_ : inner_.OpenFolder(path);
}

int FaultyFileSystem::Open(int folder, const std::string& name, int flags,
                           mode_t mode) {
  return Fails("Open") ? -error_ : inner_.Open(folder, name, flags, mode);
}

int FaultyFileSystem::Close(int file) {
  // As on Linux: whatever close returns, the descriptor is gone.
  const int result = inner_.Close(file);
  return Fails("Close") ? -error_ : result;
}

int FaultyFileSystem::TryLock(int file) {
  return Fails("TryLock") ? -error_ : inner_.TryLock(file);
}

ssize_t FaultyFileSystem::Write(int file, const void* data, size_t size_bytes) {
  if (calls_ == shorten_at_) size_bytes = 1;
  return Fails("Write") ? -error_ : inner_.Write(file, data, size_bytes);
}

ssize_t FaultyFileSystem::Read(int file, void* data, size_t size_bytes) {
  if (calls_ == shorten_at_) size_bytes = 1;
  return Fails("Read") ? -error_ : inner_.Read(file, data, size_bytes);
}

int64_t FaultyFileSystem::FileSize(int file) {
  return Fails("FileSize") ? -error_ : inner_.FileSize(file);
}

int FaultyFileSystem::Sync(int file) {
  if (Fails("Sync")) return -error_;
  return sync_error_ != 0 ? -sync_error_ : inner_.Sync(file);
}

int FaultyFileSystem::Rename(int folder, const std::string& from,
                             const std::string& to) {
  return Fails("Rename") ? -error_ : inner_.Rename(folder, from, to);
}

int FaultyFileSystem::Unlink(int folder, const std::string& name) {
  return Fails("Unlink") ? -error_ : inner_.Unlink(folder, name);
}

int FaultyFileSystem::List(int folder, size_t names_max,
                           std::vector<std::string>* names) {
  return Fails("List") ? -error_ : inner_.List(folder, names_max, names);
}

}  // namespace ferrybus::savestate
