// SPDX-License-Identifier: MIT
//
// What a vmbus machine (vmbus_machine.h) is made of, beside its devices: its
// parameters, its accelerator's memory, and how it reaches its guest.
//
// Thread safety: doorbell and interrupts from any thread; the rest are values.
// Trust: parameters may be a peer's: checked.

#ifndef FERRYBUS_TOOLS_MIGRATE_VMBUS_PARTS_H_
#define FERRYBUS_TOOLS_MIGRATE_VMBUS_PARTS_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "ferrybus/channel/doorbell.h"
#include "ferrybus/channel/transport/unique_fd.h"
#include "ferrybus/vsp/virtual_function/msix_table.h"

namespace ferrybus::migrate_tool {

struct VmbusSetup {
  std::string image;
  uint64_t ram_bytes = uint64_t{32} << 20;
  uint64_t vram_bytes = uint64_t{64} << 20;
  uint64_t steps_per_second = 0;
};

// As it goes to the target; the inverse of the second ParseVmbusSetup().
std::string VmbusSetupText(const VmbusSetup& setup);
// InvalidArgument.
absl::StatusOr<VmbusSetup> ParseVmbusSetup(
    const std::map<std::string, std::string>& parameters);
absl::StatusOr<VmbusSetup> ParseVmbusSetup(const std::string& text);

// The host's interrupts of a guest that is a process: counted.
class CountedInterrupts final : public vsp::MsixHost, public vsp::MsixDevice {
 public:
  absl::StatusOr<vsp::MsixMessage> MapMessage(
      const vsp::MsixMessage& guest) override {
    return guest;
  }
  void SendMessage(uint32_t, const vsp::MsixMessage&) override {
    sent_.fetch_add(1, std::memory_order_relaxed);
  }
  absl::Status WriteVirtualizedInterrupt(uint32_t,
                                         const vsp::MsixEntry&) override {
    return absl::OkStatus();
  }
  uint64_t sent() const { return sent_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> sent_{0};
};

// Passes signals on to the guest that is there; those for none are repeated
// when one comes.
class LateDoorbell final : public Doorbell {
 public:
  void Ring(uint32_t channel_id) override {
    absl::MutexLock lock(&mutex_);
    if (doorbell_ != nullptr) return doorbell_->Ring(channel_id);
    missed_.insert(channel_id);
  }
  void Connect(Doorbell* doorbell) {
    absl::MutexLock lock(&mutex_);
    doorbell_ = doorbell;
    if (doorbell == nullptr) return;
    for (uint32_t channel_id : missed_) doorbell->Ring(channel_id);
    missed_.clear();
  }

 private:
  absl::Mutex mutex_;
  Doorbell* doorbell_ ABSL_GUARDED_BY(mutex_) = nullptr;
  std::set<uint32_t> missed_ ABSL_GUARDED_BY(mutex_);
};

// Memory that another process of this host can map: a memfd.
class Vram {
 public:
  // Zeros.
  static absl::StatusOr<std::unique_ptr<Vram>> Make(uint64_t size_bytes);
  // Another process's, of this size, which cannot shrink.
  static absl::StatusOr<std::unique_ptr<Vram>> Map(UniqueFd file,
                                                   uint64_t size_bytes);
  ~Vram();
  absl::Span<std::byte> memory() const { return memory_; }
  int file() const { return file_.get(); }

 private:
  Vram(UniqueFd file, absl::Span<std::byte> memory)
      : file_(std::move(file)), memory_(memory) {}
  const UniqueFd file_;
  const absl::Span<std::byte> memory_;
};

}  // namespace ferrybus::migrate_tool

#endif  // FERRYBUS_TOOLS_MIGRATE_VMBUS_PARTS_H_
