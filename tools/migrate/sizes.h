// SPDX-License-Identifier: MIT
//
// Sizes and rates as people write them: 4096, 64KiB, 1GiB, 50MiB/s, 2MB.
//
// Ownership: none.  Thread safety: pure functions.

#ifndef FERRYBUS_TOOLS_MIGRATE_SIZES_H_
#define FERRYBUS_TOOLS_MIGRATE_SIZES_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ferrybus::migrate_tool {

// InvalidArgument.  A "/s" at the end is taken, and means nothing.
absl::StatusOr<uint64_t> ParseSize(absl::string_view text);
// "1.5 GiB".
std::string SizeText(double bytes);

}  // namespace ferrybus::migrate_tool

#endif  // FERRYBUS_TOOLS_MIGRATE_SIZES_H_
