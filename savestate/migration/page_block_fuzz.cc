// SPDX-License-Identifier: MIT
//
// A block of a peer's: refused, or pages that lie in their segment, of which
// there are as many as it says.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>

#include "ferrybus/savestate/migration/page_block.h"

namespace {

using namespace ferrybus::migration;  // NOLINT: this is its test

constexpr uint64_t kPageSize = 4096;
constexpr uint64_t kPages = 1000;

void Check(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes) {
  absl::StatusOr<PageBlock> block =
      ParseBlock({reinterpret_cast<const std::byte*>(data), size_bytes});
  if (!block.ok()) return 0;
  absl::StatusOr<uint64_t> plain_size =
      PlainSizeBytes(*block, kPageSize, kPages);
  if (!plain_size.ok()) return 0;
  Check(*plain_size <= kBlockBytesMax);
  Check(*plain_size == PagesOf(block->runs) * kPageSize);
  for (const PageRun& run : block->runs) {
    Check(run.pages >= 1 && run.first_page + run.pages <= kPages);
  }
  for (const PageRun& run : block->zero_runs) {
    Check(run.pages >= 1 && run.first_page + run.pages <= kPages);
  }
  absl::StatusOr<std::string> plain =
      DecodePages(*std::move(block), *plain_size);
  if (plain.ok()) Check(plain->size() == *plain_size);
  return 0;
}
