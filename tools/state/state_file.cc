// SPDX-License-Identifier: MIT

#include "ferrybus/tools/state/state_file.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/transport/unique_fd.h"
#include "ferrybus/savestate/file_system.h"
#include "ferrybus/savestate/frame.h"
#include "ferrybus/tools/state/describe.h"
#include "ferrybus/tools/state/state_sections.h"

namespace ferrybus::state_tool {
namespace {

using savestate::Frame;
using savestate::PosixFileSystem;

constexpr std::string_view kPrefix = "checkpoint-";
constexpr std::string_view kSuffix = ".ferry";
constexpr size_t kDigits = 16;
constexpr size_t kNamesMax = 10000;
constexpr size_t kReadBytes = size_t{1} << 20;
// Generations looked at for a whole one; a folder holds two or three.
constexpr size_t kTriedMax = 16;

absl::Status Error(int64_t result, const std::string& path,
                   std::string_view what) {
  return absl::ErrnoToStatus(
      static_cast<int>(-result),
      absl::StrCat(Escaped(path), ": cannot ", std::string(what)));
}

// docs/SAVE_STATE.md, "Checkpoint folder".
bool IsCheckpointName(std::string_view name) {
  if (name.size() != kPrefix.size() + kDigits + kSuffix.size() ||
      name.substr(0, kPrefix.size()) != kPrefix ||
      name.substr(kPrefix.size() + kDigits) != kSuffix) {
    return false;
  }
  const std::string_view digits = name.substr(kPrefix.size(), kDigits);
  return digits.find_first_not_of("0123456789abcdef") == std::string::npos;
}

absl::StatusOr<std::string> ReadAll(int file, const std::string& path,
                                    size_t bytes_max) {
  std::string bytes;
  for (;;) {
    const size_t size = bytes.size();
    // One byte more than allowed shows that there is more.
    bytes.resize(std::min(size + kReadBytes, bytes_max + 1));
    ssize_t got = 0;
    do {
      got = read(file, bytes.data() + size, bytes.size() - size);
    } while (got < 0 && errno == EINTR);
    if (got < 0) return Error(-errno, path, "read");
    bytes.resize(size + static_cast<size_t>(got));
    if (got == 0) return bytes;
    if (bytes.size() > bytes_max) {
      return absl::ResourceExhaustedError(
          absl::StrCat(Escaped(path), ": more than ", bytes_max,
                       " bytes, which is the most that is read"));
    }
  }
}

// A regular file of the folder; links are not followed.
absl::StatusOr<std::string> ReadInFolder(int folder, const std::string& name) {
  PosixFileSystem& files = PosixFileSystem::Get();
  const UniqueFd file(files.Open(folder, name, O_RDONLY, 0));
  if (!file.valid()) return Error(file.get(), name, "open");
  const int64_t size = files.FileSize(file.get());
  if (size < 0) return Error(size, name, "take it for a regular file");
  return ReadAll(file.get(), name, savestate::FrameLimits().total_bytes_max);
}

absl::StatusOr<StateFile> ReadFolder(const std::string& path, int folder) {
  std::vector<std::string> names;
  const int listed = PosixFileSystem::Get().List(folder, kNamesMax, &names);
  if (listed < 0) return Error(listed, path, "list the folder");
  std::erase_if(
      names, [](const std::string& name) { return !IsCheckpointName(name); });
  if (names.empty()) {
    return absl::NotFoundError(absl::StrCat(
        Escaped(path), ": a folder without checkpoints (", std::string(kPrefix),
        "<16 hex digits>", std::string(kSuffix), ")"));
  }
  // The digits are of one width: the newest is the last.
  std::sort(names.rbegin(), names.rend());
  names.resize(std::min(names.size(), kTriedMax));
  absl::StatusOr<StateFile> newest = absl::NotFoundError("");
  std::vector<std::string> passed_over;
  for (const std::string& name : names) {
    StateFile file;
    file.source = absl::StrCat(Escaped(path), "/", name);
    absl::StatusOr<std::string> bytes = ReadInFolder(folder, name);
    absl::Status status = bytes.status();
    if (status.ok()) {
      file.bytes = *std::move(bytes);
      status = Frame::Parse(AsBytes(file.bytes)).status();
      if (status.ok()) {
        file.passed_over = std::move(passed_over);
        return file;
      }
      if (!newest.ok()) newest = std::move(file);
    } else if (!newest.ok()) {
      newest = status;
    }
    passed_over.push_back(absl::StrCat(name, ": ", Escaped(status)));
  }
  return newest;
}

absl::Status WriteDurably(int file, const std::string& bytes,
                          const std::string& path) {
  PosixFileSystem& files = PosixFileSystem::Get();
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t written =
        files.Write(file, bytes.data() + done, bytes.size() - done);
    if (written == -EINTR) continue;
    if (written <= 0)
      return Error(written == 0 ? -EIO : written, path, "write");
    done += static_cast<size_t>(written);
  }
  const int synced = files.Sync(file);
  return synced < 0 ? Error(synced, path, "fsync") : absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> ReadBytes(const std::string& path,
                                      size_t bytes_max) {
  if (path == "-") return ReadAll(STDIN_FILENO, "standard input", bytes_max);
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) return Error(-errno, path, "open");
  return ReadAll(file.get(), path, bytes_max);
}

absl::StatusOr<StateFile> ReadState(const std::string& path) {
  if (path != "-") {
    const UniqueFd folder(
        open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (folder.get() >= 0) return ReadFolder(path, folder.get());
  }
  absl::StatusOr<std::string> bytes =
      ReadBytes(path, savestate::FrameLimits().total_bytes_max);
  if (!bytes.ok()) return bytes.status();
  return StateFile{
      path == "-" ? "standard input" : Escaped(path), *std::move(bytes), {}};
}

absl::Status WriteState(const std::string& path, const std::string& bytes,
                        bool replace) {
  const size_t slash = path.rfind('/');
  const bool is_here = slash == std::string::npos;
  const std::string name = is_here ? path : path.substr(slash + 1);
  const std::string parent = is_here ? "." : path.substr(0, slash + 1);
  if (name.empty() || name == "." || name == "..") {
    return absl::InvalidArgumentError(
        absl::StrCat(Escaped(path), ": not the name of a file"));
  }
  PosixFileSystem& files = PosixFileSystem::Get();
  const UniqueFd folder(files.OpenFolder(parent));
  if (folder.get() < 0) return Error(folder.get(), parent, "open the folder");
  constexpr int kNew = O_WRONLY | O_CREAT | O_EXCL;
  if (!replace) {
    // Takes the name, so that nobody else's file is replaced below.
    const UniqueFd taken(files.Open(folder.get(), name, kNew, 0600));
    if (taken.get() == -EEXIST) {
      return absl::AlreadyExistsError(absl::StrCat(
          Escaped(path), " is there already; --force replaces it"));
    }
    if (taken.get() < 0) return Error(taken.get(), path, "create");
  }
  const std::string temporary = absl::StrCat(".", name, ".", getpid(), ".tmp");
  absl::Status status;
  {
    const UniqueFd file(files.Open(folder.get(), temporary, kNew, 0600));
    status = file.get() < 0 ? Error(file.get(), temporary, "create")
                            : WriteDurably(file.get(), bytes, path);
    if (file.get() == -EEXIST) return status;  // not ours to remove
  }
  if (status.ok()) {
    const int renamed = files.Rename(folder.get(), temporary, name);
    if (renamed < 0) status = Error(renamed, path, "rename");
  }
  if (!status.ok()) {
    files.Unlink(folder.get(), temporary);
    if (!replace) files.Unlink(folder.get(), name);
    return status;
  }
  const int synced = files.Sync(folder.get());
  return synced < 0 ? Error(synced, parent, "fsync") : absl::OkStatus();
}

}  // namespace ferrybus::state_tool
