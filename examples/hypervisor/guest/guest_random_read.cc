// SPDX-License-Identifier: MIT
//
// Runs inside the guest: 4 KiB reads at random places of a disk, past the
// guest's cache, with a given number of them under way.
//
//     guest_random_read DISK SECONDS DEPTH
//
// Prints one line: "FERRYBUS-READS depth=D reads=N microseconds=M".

#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

namespace {

constexpr size_t kBlockBytes = 4096;
constexpr long kDepthMax = 1024;

using Clock = std::chrono::steady_clock;

int Fail(const char* what) {
  std::fprintf(stderr, "guest_random_read: %s: %s\n", what,
               std::strerror(errno));
  return 1;
}

// Reads through the kernel's own asynchronous I/O, as fio's libaio does: one
// thread, so that depth costs no switches between threads.
class Reader {
 public:
  Reader(int file, uint64_t blocks, size_t depth)
      : file_(file),
        blocks_(blocks),
        requests_(depth),
        events_(depth),
        buffer_(static_cast<char*>(
            aligned_alloc(kBlockBytes, depth * kBlockBytes))) {}
  ~Reader() { free(buffer_); }

  // False: see errno.
  bool Run(Clock::duration time);
  uint64_t reads() const { return reads_; }

 private:
  bool Submit(size_t index);

  const int file_;
  const uint64_t blocks_;
  std::vector<iocb> requests_;
  std::vector<io_event> events_;
  char* const buffer_;
  std::mt19937_64 random_;
  aio_context_t context_ = 0;
  uint64_t reads_ = 0;
};

bool Reader::Submit(size_t index) {
  iocb& request = requests_[index];
  request = {};
  request.aio_data = index;
  request.aio_lio_opcode = IOCB_CMD_PREAD;
  request.aio_fildes = static_cast<uint32_t>(file_);
  request.aio_buf = reinterpret_cast<uint64_t>(buffer_ + index * kBlockBytes);
  request.aio_nbytes = kBlockBytes;
  request.aio_offset = static_cast<int64_t>(random_() % blocks_ * kBlockBytes);
  iocb* list[] = {&request};
  return syscall(SYS_io_submit, context_, 1, list) == 1;
}

bool Reader::Run(Clock::duration time) {
  const size_t depth = requests_.size();
  if (syscall(SYS_io_setup, depth, &context_) != 0) return false;
  for (size_t i = 0; i < depth; ++i) {
    if (!Submit(i)) return false;
  }
  const Clock::time_point end = Clock::now() + time;
  while (Clock::now() < end) {
    const long got =
        syscall(SYS_io_getevents, context_, 1, depth, events_.data(), nullptr);
    if (got < 0 && errno != EINTR) return false;
    for (long i = 0; i < got; ++i) {
      const io_event& event = events_[static_cast<size_t>(i)];
      if (event.res != static_cast<int64_t>(kBlockBytes)) {
        errno = event.res < 0 ? static_cast<int>(-event.res) : EIO;
        return false;
      }
      ++reads_;
      if (!Submit(event.data)) return false;
    }
  }
  return syscall(SYS_io_destroy, context_) == 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: guest_random_read DISK SECONDS DEPTH\n");
    return 2;
  }
  const long depth = std::atol(argv[3]);
  if (depth < 1 || depth > kDepthMax) return 2;
  const int file = open(argv[1], O_RDONLY | O_DIRECT);
  if (file < 0) return Fail(argv[1]);
  const off_t bytes = lseek(file, 0, SEEK_END);
  if (bytes < static_cast<off_t>(kBlockBytes)) return Fail(argv[1]);
  Reader reader(file, static_cast<uint64_t>(bytes) / kBlockBytes,
                static_cast<size_t>(depth));
  const Clock::time_point start = Clock::now();
  if (!reader.Run(std::chrono::seconds(std::atol(argv[2]))))
    return Fail("read");
  const auto microseconds =
      std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() -
                                                            start);
  std::printf("FERRYBUS-READS depth=%ld reads=%llu microseconds=%lld\n", depth,
              static_cast<unsigned long long>(reader.reads()),
              static_cast<long long>(microseconds.count()));
  return 0;
}
