// SPDX-License-Identifier: MIT
//
// What a driver can do, asked by the documented queries and checked by the
// documented rules.
//
// Ownership: none.
// Thread safety: a free function; asks the driver.
// Trust: the driver's answers are checked; reserved bits are ignored.

#ifndef FERRYBUS_VSP_VIRTUAL_FUNCTION_DOCUMENTED_CAPABILITIES_H_
#define FERRYBUS_VSP_VIRTUAL_FUNCTION_DOCUMENTED_CAPABILITIES_H_

#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/savestate/migration/migratable.h"
#include "ferrybus/vsp/virtual_function/documented_migration_functions.h"

namespace ferrybus::vsp {

struct DocumentedCapabilities {
  bool virtual_machine_hibernation = false;
  bool hot_driver_update = false;
  bool live_migration = false;
  bool scatter_map_reserve = false;
  bool dirty_tracking = false;
  bool performant_tracking = false;
  // As given, with the page size in which the driver tracks them.
  std::vector<migration::Segment> segments;
};

// Once the device was started, and only if it is partitioned: the caller's
// part.  `segments` are the function's memory, all of it on the device.
// FailedPrecondition: it does not start, since it can migrate and cannot track
// the whole memory, or has a page size that is none, or not that of the ranges.
// InvalidArgument: a callback is missing for what it can do.
absl::StatusOr<DocumentedCapabilities> QueryDocumentedCapabilities(
    const DocumentedMigrationFunctions& functions,
    std::vector<migration::Segment> segments);

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_VIRTUAL_FUNCTION_DOCUMENTED_CAPABILITIES_H_
