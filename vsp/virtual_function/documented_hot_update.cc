// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/virtual_function/documented_hot_update.h"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "ferrybus/vsp/virtual_function/documented_status.h"

namespace ferrybus::vsp {
namespace {

// What an element of an MDL can hold, and end on a page.
constexpr uint64_t kMdlBytesMax = (uint64_t{1} << 32) - kHotUpdatePageBytes;

// A restored MDL, which the driver knows by its first element.
struct OwnedMdl : MDL {
  std::vector<MDL> tail;
  HotUpdateBlock block;
};

std::unique_ptr<OwnedMdl> MakeMdl(HotUpdateBlock block) {
  std::vector<MDL> elements;
  for (absl::Span<std::byte> segment : block.segments) {
    while (!segment.empty()) {
      // The first one may begin within a page.
      const auto within =
          reinterpret_cast<uintptr_t>(segment.data()) % kHotUpdatePageBytes;
      const auto taken = segment.subspan(0, kMdlBytesMax - within);
      segment.remove_prefix(taken.size());
      elements.push_back(
          {nullptr, taken.data(), static_cast<ULONG>(taken.size())});
    }
  }
  auto owned = std::make_unique<OwnedMdl>();
  static_cast<MDL&>(*owned) = elements.front();
  owned->tail.assign(elements.begin() + 1, elements.end());
  MDL* last = owned.get();
  for (MDL& element : owned->tail) {
    last->Next = &element;
    last = &element;
  }
  owned->block = std::move(block);
  return owned;
}

NTSTATUS FromStatus(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return STATUS_SUCCESS;
    case absl::StatusCode::kFailedPrecondition:
      return STATUS_INVALID_DEVICE_STATE;
    case absl::StatusCode::kResourceExhausted:
      return STATUS_INSUFFICIENT_RESOURCES;
    default:
      return STATUS_INVALID_PARAMETER;
  }
}

NTSTATUS SaveRanges(const DXGKARGCB_SAVEMEMORYFORHOTUPDATE& args,
                    absl::Span<const std::byte> metadata,
                    HotUpdateBlocks* blocks) {
  // Before the array is read.
  if (args.NumDataMemoryRanges > blocks->limits().ranges_max) {
    return STATUS_INSUFFICIENT_RESOURCES;
  }
  std::vector<HotUpdateRange> ranges;
  for (UINT i = 0; i < args.NumDataMemoryRanges; ++i) {
    ranges.push_back(FromKsrRange(args.pDataMemoryRanges[i]));
  }
  return FromStatus(blocks->SaveRanges(ranges, metadata));
}

NTSTATUS SaveMdl(const MDL* mdl, absl::Span<const std::byte> metadata,
                 HotUpdateBlocks* blocks) {
  const absl::Span<std::byte> memory = blocks->memory();
  const auto base = reinterpret_cast<uintptr_t>(memory.data());
  std::vector<uint64_t> pages;
  HotUpdatePageList list;
  for (const MDL* at = mdl; at != nullptr; at = at->Next) {
    const uint64_t offset =
        reinterpret_cast<uintptr_t>(at->MappedSystemVa) - base;
    // This also ends a chain that is a circle.
    if (at->ByteCount == 0 || offset >= memory.size() ||
        at->ByteCount > memory.size() - offset ||
        at->ByteCount > memory.size() - list.size_bytes) {
      return STATUS_INVALID_PARAMETER;
    }
    const uint64_t end = offset + at->ByteCount;
    if ((at != mdl && offset % kHotUpdatePageBytes != 0) ||
        (at->Next != nullptr && end % kHotUpdatePageBytes != 0)) {
      return STATUS_INVALID_PARAMETER;
    }
    if (at == mdl) list.first_byte = offset % kHotUpdatePageBytes;
    list.size_bytes += at->ByteCount;
    for (uint64_t page = offset / kHotUpdatePageBytes;
         page * kHotUpdatePageBytes < end; ++page) {
      pages.push_back(page);
    }
  }
  list.pages = pages;
  return FromStatus(blocks->SavePageList(list, metadata));
}

}  // namespace

DocumentedHotUpdateDriver::~DocumentedHotUpdateDriver() {
  if (is_restoring_) RestoreComplete();
}

