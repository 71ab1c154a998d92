// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/migration/page_block.h"

#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ferrybus/savestate/migration/checksummed.h"
#include "ferrybus/savestate/migration/migration.pb.h"
#include "ferrybus/savestate/proto_limits.h"

namespace ferrybus::migration {
namespace {

constexpr int kZstdLevel = 1;
// Compression that saves less than an eighth is not worth the target's time.
constexpr size_t kWorthNumerator = 7;
constexpr size_t kWorthDenominator = 8;
constexpr uint32_t kSkipsMax = 64;
// Two numbers for each page, at most, and the other fields.
constexpr uint64_t kHeaderBytesMax = uint64_t{64} << 10;

absl::Status Bad(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("page block: ", what));
}

void AddPage(uint64_t page, std::vector<PageRun>* runs) {
  if (!runs->empty() && runs->back().first_page + runs->back().pages == page) {
    ++runs->back().pages;
  } else {
    runs->push_back({page, 1});
  }
}

bool IsZero(const char* page, uint64_t size) {
  // The first byte, and each byte like the one before it.
  return page[0] == 0 && std::memcmp(page, page + 1, size - 1) == 0;
}

void WriteRuns(absl::Span<const PageRun> runs,
               google::protobuf::RepeatedField<uint64_t>* out) {
  out->Reserve(static_cast<int>(2 * runs.size()));
  for (const PageRun& run : runs) {
    out->AddAlreadyReserved(run.first_page);
    out->AddAlreadyReserved(run.pages);
  }
}

absl::StatusOr<std::vector<PageRun>> ReadRuns(
    const google::protobuf::RepeatedField<uint64_t>& numbers) {
  if (numbers.size() % 2 != 0) return Bad("half a run");
  std::vector<PageRun> runs;
  runs.reserve(static_cast<size_t>(numbers.size()) / 2);
  for (int i = 0; i < numbers.size(); i += 2) {
    runs.push_back({.first_page = numbers[i], .pages = numbers[i + 1]});
  }
  return runs;
}

// Adds the pages of the runs to `pages`.
absl::Status CheckRuns(absl::Span<const PageRun> runs, uint64_t segment_pages,
                       uint64_t* pages) {
  for (const PageRun& run : runs) {
    if (run.pages == 0 || run.pages > segment_pages ||
        run.first_page > segment_pages - run.pages) {
      return Bad(absl::StrCat("pages ", run.first_page, " and ", run.pages,
                              " on, of a segment of ", segment_pages));
    }
    // At most segment_pages each, and few enough runs to fit a block's bytes.
    *pages += run.pages;
  }
  return absl::OkStatus();
}

}  // namespace

uint64_t PagesOf(absl::Span<const PageRun> runs) {
  uint64_t pages = 0;
  for (const PageRun& run : runs) pages += run.pages;
  return pages;
}

std::string SerializeBlock(PageBlock block) {
  v1::PageBlock message;
  message.set_session(block.session);
  message.set_pass(block.pass);
  message.set_sequence(block.sequence);
  message.set_device(block.device);
  message.set_segment(block.segment);
  WriteRuns(block.runs, message.mutable_runs());
  WriteRuns(block.zero_runs, message.mutable_zero_runs());
  message.set_encoding(static_cast<v1::PageBlock::Encoding>(block.encoding));
  message.set_data(std::move(block.data));
  std::string bytes;
  bytes.reserve(message.ByteSizeLong() + kChecksumSizeBytes);
  message.AppendToString(&bytes);
  AppendChecksum(&bytes);
  return bytes;
}

