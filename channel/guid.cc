// SPDX-License-Identifier: MIT
#include "ferrybus/channel/guid.h"

#include "absl/strings/str_format.h"

namespace ferrybus {

std::string Guid::ToString() const {
  return absl::StrFormat(
      "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
      bytes[3], bytes[2], bytes[1], bytes[0], bytes[5], bytes[4], bytes[7],
      bytes[6], bytes[8], bytes[9], bytes[10], bytes[11], bytes[12], bytes[13],
      bytes[14], bytes[15]);
}

}  // namespace ferrybus
