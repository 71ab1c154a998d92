// SPDX-License-Identifier: MIT

#include "ferrybus/tools/migrate/memory_machine.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <thread>
#include <utility>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "ferrybus/channel/transport/unique_fd.h"
#include "ferrybus/savestate/steady_clock.h"
#include "ferrybus/tools/migrate/memory_device.h"
#include "ferrybus/tools/migrate/pattern_memory.h"
#include "ferrybus/tools/migrate/sizes.h"

namespace ferrybus::migrate_tool {
namespace {

using Parameters = std::map<std::string, std::string>;

constexpr char kDeviceName[] = "memory";
constexpr char kMemoryFile[] = "/memory";  // in the machine's folder
constexpr uint64_t kSizeMax = uint64_t{1} << 40;
constexpr absl::Duration kTick = absl::Milliseconds(5);

struct Setup {
  uint64_t size_bytes = uint64_t{64} << 20;
  uint64_t dirty_bytes_per_second = 0;
  bool fill = true;
};

// As it goes into the folder, and to the target.
std::string Text(const Setup& setup) {
  return absl::StrCat("size=", setup.size_bytes,
                      ",dirty=", setup.dirty_bytes_per_second,
                      ",fill=", setup.fill ? "yes" : "no");
}

absl::StatusOr<Setup> Parse(const Parameters& parameters) {
  Setup setup;
  for (const auto& [key, value] : parameters) {
    if (key == "fill" && (value == "yes" || value == "no")) {
      setup.fill = value == "yes";
      continue;
    }
    absl::StatusOr<uint64_t> size = ParseSize(value);
    if (!size.ok()) return size.status();
    if (key == "size") {
      setup.size_bytes = *size;
    } else if (key == "dirty") {
      setup.dirty_bytes_per_second = *size;
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat("a memory machine has no ", key, "=", value,
                       "; it has size, dirty and fill=yes|no"));
    }
  }
  if (setup.size_bytes < 2 * kPatternPageBytes || setup.size_bytes > kSizeMax ||
      setup.size_bytes % kPatternPageBytes != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a memory machine of ", setup.size_bytes,
        " bytes: it must be at least two pages of ", kPatternPageBytes,
        ", whole ones, and at most ", kSizeMax));
  }
  return setup;
}

absl::StatusOr<Setup> ParseText(const std::string& text) {
  Parameters parameters;
  for (absl::string_view part : absl::StrSplit(text, ',')) {
    std::vector<std::string> pair =
        absl::StrSplit(part, absl::MaxSplits('=', 1));
    if (pair.size() != 2) {
      return absl::InvalidArgumentError("parameters of a memory machine");
    }
    parameters[pair[0]] = pair[1];
  }
  return Parse(parameters);
}

absl::Status SystemError(const std::string& what) {
  return absl::InternalError(absl::StrCat(what, ": ", std::strerror(errno)));
}

absl::StatusOr<UniqueFd> OpenMemory(const std::string& path,
                                    uint64_t size_bytes, bool is_new) {
  // It may be that of a machine that went to another process of this host, and
  // has it in another folder.
  if (is_new) unlink(path.c_str());
  UniqueFd file(open(path.c_str(),
                     O_RDWR | O_CLOEXEC | (is_new ? O_CREAT | O_EXCL : 0),
                     0600));
  if (!file.valid()) return SystemError(path);
  struct stat stat = {};
  if (is_new) {
    // Zeros, and no promise of room that is not there.
    if (ftruncate(file.get(), static_cast<off_t>(size_bytes)) != 0) {
      return SystemError(path);
    }
  } else if (fstat(file.get(), &stat) != 0 ||
             static_cast<uint64_t>(stat.st_size) != size_bytes) {
    return absl::DataLossError(absl::StrCat(
        path, " has ", stat.st_size, " bytes, expected are ", size_bytes));
  }
  return file;
}

// Another process's memory, under our name: so it is found after a restart.
absl::Status LinkMemory(int file, const std::string& path) {
  unlink(path.c_str());
  if (linkat(AT_FDCWD, absl::StrCat("/proc/self/fd/", file).c_str(), AT_FDCWD,
             path.c_str(), AT_SYMLINK_FOLLOW) == 0) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(absl::StrCat(
      path, ": the other process's memory must be a file of the same file ",
      "system: ", std::strerror(errno)));
}

// A file's bytes, shared with the file.
class Mapping {
 public:
  Mapping(Mapping&& other) noexcept
      : file_(std::move(other.file_)),
        memory_(std::exchange(other.memory_, {})) {}
  Mapping& operator=(Mapping&&) = delete;
  ~Mapping() {
    if (!memory_.empty()) munmap(memory_.data(), memory_.size());
  }

  static absl::StatusOr<Mapping> Open(UniqueFd file, uint64_t size_bytes) {
    void* memory = mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
                        file.get(), 0);
    if (memory == MAP_FAILED) return SystemError("memory");
    return Mapping(std::move(file),
                   {static_cast<std::byte*>(memory), size_bytes});
  }

  int file() const { return file_.get(); }
  absl::Span<std::byte> memory() const { return memory_; }

 private:
  Mapping(UniqueFd file, absl::Span<std::byte> memory)
      : file_(std::move(file)), memory_(memory) {}

  UniqueFd file_;
  absl::Span<std::byte> memory_;
};

