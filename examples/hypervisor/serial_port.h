// SPDX-License-Identifier: MIT
//
// The guest's console: a serial port like a PC's first one (16550 without its
// FIFO), as far as Linux's driver uses it.
//
// Thread safety: any thread.  The output is called by the thread of the
// processor that wrote.

#ifndef FERRYBUS_EXAMPLES_HYPERVISOR_SERIAL_PORT_H_
#define FERRYBUS_EXAMPLES_HYPERVISOR_SERIAL_PORT_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>

#include "absl/strings/string_view.h"
#include "ferrybus/examples/hypervisor/machine_state.h"

namespace ferrybus::hypervisor {

class SerialPort {
 public:
  static constexpr uint16_t kFirstPort = 0x3f8;
  static constexpr uint16_t kPortCount = 8;
  static constexpr uint32_t kLine = 4;

  SerialPort(std::function<void(char)> output,
             std::function<void(bool)> set_line)
      : output_(std::move(output)), set_line_(std::move(set_line)) {}

  // REQUIRES: offset < kPortCount.
  uint8_t Read(uint16_t offset);
  void Write(uint16_t offset, uint8_t value);

  // What somebody types; beyond kSerialInputMax it is lost, as on a wire.
  void Type(absl::string_view text);

  SerialState Save();
  // `state` may be anything; the guest gets an interrupt if one was raised.
  void Load(const SerialState& state);

 private:
  uint8_t InterruptIdentity() const;
  void UpdateLine();

  const std::function<void(char)> output_;
  const std::function<void(bool)> set_line_;
  std::mutex mutex_;
  std::deque<char> input_;
  SerialRegisters is_;
};

}  // namespace ferrybus::hypervisor

#endif  // FERRYBUS_EXAMPLES_HYPERVISOR_SERIAL_PORT_H_
