// SPDX-License-Identifier: MIT

#include "ferrybus/channel/page_log.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <vector>

#include "absl/memory/memory.h"
#include "ferrybus/channel/transport/unique_fd.h"

namespace ferrybus {
namespace {

constexpr uint64_t kPageBytes = 4096;
constexpr uint64_t kBits = 64;

}  // namespace

absl::StatusOr<std::unique_ptr<PageLog>> PageLog::Create(
    uint64_t page_count, const std::string& path) {
  // Whoever still looks into the one before keeps it.
  if (!path.empty()) unlink(path.c_str());
  return Map(page_count, path, O_CREAT | O_EXCL);
}

absl::StatusOr<std::unique_ptr<PageLog>> PageLog::Open(
    uint64_t page_count, const std::string& path) {
  return Map(page_count, path, 0);
}

absl::StatusOr<std::unique_ptr<PageLog>> PageLog::Map(uint64_t page_count,
                                                      const std::string& path,
                                                      int flags) {
  const size_t words = (page_count + kBits - 1) / kBits;
  const size_t bytes = words * sizeof(uint64_t);
  UniqueFd file;
  if (!path.empty()) {
    file = UniqueFd(open(path.c_str(), O_RDWR | O_CLOEXEC | flags, 0600));
    if (!file.valid()) return absl::ErrnoToStatus(errno, path);
    struct stat is = {};
    if (flags != 0) {
      if (ftruncate(file.get(), static_cast<off_t>(bytes)) != 0) {
        return absl::ErrnoToStatus(errno, path);
      }
    } else if (fstat(file.get(), &is) != 0 ||
               is.st_size != static_cast<off_t>(bytes)) {
      return absl::FailedPreconditionError(path + " is of another machine");
    }
  }
  void* const memory =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
           MAP_SHARED | (path.empty() ? MAP_ANONYMOUS : 0), file.get(), 0);
  if (memory == MAP_FAILED) return absl::ErrnoToStatus(errno, "page log: mmap");
  return absl::WrapUnique(
      new PageLog({static_cast<std::atomic<uint64_t>*>(memory), words}));
}

PageLog::~PageLog() { munmap(words_.data(), words_.size() * sizeof(uint64_t)); }

void PageLog::Mark(uint64_t first_page, uint64_t pages) {
  for (uint64_t page = first_page; page < first_page + pages; ++page) {
    std::atomic<uint64_t>& word = words_[page / kBits];
    const uint64_t bit = uint64_t{1} << page % kBits;
    // [L1] relaxed: a look; nobody clears it while somebody marks.
    if ((word.load(std::memory_order_relaxed) & bit) != 0) continue;
    // [W1] release: pairs with [R1] in ForEach().
    word.fetch_or(bit, std::memory_order_release);
  }
}

void PageLog::Clear() {
  // [L2] relaxed: nobody marks meanwhile.
  for (std::atomic<uint64_t>& word : words_) {
    word.store(0, std::memory_order_relaxed);
  }
}

void PageLog::ForEach(
    absl::FunctionRef<void(uint64_t first_page, uint64_t pages)> run) const {
  std::vector<uint64_t> words;
  words.reserve(words_.size());
  for (const std::atomic<uint64_t>& word : words_) {
    // [R1] acquire: pairs with [W1] in Mark().
    words.push_back(word.load(std::memory_order_acquire));
  }
  ForEachRun(words, run);
}

void ForEachRun(absl::Span<const uint64_t> words,
                absl::FunctionRef<void(uint64_t first, uint64_t count)> run) {
  for (size_t i = 0; i < words.size(); ++i) {
    uint64_t word = words[i];
    uint64_t base = i * kBits;
    while (word != 0) {
      const int skip = std::countr_zero(word);
      word >>= skip;
      const int count = std::countr_one(word);
      run(base + static_cast<uint64_t>(skip), static_cast<uint64_t>(count));
      base += static_cast<uint64_t>(skip + count);
      word = count == 64 ? 0 : word >> count;
    }
  }
}

absl::Span<std::byte> LoggedMemory::Translate(uint64_t gpa,
                                              uint64_t length) const {
  const absl::Span<std::byte> span = memory_->Translate(gpa, length);
  if (!span.empty()) {
    const uint64_t first = gpa / kPageBytes;
    log_->Mark(first, (gpa + length - 1) / kPageBytes - first + 1);
  }
  return span;
}

uint64_t LoggedMemory::FileOffset(uint64_t page_number) const {
  log_->Mark(page_number, 1);
  return memory_->FileOffset(page_number);
}

}  // namespace ferrybus
