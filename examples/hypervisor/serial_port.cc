// SPDX-License-Identifier: MIT

#include "ferrybus/examples/hypervisor/serial_port.h"

namespace ferrybus::hypervisor {
namespace {

// Registers, by their offset.
constexpr uint16_t kData = 0;             // divisor low with kDivisorAccess
constexpr uint16_t kInterruptEnable = 1;  // divisor high with it
constexpr uint16_t kInterruptIdentity = 2;
constexpr uint16_t kLineControl = 3;
constexpr uint16_t kModemControl = 4;
constexpr uint16_t kLineStatus = 5;
constexpr uint16_t kModemStatus = 6;
constexpr uint16_t kScratch = 7;

constexpr uint8_t kDivisorAccess = 0x80;
constexpr uint8_t kEnableReceive = 1;
constexpr uint8_t kEnableTransmit = 2;
constexpr uint8_t kLoop = 0x10;
constexpr uint8_t kOut2 = 8;  // connects the interrupt

constexpr uint8_t kIdentityNone = 1;
constexpr uint8_t kIdentityTransmit = 2;
constexpr uint8_t kIdentityReceive = 4;

constexpr uint8_t kDataReady = 1;
constexpr uint8_t kTransmitterEmpty = 0x60;
constexpr uint8_t kModemReady = 0xb0;  // carrier, data set ready, clear to send

}  // namespace

uint8_t SerialPort::InterruptIdentity() const {
  if ((is_.interrupt_enable & kEnableReceive) != 0 && !input_.empty()) {
    return kIdentityReceive;
  }
  if ((is_.interrupt_enable & kEnableTransmit) != 0 && is_.is_empty_due != 0) {
    return kIdentityTransmit;
  }
  return kIdentityNone;
}

// The line is edge triggered in the guest: only changes count.
void SerialPort::UpdateLine() {
  const bool level =
      InterruptIdentity() != kIdentityNone && (is_.modem_control & kOut2) != 0;
  if (level == (is_.line != 0)) return;
  is_.line = level ? 1 : 0;
  set_line_(level);
}

uint8_t SerialPort::Read(uint16_t offset) {
  const std::lock_guard lock(mutex_);
  uint8_t value = 0;
  switch (offset) {
    case kData:
      if ((is_.line_control & kDivisorAccess) != 0) return is_.divisor[0];
      if (!input_.empty()) {
        value = static_cast<uint8_t>(input_.front());
        input_.pop_front();
      }
      break;
    case kInterruptEnable:
      return (is_.line_control & kDivisorAccess) != 0 ? is_.divisor[1]
                                                      : is_.interrupt_enable;
    case kInterruptIdentity:
      value = InterruptIdentity();
      if (value == kIdentityTransmit) is_.is_empty_due = 0;
      break;
    case kLineControl:
      return is_.line_control;
    case kModemControl:
      return is_.modem_control;
    case kLineStatus:
      return static_cast<uint8_t>(kTransmitterEmpty |
                                  (input_.empty() ? 0 : kDataReady));
    case kModemStatus:
      if ((is_.modem_control & kLoop) == 0) return kModemReady;
      // A driver that tests the port finds its outputs at its inputs.
      return static_cast<uint8_t>((is_.modem_control & 0x0c) << 4 |
                                  (is_.modem_control & 0x02) << 3 |
                                  (is_.modem_control & 0x01) << 5);
    case kScratch:
      return is_.scratch;
    default:
      return 0xff;
  }
  UpdateLine();
  return value;
}

void SerialPort::Write(uint16_t offset, uint8_t value) {
  const std::lock_guard lock(mutex_);
  switch (offset) {
    case kData:
      if ((is_.line_control & kDivisorAccess) != 0) {
        is_.divisor[0] = value;
        return;
      }
      if ((is_.modem_control & kLoop) == 0) output_(static_cast<char>(value));
      // Sent at once.
      is_.is_empty_due = 0;
      UpdateLine();
      is_.is_empty_due = 1;
      break;
    case kInterruptEnable:
      if ((is_.line_control & kDivisorAccess) != 0) {
        is_.divisor[1] = value;
        return;
      }
      if ((value & kEnableTransmit) != 0 &&
          (is_.interrupt_enable & kEnableTransmit) == 0) {
        is_.is_empty_due = 1;
      }
      is_.interrupt_enable = value & 0xf;
      break;
    case kLineControl:
      is_.line_control = value;
      return;
    case kModemControl:
      is_.modem_control = value & 0x1f;
      break;
    case kScratch:
      is_.scratch = value;
      return;
    default:
      return;
  }
  UpdateLine();
}

SerialState SerialPort::Save() {
  const std::lock_guard lock(mutex_);
  return {is_, std::string(input_.begin(), input_.end())};
}

void SerialPort::Load(const SerialState& state) {
  const std::lock_guard lock(mutex_);
  is_ = state.registers;
  input_.assign(state.input.begin(), state.input.end());
  is_.line = 0;
  UpdateLine();
}

void SerialPort::Type(absl::string_view text) {
  const std::lock_guard lock(mutex_);
  for (const char c : text) {
    if (input_.size() < kSerialInputMax) input_.push_back(c);
  }
  UpdateLine();
}

}  // namespace ferrybus::hypervisor
