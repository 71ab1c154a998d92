// SPDX-License-Identifier: MIT

#include "ferrybus/tools/migrate/guest_device.h"

#include "absl/strings/str_cat.h"

namespace ferrybus::migrate_tool {

absl::Status GuestDevice::Nothing(absl::Span<const std::byte> data) {
  if (data.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(data.size(), " bytes of state, must be none"));
}

}  // namespace ferrybus::migrate_tool
