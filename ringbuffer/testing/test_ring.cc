// SPDX-License-Identifier: MIT

#include "ferrybus/ringbuffer/testing/test_ring.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>

namespace ferrybus::ringbuffer::testing {
namespace {

void Require(bool good, const char* what) {
  if (good) return;
  std::perror(what);
  std::abort();
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

}  // namespace

TestRing::TestRing(uint32_t data_bytes, uint64_t page_order_seed) {
  const size_t pages = 1 + data_bytes / kPageBytes;
  // One page more than needed, so that no order is the file's own.
  file_bytes_ = (pages + 1) * kPageBytes;
  fd_ = memfd_create("test_ring", MFD_CLOEXEC);
  Require(fd_ >= 0, "memfd_create");
  Require(ftruncate(fd_, static_cast<off_t>(file_bytes_)) == 0, "ftruncate");
  void* const flat =
      mmap(nullptr, file_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
  Require(flat != MAP_FAILED, "mmap");
  flat_ = static_cast<std::byte*>(flat);
  for (size_t i = 0; i <= pages; ++i) page_offsets_.push_back(i * kPageBytes);
  std::mt19937_64 random(page_order_seed);
  for (size_t i = page_offsets_.size() - 1; i > 0; --i) {
    std::swap(page_offsets_[i], page_offsets_[random() % (i + 1)]);
  }
  page_offsets_.pop_back();
  mapping_ = MapAgain();
}

TestRing::~TestRing() {
  munmap(flat_, file_bytes_);
  close(fd_);
}

RingMapping TestRing::MapAgain() const {
  RingMapping mapping;
  errno = RingMapping::Map(fd_, page_offsets_, &mapping);
  Require(errno == 0, "RingMapping::Map");
  return mapping;
}

std::vector<std::byte*> TestRing::pages() const {
  std::vector<std::byte*> pages;
  for (uint64_t offset : page_offsets_) pages.push_back(flat_ + offset);
  return pages;
}

uint32_t TestRing::word(uint32_t offset) const {
  return __atomic_load_n(reinterpret_cast<uint32_t*>(Control() + offset),
                         __ATOMIC_ACQUIRE);
}

void TestRing::set_word(uint32_t offset, uint32_t value) {
  __atomic_store_n(reinterpret_cast<uint32_t*>(Control() + offset), value,
                   __ATOMIC_RELEASE);
}

void TestRing::SetIndices(uint32_t write_index, uint32_t read_index) {
  set_word(kWriteIndexOffset, write_index);
  set_word(kReadIndexOffset, read_index);
}

std::byte* TestRing::Locate(uint64_t index) const {
  const uint64_t at = index % data_bytes();
  return flat_ + page_offsets_[1 + at / kPageBytes] + at % kPageBytes;
}

Bytes TestRing::Read(uint64_t index, size_t bytes) const {
  Bytes out;
  for (size_t i = 0; i < bytes; ++i) out.push_back(At(index + i));
  return out;
}

void TestRing::Write(uint64_t index, absl::Span<const std::byte> bytes) {
  for (size_t i = 0; i < bytes.size(); ++i) *Locate(index + i) = bytes[i];
}

void TestRing::FillData(std::byte value) {
  for (size_t page = 1; page < page_offsets_.size(); ++page) {
    memset(flat_ + page_offsets_[page], static_cast<int>(value), kPageBytes);
  }
}

void TestRing::ZeroControlPage() { memset(Control(), 0, kPageBytes); }

Bytes TestRing::ControlPage() const {
  return Bytes(Control(), Control() + kPageBytes);
}

Bytes FromHex(std::string_view hex) {
  Bytes out;
  int high = -1;
  for (char c : hex) {
    const int digit = HexDigit(c);
    if (digit < 0) continue;
    if (high < 0) {
      high = digit;
    } else {
      out.push_back(static_cast<std::byte>(high * 16 + digit));
      high = -1;
    }
  }
  return out;
}

std::string ToHex(absl::Span<const std::byte> bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (std::byte b : bytes) {
    out += kDigits[static_cast<int>(b) >> 4];
    out += kDigits[static_cast<int>(b) & 15];
  }
  return out;
}

Bytes Pattern(size_t bytes, uint64_t seed) {
  Bytes out(bytes);
  uint64_t state = seed * 0x9e3779b97f4a7c15 + 1;
  for (std::byte& b : out) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    b = static_cast<std::byte>(state >> 32);
  }
  return out;
}

}  // namespace ferrybus::ringbuffer::testing