absl::StatusOr<PageBlock> ParseBlock(absl::Span<const std::byte> bytes) {
  savestate::ProtoLimits limits;
  limits.bytes_max = kBlockBytesMax + kHeaderBytesMax;
  absl::StatusOr<absl::Span<const std::byte>> body =
      CheckChecksum(bytes, "page block");
  if (!body.ok()) return body.status();
  v1::PageBlock message;
  absl::Status status =
      savestate::ParseBounded(*body, limits, &message, "page block");
  if (!status.ok()) return status;
  if (message.encoding() != v1::PageBlock::ENCODING_PLAIN &&
      message.encoding() != v1::PageBlock::ENCODING_ZSTD) {
    return Bad(absl::StrCat("encoding ", message.encoding()));
  }
  absl::StatusOr<std::vector<PageRun>> runs = ReadRuns(message.runs());
  if (!runs.ok()) return runs.status();
  absl::StatusOr<std::vector<PageRun>> zero_runs =
      ReadRuns(message.zero_runs());
  if (!zero_runs.ok()) return zero_runs.status();
  return PageBlock{.session = std::move(*message.mutable_session()),
                   .pass = message.pass(),
                   .sequence = message.sequence(),
                   .device = message.device(),
                   .segment = message.segment(),
                   .runs = *std::move(runs),
                   .zero_runs = *std::move(zero_runs),
                   .encoding = static_cast<PageEncoding>(message.encoding()),
                   .data = std::move(*message.mutable_data())};
}

absl::StatusOr<uint64_t> PlainSizeBytes(const PageBlock& block,
                                        uint64_t page_size_bytes,
                                        uint64_t segment_pages) {
  uint64_t pages = 0;
  absl::Status status = CheckRuns(block.runs, segment_pages, &pages);
  if (!status.ok()) return status;
  const uint64_t with_data = pages;
  status = CheckRuns(block.zero_runs, segment_pages, &pages);
  if (!status.ok()) return status;
  if (pages == 0) return Bad("no page");
  const uint64_t pages_max =
      std::max<uint64_t>(1, kBlockBytesMax / page_size_bytes);
  if (pages > pages_max) {
    return Bad(absl::StrCat(pages, " pages, at most ", pages_max));
  }
  return with_data * page_size_bytes;
}

absl::StatusOr<std::string> DecodePages(PageBlock&& block,
                                        uint64_t plain_size_bytes) {
  std::string plain;
  if (block.encoding == PageEncoding::kPlain) {
    plain = std::move(block.data);
  } else {
    plain.resize(plain_size_bytes);
    const size_t size = ZSTD_decompress(plain.data(), plain.size(),
                                        block.data.data(), block.data.size());
    if (ZSTD_isError(size) != 0) {
      return absl::DataLossError(absl::StrCat("page block: compressed data: ",
                                              ZSTD_getErrorName(size)));
    }
    plain.resize(size);
  }
  if (plain.size() != plain_size_bytes) {
    return absl::DataLossError(absl::StrCat("page block: ", plain.size(),
                                            " bytes for pages of ",
                                            plain_size_bytes));
  }
  return plain;
}

void PageEncoder::Encode(std::string plain, absl::Span<const PageRun> runs,
                         uint64_t page_size_bytes, bool may_compress,
                         PageBlock* block) {
  char* from = plain.data();
  char* to = plain.data();
  for (const PageRun& run : runs) {
    for (uint64_t page = run.first_page; page < run.first_page + run.pages;
         ++page, from += page_size_bytes) {
      if (IsZero(from, page_size_bytes)) {
        AddPage(page, &block->zero_runs);
        continue;
      }
      AddPage(page, &block->runs);
      if (to != from) std::memmove(to, from, page_size_bytes);
      to += page_size_bytes;
    }
  }
  plain.resize(static_cast<size_t>(to - plain.data()));
  block->encoding = PageEncoding::kPlain;
  if (!may_compress || plain.empty()) {
    block->data = std::move(plain);
  } else if (to_skip_ > 0) {
    --to_skip_;
    block->data = std::move(plain);
  } else {
    Compress(std::move(plain), block);
  }
}

void PageEncoder::Compress(std::string plain, PageBlock* block) {
  scratch_.resize(plain.size() / kWorthDenominator * kWorthNumerator);
  const size_t size = ZSTD_compress(scratch_.data(), scratch_.size(),
                                    plain.data(), plain.size(), kZstdLevel);
  if (ZSTD_isError(size) != 0) {  // does not fit: not worth it
    failures_ = std::min(failures_ + 1, kSkipsMax);
    to_skip_ = std::min(uint32_t{1} << std::min(failures_, 6u), kSkipsMax);
    block->data = std::move(plain);
    return;
  }
  failures_ = 0;
  block->encoding = PageEncoding::kZstd;
  block->data.assign(scratch_.data(), size);
}

}  // namespace ferrybus::migration
