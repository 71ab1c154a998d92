// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/migration/snapshot_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "ferrybus/savestate/checkpoint.h"
#include "ferrybus/savestate/crc32c.h"
#include "ferrybus/savestate/frame.h"
#include "ferrybus/savestate/steady_clock.h"
#include "ferrybus/savestate/unique_fd.h"

namespace ferrybus::migration {
namespace {

using savestate::Frame;
using savestate::FrameWriter;
using savestate::SectionKind;
using savestate::UniqueFd;

constexpr uint64_t kChunkBytes = uint64_t{1} << 20;
constexpr uint64_t kBlobBytesMax = uint64_t{64} << 20;
constexpr absl::Duration kPatience = absl::Seconds(30);
// Sections, the instance being the device's place.
constexpr char kName[] = "name";
constexpr char kParameters[] = "parameters";
constexpr char kImmutable[] = "immutable";
constexpr char kMutable[] = "mutable";
constexpr char kMemory[] = "memory";  // checksums of its segments, as numbers

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

std::string MemoryPath(const std::string& folder, const Migratable& device,
                       const Segment& segment) {
  return absl::StrCat(folder, "/", device.name(), ".", segment.id);
}

absl::StatusOr<std::string> Blob(Migratable& device, bool is_immutable) {
  return savestate::NegotiateSize(
      {.dialect = savestate::SizingDialect::kGpuP,
       .bytes_max = kBlobBytesMax,
       .immutable = is_immutable},
      device.name(), [&](absl::Span<std::byte> out) {
        return is_immutable ? device.SaveImmutable(out)
                            : device.SaveMutable(out);
      });
}

bool IsZero(absl::Span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(),
                     [](std::byte byte) { return byte == std::byte{0}; });
}

// Writes a segment's memory into its file.  Its checksum.
absl::StatusOr<uint32_t> SaveMemory(const std::string& path, Migratable& device,
                                    const Segment& segment) {
  const UniqueFd file(
      open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  const uint64_t size = SegmentSizeBytes(segment);
  if (!file.valid() || ftruncate(file.get(), static_cast<off_t>(size)) != 0) {
    return absl::ErrnoToStatus(errno, path);
  }
  uint32_t crc = 0;
  std::vector<std::byte> chunk(kChunkBytes);
  for (uint64_t at = 0; at < size; at += kChunkBytes) {
    const auto bytes =
        absl::MakeSpan(chunk).first(std::min(kChunkBytes, size - at));
    const absl::Status status = device.ReadMemory(segment.id, at, bytes);
    if (!status.ok()) return status;
    crc = savestate::ExtendCrc32c(crc, bytes);
    if (!IsZero(bytes) &&
        pwrite(file.get(), bytes.data(), bytes.size(),
               static_cast<off_t>(at)) != static_cast<ssize_t>(bytes.size())) {
      return absl::ErrnoToStatus(errno, path);
    }
  }
  if (fsync(file.get()) != 0) return absl::ErrnoToStatus(errno, path);
  return crc;
}

// The files that are in it.
absl::Status SyncFolder(const std::string& folder) {
  const UniqueFd is(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!is.valid() || fsync(is.get()) != 0) {
    return absl::ErrnoToStatus(errno, folder);
  }
  return absl::OkStatus();
}

absl::Status RestoreMemory(const std::string& path, Migratable& device,
                           const Segment& segment, uint32_t expected_crc) {
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  const uint64_t size = SegmentSizeBytes(segment);
  struct stat is = {};
  if (!file.valid() || fstat(file.get(), &is) != 0) {
    return absl::ErrnoToStatus(errno, path);
  }
  if (!S_ISREG(is.st_mode) || is.st_size != static_cast<off_t>(size)) {
    return absl::DataLossError(
        absl::StrCat(path, " is no file of ", size, " bytes"));
  }
  uint32_t crc = 0;
  std::vector<std::byte> chunk(kChunkBytes);
  for (uint64_t at = 0; at < size; at += kChunkBytes) {
    const auto bytes =
        absl::MakeSpan(chunk).first(std::min(kChunkBytes, size - at));
    if (pread(file.get(), bytes.data(), bytes.size(), static_cast<off_t>(at)) !=
        static_cast<ssize_t>(bytes.size())) {
      return absl::DataLossError(absl::StrCat(path, " cannot be read"));
    }
    crc = savestate::ExtendCrc32c(crc, bytes);
    if (IsZero(bytes)) continue;
    const absl::Status status = device.WriteMemory(segment.id, at, bytes);
    if (!status.ok()) return status;
  }
  return crc == expected_crc
             ? absl::OkStatus()
             : absl::DataLossError(absl::StrCat(path, ": wrong checksum"));
}

absl::Status PauseDevice(Migratable& device) {
  const absl::Time deadline = savestate::SteadyNow() + kPatience;
  while (true) {
    const absl::StatusOr<bool> paused = device.Pause();
    if (!paused.ok()) return paused.status();
    if (*paused) return absl::OkStatus();
    if (savestate::SteadyNow() > deadline) {
      return absl::DeadlineExceededError("it does not come to rest");
    }
    absl::SleepFor(absl::Milliseconds(5));
  }
}

// Paused devices, into the folder.
absl::Status SavePaused(const std::string& folder,
                        absl::Span<Migratable* const> devices) {
  FrameWriter writer("ferrybus-snapshot");
  const auto add = [&](const char* name, size_t i, std::string body) {
    writer.AddSection(name, i, 1, SectionKind::kRequired, std::move(body));
  };
  for (size_t i = 0; i < devices.size(); ++i) {
    Migratable& device = *devices[i];
    std::string checksums;
    for (const Segment& segment : device.segments()) {
      const absl::StatusOr<uint32_t> crc =
          SaveMemory(MemoryPath(folder, device, segment), device, segment);
      if (!crc.ok()) return OfDevice(device, "memory", crc.status());
      checksums.append(reinterpret_cast<const char*>(&*crc), sizeof(*crc));
    }
    absl::StatusOr<std::string> immutable = Blob(device, true);
    if (!immutable.ok()) return OfDevice(device, "save", immutable.status());
    absl::StatusOr<std::string> mutable_data = Blob(device, false);
    if (!mutable_data.ok()) {
      return OfDevice(device, "save", mutable_data.status());
    }
    add(kName, i, device.name());
    add(kParameters, i, device.CreationParameters());
    add(kImmutable, i, *std::move(immutable));
    add(kMutable, i, *std::move(mutable_data));
    add(kMemory, i, std::move(checksums));
  }
  const absl::StatusOr<std::string> frame = writer.Finish();
  if (!frame.ok()) return frame.status();
  auto state = savestate::CheckpointFolder::Open(folder + "/state");
  if (!state.ok()) return state.status();
  // Before the checkpoint, which says that all is there: the folder's place,
  // too.
  for (const std::string& each : {folder, folder + "/.."}) {
    const absl::Status status = SyncFolder(each);
    if (!status.ok()) return status;
  }
  return state->Write(AsBytes(*frame)).status();
}

absl::Status CheckSections(const Frame& frame) {
  for (const savestate::Section& section : frame.sections()) {
    const bool is_known = section.name == kName ||
                          section.name == kParameters ||
                          section.name == kImmutable ||
                          section.name == kMutable || section.name == kMemory;
    if (section.kind == SectionKind::kRequired &&
        (!is_known || section.version != 1)) {
      return absl::UnimplementedError(absl::StrCat(
          "the snapshot needs \"", std::string(section.name), "\" version ",
          section.version, ", which this version does not know"));
    }
  }
  return absl::OkStatus();
}

// A device's section, empty if there is none.
absl::Span<const std::byte> Find(const Frame& frame, const char* name,
                                 size_t device) {
  const savestate::Section* const section = frame.Find(name, device);
  return section == nullptr || section->version != 1
             ? absl::Span<const std::byte>()
             : section->body;
}

std::string_view Text(absl::Span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

absl::Status RestoreDevice(const std::string& folder, const Frame& frame,
                           size_t i, Migratable& device) {
  if (Text(Find(frame, kName, i)) != device.name()) {
    return absl::DataLossError("the snapshot has no such device");
  }
  absl::Status status = device.RestoreImmutable(Find(frame, kImmutable, i));
  if (!status.ok()) return status;
  const std::vector<Segment> segments = device.segments();
  const absl::Span<const std::byte> checksums = Find(frame, kMemory, i);
  if (checksums.size() != segments.size() * sizeof(uint32_t)) {
    return absl::DataLossError("the snapshot has other memory");
  }
  for (size_t s = 0; s < segments.size() && status.ok(); ++s) {
    uint32_t crc;
    std::memcpy(&crc, &checksums[s * sizeof(crc)], sizeof(crc));
    status = RestoreMemory(MemoryPath(folder, device, segments[s]), device,
                           segments[s], crc);
  }
  return status;
}

}  // namespace

absl::Status SaveSnapshot(const std::string& folder,
                          absl::Span<Migratable* const> devices) {
  for (const Migratable* device : devices) {
    const std::string name = device->name();
    if (name.empty() || absl::StrContains(name, '/')) {
      return absl::InvalidArgumentError(
          absl::StrCat("a device's memory cannot be in a file \"", name, "\""));
    }
  }
  if (mkdir(folder.c_str(), 0700) != 0) {
    return absl::ErrnoToStatus(errno, folder);
  }
  absl::Status status;
  size_t prepared = 0;
  while (prepared < devices.size() && status.ok()) {
    status = devices[prepared]->Prepare(Role::kSource);
    if (status.ok()) ++prepared;
  }
  size_t paused = 0;
  while (paused < devices.size() && status.ok()) {
    status = PauseDevice(*devices[paused++]);
  }
  if (status.ok()) status = SavePaused(folder, devices);
  while (!status.ok() && paused > 0) devices[--paused]->Resume();
  for (size_t i = 0; i < prepared; ++i) {
    if (status.ok()) devices[i]->Retire();
    devices[i]->End();
  }
  return status;
}

absl::StatusOr<Snapshot> Snapshot::Open(const std::string& folder) {
  auto state = savestate::CheckpointFolder::Open(folder + "/state");
  if (!state.ok()) return state.status();
  absl::StatusOr<savestate::LoadedCheckpoint> loaded = state->LoadNewest();
  if (!loaded.ok()) return loaded.status();
  return Parse(folder, std::move(loaded->bytes));
}

absl::StatusOr<Snapshot> Snapshot::Parse(const std::string& folder,
                                         std::string frame) {
  const absl::StatusOr<Frame> parsed = Frame::Parse(AsBytes(frame));
  const absl::Status status =
      parsed.ok() ? CheckSections(*parsed) : parsed.status();
  if (!status.ok()) return status;
  return Snapshot(folder, std::move(frame));
}

std::string Snapshot::CreationParameters(const std::string& device) const {
  const absl::StatusOr<Frame> frame = Frame::Parse(AsBytes(frame_));
  for (size_t i = 0; frame.ok() && i < frame->sections().size(); ++i) {
    if (Text(Find(*frame, kName, i)) == device) {
      return std::string(Text(Find(*frame, kParameters, i)));
    }
  }
  return {};
}

absl::Status Snapshot::Restore(absl::Span<Migratable* const> devices) const {
  const absl::StatusOr<Frame> frame = Frame::Parse(AsBytes(frame_));
  absl::Status status = frame.status();
  for (size_t i = 0; i < devices.size() && status.ok(); ++i) {
    status = devices[i]->Prepare(Role::kTarget);
    if (!status.ok()) break;
    status = RestoreDevice(folder_, *frame, i, *devices[i]);
    if (!status.ok()) return OfDevice(*devices[i], "restore", status);
  }
  for (size_t i = 0; i < devices.size() && status.ok(); ++i) {
    status = devices[i]->RestoreMutable(Find(*frame, kMutable, i));
    if (status.ok()) status = devices[i]->RewriteInterrupts();
    if (!status.ok()) return OfDevice(*devices[i], "restore", status);
  }
  if (!status.ok()) return status;
  for (size_t i = devices.size(); i-- > 0;) {
    devices[i]->End();
    devices[i]->Resume();
  }
  return absl::OkStatus();
}

}  // namespace ferrybus::migration
