// SPDX-License-Identifier: MIT

#include "ferrybus/tools/migrate/memory_device.h"

#include <atomic>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace ferrybus::migrate_tool {
namespace {

constexpr absl::string_view kFormat = "ferrybus memory 1";

savestate::SizeAnswer Give(absl::string_view bytes, absl::Span<std::byte> out) {
  if (out.size() < bytes.size()) {
    return savestate::SizeAnswer::TooSmall(bytes.size());
  }
  if (!bytes.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
  return savestate::SizeAnswer::Ok(bytes.size());
}

}  // namespace

MemoryDevice::MemoryDevice(std::string name, std::string creation_parameters,
                           absl::Span<std::byte> memory,
                           migration::Capabilities capabilities,
                           int shared_memory)
    : name_(std::move(name)),
      parameters_(std::move(creation_parameters)),
      memory_(memory),
      capabilities_(capabilities),
      shared_memory_(shared_memory),
      dirty_({{.id = kMemorySegment, .size_bytes = memory.size()}}) {}

bool MemoryDevice::BeginWrite() {
  absl::MutexLock lock(&mutex_);
  if (!is_running_) return false;
  ++writers_;
  return true;
}

void MemoryDevice::EndWrite() {
  absl::MutexLock lock(&mutex_);
  --writers_;
}

bool MemoryDevice::AwaitRunning(absl::Duration timeout) const {
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithTimeout(absl::Condition(&is_running_), timeout);
}

bool MemoryDevice::is_running() const {
  absl::MutexLock lock(&mutex_);
  return is_running_;
}

void MemoryDevice::Run() {
  absl::MutexLock lock(&mutex_);
  is_running_ = true;
}

void MemoryDevice::Halt() {
  absl::MutexLock lock(&mutex_);
  is_running_ = false;
  mutex_.Await(absl::Condition(
      +[](int* writers) { return *writers == 0; }, &writers_));
}

std::vector<migration::Segment> MemoryDevice::segments() const {
  return {{.id = kMemorySegment, .ranges = {{0, memory_.size()}}}};
}

absl::Status MemoryDevice::Prepare(migration::Role /*role*/) {
  return absl::OkStatus();
}

savestate::SizeAnswer MemoryDevice::SaveImmutable(absl::Span<std::byte> out) {
  return Give(kFormat, out);
}

absl::Status MemoryDevice::RestoreImmutable(absl::Span<const std::byte> data) {
  if (absl::string_view(reinterpret_cast<const char*>(data.data()),
                        data.size()) == kFormat) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      absl::StrCat("format: this host has '", kFormat, "'"));
}

absl::Status MemoryDevice::CheckRange(uint32_t segment, uint64_t offset_bytes,
                                      uint64_t size_bytes) const {
  if (segment == kMemorySegment && size_bytes <= memory_.size() &&
      offset_bytes <= memory_.size() - size_bytes) {
    return absl::OkStatus();
  }
  return absl::OutOfRangeError(
      absl::StrCat(size_bytes, " bytes from ", offset_bytes, " of segment ",
                   segment, ", which has ", memory_.size()));
}

// The writers go on meanwhile: a page that is torn by that is dirty again.
absl::Status MemoryDevice::ReadMemory(uint32_t segment, uint64_t offset_bytes,
                                      absl::Span<std::byte> out) {
  absl::Status status = CheckRange(segment, offset_bytes, out.size());
  if (!status.ok()) return status;
  // Whole pages are asked for, and words are written.
  for (size_t i = 0; i + sizeof(uint64_t) <= out.size();
       i += sizeof(uint64_t)) {
    const uint64_t word = std::atomic_ref(*reinterpret_cast<uint64_t*>(
                                              &memory_[offset_bytes + i]))
                              .load(std::memory_order_relaxed);
    std::memcpy(&out[i], &word, sizeof(word));
  }
  return absl::OkStatus();
}

absl::Status MemoryDevice::WriteMemory(uint32_t segment, uint64_t offset_bytes,
                                       absl::Span<const std::byte> data) {
  absl::Status status = CheckRange(segment, offset_bytes, data.size());
  if (!status.ok()) return status;
  std::memcpy(&memory_[offset_bytes], data.data(), data.size());
  MarkWritten(offset_bytes, data.size());
  return absl::OkStatus();
}

absl::StatusOr<bool> MemoryDevice::Pause() {
  absl::MutexLock lock(&mutex_);
  is_running_ = false;
  return writers_ == 0;
}

// All of it is in the memory.
savestate::SizeAnswer MemoryDevice::SaveMutable(absl::Span<std::byte> out) {
  return Give({}, out);
}

absl::Status MemoryDevice::RestoreMutable(absl::Span<const std::byte> data) {
  if (data.empty()) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat(data.size(), " bytes of mutable data, there is none"));
}

}  // namespace ferrybus::migrate_tool
