// SPDX-License-Identifier: MIT
//
// A folder that holds the newest checkpoints of one VM or device.  A
// checkpoint is a frame (frame.h) in a file of its own, with a generation
// number that only grows:
//
//   checkpoint-000000000000002a.ferry
//
// Promise: after Write returned a generation, that checkpoint survives power
// loss.  At any moment, whatever fails, the folder holds the newest complete
// checkpoint or the one before it; a file that is half written is never taken
// for one.  A Write that failed may leave its checkpoint behind after a power
// loss: whole, and found by LoadNewest, as if the Write had succeeded.
//
// Ownership: the folder holds an exclusive lock on disk while it is open; the
// FileSystem must outlive it.
// Thread safety: none; one thread at a time.
// Trust: the files may be hostile or damaged.  Reads are bounded, links are
// not followed, and bytes are given out only after Frame::Parse accepted them.
// Whoever may write in the folder may also delete from it.
// Cost: Write does two fsyncs and keeps no copy; loading reads one file whole.
//
//   auto folder = CheckpointFolder::Open("/var/lib/vm1/checkpoints");
//   absl::StatusOr<uint64_t> generation = folder->Write(AsBytes(frame));
//   absl::StatusOr<LoadedCheckpoint> newest = folder->LoadNewest();

#ifndef FERRYBUS_SAVESTATE_CHECKPOINT_H_
#define FERRYBUS_SAVESTATE_CHECKPOINT_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/savestate/file_system.h"
#include "ferrybus/savestate/frame.h"

namespace ferrybus::savestate {

// A generation that is in the folder but was not loaded.
struct RefusedCheckpoint {
  uint64_t generation = 0;
  absl::Status reason;
};

struct LoadedCheckpoint {
  uint64_t generation = 0;
  std::string bytes;  // Frame::Parse accepts them
  // Newer generations, newest first.  Not empty: state that once was complete
  // may be lost; report it before going on.
  std::vector<RefusedCheckpoint> refused;
};

class CheckpointFolder {
 public:
  // Creates the folder (mode 0700, its parent must exist) unless it is there,
  // locks it, and removes what an interrupted Write left behind.
  //
  // kFailedPrecondition: another writer has it open.  Otherwise the code that
  // belongs to the system's error.
  static absl::StatusOr<CheckpointFolder> Open(
      const std::string& path, const FrameLimits& limits = {},
      FileSystem& file_system = PosixFileSystem::Get());

  CheckpointFolder(CheckpointFolder&& other) noexcept;
  CheckpointFolder& operator=(CheckpointFolder&&) = delete;
  ~CheckpointFolder();

  // Stores a frame durably as the next generation, then removes generations
  // older than the one before it.  The generation before is the last one that
  // this object wrote or loaded; until there is one, nothing is removed.
  //
  // On failure the earlier generations are untouched and no temporary file is
  // left.  A failed fsync is final: what reached the disk is then unknown, so
  // every later Write fails with kFailedPrecondition until the folder is
  // opened again.  Refuses bytes that Frame::Parse refuses, with its status.
  absl::StatusOr<uint64_t> Write(absl::Span<const std::byte> frame);

  // As Write, but all older generations stay until RemoveOld(): for whom this
  // is no moment to wait for a file system that removes, which takes longer
  // than an fsync.
  absl::StatusOr<uint64_t> WriteAndKeep(absl::Span<const std::byte> frame);
  // Removes generations older than the last one that was written or loaded.
  void RemoveOld();

  // The newest generation that Frame::Parse accepts.  kNotFound: the folder
  // has none at all.  kDataLoss: it has some, but none is good.  Another
  // error: a file could not be opened or read for a reason that is not the
  // file's (too many open files); an older one is not taken in its place.
  absl::StatusOr<LoadedCheckpoint> LoadNewest();

  // That generation and no other; `refused` is empty.
  absl::StatusOr<LoadedCheckpoint> Load(uint64_t generation);

  // Ascending; good or not.
  absl::StatusOr<std::vector<uint64_t>> Generations() const;

 private:
  CheckpointFolder(FileSystem& file_system, std::string path,
                   const FrameLimits& limits);

  absl::Status Create();
  absl::Status Lock();
  absl::Status CleanUp();
  absl::StatusOr<std::vector<std::string>> ListNames() const;
  absl::Status WriteTemporary(const std::string& name,
                              absl::Span<const std::byte> bytes);
  absl::Status WriteAll(int file, absl::Span<const std::byte> bytes);
  absl::Status Sync(int file, const std::string& what);
  absl::Status Publish(const std::string& temporary, const std::string& final);
  void RemoveOlderThan(std::optional<uint64_t> oldest);
  absl::StatusOr<std::string> ReadFile(const std::string& name) const;
  absl::StatusOr<std::string> ReadOpenFile(int file) const;
  absl::Status Error(int64_t result, const std::string& what) const;

  FileSystem* file_system_;
  std::string path_;
  FrameLimits limits_;
  int folder_ = -1;
  int lock_ = -1;
  uint64_t next_generation_ = 1;
  std::optional<uint64_t> good_generation_;  // written or loaded last
  bool sync_failed_ = false;
};

}  // namespace ferrybus::savestate

#endif  // FERRYBUS_SAVESTATE_CHECKPOINT_H_
