// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/checkpoint.h"

#include <errno.h>
#include <fcntl.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <string_view>
#include <utility>

#include "absl/strings/str_format.h"
#include "ferrybus/savestate/fault_points.h"

namespace ferrybus::savestate {
namespace {

constexpr std::string_view kPrefix = "checkpoint-";
constexpr std::string_view kSuffix = ".ferry";
constexpr std::string_view kTemporarySuffix = ".tmp";
constexpr char kLockName[] = "lock";
constexpr size_t kDigits = 16;
constexpr mode_t kFolderMode = 0700;
constexpr mode_t kFileMode = 0600;

// Our own folder has about five names; beyond this it is not ours.
constexpr size_t kNamesMax = 10000;

std::string FileName(uint64_t generation, std::string_view suffix) {
  return absl::StrFormat("%s%016x%s", kPrefix, generation, suffix);
}

// The generation in a name that FileName makes, with exactly that suffix.
std::optional<uint64_t> ParseFileName(std::string_view name,
                                      std::string_view suffix) {
  if (name.size() != kPrefix.size() + kDigits + suffix.size()) return {};
  uint64_t generation = 0;
  for (char c : name.substr(kPrefix.size(), kDigits)) {
    const size_t digit = std::string_view("0123456789abcdef").find(c);
    if (digit == std::string_view::npos) return {};
    generation = generation << 4 | digit;
  }
  if (name != FileName(generation, suffix)) return {};
  return generation;
}

// For calls that did nothing when a signal interrupts them.
template <typename Call>
auto RetryInterrupted(Call call) {
  auto result = call();
  while (result == -EINTR) result = call();
  return result;
}

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return absl::MakeConstSpan(reinterpret_cast<const std::byte*>(text.data()),
                             text.size());
}

// The file itself is at fault, so an older one may stand in for it.  Failures
// of this process or machine (out of descriptors or memory) are not.
bool IsFilesOwnFault(const absl::Status& status) {
  return !absl::IsUnavailable(status);
}

}  // namespace

absl::StatusOr<CheckpointFolder> CheckpointFolder::Open(
    const std::string& path, const FrameLimits& limits,
    FileSystem& file_system) {
  CheckpointFolder folder(file_system, path, limits);
  if (auto status = folder.Create(); !status.ok()) return status;
  if (auto status = folder.Lock(); !status.ok()) return status;
  if (auto status = folder.CleanUp(); !status.ok()) return status;
  // The last Write here may have failed after its rename: what is seen now must
  // be there after a power loss, too, before anybody acts on it.
  if (auto status = folder.Sync(folder.folder_, "the folder"); !status.ok()) {
    return status;
  }
  return folder;
}

CheckpointFolder::CheckpointFolder(FileSystem& file_system, std::string path,
                                   const FrameLimits& limits)
    : file_system_(&file_system), path_(std::move(path)), limits_(limits) {}

CheckpointFolder::CheckpointFolder(CheckpointFolder&& other) noexcept
    : file_system_(other.file_system_),
      path_(std::move(other.path_)),
      limits_(other.limits_),
      folder_(std::exchange(other.folder_, -1)),
      lock_(std::exchange(other.lock_, -1)),
      next_generation_(other.next_generation_),
      good_generation_(other.good_generation_),
      sync_failed_(other.sync_failed_) {}

CheckpointFolder::~CheckpointFolder() {
  // Closing gives the lock back.  Nothing was written through either.
  if (lock_ >= 0) file_system_->Close(lock_);
  if (folder_ >= 0) file_system_->Close(folder_);
}

absl::Status CheckpointFolder::Create() {
  const int made = file_system_->MakeFolder(path_, kFolderMode);
  if (made < 0 && made != -EEXIST) return Error(made, "cannot make the folder");
  folder_ = RetryInterrupted([&] { return file_system_->OpenFolder(path_); });
  if (folder_ < 0) return Error(folder_, "cannot open the folder");
  // The folder's own name is in its parent, and must be durable too.  Also
  // when it exists: whoever made it may have died before this point.
  const int parent =
      RetryInterrupted([&] { return file_system_->OpenFolder(path_ + "/.."); });
  // An administrator's folder may stand where we may not read.
  if (parent == -EACCES && made == -EEXIST) return absl::OkStatus();
  if (parent < 0) return Error(parent, "cannot open the folder's parent");
  const int synced = file_system_->Sync(parent);
  file_system_->Close(parent);
  if (synced < 0) return Error(synced, "cannot fsync the folder's parent");
  return absl::OkStatus();
}

absl::Status CheckpointFolder::Lock() {
  lock_ = RetryInterrupted([&] {
    return file_system_->Open(folder_, kLockName, O_RDWR | O_CREAT, kFileMode);
  });
  if (lock_ < 0) return Error(lock_, "cannot open the lock file");
  const int locked =
      RetryInterrupted([&] { return file_system_->TryLock(lock_); });
  if (locked == -EWOULDBLOCK) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "%s: another writer has this checkpoint folder open", path_));
  }
  if (locked < 0) return Error(locked, "cannot lock the folder");
  return absl::OkStatus();
}

