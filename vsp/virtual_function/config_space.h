// SPDX-License-Identifier: MIT
//
// A virtual function's PCI configuration space: 256 bytes, of which few can be
// written, and the MSI-X capability's control word, which is the table's.
//
// Ownership: borrows the table, which may be null.
// Thread safety: all methods, from any thread.
// Trust: offsets and values are the guest's; states are anybody's.
//
// Source: DxgkDdiReadVirtualFunctionConfig, -WriteVirtualFunctionConfig.

#ifndef FERRYBUS_VSP_VIRTUAL_FUNCTION_CONFIG_SPACE_H_
#define FERRYBUS_VSP_VIRTUAL_FUNCTION_CONFIG_SPACE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "ferrybus/vsp/virtual_function/msix_table.h"

namespace ferrybus::vsp {

inline constexpr size_t kConfigBytes = 256;

class ConfigSpace {
 public:
  static constexpr size_t kCommand = 4;         // 2 bytes, some can be written
  static constexpr size_t kInterruptLine = 60;  // 1 byte
  static constexpr size_t kMsixCapability = 64;
  static constexpr size_t kMsixControl = kMsixCapability + 2;

  explicit ConfigSpace(MsixTable* interrupts);

  // InvalidArgument: empty, or not all of it is inside; nothing was done.
  absl::Status Read(size_t offset_bytes, absl::Span<std::byte> out) const;
  // Bytes that cannot be written stay.
  absl::Status Write(size_t offset_bytes, absl::Span<const std::byte> bytes);
  // What was written is forgotten; the table is not touched.
  void Reset();

  std::string Save() const;
  // DataLoss: another size, or a byte that this device has otherwise and that
  // cannot be written.
  absl::Status Check(const std::string& saved) const;
  absl::Status Restore(const std::string& saved);

 private:
  using Bytes = std::array<uint8_t, kConfigBytes>;

  Bytes InitialBytes() const;

  MsixTable* const interrupts_;
  mutable absl::Mutex mu_;
  Bytes bytes_ ABSL_GUARDED_BY(mu_);  // without the control word
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_VIRTUAL_FUNCTION_CONFIG_SPACE_H_
