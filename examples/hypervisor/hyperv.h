// SPDX-License-Identifier: MIT
//
// Numbers of Hyper-V's guest interface (Hypervisor Top Level Functional
// Specification), as far as VMBus needs them.

#ifndef FERRYBUS_EXAMPLES_HYPERVISOR_HYPERV_H_
#define FERRYBUS_EXAMPLES_HYPERVISOR_HYPERV_H_

#include <cstdint>

namespace ferrybus::hypervisor {

// Model specific registers.
inline constexpr uint32_t kMsrGuestOsId = 0x40000000;
inline constexpr uint32_t kMsrHypercall = 0x40000001;
inline constexpr uint32_t kMsrVpIndex = 0x40000002;
inline constexpr uint32_t kMsrTimeRefCount = 0x40000020;
inline constexpr uint32_t kMsrReferenceTsc = 0x40000021;
inline constexpr uint32_t kMsrTscFrequency = 0x40000022;
inline constexpr uint32_t kMsrApicFrequency = 0x40000023;
inline constexpr uint32_t kMsrVpAssistPage = 0x40000073;
inline constexpr uint32_t kMsrSynicControl = 0x40000080;
inline constexpr uint32_t kMsrSynicVersion = 0x40000081;
inline constexpr uint32_t kMsrEventFlagsPage = 0x40000082;
inline constexpr uint32_t kMsrMessagePage = 0x40000083;
inline constexpr uint32_t kMsrEndOfMessage = 0x40000084;
inline constexpr uint32_t kMsrSint0 = 0x40000090;
inline constexpr uint32_t kMsrCrash0 = 0x40000100;
inline constexpr uint32_t kMsrCrashControl = 0x40000105;

// Of page registers: bit 0 enables, the page's address is in 12 and up.
inline constexpr uint64_t kPageEnable = 1;
inline constexpr uint64_t kPageAddress = ~uint64_t{4095};

inline constexpr uint64_t kSintMasked = 1 << 16;

// Hypercalls.
inline constexpr uint16_t kHypercallPostMessage = 0x5c;
inline constexpr uint16_t kHypercallSignalEvent = 0x5d;
inline constexpr uint64_t kHypercallFast = 1 << 16;

enum class HypercallStatus : uint16_t {
  kSuccess = 0,
  kInvalidCode = 2,
  kInvalidInput = 3,
  kInvalidAlignment = 4,
  kInvalidParameter = 5,
  kInvalidConnectionId = 18,
  kInsufficientBuffers = 19,
};

// What KVM's local APIC counts with, in Hz.
inline constexpr uint64_t kApicFrequency = 1'000'000'000;

}  // namespace ferrybus::hypervisor

#endif  // FERRYBUS_EXAMPLES_HYPERVISOR_HYPERV_H_
