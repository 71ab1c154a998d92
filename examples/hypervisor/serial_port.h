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

  // What somebody types; beyond kInputMax it is lost, as on a wire.
  void Type(absl::string_view text);

 private:
  static constexpr size_t kInputMax = 4096;

  uint8_t InterruptIdentity() const;
  void UpdateLine();

  const std::function<void(char)> output_;
  const std::function<void(bool)> set_line_;
  std::mutex mutex_;
  std::deque<char> input_;
  uint8_t interrupt_enable_ = 0;
  uint8_t line_control_ = 0;
  uint8_t modem_control_ = 0;
  uint8_t scratch_ = 0;
  uint8_t divisor_[2] = {1, 0};
  bool is_empty_due_ = false;  // an interrupt that the transmitter is empty
  bool line_ = false;
};

}  // namespace ferrybus::hypervisor

#endif  // FERRYBUS_EXAMPLES_HYPERVISOR_SERIAL_PORT_H_
