// SPDX-License-Identifier: MIT
//
// Runs inside the guest: writes to files on the root disk, past the guest's
// cache, and reads back what it wrote, until it is told to stop.  Each sector
// says which file, place and generation it belongs to, so that a lost, doubled
// or misplaced write is seen.
//
// It also sends back what the host sends to its port (vsock).

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
// Needs sys/socket.h before it.
#include <linux/vm_sockets.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr size_t kSectorBytes = 512;
constexpr size_t kBlockBytes = 4096;
constexpr size_t kBlocksPerFile = 512;
constexpr size_t kTransferBlocksMax = 16;
constexpr uint32_t kWriters = 4;
constexpr unsigned kEchoPort = 1024;

struct Totals {
  std::atomic<uint64_t> bytes_written = 0;
  std::atomic<uint64_t> bytes_verified = 0;
  std::atomic<uint64_t> io_errors = 0;
  std::atomic<uint64_t> lost = 0;  // sectors that are not what was written
  std::atomic<uint64_t> files = 0;
  std::atomic<uint32_t> ready = 0;
};

struct Options {
  std::string folder;
  std::string stop_file;
  std::string result;
};

bool ShouldStop(const Options& options) {
  return access(options.stop_file.c_str(), F_OK) == 0;
}

void FillSector(uint64_t file, uint64_t sector, uint64_t generation,
                uint64_t* words) {
  words[0] = file;
  words[1] = sector;
  words[2] = generation;
  // Cheap, since the processor may be an emulated one.
  uint64_t state = file << 48 ^ sector << 24 ^ generation;
  for (size_t i = 3; i < kSectorBytes / 8; ++i) {
    state = state * 6364136223846793005 + 1442695040888963407;
    words[i] = state;
  }
}

// One file, one thread.
class Writer {
 public:
  Writer(const Options& options, uint32_t index, Totals* totals)
      : options_(options), index_(index), totals_(totals), random_(index) {}

  void Run() {
    const std::string path = options_.folder + "/load" + std::to_string(index_);
    file_ = open(path.c_str(), O_RDWR | O_CREAT | O_DIRECT, 0600);
    buffer_.reset(static_cast<char*>(
        aligned_alloc(kBlockBytes, kTransferBlocksMax * kBlockBytes)));
    if (file_ < 0) {
      std::perror(path.c_str());
      ++totals_->io_errors;
    }
    for (size_t i = 0; i < kBlocksPerFile; i += kTransferBlocksMax) {
      Write(i, kTransferBlocksMax);
    }
    ++totals_->ready;
    while (!ShouldStop(options_)) {
      const size_t count = 1 + random_() % kTransferBlocksMax;
      const size_t block = random_() % (kBlocksPerFile - count + 1);
      if (random_() % 2 == 0) {
        Write(block, count);
      } else {
        Verify(block, count);
      }
      if (random_() % 32 == 0 && fsync(file_) != 0) ++totals_->io_errors;
    }
    for (size_t i = 0; i < kBlocksPerFile; i += kTransferBlocksMax) {
      Verify(i, kTransferBlocksMax);
    }
    close(file_);
  }

 private:
  struct Free {
    void operator()(char* memory) const { free(memory); }
  };

  uint64_t* SectorAt(size_t index) {
    return reinterpret_cast<uint64_t*>(buffer_.get() + index * kSectorBytes);
  }

  void Write(size_t block, size_t count) {
    constexpr size_t kSectors = kBlockBytes / kSectorBytes;
    for (size_t i = 0; i < count; ++i) {
      ++generations_[block + i];
      for (size_t s = 0; s < kSectors; ++s) {
        FillSector(index_, (block + i) * kSectors + s, generations_[block + i],
                   SectorAt(i * kSectors + s));
      }
    }
    Count(pwrite(file_, buffer_.get(), count * kBlockBytes,
                 static_cast<off_t>(block * kBlockBytes)),
          count * kBlockBytes, &totals_->bytes_written);
  }

  void Verify(size_t block, size_t count) {
    constexpr size_t kSectors = kBlockBytes / kSectorBytes;
    if (!Count(pread(file_, buffer_.get(), count * kBlockBytes,
                     static_cast<off_t>(block * kBlockBytes)),
               count * kBlockBytes, &totals_->bytes_verified)) {
      return;
    }
    for (size_t i = 0; i < count * kSectors; ++i) {
      const size_t sector = block * kSectors + i;
      uint64_t expected[kSectorBytes / 8];
      FillSector(index_, sector, generations_[sector / kSectors], expected);
      if (std::memcmp(expected, SectorAt(i), kSectorBytes) == 0) continue;
      ++totals_->lost;
      std::printf("load%u: sector %zu is of %llu/%llu/%llu\n", index_, sector,
                  static_cast<unsigned long long>(SectorAt(i)[0]),
                  static_cast<unsigned long long>(SectorAt(i)[1]),
                  static_cast<unsigned long long>(SectorAt(i)[2]));
    }
  }

