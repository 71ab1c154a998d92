// SPDX-License-Identifier: MIT
//
// Has another process of this program continue a guest, and takes its report.
//
// Thread safety: one thread, which lives as long as the other process (it ends
// with it).

#ifndef FERRYBUS_EXAMPLES_HYPERVISOR_HANDOVER_H_
#define FERRYBUS_EXAMPLES_HYPERVISOR_HANDOVER_H_

#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "ferrybus/examples/demo/control.h"
#include "ferrybus/examples/hypervisor/guest.h"
#include "ferrybus/examples/hypervisor/session.h"

namespace ferrybus::hypervisor {

struct Handover {
  // An error: the guest is saved, and runs nowhere.
  absl::StatusOr<demo::Child> successor;
  // Of a migration: what the guest waited for.
  std::optional<int64_t> pause_ms;
};

// By a migration, if `options` still has one to do, else by a snapshot.  An
// error: the guest goes on here.
absl::StatusOr<Handover> HandOver(Guest& guest, const SessionOptions& options);

// Waits for the end of the other process.
absl::StatusOr<demo::Json> TakeReport(Handover& handover);
// Of the process that continues, to the one that began it: the guest may come;
// how it went.
void SayReady();
void GiveReport(const demo::Json& report);
// Adds what the other process saw.
void AddReport(const demo::Json& successor, demo::Json* report);

}  // namespace ferrybus::hypervisor

#endif  // FERRYBUS_EXAMPLES_HYPERVISOR_HANDOVER_H_
