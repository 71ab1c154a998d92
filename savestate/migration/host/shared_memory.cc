// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/migration/host/shared_memory.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace ferrybus::migration {
namespace {

// What is wrong with it; empty: nothing.
std::string Complaint(int fd, uint64_t size_bytes, SharedMemoryRule rule) {
  struct stat info = {};
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) return "no memory";
  const int access = fcntl(fd, F_GETFL);
  if (access < 0 || (access & O_ACCMODE) != O_RDWR) {
    return "not open for reading and writing";
  }
  if (static_cast<uint64_t>(info.st_size) != size_bytes) {
    return absl::StrCat(info.st_size, " bytes, announced are ", size_bytes);
  }
  const int seals = fcntl(fd, F_GET_SEALS);
  if (seals < 0) {
    return rule == SharedMemoryRule::kFiles ? "" : "a file, not a memfd";
  }
  if ((seals & F_SEAL_SHRINK) == 0) return "may shrink: no F_SEAL_SHRINK";
  if ((seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) != 0) {
    return "sealed against writing";
  }
  return "";
}

}  // namespace

absl::Status CheckSharedMemory(
    const Hello& hello, absl::Span<const savestate::UniqueFd> descriptors,
    SharedMemoryRule rule) {
  size_t next = 0;
  for (const DeviceDescription& device : hello.devices) {
    for (const SegmentDescription& segment : device.segments) {
      if (!segment.is_shared) continue;
      std::string complaint =
          next < descriptors.size()
              ? Complaint(descriptors[next].get(), segment.size_bytes, rule)
              : "no descriptor";
      ++next;
      if (complaint.empty()) continue;
      return absl::InvalidArgumentError(
          absl::StrCat(device.name, ": the memory of segment ", segment.id,
                       ": ", complaint));
    }
  }
  if (next == descriptors.size()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      descriptors.size(), " descriptors, ", next, " segments are shared"));
}

}  // namespace ferrybus::migration
