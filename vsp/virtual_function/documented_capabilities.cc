// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/virtual_function/documented_capabilities.h"

#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ferrybus/savestate/migration/memory_ranges.h"
#include "ferrybus/vsp/virtual_function/documented_status.h"

namespace ferrybus::vsp {
namespace {

using migration::MemoryRange;
using migration::Segment;

template <typename Output>
NTSTATUS Ask(const DocumentedMigrationFunctions& functions,
             DXGK_QUERYADAPTERINFOTYPE type, UINT* segment, Output* output) {
  DXGKARG_QUERYADAPTERINFO args = {};
  args.Type = type;
  args.pInputData = segment;
  args.InputDataSize = segment == nullptr ? 0 : sizeof(*segment);
  args.pOutputData = output;
  args.OutputDataSize = sizeof(*output);
  return functions.query_adapter_info(functions.context, &args);
}

absl::Status DoesNotStart(absl::string_view why) {
  return absl::FailedPreconditionError(
      absl::StrCat("the adapter does not start: ", why));
}

// The page size in which the driver tracks it; and the ranges are of such.
absl::Status QueryTracking(const DocumentedMigrationFunctions& functions,
                           bool live_migration, Segment* segment) {
  DXGK_DIRTY_BIT_TRACKING_SEGMENT_CAPS caps = {};
  UINT id = segment->id;
  const NTSTATUS status =
      Ask(functions, DXGKQAITYPE_DIRTYBITTRACKINGSEGMENTCAPS, &id, &caps);
  if (status == STATUS_NOT_IMPLEMENTED && !live_migration) {
    return absl::OkStatus();
  }
  if (status == STATUS_NOT_IMPLEMENTED) {
    return DoesNotStart(absl::StrCat(
        "LiveMigration needs dirty tracking of all memory, and segment ",
        segment->id, " has none"));
  }
  if (status != STATUS_SUCCESS) {
    return ToFinalStatus(status, "DxgkDdiQueryAdapterInfo");
  }
  if (auto check = migration::CheckPageSize(caps.PageSize); !check.ok()) {
    return DoesNotStart(
        absl::StrCat("segment ", segment->id, ": ", check.message()));
  }
  segment->page_size_bytes = caps.PageSize;
  return absl::OkStatus();
}

absl::Status CheckScatterReserve(const DocumentedMigrationFunctions& functions,
                                 const Segment& segment) {
  DXGK_QUERYSCATTERRESERVEOUT reserve = {};
  UINT id = segment.id;
  if (auto status = ToFinalStatus(
          Ask(functions, DXGKQAITYPE_SCATTER_RESERVE, &id, &reserve),
          "DxgkDdiQueryAdapterInfo");
      !status.ok()) {
    return status;
  }
  const uint64_t page = reserve.SetVGPUResourcesPageSize;
  for (const MemoryRange& range : segment.ranges) {
    if (page == 0 || range.offset_bytes % page != 0 ||
        range.size_bytes % page != 0) {
      return DoesNotStart(absl::StrCat(
          "segment ", segment.id, ": ", range.size_bytes, " bytes at ",
          range.offset_bytes, " are not reserved in pages of ", page));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckSegments(const std::vector<Segment>& segments) {
  for (size_t i = 0; i < segments.size(); ++i) {
    const Segment& segment = segments[i];
    bool is_unique = segment.id != 0;
    for (size_t j = 0; j < i; ++j) is_unique &= segments[j].id != segment.id;
    if (!is_unique) {
      return absl::InvalidArgumentError(absl::StrCat(
          "segment ", segment.id, ": numbers count from 1, each once"));
    }
    if (auto status = migration::CheckBasisRanges(
            segment.ranges, segment.page_size_bytes, segment.ranges);
        !status.ok()) {
      return DoesNotStart(
          absl::StrCat("segment ", segment.id, ": ", status.message()));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckFunctions(const DocumentedMigrationFunctions& functions,
                            const DocumentedCapabilities& caps) {
  const DocumentedMigrationFunctions& f = functions;
  const bool can_migrate = f.prepare && f.save_immutable && f.save_mutable &&
                           f.restore_immutable && f.restore_mutable && f.end &&
                           f.set_pause_state && f.transfer;
  const bool can_track = f.create_memory_basis && f.destroy_memory_basis &&
                         f.start_dirty_tracking && f.stop_dirty_tracking &&
                         f.query_dirty_bit_data;
  if (caps.live_migration && !can_migrate) {
    return absl::InvalidArgumentError("LiveMigration, and a callback is null");
  }
  if (caps.dirty_tracking && !can_track) {
    return absl::InvalidArgumentError("dirty tracking, and a callback is null");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<DocumentedCapabilities> QueryDocumentedCapabilities(
    const DocumentedMigrationFunctions& functions,
    std::vector<Segment> segments) {
  DXGK_GPUPCAPS caps = {};
  DXGK_DIRTY_BIT_TRACKING_CAPS tracking = {};
  if (auto status =
          ToFinalStatus(Ask(functions, DXGKQAITYPE_GPUPCAPS, nullptr, &caps),
                        "DxgkDdiQueryAdapterInfo");
      !status.ok()) {
    return status;
  }
  // A driver from before there was tracking does not know the question.
  if (Ask(functions, DXGKQAITYPE_DIRTYBITTRACKINGCAPS, nullptr, &tracking) !=
      STATUS_SUCCESS) {
    tracking = {};
  }
  DocumentedCapabilities found;
  found.virtual_machine_hibernation = caps.VirtualMachineHibernation;
  found.hot_driver_update = caps.HotDriverUpdate;
  found.live_migration = caps.LiveMigration;
  found.scatter_map_reserve = caps.ScatterMapReserve;
  found.dirty_tracking = tracking.DirtyBitTrackingSupported;
  found.performant_tracking =
      found.dirty_tracking && tracking.DirtyBitTrackingPerformant;
  if (found.live_migration && !found.dirty_tracking) {
    return DoesNotStart("LiveMigration without dirty tracking");
  }
  if (auto status = CheckFunctions(functions, found); !status.ok()) {
    return status;
  }
  found.segments = std::move(segments);
  for (Segment& segment : found.segments) {
    if (found.dirty_tracking) {
      if (auto status =
              QueryTracking(functions, found.live_migration, &segment);
          !status.ok()) {
        return status;
      }
    }
    if (found.scatter_map_reserve) {
      if (auto status = CheckScatterReserve(functions, segment); !status.ok()) {
        return status;
      }
    }
  }
  if (auto status = CheckSegments(found.segments); !status.ok()) return status;
  return found;
}

}  // namespace ferrybus::vsp
