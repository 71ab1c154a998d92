// SPDX-License-Identifier: MIT
//
// The rules for the arguments of a DirtyTracking, for those who implement it.
//
// Ownership: borrows its arguments during a call.
// Thread safety: free functions.
// Trust: any arguments; sums do not overflow.

#ifndef FERRYBUS_SAVESTATE_MIGRATION_MEMORY_RANGES_H_
#define FERRYBUS_SAVESTATE_MIGRATION_MEMORY_RANGES_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/savestate/migration/dirty_tracking.h"

namespace ferrybus::migration {

// InvalidArgument: not a power of two, or below kPageSizeMin.
absl::Status CheckPageSize(uint64_t page_size_bytes);

// Ranges of a basis: InvalidArgument unless there are some, each of them of
// whole pages and within one of `memory`, and none overlaps another.
absl::Status CheckBasisRanges(absl::Span<const MemoryRange> memory,
                              uint64_t page_size_bytes,
                              absl::Span<const MemoryRange> ranges);

// How many pages are asked for.  InvalidArgument: the part is not whole pages
// of a range of the basis, or a buffer of that size does not take the bits.
absl::StatusOr<uint64_t> CheckQuery(const DirtyQuery& query,
                                    absl::Span<const MemoryRange> ranges,
                                    uint64_t page_size_bytes,
                                    size_t buffer_bytes);

}  // namespace ferrybus::migration

#endif  // FERRYBUS_SAVESTATE_MIGRATION_MEMORY_RANGES_H_
