// SPDX-License-Identifier: MIT

#include "ferrybus/tools/migrate/vmbus_parts.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "ferrybus/tools/migrate/sizes.h"

namespace ferrybus::migrate_tool {
namespace {

constexpr uint64_t kMemoryMin = 65536;
constexpr uint64_t kMemoryMax = uint64_t{16} << 30;

absl::Status Check(const VmbusSetup& setup) {
  for (uint64_t size : {setup.ram_bytes, setup.vram_bytes}) {
    if (size < kMemoryMin || size > kMemoryMax || size % 4096 != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("memory of ", size, " bytes: must be whole pages, ",
                       "64 KiB to ", kMemoryMax));
    }
  }
  if (setup.image.empty() || setup.image[0] == '.' ||
      setup.image.find('/') != std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat(
        "image=", setup.image, ": the name of a file in the folder of images"));
  }
  return absl::OkStatus();
}

}  // namespace

std::string VmbusSetupText(const VmbusSetup& setup) {
  return absl::StrCat("image=", setup.image, ",ram=", setup.ram_bytes,
                      ",vram=", setup.vram_bytes,
                      ",steps=", setup.steps_per_second);
}

absl::StatusOr<VmbusSetup> ParseVmbusSetup(
    const std::map<std::string, std::string>& parameters) {
  VmbusSetup setup;
  for (const auto& [key, value] : parameters) {
    if (key == "image") {
      setup.image = value;
      continue;
    }
    absl::StatusOr<uint64_t> size = ParseSize(value);
    if (!size.ok()) return size.status();
    if (key == "ram") {
      setup.ram_bytes = *size;
    } else if (key == "vram") {
      setup.vram_bytes = *size;
    } else if (key == "steps") {
      setup.steps_per_second = *size;
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat("a vmbus machine has no ", key, "=", value,
                       "; it has image, ram, vram and steps"));
    }
  }
  absl::Status status = Check(setup);
  if (!status.ok()) return status;
  return setup;
}

absl::StatusOr<VmbusSetup> ParseVmbusSetup(const std::string& text) {
  std::map<std::string, std::string> parameters;
  for (absl::string_view part : absl::StrSplit(text, ',')) {
    const std::pair<std::string, std::string> pair =
        absl::StrSplit(part, absl::MaxSplits('=', 1));
    parameters[pair.first] = pair.second;
  }
  return ParseVmbusSetup(parameters);
}

absl::StatusOr<std::unique_ptr<Vram>> Vram::Make(uint64_t size_bytes) {
  UniqueFd file(memfd_create("ferrybus-vram", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!file.valid() ||
      ftruncate(file.get(), static_cast<off_t>(size_bytes)) != 0 ||
      fcntl(file.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0) {
    return absl::ErrnoToStatus(errno, "memory of the accelerator");
  }
  return Map(std::move(file), size_bytes);
}

absl::StatusOr<std::unique_ptr<Vram>> Vram::Map(UniqueFd file,
                                                uint64_t size_bytes) {
  const int seals = fcntl(file.get(), F_GET_SEALS);
  struct stat info = {};
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 ||
      fstat(file.get(), &info) != 0 ||
      static_cast<uint64_t>(info.st_size) != size_bytes) {
    return absl::FailedPreconditionError(
        absl::StrCat("memory of the accelerator: must be a memfd of ",
                     size_bytes, " bytes with F_SEAL_SHRINK"));
  }
  void* memory = mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_NORESERVE, file.get(), 0);
  if (memory == MAP_FAILED) {
    return absl::ErrnoToStatus(errno, "memory of the accelerator");
  }
  return absl::WrapUnique(
      new Vram(std::move(file), {static_cast<std::byte*>(memory), size_bytes}));
}

Vram::~Vram() { munmap(memory_.data(), memory_.size()); }

}  // namespace ferrybus::migrate_tool
