// SPDX-License-Identifier: MIT
//
// A machine with a VMBus: a guest's RAM, a disk and an accelerator, each behind
// its channel; and the kind of it that ferrybus-migrated has.
//
//   guest        RAM, and the guest's process, which stands still
//   (guest_link.h) accelerator  its memory, registers, interrupts vmbus the
//   channels, with every packet in flight
//
// The disk's image does not move: both hosts have it, in their folders of
// images, and its lock is the fence.  RAM ends with the process: a machine of
// this kind cannot be attached again after a crash.
//
// Parameters: image=NAME (in the folder of images), ram=SIZE, vram=SIZE,
// steps=N (of the accelerator in a second; 0: as many as it can).
//
// Ownership: owns all its parts and the thread that runs them.
// Thread safety: as Machine says.
// Trust: the parameters of a machine that comes are a peer's: sizes are
// bounded, an image's name has no path.

#ifndef FERRYBUS_TOOLS_MIGRATE_VMBUS_MACHINE_H_
#define FERRYBUS_TOOLS_MIGRATE_VMBUS_MACHINE_H_

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "ferrybus/tools/migrate/machine.h"

namespace ferrybus::migrate_tool {

class VmbusKind final : public MachineKind {
 public:
  explicit VmbusKind(std::string images_folder)
      : images_folder_(std::move(images_folder)) {}

  std::string name() const override { return "vmbus"; }
  absl::StatusOr<std::unique_ptr<Machine>> CreateNew(
      const std::string& machine, const std::string& folder,
      const std::map<std::string, std::string>& parameters) override;
  absl::StatusOr<std::unique_ptr<Machine>> Attach(
      const std::string& machine, const std::string& folder) override;
  bool Takes(const migration::Hello& hello) const override;
  absl::StatusOr<std::unique_ptr<Machine>> CreateTarget(
      const std::string& folder, const migration::Hello& hello,
      std::vector<UniqueFd> shared, bool is_recovery) override;

 private:
  const std::string images_folder_;
};

}  // namespace ferrybus::migrate_tool

#endif  // FERRYBUS_TOOLS_MIGRATE_VMBUS_MACHINE_H_
