// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/frame_fixup.h"

#include <algorithm>

#include "absl/types/span.h"
#include "ferrybus/savestate/crc32c.h"
#include "ferrybus/savestate/frame_layout.h"

namespace ferrybus::savestate {

void FixChecksums(std::string* file) {
  if (file->size() < kFrameHeaderBytes) return;
  const auto bytes = absl::MakeConstSpan(
      reinterpret_cast<const std::byte*>(file->data()), file->size());
  const uint64_t room = (bytes.size() - kFrameHeaderBytes) / kSectionEntryBytes;
  const uint64_t count = LoadU32(bytes.data() + kSectionCountOffset);
  // Overlapping bodies could make the work quadratic: spend each byte once.
  uint64_t budget_bytes = bytes.size();
  for (uint64_t i = 0; i < std::min(count, room); ++i) {
    char* entry = file->data() + SectionEntryOffset(i);
    const std::byte* raw = bytes.data() + SectionEntryOffset(i);
    const uint64_t offset = LoadU64(raw + kBodyOffsetOffset);
    const uint64_t length = LoadU64(raw + kBodyLengthOffset);
    if (offset > bytes.size() || length > bytes.size() - offset) continue;
    if (length > budget_bytes) continue;
    budget_bytes -= length;
    StoreU32(entry + kBodyCrcOffset, Crc32c(bytes.subspan(offset, length)));
  }
  if (count <= room) {
    StoreU32(
        file->data() + kTableCrcOffset,
        Crc32c(bytes.subspan(kFrameHeaderBytes, count * kSectionEntryBytes)));
  }
  StoreU32(file->data() + kHeaderCrcOffset,
           Crc32c(bytes.subspan(0, kHeaderCrcOffset)));
}

}  // namespace ferrybus::savestate
