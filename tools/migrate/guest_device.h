// SPDX-License-Identifier: MIT
//
// The guest of a vmbus machine (vmbus_machine.h), as it moves: its RAM, and its
// process, which stands still.
//
// Ownership: borrows the machine and the RAM.
// Thread safety: as migration::Migratable asks.
// Trust: RAM that comes in is a peer's, and the guest's own to look at.

#ifndef FERRYBUS_TOOLS_MIGRATE_GUEST_DEVICE_H_
#define FERRYBUS_TOOLS_MIGRATE_GUEST_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/savestate/migration/dirty_tracking.h"
#include "ferrybus/savestate/migration/migratable.h"
#include "ferrybus/savestate/migration/shadow_memory.h"
#include "ferrybus/savestate/size_negotiation.h"

namespace ferrybus::migrate_tool {

// Who speaks with the guest's process.
class GuestOwner {
 public:
  virtual ~GuestOwner() = default;
  // True: it stands still.
  virtual absl::StatusOr<bool> PauseGuest() = 0;
  virtual void ResumeGuest() = 0;
  // It is to look for its machine elsewhere.
  virtual void RetireGuest() = 0;
};

class GuestDevice final : public migration::Migratable {
 public:
  // `ram_file`: what all of RAM is mapped from.
  GuestDevice(GuestOwner* owner, std::string parameters,
              absl::Span<std::byte> ram, int ram_file)
      : owner_(owner),
        parameters_(std::move(parameters)),
        ram_(ram),
        ram_file_(ram_file),
        shadow_(1, ram) {}

  std::string name() const override { return "guest"; }
  migration::Capabilities capabilities() const override {
    return {.live_migration = true};
  }
  std::vector<migration::Segment> segments() const override {
    return {{.id = 1, .ranges = {{0, ram_.size()}}}};
  }
  migration::DirtyTracking* dirty_tracking() override { return &shadow_; }
  std::string CreationParameters() const override { return parameters_; }
  absl::Status Prepare(migration::Role) override { return absl::OkStatus(); }
  void End() override {}
  savestate::SizeAnswer SaveImmutable(absl::Span<std::byte>) override {
    return savestate::SizeAnswer::Ok(0);
  }
  absl::Status RestoreImmutable(absl::Span<const std::byte> data) override {
    return Nothing(data);
  }
  absl::Status ReadMemory(uint32_t, uint64_t offset,
                          absl::Span<std::byte> out) override {
    return shadow_.Read(offset, out);
  }
  absl::Status WriteMemory(uint32_t, uint64_t offset,
                           absl::Span<const std::byte> data) override {
    return shadow_.Write(offset, data);
  }
  int SharedMemory(uint32_t) override { return ram_file_; }
  absl::StatusOr<bool> Pause() override { return owner_->PauseGuest(); }
  savestate::SizeAnswer SaveMutable(absl::Span<std::byte>) override {
    return savestate::SizeAnswer::Ok(0);
  }
  absl::Status RestoreMutable(absl::Span<const std::byte> data) override {
    return Nothing(data);
  }
  void Retire() override { owner_->RetireGuest(); }
  void Resume() override { owner_->ResumeGuest(); }

 private:
  static absl::Status Nothing(absl::Span<const std::byte> data);

  GuestOwner* const owner_;
  const std::string parameters_;
  const absl::Span<std::byte> ram_;
  const int ram_file_;
  migration::ShadowMemory shadow_;
};

}  // namespace ferrybus::migrate_tool

#endif  // FERRYBUS_TOOLS_MIGRATE_GUEST_DEVICE_H_