absl::Status CheckpointFolder::CleanUp() {
  const auto names = ListNames();
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    uint64_t generation = 0;
    if (const auto old = ParseFileName(name, kTemporarySuffix)) {
      // Under the lock nobody else is writing it.
      const int removed = file_system_->Unlink(folder_, name);
      if (removed < 0) return Error(removed, "cannot remove " + name);
      generation = *old;
    } else if (const auto found = ParseFileName(name, kSuffix)) {
      generation = *found;
    }
    if (generation >= next_generation_) {
      if (generation == std::numeric_limits<uint64_t>::max()) {
        return absl::ResourceExhaustedError(absl::StrFormat(
            "%s: generation numbers are used up: %s", path_, name));
      }
      next_generation_ = generation + 1;
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> CheckpointFolder::Write(
    absl::Span<const std::byte> frame) {
  const std::optional<uint64_t> before = good_generation_;
  absl::StatusOr<uint64_t> generation = WriteAndKeep(frame);
  if (generation.ok()) RemoveOlderThan(before);
  return generation;
}

absl::StatusOr<uint64_t> CheckpointFolder::WriteAndKeep(
    absl::Span<const std::byte> frame) {
  if (sync_failed_) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "%s: an earlier fsync failed; check the storage and open the folder "
        "again",
        path_));
  }
  if (auto status = Frame::Parse(frame, limits_).status(); !status.ok()) {
    return absl::Status(
        status.code(),
        absl::StrFormat("%s: refusing to write what could not be loaded: %s",
                        path_, std::string(status.message())));
  }
  if (next_generation_ == std::numeric_limits<uint64_t>::max()) {
    return absl::ResourceExhaustedError(
        absl::StrFormat("%s: generation numbers are used up", path_));
  }
  // A number is used for one attempt only, good or bad.
  const uint64_t generation = next_generation_++;
  const std::string temporary = FileName(generation, kTemporarySuffix);
  const std::string final = FileName(generation, kSuffix);
  absl::Status status = WriteTemporary(temporary, frame);
  if (status.ok()) status = Publish(temporary, final);
  if (!status.ok()) {
    // A rename that reported an error may have happened or not.
    file_system_->Unlink(folder_, temporary);
    file_system_->Unlink(folder_, final);
    return status;
  }
  good_generation_ = generation;
  return generation;
}

absl::Status CheckpointFolder::WriteTemporary(
    const std::string& name, absl::Span<const std::byte> bytes) {
  absl::Status status = PassFaultPoint(FaultPoint::kCheckpointCreate);
  if (!status.ok()) return status;
  const int file = RetryInterrupted([&] {
    return file_system_->Open(folder_, name, O_WRONLY | O_CREAT | O_EXCL,
                              kFileMode);
  });
  if (file < 0) return Error(file, "cannot create " + name);
  status = PassFaultPoint(FaultPoint::kCheckpointWrite);
  if (status.ok()) status = WriteAll(file, bytes);
  if (status.ok()) status = PassFaultPoint(FaultPoint::kCheckpointSync);
  if (status.ok()) status = Sync(file, name);
  // The data is durable by now.  Interrupted or not, Linux closed the file.
  const int closed = file_system_->Close(file);
  if (status.ok() && closed < 0 && closed != -EINTR) {
    status = Error(closed, "cannot close " + name);
  }
  return status;
}

