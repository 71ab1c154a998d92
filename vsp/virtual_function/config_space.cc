// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/virtual_function/config_space.h"

#include <cstring>

#include "absl/strings/str_cat.h"

namespace ferrybus::vsp {
namespace {

// Which bits a guest can write.
constexpr uint8_t WritableBits(size_t at) {
  if (at == ConfigSpace::kCommand) return 0x47;      // I/O, memory, master
  if (at == ConfigSpace::kCommand + 1) return 0x05;  // SERR, INTx disable
  if (at == ConfigSpace::kInterruptLine) return 0xff;
  return 0;
}

absl::Status CheckRange(size_t offset_bytes, size_t size_bytes) {
  if (size_bytes != 0 && offset_bytes <= kConfigBytes &&
      size_bytes <= kConfigBytes - offset_bytes) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("configuration space: ", size_bytes, " bytes at ",
                   offset_bytes, ", it has ", kConfigBytes));
}

bool Covers(size_t offset_bytes, size_t size_bytes, size_t at) {
  return at >= offset_bytes && at - offset_bytes < size_bytes;
}

}  // namespace

ConfigSpace::ConfigSpace(MsixTable* interrupts)
    : interrupts_(interrupts), bytes_(InitialBytes()) {}

ConfigSpace::Bytes ConfigSpace::InitialBytes() const {
  Bytes bytes = {};
  bytes[0] = 0x36, bytes[1] = 0x1b;  // vendor
  bytes[2] = 0xa0, bytes[3] = 0xfe;  // device
  bytes[11] = 0x12;                  // class: processing accelerator
  if (interrupts_ != nullptr) {
    bytes[6] = 0x10;  // it has capabilities
    bytes[52] = kMsixCapability;
    bytes[kMsixCapability] = 0x11;
  }
  return bytes;
}

absl::Status ConfigSpace::Read(size_t offset_bytes,
                               absl::Span<std::byte> out) const {
  if (absl::Status status = CheckRange(offset_bytes, out.size());
      !status.ok()) {
    return status;
  }
  absl::MutexLock lock(&mu_);
  Bytes bytes = bytes_;
  if (interrupts_ != nullptr) {
    const uint16_t control = interrupts_->ReadControl();
    std::memcpy(&bytes[kMsixControl], &control, sizeof(control));
  }
  std::memcpy(out.data(), &bytes[offset_bytes], out.size());
  return absl::OkStatus();
}

absl::Status ConfigSpace::Write(size_t offset_bytes,
                                absl::Span<const std::byte> bytes) {
  if (absl::Status status = CheckRange(offset_bytes, bytes.size());
      !status.ok()) {
    return status;
  }
  absl::MutexLock lock(&mu_);
  for (size_t i = 0; i < bytes.size(); ++i) {
    uint8_t& byte = bytes_[offset_bytes + i];
    const uint8_t mask = WritableBits(offset_bytes + i);
    byte = static_cast<uint8_t>((byte & ~mask) |
                                (static_cast<uint8_t>(bytes[i]) & mask));
  }
  // Only the two top bits of the control word can be written.
  const size_t high = kMsixControl + 1;
  if (interrupts_ != nullptr && Covers(offset_bytes, bytes.size(), high)) {
    (void)interrupts_->WriteControl(static_cast<uint16_t>(
        static_cast<uint16_t>(bytes[high - offset_bytes]) << 8));
  }
  return absl::OkStatus();
}

void ConfigSpace::Reset() {
  absl::MutexLock lock(&mu_);
  bytes_ = InitialBytes();
}

std::string ConfigSpace::Save() const {
  absl::MutexLock lock(&mu_);
  return std::string(reinterpret_cast<const char*>(bytes_.data()),
                     bytes_.size());
}

absl::Status ConfigSpace::Check(const std::string& saved) const {
  if (saved.size() != kConfigBytes) {
    return absl::DataLossError(
        absl::StrCat("configuration space: ", saved.size(), " bytes, must be ",
                     kConfigBytes));
  }
  const Bytes here = InitialBytes();
  for (size_t i = 0; i < kConfigBytes; ++i) {
    const auto byte = static_cast<uint8_t>(saved[i]);
    if (((byte ^ here[i]) & ~WritableBits(i)) == 0) continue;
    return absl::DataLossError(absl::StrCat(
        "configuration space: byte ", i, " was ", byte, " when saved and is ",
        here[i], " here, and cannot be written"));
  }
  return absl::OkStatus();
}

absl::Status ConfigSpace::Restore(const std::string& saved) {
  if (absl::Status status = Check(saved); !status.ok()) return status;
  absl::MutexLock lock(&mu_);
  std::memcpy(bytes_.data(), saved.data(), kConfigBytes);
  return absl::OkStatus();
}

}  // namespace ferrybus::vsp
