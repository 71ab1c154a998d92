// SPDX-License-Identifier: MIT

#include "ferrybus/channel/guest_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace ferrybus {
namespace {

constexpr uint64_t kPageBytes = 4096;

}  // namespace

absl::StatusOr<std::unique_ptr<MemfdGuestMemory>> MemfdGuestMemory::Map(
    UniqueFd ram) {
  struct stat info;
  if (fstat(ram.get(), &info) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("guest RAM: fstat: ", std::strerror(errno)));
  }
  const int seals = fcntl(ram.get(), F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) {
    return absl::FailedPreconditionError(
        "guest RAM: the file may shrink under its users; add F_SEAL_SHRINK to "
        "the memfd before handing it over");
  }
  const uint64_t bytes = static_cast<uint64_t>(info.st_size);
  if (bytes == 0 || bytes % kPageBytes != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("guest RAM: size is ", bytes,
                     " bytes; it must be a positive multiple of ", kPageBytes));
  }
  void* const base =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, ram.get(), 0);
  if (base == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "guest RAM: mapping ", bytes, " bytes: ", std::strerror(errno)));
  }
  // The fd may have been shared with a fork; a DMA target must not be copied.
  (void)madvise(base, bytes, MADV_DONTFORK);
  return std::unique_ptr<MemfdGuestMemory>(new MemfdGuestMemory(
      std::move(ram), static_cast<std::byte*>(base), bytes));
}

absl::StatusOr<std::unique_ptr<MemfdGuestMemory>> MemfdGuestMemory::Create(
    uint64_t bytes) {
  UniqueFd ram(
      memfd_create("ferrybus-guest-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  const uint64_t rounded = (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
  if (ram.get() < 0 || ftruncate(ram.get(), static_cast<off_t>(rounded)) != 0 ||
      fcntl(ram.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("guest RAM: creating a memfd of ", rounded,
                     " bytes: ", std::strerror(errno)));
  }
  return Map(std::move(ram));
}

MemfdGuestMemory::~MemfdGuestMemory() { munmap(base_, bytes_); }

absl::Span<std::byte> MemfdGuestMemory::Translate(uint64_t gpa,
                                                  uint64_t length) const {
  if (length == 0 || gpa >= bytes_ || length > bytes_ - gpa) return {};
  return {base_ + gpa, static_cast<size_t>(length)};
}

}  // namespace ferrybus
