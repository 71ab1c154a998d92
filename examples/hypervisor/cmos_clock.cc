// SPDX-License-Identifier: MIT

#include "ferrybus/examples/hypervisor/cmos_clock.h"

namespace ferrybus::hypervisor {
namespace {

// Register A: the divider of a 32 kHz crystal; no update is under way.
constexpr uint8_t kDivider = 0x26;
// Register B: 24 hours, decimal digits.
constexpr uint8_t k24Hours = 0x02;
// Register D: the battery is good.
constexpr uint8_t kIsValid = 0x80;

uint8_t Digits(int value) {
  return static_cast<uint8_t>(value / 10 % 10 << 4 | value % 10);
}

}  // namespace

uint8_t CmosClock::Read(time_t now) const {
  tm utc = {};
  gmtime_r(&now, &utc);
  switch (selected_) {
    case 0:
      return Digits(utc.tm_sec);
    case 2:
      return Digits(utc.tm_min);
    case 4:
      return Digits(utc.tm_hour);
    case 6:
      return Digits(utc.tm_wday + 1);
    case 7:
      return Digits(utc.tm_mday);
    case 8:
      return Digits(utc.tm_mon + 1);
    case 9:
      return Digits(utc.tm_year);
    case 10:
      return kDivider;
    case 11:
      return k24Hours;
    case 13:
      return kIsValid;
    default:
      return 0;
  }
}

}  // namespace ferrybus::hypervisor
