// SPDX-License-Identifier: MIT

#include "ferrybus/tools/migrate/sizes.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"

namespace ferrybus::migrate_tool {
namespace {

struct Unit {
  absl::string_view name;
  uint64_t bytes;
};
constexpr Unit kUnits[] = {
    {"KiB", uint64_t{1} << 10},
    {"MiB", uint64_t{1} << 20},
    {"GiB", uint64_t{1} << 30},
    {"TiB", uint64_t{1} << 40},
    {"kB", 1000},
    {"MB", 1'000'000},
    {"GB", 1'000'000'000},
    {"B", 1},
};
constexpr double kSizeMax = 1e18;

}  // namespace

absl::StatusOr<uint64_t> ParseSize(absl::string_view text) {
  absl::string_view number = absl::StripSuffix(text, "/s");
  uint64_t unit = 1;
  for (const Unit& each : kUnits) {
    if (absl::ConsumeSuffix(&number, each.name)) {
      unit = each.bytes;
      break;
    }
  }
  double value = 0;
  if (!absl::SimpleAtod(number, &value) || !(value >= 0) ||
      value * static_cast<double>(unit) > kSizeMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", text, "' is no size: write 4096, 64KiB, 1.5GiB or 50MB"));
  }
  return static_cast<uint64_t>(value * static_cast<double>(unit));
}

std::string SizeText(double bytes) {
  for (int i = 3; i >= 0; --i) {
    const auto unit = static_cast<double>(kUnits[i].bytes);
    if (bytes >= unit) {
      return absl::StrFormat("%.1f %s", bytes / unit, kUnits[i].name);
    }
  }
  return absl::StrFormat("%.0f B", bytes);
}

}  // namespace ferrybus::migrate_tool
