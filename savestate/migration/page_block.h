// SPDX-License-Identifier: MIT
//
// A block of pages on its way: what travels in bulk, on any stream, in any
// order within a pass.
//
// Pages of zeros have no data.  The rest is compressed where it pays.
//
// Trust: bytes of a peer.  Parsing bounds sizes and counts; that pages lie in
// their segment and that a block has no more of them than allowed is checked
// by PlainSizeBytes(); decompression never gives more than that.
// Thread safety: pure functions; a PageEncoder belongs to one thread.
// Cost: a pass for zeros, one for zstd at level 1, one for the checksum.  zstd
// is left out for a while when it did not pay.

#ifndef FERRYBUS_SAVESTATE_MIGRATION_PAGE_BLOCK_H_
#define FERRYBUS_SAVESTATE_MIGRATION_PAGE_BLOCK_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace ferrybus::migration {

// Of plain bytes in a block.
inline constexpr uint64_t kBlockBytesMax = uint64_t{4} << 20;

struct PageRun {
  uint64_t first_page = 0;
  uint64_t pages = 0;

  friend bool operator==(const PageRun&, const PageRun&) = default;
};

uint64_t PagesOf(absl::Span<const PageRun> runs);

enum class PageEncoding : uint8_t { kPlain = 1, kZstd = 2 };

struct PageBlock {
  std::string session;
  uint32_t pass = 0;
  uint64_t sequence = 0;
  uint32_t device = 0;
  uint32_t segment = 0;
  std::vector<PageRun> runs;
  std::vector<PageRun> zero_runs;
  PageEncoding encoding = PageEncoding::kPlain;
  std::string data;
};

std::string SerializeBlock(PageBlock block);
// InvalidArgument, ResourceExhausted.
absl::StatusOr<PageBlock> ParseBlock(absl::Span<const std::byte> bytes);

// Of the pages with data.  InvalidArgument: a run that is empty or leaves the
// segment; no page at all; too many.
absl::StatusOr<uint64_t> PlainSizeBytes(const PageBlock& block,
                                        uint64_t page_size_bytes,
                                        uint64_t segment_pages);

// The pages of `runs`, one after the other.  DataLoss: not what was sent.
absl::StatusOr<std::string> DecodePages(PageBlock&& block,
                                        uint64_t plain_size_bytes);

// Fills blocks: remembers whether compression pays.
class PageEncoder {
 public:
  // `plain` has the pages of `runs`: takes out those of zeros, and encodes the
  // rest.
  void Encode(std::string plain, absl::Span<const PageRun> runs,
              uint64_t page_size_bytes, bool may_compress, PageBlock* block);

 private:
  void Compress(std::string plain, PageBlock* block);

  uint32_t failures_ = 0;  // in a row
  uint32_t to_skip_ = 0;
  std::string scratch_;
};

}  // namespace ferrybus::migration

#endif  // FERRYBUS_SAVESTATE_MIGRATION_PAGE_BLOCK_H_