  bool Count(ssize_t got, size_t wanted, std::atomic<uint64_t>* bytes) {
    if (got != static_cast<ssize_t>(wanted)) {
      std::printf("load%u: %s\n", index_, std::strerror(errno));
      ++totals_->io_errors;
      return false;
    }
    *bytes += wanted;
    return true;
  }

  const Options& options_;
  const uint32_t index_;
  Totals* const totals_;
  std::mt19937_64 random_;
  int file_ = -1;
  std::unique_ptr<char, Free> buffer_;
  std::vector<uint64_t> generations_ = std::vector<uint64_t>(kBlocksPerFile);
};

// The file system's own work: small files come and go.
void MakeFiles(const Options& options, Totals* totals) {
  const std::string name = options.folder + "/small";
  const std::string renamed = name + ".renamed";
  for (uint64_t i = 0; !ShouldStop(options); ++i) {
    const std::string text = "file " + std::to_string(i);
    char back[64] = {};
    const int file = open(name.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
    const bool ok = file >= 0 &&
                    write(file, text.data(), text.size()) ==
                        static_cast<ssize_t>(text.size()) &&
                    fsync(file) == 0 &&
                    rename(name.c_str(), renamed.c_str()) == 0 &&
                    pread(file, back, sizeof(back), 0) ==
                        static_cast<ssize_t>(text.size()) &&
                    unlink(renamed.c_str()) == 0;
    if (!ok) ++totals->io_errors;
    if (ok && text != back) ++totals->lost;
    if (file >= 0) close(file);
    ++totals->files;
    usleep(20'000);
  }
}

void Echo() {
  const int listener = socket(AF_VSOCK, SOCK_STREAM, 0);
  sockaddr_vm address = {};
  address.svm_family = AF_VSOCK;
  address.svm_port = kEchoPort;
  address.svm_cid = VMADDR_CID_ANY;
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof(address)) !=
          0 ||
      listen(listener, 1) != 0) {
    std::perror("vsock");
    return;
  }
  const int connection = accept(listener, nullptr, nullptr);
  char buffer[4096];
  ssize_t got;
  while ((got = read(connection, buffer, sizeof(buffer))) > 0) {
    for (ssize_t done = 0; done < got;) {
      const ssize_t put =
          write(connection, buffer + done, static_cast<size_t>(got - done));
      if (put <= 0) return;
      done += put;
    }
  }
}

bool WriteResult(const Options& options, const Totals& totals) {
  FILE* const out = std::fopen(options.result.c_str(), "w");
  if (out == nullptr) return false;
  std::fprintf(out,
               "{\"bytes_written\": %llu, \"bytes_verified\": %llu, "
               "\"io_errors\": %llu, \"lost\": %llu, \"files\": %llu}\n",
               static_cast<unsigned long long>(totals.bytes_written),
               static_cast<unsigned long long>(totals.bytes_verified),
               static_cast<unsigned long long>(totals.io_errors),
               static_cast<unsigned long long>(totals.lost),
               static_cast<unsigned long long>(totals.files));
  return std::fclose(out) == 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: guest_load FOLDER STOP_FILE RESULT\n");
    return 2;
  }
  const Options options = {argv[1], argv[2], argv[3]};
  setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);
  Totals totals;
  std::thread(Echo).detach();
  std::vector<std::unique_ptr<Writer>> writers;
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < kWriters; ++i) {
    writers.push_back(std::make_unique<Writer>(options, i, &totals));
    threads.emplace_back([&writers, i] { writers[i]->Run(); });
  }
  threads.emplace_back([&options, &totals] { MakeFiles(options, &totals); });
  while (totals.ready < kWriters) usleep(10'000);
  // By way of the kernel, so that nothing else gets between.
  if (FILE* const log = std::fopen("/dev/kmsg", "w"); log != nullptr) {
    std::fputs("<8>FERRYBUS-READY\n", log);
    std::fclose(log);
  }
  for (std::thread& thread : threads) thread.join();
  return WriteResult(options, totals) ? 0 : 1;
}
