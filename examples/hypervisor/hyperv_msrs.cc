// SPDX-License-Identifier: MIT

#include "ferrybus/examples/hypervisor/hyperv_msrs.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "ferrybus/examples/demo/control.h"
#include "ferrybus/examples/hypervisor/hyperv.h"

namespace ferrybus::hypervisor {
namespace {

constexpr uint64_t kPageBytes = 4096;
constexpr int64_t kNsPerTick = 100;
constexpr uint64_t kTicksPerSecond = 10'000'000;
// What the guest may tell by the crash registers: that it crashed.
constexpr uint64_t kCrashNotify = uint64_t{1} << 63;

// out imm8, eax; ret.  Input and result stay in the registers.
constexpr uint8_t kHypercallCode[] = {0xe7, kHypercallPort, 0xc3};

// The page by which a guest computes the time by itself:
// time = (tsc * scale >> 64) + offset.
struct TscPage {
  uint32_t sequence;  // 0: not valid
  uint32_t reserved;
  uint64_t scale;
  uint64_t offset;
};

}  // namespace

uint64_t HypervMsrs::ReferenceTime() const {
  return static_cast<uint64_t>((demo::NowNs() - start_ns_) / kNsPerTick);
}

HypervMsrsState HypervMsrs::Save() const {
  const std::lock_guard lock(mutex_);
  return is_;
}

void HypervMsrs::Load(const HypervMsrsState& state, int64_t start_ns) {
  const std::lock_guard lock(mutex_);
  is_ = state;
  start_ns_ = start_ns;
}

bool HypervMsrs::Read(uint32_t vp, uint32_t msr, uint64_t* value) const {
  if (synic_->ReadMsr(vp, msr, value)) return true;
  const std::lock_guard lock(mutex_);
  if (msr >= kMsrCrash0 && msr < kMsrCrashControl) {
    *value = is_.crash[msr - kMsrCrash0];
    return true;
  }
  switch (msr) {
    case kMsrGuestOsId:
      *value = is_.guest_os_id;
      return true;
    case kMsrHypercall:
      *value = is_.hypercall;
      return true;
    case kMsrVpIndex:
      *value = vp;
      return true;
    case kMsrTimeRefCount:
      *value = ReferenceTime();
      return true;
    case kMsrReferenceTsc:
      *value = is_.reference_tsc;
      return true;
    case kMsrTscFrequency:
      *value = tsc_hz_;
      return true;
    case kMsrApicFrequency:
      *value = kApicFrequency;
      return true;
    case kMsrVpAssistPage:
      *value = 0;
      return true;
    case kMsrCrashControl:
      *value = kCrashNotify;
      return true;
    default:
      return false;
  }
}

bool HypervMsrs::Write(uint32_t vp, uint32_t msr, uint64_t value,
                       absl::FunctionRef<uint64_t()> tsc) {
  if (synic_->WriteMsr(vp, msr, value)) return true;
  const std::lock_guard lock(mutex_);
  if (msr >= kMsrCrash0 && msr < kMsrCrashControl) {
    is_.crash[msr - kMsrCrash0] = value;
    return true;
  }
  switch (msr) {
    case kMsrGuestOsId:
      is_.guest_os_id = value;
      return true;
    case kMsrHypercall:
      is_.hypercall = value;
      return WriteHypercallPage();
    case kMsrReferenceTsc:
      return WriteTscPage(value, tsc());
    case kMsrVpAssistPage:  // nothing to assist with
    case kMsrCrashControl:
      return true;
    default:
      return false;
  }
}

bool HypervMsrs::WriteHypercallPage() {
  if ((is_.hypercall & kPageEnable) == 0 || is_.guest_os_id == 0) return true;
  const absl::Span<std::byte> page =
      memory_->Translate(is_.hypercall & kPageAddress, kPageBytes);
  if (page.empty()) return false;
  std::memcpy(page.data(), kHypercallCode, sizeof(kHypercallCode));
  return true;
}

bool HypervMsrs::WriteTscPage(uint64_t value, uint64_t tsc) {
  is_.reference_tsc = value;
  if ((value & kPageEnable) == 0 || tsc_hz_ <= kTicksPerSecond) return true;
  const absl::Span<std::byte> page =
      memory_->Translate(value & kPageAddress, kPageBytes);
  if (page.empty()) return false;
  __extension__ using Wide = unsigned __int128;
  TscPage* const out = reinterpret_cast<TscPage*>(page.data());
  const auto scale =
      static_cast<uint64_t>((Wide{kTicksPerSecond} << 64) / tsc_hz_);
  out->scale = scale;
  out->offset =
      ReferenceTime() - static_cast<uint64_t>(Wide{tsc} * scale >> 64);
  // The guest looks at the rest only if this is not 0.
  std::atomic_ref<uint32_t>(out->sequence).store(1, std::memory_order_release);
  return true;
}

}  // namespace ferrybus::hypervisor