class MemoryMachine final : public Machine {
 public:
  static absl::StatusOr<std::unique_ptr<Machine>> Create(
      const std::string& folder, const Setup& setup,
      absl::StatusOr<UniqueFd> file, migration::MemoryOrigin origin) {
    if (!file.ok()) return file.status();
    absl::StatusOr<Mapping> mapping =
        Mapping::Open(*std::move(file), setup.size_bytes);
    if (!mapping.ok()) return mapping.status();
    auto machine =
        absl::WrapUnique(new MemoryMachine(setup, *std::move(mapping)));
    absl::StatusOr<std::unique_ptr<migration::PendingPages>> pages =
        migration::PendingPages::Create(&machine->device_, origin);
    if (!pages.ok()) return pages.status();
    machine->pages_ = *std::move(pages);
    std::ofstream(folder + "/setup") << Text(setup);
    machine->writer_ = std::thread([m = machine.get()] { m->WriteOn(); });
    return machine;
  }
  ~MemoryMachine() override {
    Stop();
    is_ending_ = true;
    if (writer_.joinable()) writer_.join();
  }

  std::vector<migration::PendingPages*> devices() override {
    return {pages_.get()};
  }
  absl::Status Start() override {
    // What the process before was writing.
    absl::Status status = pattern_.Check(/*may_be_torn=*/true);
    if (!status.ok()) return status;
    device_.Run();
    return absl::OkStatus();
  }
  void Stop() override { device_.Halt(); }
  std::string Status() const override {
    return absl::StrCat(Text(setup_), " writes=", pattern_.writes(),
                        " fault=", is_broken_ ? "yes" : "no");
  }

 private:
  MemoryMachine(const Setup& setup, Mapping mapping)
      : setup_(setup),
        mapping_(std::move(mapping)),
        pattern_(mapping_.memory()),
        device_(kDeviceName, Text(setup), mapping_.memory(),
                {.live_migration = true}, mapping_.file()) {}

  void WriteOn();
  // Each time that it runs again it has come from somewhere.
  void CheckOnce(bool* is_checked);

  const Setup setup_;
  const Mapping mapping_;
  PatternMemory pattern_;
  MemoryDevice device_;
  std::unique_ptr<migration::PendingPages> pages_;
  std::atomic<bool> is_ending_{false};
  std::atomic<bool> is_broken_{false};
  std::thread writer_;
};

void MemoryMachine::WriteOn() {
  double credit = 0;
  absl::Time last = savestate::SteadyNow();
  bool is_checked = false;
  while (!is_ending_) {
    if (!device_.AwaitRunning(absl::Milliseconds(50))) {
      is_checked = false;
      continue;
    }
    if (!device_.BeginWrite()) continue;
    CheckOnce(&is_checked);
    const absl::Time now = savestate::SteadyNow();
    const auto rate = static_cast<double>(setup_.dirty_bytes_per_second);
    credit = std::min(credit + rate * absl::ToDoubleSeconds(now - last),
                      rate * absl::ToDoubleSeconds(20 * kTick));
    last = now;
    while (credit >= kPatternPageBytes && !is_broken_) {
      const uint64_t offset = pattern_.WriteNext().offset_bytes;
      device_.MarkWritten(offset, kPatternPageBytes);
      device_.MarkWritten(0, kPatternPageBytes);
      credit -= kPatternPageBytes;
    }
    if (setup_.fill && pattern_.writes() < pattern_.pages() - 1) {
      for (int i = 0; i < 256 && pattern_.writes() < pattern_.pages() - 1;
           ++i) {
        const uint64_t offset = pattern_.WriteNext().offset_bytes;
        device_.MarkWritten(offset, kPatternPageBytes);
      }
      device_.MarkWritten(0, kPatternPageBytes);
      device_.EndWrite();
      continue;
    }
    device_.EndWrite();
    absl::SleepFor(kTick);
  }
}

void MemoryMachine::CheckOnce(bool* is_checked) {
  if (*is_checked) return;
  *is_checked = true;
  if (!pattern_.Check(/*may_be_torn=*/true).ok()) is_broken_ = true;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Machine>> MemoryMachineKind::CreateNew(
    const std::string& /*machine*/, const std::string& folder,
    const Parameters& parameters) {
  absl::StatusOr<Setup> setup = Parse(parameters);
  if (!setup.ok()) return setup.status();
  return MemoryMachine::Create(
      folder, *setup,
      OpenMemory(folder + kMemoryFile, setup->size_bytes, /*is_new=*/true),
      migration::MemoryOrigin::kZeros);
}

absl::StatusOr<std::unique_ptr<Machine>> MemoryMachineKind::Attach(
    const std::string& /*machine*/, const std::string& folder) {
  std::ifstream file(folder + "/setup");
  const std::string text(std::istreambuf_iterator<char>(file), {});
  absl::StatusOr<Setup> setup = ParseText(text);
  if (!setup.ok()) return setup.status();
  return MemoryMachine::Create(
      folder, *setup,
      OpenMemory(folder + kMemoryFile, setup->size_bytes, /*is_new=*/false),
      migration::MemoryOrigin::kUnknown);
}

bool MemoryMachineKind::Takes(const migration::Hello& hello) const {
  return hello.devices.size() == 1 && hello.devices[0].name == kDeviceName;
}

absl::StatusOr<std::unique_ptr<Machine>> MemoryMachineKind::CreateTarget(
    const std::string& folder, const migration::Hello& hello,
    std::vector<UniqueFd> shared, bool is_recovery) {
  absl::StatusOr<Setup> setup = ParseText(hello.devices[0].creation_parameters);
  if (!setup.ok()) return setup.status();
  const std::string path = folder + kMemoryFile;
  const bool is_new = !is_recovery && shared.empty();
  if (!shared.empty()) {
    absl::Status status = LinkMemory(shared[0].get(), path);
    if (!status.ok()) return status;
  }
  return MemoryMachine::Create(folder, *setup,
                               OpenMemory(path, setup->size_bytes, is_new),
                               is_new ? migration::MemoryOrigin::kZeros
                                      : migration::MemoryOrigin::kUnknown);
}

}  // namespace ferrybus::migrate_tool
