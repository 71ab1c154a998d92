// SPDX-License-Identifier: MIT

#include "ferrybus/examples/hypervisor/kvm_dirty_log.h"

#include <utility>
#include <vector>

namespace ferrybus::hypervisor {
namespace {

constexpr uint64_t kPageBytes = 4096;

}  // namespace

KvmDirtyLog::KvmDirtyLog(const Kvm* kvm, absl::Span<std::byte> ram,
                         PageLog* own)
    : kvm_(kvm),
      ram_(ram),
      own_(own),
      bitmap_({{.id = kSegment, .size_bytes = ram.size()}}) {}

void KvmDirtyLog::SetDeviceLog(std::unique_ptr<PageLog> log) {
  const std::lock_guard lock(mutex_);
  devices_ = std::move(log);
}

absl::Status KvmDirtyLog::StartTracking(migration::BasisId basis) {
  const std::lock_guard lock(mutex_);
  const absl::Status status = bitmap_.StartTracking(basis);
  if (!status.ok() || tracked_++ > 0) return status;
  return kvm_->SetRam(ram_, KVM_MEM_LOG_DIRTY_PAGES);
}

absl::Status KvmDirtyLog::StopTracking(migration::BasisId basis) {
  const std::lock_guard lock(mutex_);
  const absl::Status status = bitmap_.StopTracking(basis);
  if (!status.ok() || --tracked_ > 0) return status;
  return kvm_->SetRam(ram_, 0);
}

void KvmDirtyLog::Mark(uint64_t first_page, uint64_t pages) {
  bitmap_.MarkWritten(kSegment, first_page * kPageBytes, pages * kPageBytes);
}

void KvmDirtyLog::PourHostLogs() {
  const auto mark = [this](uint64_t first, uint64_t pages) {
    Mark(first, pages);
  };
  own_->ForEach(mark);
  if (devices_ != nullptr) devices_->ForEach(mark);
}

void KvmDirtyLog::Freeze() {
  const std::lock_guard lock(mutex_);
  PourHostLogs();
  own_->Clear();
  devices_ = nullptr;
}

absl::Status KvmDirtyLog::Query(migration::BasisId basis,
                                const migration::DirtyQuery& query,
                                absl::Span<std::byte> bits) {
  {
    const std::lock_guard lock(mutex_);
    if (tracked_ > 0) {
      std::vector<uint64_t> words((ram_.size() / kPageBytes + 63) / 64);
      const absl::Status status = kvm_->TakeDirtyLog(absl::MakeSpan(words));
      if (!status.ok()) return status;
      ForEachRun(words, [this](uint64_t first, uint64_t pages) {
        Mark(first, pages);
      });
    }
    PourHostLogs();
  }
  return bitmap_.Query(basis, query, bits);
}

}  // namespace ferrybus::hypervisor
