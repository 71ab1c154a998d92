// SPDX-License-Identifier: MIT
#ifndef FERRYBUS_CHANNEL_PROTOCOL_VERSION_H_
#define FERRYBUS_CHANNEL_PROTOCOL_VERSION_H_

// The versions of the VMBus channel protocol, and the feature flags of 6.0.
//
// A version is (major << 16) | minor; later versions compare greater.  The
// guest proposes one in INITIATE_CONTACT and the host takes it or refuses it;
// there is no range.  docs/WIRE_FORMAT.md, "Versions".

#include <array>
#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"

namespace ferrybus {

enum class ProtocolVersion : uint32_t {
  kWs2008 = 0x0000000d,        // 0.13: offers of 190 bytes
  kWin7 = 0x00010001,          // 1.1: connection id in the offer, UNLOAD
  kWin8 = 0x00020004,          // 2.4: target VP, sub-channels
  kWin81 = 0x00030000,         // 3.0: target VP of messages
  kWin10 = 0x00040000,         // 4.0: reserved channels, hv_sock
  kWin10Rs3 = 0x00040001,      // 4.1: MODIFYCHANNEL
  kWin10Rs3Plus = 0x00050000,  // 5.0: message connection id in the response
  kWin10Rs4 = 0x00050001,      // 5.1: target VTL
  kWin10Rs5 = 0x00050002,      // 5.2: silo id in hv_sock requests
  kIron = 0x00050003,          // 5.3: MODIFYCHANNEL is answered
  kCopper = 0x00060000,        // 6.0: feature flags
};

inline constexpr std::array<ProtocolVersion, 11> kAllProtocolVersions = {
    ProtocolVersion::kWs2008,       ProtocolVersion::kWin7,
    ProtocolVersion::kWin8,         ProtocolVersion::kWin81,
    ProtocolVersion::kWin10,        ProtocolVersion::kWin10Rs3,
    ProtocolVersion::kWin10Rs3Plus, ProtocolVersion::kWin10Rs4,
    ProtocolVersion::kWin10Rs5,     ProtocolVersion::kIron,
    ProtocolVersion::kCopper,
};

constexpr bool IsKnownProtocolVersion(uint32_t value) {
  for (ProtocolVersion version : kAllProtocolVersions) {
    if (static_cast<uint32_t>(version) == value) return true;
  }
  return false;
}

// "5.3"; also for values that are no known version.
inline std::string ProtocolVersionToString(ProtocolVersion version) {
  const uint32_t value = static_cast<uint32_t>(version);
  return absl::StrCat(value >> 16, ".", value & 0xffff);
}

// Feature flags: asked for by the guest from 6.0 on, the host grants a subset.
inline constexpr uint32_t kFeatureGuestSignalParameters = 0x01;
inline constexpr uint32_t kFeatureInterruptRedirection = 0x02;
inline constexpr uint32_t kFeatureModifyConnection = 0x04;
inline constexpr uint32_t kFeatureClientId = 0x08;
inline constexpr uint32_t kFeatureConfidentialChannels = 0x10;
inline constexpr uint32_t kFeaturePauseResume = 0x20;
inline constexpr uint32_t kFeatureServerMonitorPages = 0x40;
inline constexpr uint32_t kFeatureGpaPinning = 0x80;
inline constexpr uint32_t kAllFeatures = 0xff;

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_PROTOCOL_VERSION_H_
