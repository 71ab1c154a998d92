// SPDX-License-Identifier: MIT
//
// As much of a PC's clock chip as a kernel looks at when it boots: the time, in
// UTC, to read.  Without it Linux waits for one, for seconds, and begins in
// 1970.
//
// Thread safety: any thread.

#ifndef FERRYBUS_EXAMPLES_HYPERVISOR_CMOS_CLOCK_H_
#define FERRYBUS_EXAMPLES_HYPERVISOR_CMOS_CLOCK_H_

#include <time.h>

#include <atomic>
#include <cstdint>

namespace ferrybus::hypervisor {

class CmosClock {
 public:
  static constexpr uint16_t kSelectPort = 0x70;
  static constexpr uint16_t kDataPort = 0x71;

  // Which register the next Read() is of.
  void Select(uint32_t value) {
    selected_ = static_cast<uint8_t>(value & 0x7f);  // the top bit masks NMIs
  }
  uint8_t selected() const { return selected_; }

  uint8_t Read(time_t now) const;

 private:
  std::atomic<uint8_t> selected_ = 0;
};

}  // namespace ferrybus::hypervisor

#endif  // FERRYBUS_EXAMPLES_HYPERVISOR_CMOS_CLOCK_H_
