// SPDX-License-Identifier: MIT
//
// File systems for tests of what must survive faults.
//
// SimulatedDisk keeps one folder in memory and remembers what a power loss
// may take: file bytes without fsync, and folder entries without fsync of the
// folder.  CrashStates() gives every disk that may be found afterwards.
//
// FaultyFileSystem passes calls on, and makes one of them fail.
//
// Thread safety: none.

#ifndef FERRYBUS_SAVESTATE_SIMULATED_DISK_H_
#define FERRYBUS_SAVESTATE_SIMULATED_DISK_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "ferrybus/savestate/file_system.h"

namespace ferrybus::savestate {

class SimulatedDisk final : public FileSystem {
 public:
  // A write stores at most `write_bytes_max` at once.
  explicit SimulatedDisk(size_t write_bytes_max = ~size_t{0})
      : write_bytes_max_(write_bytes_max) {}

  // Called before each call has any effect.
  void set_before_call(std::function<void()> hook) { hook_ = std::move(hook); }

  // Every disk that a power loss at this moment may leave: each subset of the
  // folder changes since its last fsync happened; bytes of files that were
  // not synced are old, new, cut in half or zero.
  std::vector<SimulatedDisk> CrashStates() const;

  // Direct access, around the calls.
  const std::string& content(const std::string& name) const {
    return inodes_.at(entries_.at(name)).bytes;
  }
  void set_content(const std::string& name, const std::string& bytes) {
    inodes_[entries_.at(name)] = {bytes, bytes};
  }
  std::vector<std::string> names() const;

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

 private:
  static constexpr int kFolder = -1;  // inode number of the folder
  static constexpr int kParent = -2;

  struct Inode {
    std::string bytes;
    std::string synced;
  };
  struct Handle {
    int inode;
    size_t position;
  };
  // One change of a folder entry: `added` (if not empty) now names `inode`,
  // `removed` (if not empty) names nothing.
  struct Change {
    std::string added;
    int inode;
    std::string removed;
  };
  using Entries = std::map<std::string, int>;

  void BeforeCall() {
    if (hook_) hook_();
  }
  void Apply(const Change& change, Entries* entries) const;
  void Do(Change change);
  int NewHandle(int inode);

  size_t write_bytes_max_;
  std::function<void()> hook_;
  bool folder_made_ = false;
  bool folder_synced_ = false;
  int locked_by_ = -1;  // handle
  int next_ = 3;        // inode or handle number
  std::map<int, Inode> inodes_;
  std::map<int, Handle> handles_;
  Entries entries_;
  Entries synced_entries_;
  std::vector<Change> pending_;
};

class FaultyFileSystem final : public FileSystem {
 public:
  explicit FaultyFileSystem(FileSystem& inner) : inner_(inner) {}

  // Call number `call` (from 0) returns -`error` without effect; with
  // `sticky`, so does every later one.
  void FailAt(size_t call, int error, bool sticky) {
    fail_at_ = call, error_ = error, sticky_ = sticky;
  }
  // Call number `call`, if it is a write or a read, moves only one byte.
  void ShortenAt(size_t call) { shorten_at_ = call; }
  // Every Sync fails from now on.
  void FailSync(int error) { sync_error_ = error; }

  size_t calls() const { return calls_; }
  // The name of the call that was made to fail; null when none was.
  const char* failed_call() const { return failed_call_; }

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

 private:
  static constexpr size_t kNever = ~size_t{0};

  // Counts the call; true when it is to fail.
  bool Fails(const char* name);

  FileSystem& inner_;
  size_t calls_ = 0;
  size_t fail_at_ = kNever;
  size_t shorten_at_ = kNever;
  int error_ = 0;
  int sync_error_ = 0;
  bool sticky_ = false;
  const char* failed_call_ = nullptr;
};

}  // namespace ferrybus::savestate

#endif  // FERRYBUS_SAVESTATE_SIMULATED_DISK_H_