absl::Status DocumentedHotUpdateDriver::Save(HotUpdateBlocks& blocks) {
  DXGKARG_SAVEMEMORYFORHOTUPDATE args = {};
  blocks_ = &blocks;
  const NTSTATUS status = functions_.save(functions_.context, &args);
  blocks_ = nullptr;
  if (NT_SUCCESS(status)) {
    is_stopped_ = true;
    functions_.stop();
  }
  return ToStatus(status, "DxgkDdiSaveMemoryForHotUpdate");
}

void DocumentedHotUpdateDriver::CancelUpdate() {
  DXGKARG_SAVEMEMORYFORHOTUPDATE args = {};
  args.Flags.CancelHotUpdate = 1;
  // There is nothing to do about a failure: it goes on.
  (void)functions_.save(functions_.context, &args);
  if (is_stopped_) (void)functions_.start();
  is_stopped_ = false;
}

absl::Status DocumentedHotUpdateDriver::Restore(HotUpdateBlock block) {
  std::unique_ptr<OwnedMdl> mdl = MakeMdl(std::move(block));
  std::vector<std::byte>& metadata = mdl->block.metadata;
  DXGKARG_RESTOREMEMORYFORHOTUPDATE args = {};
  args.pDataMdl = mdl.get();
  args.MetaDataSize = static_cast<UINT>(metadata.size());
  args.pMetaData = metadata.empty() ? nullptr : metadata.data();
  is_restoring_ = true;
  const NTSTATUS status = functions_.restore(functions_.context, &args);
  if (NT_SUCCESS(status)) (void)mdl.release();  // the driver's
  return ToStatus(status, "DxgkDdiRestoreMemoryForHotUpdate");
}

absl::Status DocumentedHotUpdateDriver::Start() {
  return ToStatus(functions_.start(), "starting");
}

void DocumentedHotUpdateDriver::RestoreComplete() {
  DXGKARG_RESTOREMEMORYFORHOTUPDATE args = {};
  args.Flags.RestoreComplete = 1;
  is_restoring_ = false;
  (void)functions_.restore(functions_.context, &args);
}

NTSTATUS DocumentedHotUpdateDriver::SaveBlock(
    const DXGKARGCB_SAVEMEMORYFORHOTUPDATE* args) {
  if (blocks_ == nullptr) return STATUS_INVALID_DEVICE_STATE;
  const bool has_ranges = args->pDataMemoryRanges != nullptr;
  const bool has_mdl = args->pDataMdl != nullptr;
  const bool has_data = args->pData != nullptr;
  if (has_ranges + has_mdl + has_data != 1 ||
      has_ranges != (args->NumDataMemoryRanges != 0) ||
      has_data != (args->DataSize != 0) ||
      (args->pMetaData == nullptr && args->MetaDataSize != 0)) {
    return STATUS_INVALID_PARAMETER;
  }
  // A pointer with size 0 is none.
  const absl::Span<const std::byte> metadata(
      reinterpret_cast<const std::byte*>(args->pMetaData), args->MetaDataSize);
  if (has_ranges) return SaveRanges(*args, metadata, blocks_);
  if (has_mdl) return SaveMdl(args->pDataMdl, metadata, blocks_);
  return FromStatus(blocks_->SaveBuffer(
      absl::MakeConstSpan(static_cast<const std::byte*>(args->pData),
                          args->DataSize),
      metadata));
}

absl::StatusOr<DXGK_KSR_MEMORY_RANGE> ToKsrRange(const HotUpdateRange& range) {
  if (range.first_page > kKsrPageMax || range.pages > kKsrPagesMax) {
    return absl::OutOfRangeError(absl::StrCat(
        range.pages, " pages from page ", range.first_page, " on; at most ",
        kKsrPagesMax, ", and page ", kKsrPageMax, "; save several ranges"));
  }
  return DXGK_KSR_MEMORY_RANGE{range.first_page | range.pages << 40};
}

HotUpdateRange FromKsrRange(DXGK_KSR_MEMORY_RANGE range) {
  return {range.MemoryRangeDesc & kKsrPageMax, range.MemoryRangeDesc >> 40};
}

}  // namespace ferrybus::vsp

extern "C" NTSTATUS DxgkCbSaveMemoryForHotUpdate(
    PVOID hAdapter, const DXGKARGCB_SAVEMEMORYFORHOTUPDATE* pArgs) {
  return static_cast<ferrybus::vsp::DocumentedHotUpdateDriver*>(hAdapter)
      ->SaveBlock(pArgs);
}

extern "C" void ferrybus_free_mdl(PMDL Mdl) {
  delete static_cast<ferrybus::vsp::OwnedMdl*>(Mdl);
}