absl::Status CheckpointFolder::WriteAll(int file,
                                        absl::Span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = RetryInterrupted(
        [&] { return file_system_->Write(file, bytes.data(), bytes.size()); });
    if (written < 0) return Error(written, "cannot write");
    // A write that makes no progress would be repeated for ever.
    if (written == 0) return Error(-EIO, "write stored nothing");
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

absl::Status CheckpointFolder::Sync(int file, const std::string& what) {
  const int synced = file_system_->Sync(file);
  if (synced >= 0) return absl::OkStatus();
  // The kernel may have dropped the dirty pages and marked them clean, so a
  // second fsync could succeed without a byte on disk.
  sync_failed_ = true;
  return Error(synced, "fsync failed for " + what);
}

absl::Status CheckpointFolder::Publish(const std::string& temporary,
                                       const std::string& final) {
  absl::Status status = PassFaultPoint(FaultPoint::kCheckpointRename);
  if (!status.ok()) return status;
  const int renamed = file_system_->Rename(folder_, temporary, final);
  if (renamed < 0) return Error(renamed, "cannot rename to " + final);
  status = PassFaultPoint(FaultPoint::kCheckpointSyncFolder);
  if (!status.ok()) return status;
  return Sync(folder_, "the folder");
}

void CheckpointFolder::RemoveOld() { RemoveOlderThan(good_generation_); }

void CheckpointFolder::RemoveOlderThan(std::optional<uint64_t> oldest) {
  MarkFaultPoint(FaultPoint::kCheckpointRemoveOld);
  if (!oldest.has_value()) return;
  const auto generations = Generations();
  if (!generations.ok()) return;
  // What cannot be removed now is tried again the next time.
  for (uint64_t generation : *generations) {
    if (generation >= *oldest) break;
    file_system_->Unlink(folder_, FileName(generation, kSuffix));
  }
}

absl::StatusOr<std::vector<std::string>> CheckpointFolder::ListNames() const {
  std::vector<std::string> names;
  const int listed = file_system_->List(folder_, kNamesMax, &names);
  if (listed < 0) return Error(listed, "cannot list the folder");
  return names;
}

absl::StatusOr<std::vector<uint64_t>> CheckpointFolder::Generations() const {
  const auto names = ListNames();
  if (!names.ok()) return names.status();
  std::vector<uint64_t> generations;
  for (const std::string& name : *names) {
    if (const auto found = ParseFileName(name, kSuffix)) {
      generations.push_back(*found);
    }
  }
  std::sort(generations.begin(), generations.end());
  return generations;
}

absl::StatusOr<LoadedCheckpoint> CheckpointFolder::LoadNewest() {
  const absl::Status status = PassFaultPoint(FaultPoint::kCheckpointLoad);
  if (!status.ok()) return status;
  const auto generations = Generations();
  if (!generations.ok()) return generations.status();
  if (generations->empty()) {
    return absl::NotFoundError(
        absl::StrFormat("%s: no checkpoint in this folder", path_));
  }
  std::vector<RefusedCheckpoint> refused;
  for (auto at = generations->rbegin(); at != generations->rend(); ++at) {
    auto loaded = Load(*at);
    if (loaded.ok()) {
      loaded->refused = std::move(refused);
      return loaded;
    }
    if (!IsFilesOwnFault(loaded.status())) return loaded.status();
    refused.push_back({*at, loaded.status()});
  }
  return absl::DataLossError(absl::StrFormat(
      "%s: none of %u checkpoints is good; the newest: %s", path_,
      refused.size(), refused.front().reason.ToString()));
}

absl::StatusOr<LoadedCheckpoint> CheckpointFolder::Load(uint64_t generation) {
  const std::string name = FileName(generation, kSuffix);
  auto bytes = ReadFile(name);
  if (!bytes.ok()) return bytes.status();
  const absl::Status status = Frame::Parse(AsBytes(*bytes), limits_).status();
  if (!status.ok()) {
    return absl::Status(status.code(),
                        absl::StrFormat("%s/%s: %s", path_, name,
                                        std::string(status.message())));
  }
  good_generation_ = std::max(generation, good_generation_.value_or(0));
  return LoadedCheckpoint{generation, *std::move(bytes), {}};
}

absl::StatusOr<std::string> CheckpointFolder::ReadFile(
    const std::string& name) const {
  const int file = RetryInterrupted(
      [&] { return file_system_->Open(folder_, name, O_RDONLY, 0); });
  if (file < 0) return Error(file, "cannot open " + name);
  auto bytes = ReadOpenFile(file);
  file_system_->Close(file);
  return bytes;
}

absl::StatusOr<std::string> CheckpointFolder::ReadOpenFile(int file) const {
  const int64_t size = file_system_->FileSize(file);
  if (size == -EINVAL) {
    return absl::FailedPreconditionError(
        absl::StrFormat("%s: not a regular file", path_));
  }
  if (size < 0) return Error(size, "cannot read the size");
  if (static_cast<uint64_t>(size) > limits_.total_bytes_max) {
    return absl::ResourceExhaustedError(
        absl::StrFormat("%s: the file has %d bytes, the limit is %u", path_,
                        size, limits_.total_bytes_max));
  }
  std::string bytes(static_cast<size_t>(size), '\0');
  size_t filled = 0;
  while (filled < bytes.size()) {
    const ssize_t got = RetryInterrupted([&] {
      return file_system_->Read(file, bytes.data() + filled,
                                bytes.size() - filled);
    });
    if (got < 0) return Error(got, "cannot read");
    if (got == 0) break;
    filled += static_cast<size_t>(got);
  }
  // A file that shrank meanwhile fails its checks as any short one.
  bytes.resize(filled);
  return bytes;
}

absl::Status CheckpointFolder::Error(int64_t result,
                                     const std::string& what) const {
  const int error = static_cast<int>(-result);
  const std::string text = absl::StrFormat("%s: %s", path_, what);
  switch (error) {
    case EIO:
      return absl::DataLossError(text + ": input/output error");
    case ENFILE:
    case EMFILE:
    case ENOMEM:
    case EINTR:
      return absl::UnavailableError(
          absl::StrFormat("%s: %s", text, std::strerror(error)));
    default:
      return absl::ErrnoToStatus(error, text);
  }
}

}  // namespace ferrybus::savestate
