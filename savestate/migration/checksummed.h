// SPDX-License-Identifier: MIT
//
// Bytes on a link with their CRC32C behind them, so that what a link without
// one of its own damages is refused, not restored.
//
// Trust: a checksum finds accidents, not enemies; against those the link has
// TLS.
// Thread safety: pure functions.

#ifndef FERRYBUS_SAVESTATE_MIGRATION_CHECKSUMMED_H_
#define FERRYBUS_SAVESTATE_MIGRATION_CHECKSUMMED_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "ferrybus/savestate/crc32c.h"

namespace ferrybus::migration {

inline constexpr size_t kChecksumSizeBytes = 4;

// Little-endian.
inline void AppendChecksum(std::string* bytes) {
  const uint32_t crc = savestate::Crc32c(
      {reinterpret_cast<const std::byte*>(bytes->data()), bytes->size()});
  bytes->append(reinterpret_cast<const char*>(&crc), sizeof(crc));
}

// The bytes without it.  DataLoss: it is wrong, or missing.
inline absl::StatusOr<absl::Span<const std::byte>> CheckChecksum(
    absl::Span<const std::byte> bytes, absl::string_view what) {
  if (bytes.size() < kChecksumSizeBytes) {
    return absl::DataLossError(
        absl::StrCat(what, ": ", bytes.size(), " bytes"));
  }
  const absl::Span<const std::byte> body =
      bytes.subspan(0, bytes.size() - kChecksumSizeBytes);
  uint32_t crc = 0;
  std::memcpy(&crc, body.data() + body.size(), sizeof(crc));
  if (crc != savestate::Crc32c(body)) {
    return absl::DataLossError(absl::StrCat(what, ": the checksum is wrong"));
  }
  return body;
}

}  // namespace ferrybus::migration

#endif  // FERRYBUS_SAVESTATE_MIGRATION_CHECKSUMMED_H_
