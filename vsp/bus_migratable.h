// SPDX-License-Identifier: MIT
//
// The channels of a bus as something that moves to another host: beside the
// guest's memory, which must move with them, and before the devices that they
// serve, if those move, too.
//
//   immutable  what is offered, and how much memory the guest has
//   mutable    Bus::Save(): the connection, channels, packets in flight
//
// Pause() first takes what the guest has published, so that it is in flight and
// not just in the ring, then suspends, waits for devices that drain, freezes
// and saves.  The guest must be paused before.  What a device completes later
// is not part of it: the other host has the packet in flight.
//
// Ownership: borrows owner and mutex.
// Thread safety: as Migratable; every call holds `mutex`, as must whoever else
// uses the bus.
// Trust: a peer's blobs go through Bus::Restore(), which checks all of them.
//
//   BusMigratable channels("vmbus", options, &owner, &mutex);

#ifndef FERRYBUS_VSP_BUS_MIGRATABLE_H_
#define FERRYBUS_VSP_BUS_MIGRATABLE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "ferrybus/savestate/migration/migratable.h"
#include "ferrybus/vsp/bus.h"

namespace ferrybus::vsp {

// Holds the bus.  Called with the mutex held.
class BusOwner {
 public:
  virtual ~BusOwner() = default;
  // Null: there is none (yet), or none any more.
  virtual Bus* bus() = 0;
  // Carries messages and signals, and polls once: HostPort::Pump() or the like.
  virtual void Serve() = 0;
  // Bus::Restore() on this host.
  virtual absl::Status RestoreBus(absl::Span<const std::byte> saved) = 0;
  // Ends it, without a word to the guest.
  virtual void DropBus() = 0;
};

struct BusMigratableOptions {
  uint64_t guest_pages = 0;
  // What this host offers, or will offer.
  std::vector<OfferParams> offers;
};

class BusMigratable final : public migration::Migratable {
 public:
  BusMigratable(std::string name, BusMigratableOptions options, BusOwner* owner,
                absl::Mutex* mutex)
      : name_(std::move(name)),
        options_(std::move(options)),
        owner_(owner),
        mutex_(mutex) {}

  // Nothing is to be taken from the guest, nor given to it.  With the mutex
  // held.
  bool is_frozen() const { return is_frozen_; }

  std::string name() const override { return name_; }
  migration::Capabilities capabilities() const override {
    return {.live_migration = true};
  }
  absl::Status Prepare(migration::Role role) override;
  void End() override {}
  savestate::SizeAnswer SaveImmutable(absl::Span<std::byte> out) override;
  absl::StatusOr<bool> Pause() override;
  savestate::SizeAnswer SaveMutable(absl::Span<std::byte> out) override;
  void Retire() override;
  absl::Status RestoreImmutable(absl::Span<const std::byte> data) override;
  absl::Status RestoreMutable(absl::Span<const std::byte> data) override;
  void Resume() override;

 private:
  const std::string name_;
  const BusMigratableOptions options_;
  BusOwner* const owner_;
  absl::Mutex* const mutex_;
  migration::Role role_ = migration::Role::kSource;
  bool is_suspended_ = false;
  bool is_frozen_ = false;
  std::string saved_;  // at the freeze
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_BUS_MIGRATABLE_H_
