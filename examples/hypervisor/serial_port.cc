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
  if ((interrupt_enable_ & kEnableReceive) != 0 && !input_.empty()) {
    return kIdentityReceive;
  }
  if ((interrupt_enable_ & kEnableTransmit) != 0 && is_empty_due_) {
    return kIdentityTransmit;
  }
  return kIdentityNone;
}

// The line is edge triggered in the guest: only changes count.
void SerialPort::UpdateLine() {
  const bool level =
      InterruptIdentity() != kIdentityNone && (modem_control_ & kOut2) != 0;
  if (level == line_) return;
  line_ = level;
  set_line_(level);
}

uint8_t SerialPort::Read(uint16_t offset) {
  const std::lock_guard lock(mutex_);
  uint8_t value = 0;
  switch (offset) {
    case kData:
      if ((line_control_ & kDivisorAccess) != 0) return divisor_[0];
      if (!input_.empty()) {
        value = static_cast<uint8_t>(input_.front());
        input_.pop_front();
      }
      break;
    case kInterruptEnable:
      return (line_control_ & kDivisorAccess) != 0 ? divisor_[1]
                                                   : interrupt_enable_;
    case kInterruptIdentity:
      value = InterruptIdentity();
      if (value == kIdentityTransmit) is_empty_due_ = false;
      break;
    case kLineControl:
      return line_control_;
    case kModemControl:
      return modem_control_;
    case kLineStatus:
      return static_cast<uint8_t>(kTransmitterEmpty |
                                  (input_.empty() ? 0 : kDataReady));
    case kModemStatus:
      if ((modem_control_ & kLoop) == 0) return kModemReady;
      // A driver that tests the port finds its outputs at its inputs.
      return static_cast<uint8_t>((modem_control_ & 0x0c) << 4 |
                                  (modem_control_ & 0x02) << 3 |
                                  (modem_control_ & 0x01) << 5);
    case kScratch:
      return scratch_;
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
      if ((line_control_ & kDivisorAccess) != 0) {
        divisor_[0] = value;
        return;
      }
      if ((modem_control_ & kLoop) == 0) output_(static_cast<char>(value));
      // Sent at once.
      is_empty_due_ = false;
      UpdateLine();
      is_empty_due_ = true;
      break;
    case kInterruptEnable:
      if ((line_control_ & kDivisorAccess) != 0) {
        divisor_[1] = value;
        return;
      }
      if ((value & kEnableTransmit) != 0 &&
          (interrupt_enable_ & kEnableTransmit) == 0) {
        is_empty_due_ = true;
      }
      interrupt_enable_ = value & 0xf;
      break;
    case kLineControl:
      line_control_ = value;
      return;
    case kModemControl:
      modem_control_ = value & 0x1f;
      break;
    case kScratch:
      scratch_ = value;
      return;
    default:
      return;
  }
  UpdateLine();
}

void SerialPort::Type(absl::string_view text) {
  const std::lock_guard lock(mutex_);
  for (const char c : text) {
    if (input_.size() < kInputMax) input_.push_back(c);
  }
  UpdateLine();
}

}  // namespace ferrybus::hypervisor
