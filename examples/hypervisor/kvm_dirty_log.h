// SPDX-License-Identifier: MIT
//
// Dirty tracking of guest RAM: KVM's log of what the processors write, and the
// logs of what the host's processes may have written.  All are poured into a
// DirtyBitmap, which keeps the bits apart for each who tracks.
//
// Ownership: borrows kvm and the log of this process; owns the devices'.
// Thread safety: any thread.
// Cost: Query() asks KVM for the log of all of RAM, which also clears it.

#ifndef FERRYBUS_EXAMPLES_HYPERVISOR_KVM_DIRTY_LOG_H_
#define FERRYBUS_EXAMPLES_HYPERVISOR_KVM_DIRTY_LOG_H_

#include <cstdint>
#include <memory>
#include <mutex>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/channel/page_log.h"
#include "ferrybus/examples/hypervisor/kvm.h"
#include "ferrybus/savestate/migration/dirty_bitmap.h"

namespace ferrybus::hypervisor {

class KvmDirtyLog final : public migration::DirtyTracking {
 public:
  static constexpr uint32_t kSegment = 1;

  KvmDirtyLog(const Kvm* kvm, absl::Span<std::byte> ram, PageLog* own);

  // Of the process that serves the devices now.
  void SetDeviceLog(std::unique_ptr<PageLog> log);
  // Nobody writes any more, neither processors nor the host: what the host's
  // logs have counts once more and is then forgotten, since they cannot tell
  // when a page was written.
  void Freeze();

  absl::StatusOr<migration::BasisId> CreateBasis(
      uint32_t segment,
      absl::Span<const migration::MemoryRange> ranges) override {
    return bitmap_.CreateBasis(segment, ranges);
  }
  absl::Status DestroyBasis(migration::BasisId basis) override {
    return bitmap_.DestroyBasis(basis);
  }
  absl::Status StartTracking(migration::BasisId basis) override;
  absl::Status StopTracking(migration::BasisId basis) override;
  absl::Status Query(migration::BasisId basis,
                     const migration::DirtyQuery& query,
                     absl::Span<std::byte> bits) override;

 private:
  void Mark(uint64_t first_page, uint64_t pages);
  void PourHostLogs();

  const Kvm* const kvm_;
  const absl::Span<std::byte> ram_;
  PageLog* const own_;
  migration::DirtyBitmap bitmap_;
  std::mutex mutex_;
  std::unique_ptr<PageLog> devices_;
  int tracked_ = 0;
};

}  // namespace ferrybus::hypervisor

#endif  // FERRYBUS_EXAMPLES_HYPERVISOR_KVM_DIRTY_LOG_H_
