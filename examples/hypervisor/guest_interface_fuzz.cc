// SPDX-License-Identifier: MIT
//
// A hostile guest against what it reaches of the hypervisor itself.  The input
// is a list of steps of 11 bytes: {what, where, register, 8 bytes of value}.
//
// Checked: an interrupt is only ever for a processor that there is, a message
// that is passed on is never longer than it may be, and nothing outside of RAM
// is touched (by the sanitizers).

#include <array>
#include <cstdint>
#include <cstring>
#include <memory>

#include "ferrybus/channel/check.h"
#include "ferrybus/channel/guest_memory.h"
#include "ferrybus/examples/hypervisor/hypercalls.h"
#include "ferrybus/examples/hypervisor/hyperv_msrs.h"
#include "ferrybus/examples/hypervisor/serial_port.h"
#include "ferrybus/examples/hypervisor/synic.h"

namespace ferrybus::hypervisor {
namespace {

constexpr uint32_t kVpCount = 2;
constexpr uint64_t kRamBytes = 16 * 4096;
constexpr uint32_t kFirstMsr = 0x40000000;

class Sink final : public HypercallSink {
 public:
  HypercallStatus PostMessage(uint32_t,
                              absl::Span<const std::byte> payload) override {
    FERRYBUS_CHECK(payload.size() <= kMaxMessageSizeBytes, "message too long");
    return HypercallStatus::kSuccess;
  }
  HypercallStatus SignalEvent(uint64_t) override {
    return HypercallStatus::kSuccess;
  }
};

struct Step {
  uint8_t what;
  uint8_t where;
  uint8_t number;
  uint64_t value;
};

class Guest {
 public:
  Guest()
      : memory_(*MemfdGuestMemory::Create(kRamBytes)),
        synic_(memory_.get(), kVpCount,
               [](uint32_t vp, uint64_t) {
                 FERRYBUS_CHECK(vp < kVpCount, "interrupt for nobody");
               }),
        msrs_(memory_.get(), &synic_, 0),
        serial_([](char) {}, [](bool) {}) {
    msrs_.SetTscFrequency(2'000'000'000);
  }

  void Do(const Step& step) {
    const uint32_t vp = step.where % kVpCount;
    // Both pages of 256 registers that have any.
    const uint32_t msr =
        kFirstMsr + (uint32_t{step.where} >> 7) * 256 + step.number;
    uint64_t read = 0;
    switch (step.what % 8) {
      case 0:
        msrs_.Write(vp, msr, step.value, [&] { return step.value; });
        break;
      case 1:
        msrs_.Read(vp, msr, &read);
        break;
      case 2:
        Store(step.value % kRamBytes / 8 * 8, step.number);
        break;
      case 3:
        HandleHypercall({step.number | uint64_t{step.where} << 12, step.value},
                        *memory_, &sink_);
        break;
      case 4: {
        std::array<std::byte, kMaxMessageSizeBytes> payload = {};
        synic_.PostMessage(step.where,
                           absl::MakeConstSpan(payload).first(
                               step.number % (kMaxMessageSizeBytes + 1)));
        break;
      }
      case 5:
        synic_.SetEventFlag(step.where, static_cast<uint32_t>(step.value));
        break;
      case 6:
        serial_.Write(step.where % SerialPort::kPortCount, step.number);
        break;
      default:
        serial_.Type("x");
        serial_.Read(step.where % SerialPort::kPortCount);
        break;
    }
  }

 private:
  void Store(uint64_t address, uint64_t value) {
    std::memcpy(memory_->Translate(address, 8).data(), &value, 8);
  }

  std::unique_ptr<MemfdGuestMemory> memory_;
  Synic synic_;
  HypervMsrs msrs_;
  SerialPort serial_;
  Sink sink_;
};

}  // namespace
}  // namespace ferrybus::hypervisor

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr size_t kStepBytes = 11;
  ferrybus::hypervisor::Guest guest;
  for (; size >= kStepBytes; data += kStepBytes, size -= kStepBytes) {
    ferrybus::hypervisor::Step step = {data[0], data[1], data[2], 0};
    std::memcpy(&step.value, data + 3, sizeof(step.value));
    guest.Do(step);
  }
  return 0;
}
