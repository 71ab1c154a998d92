// SPDX-License-Identifier: MIT

// Any calls of a driver that saves, by the documents, and any steps of the
// update: what a plain map of the pages allows is taken, and nothing else; the
// successor gets just that, in order; one driver is left, and no memory.
//
// Input: records of u8 what (modulo 8) until the end of saving, and
//   0, 1: ranges: u8 how many, each u8 first page, u8 pages; u8 metadata
//   2, 3: an MDL: u8 how many elements, each u8 page, u8 offset, u8 size, in
//         units of 512 bytes; u8 metadata
//   4, 5: a buffer: u8 size in units of 300 bytes; u8 metadata
//   6:    u8 which pointers and sizes are set
//   7:    u8: the end, and whether saving fails
// then of u8 what (modulo 8) and
//   0-3:  the next block is restored; 4: u8 which block
//   5:    the next call of the successor fails; 6: start; 7: u8: cancel

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "ferrybus/ringbuffer/testing/fuzz_input.h"
#include "ferrybus/vsp/virtual_function/documented_hot_update.h"
#include "ferrybus/vsp/virtual_function/driver_hot_update.h"
#include "ferrybus/vsp/virtual_function/hot_update.h"
#include "ferrybus/vsp/virtual_function/hot_update_blocks.h"
#include "ferrybus/vsp/virtual_function/hot_update_test_util.h"

namespace {

using ferrybus::ringbuffer::testing::FuzzInput;
using ferrybus::ringbuffer::testing::TakeByte;
using ferrybus::vsp::DeviceMemory;
using ferrybus::vsp::DocumentedHotUpdateDriver;
using ferrybus::vsp::HotUpdate;
using ferrybus::vsp::HotUpdateBlock;
using ferrybus::vsp::HotUpdateBlocks;
using ferrybus::vsp::HotUpdateDriver;
using Phase = ferrybus::vsp::HotUpdate::Phase;

constexpr uint64_t kPage = ferrybus::vsp::kHotUpdatePageBytes;
constexpr uint64_t kPages = 24;
constexpr ferrybus::vsp::HotUpdateLimits kLimits = {
    .blocks_max = 12, .metadata_bytes_max = 200, .copied_bytes_max = 80000};
constexpr int kStepsMax = 64;

void FailIf(bool is_wrong, const char* what) {
  if (!is_wrong) return;
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

struct Expected {
  std::string bytes;
  std::string metadata;
};

struct World {
  FuzzInput input;
  DeviceMemory* memory;
  PVOID adapter = nullptr;
  std::set<uint64_t> saved = {};  // pages
  std::vector<Expected> blocks = {};
  uint64_t copied = 0;
  size_t restored = 0;
  int cancels = 0;
  int starts = 0;
  int stops = 0;
  bool fails_next = false;
  bool is_successor_alive = false;

  std::string Bytes(uint64_t offset, uint64_t size_bytes) const {
    return ferrybus::vsp::ToText(memory->bytes().subspan(offset, size_bytes));
  }
  // Calls, and compares with what is allowed.
  void Save(DXGKARGCB_SAVEMEMORYFORHOTUPDATE args, bool is_good,
            const std::vector<uint64_t>& pages, std::string bytes,
            uint64_t copied_bytes);
};

void World::Save(DXGKARGCB_SAVEMEMORYFORHOTUPDATE args, bool is_good,
                 const std::vector<uint64_t>& pages, std::string bytes,
                 uint64_t copied_bytes) {
  std::string metadata(TakeByte(&input), static_cast<char>(blocks.size()));
  if (!metadata.empty()) {
    args.MetaDataSize = static_cast<UINT>(metadata.size());
    args.pMetaData = reinterpret_cast<BYTE*>(metadata.data());
  }
  std::set<uint64_t> after = saved;
  after.insert(pages.begin(), pages.end());
  is_good = is_good && after.size() == saved.size() + pages.size() &&
            metadata.size() <= kLimits.metadata_bytes_max &&
            blocks.size() < kLimits.blocks_max &&
            copied + copied_bytes + metadata.size() <= kLimits.copied_bytes_max;
  const NTSTATUS status = DxgkCbSaveMemoryForHotUpdate(adapter, &args);
  FailIf(NT_SUCCESS(status) != is_good, "taken, or refused, against the map");
  if (!is_good) return;
  saved = std::move(after);
  copied += copied_bytes + metadata.size();
  blocks.push_back({std::move(bytes), std::move(metadata)});
}

void SaveRanges(World* world) {
  std::array<DXGK_KSR_MEMORY_RANGE, 8> ranges;
  DXGKARGCB_SAVEMEMORYFORHOTUPDATE args = {};
  args.NumDataMemoryRanges = TakeByte(&world->input) % 8;
  args.pDataMemoryRanges = ranges.data();
  bool is_good = args.NumDataMemoryRanges != 0;
  std::vector<uint64_t> pages;
  std::string bytes;
  uint64_t end = 0;
  for (UINT i = 0; i < args.NumDataMemoryRanges; ++i) {
    const uint64_t first = TakeByte(&world->input) % (kPages + 2);
    uint64_t count = TakeByte(&world->input);
    if (count > 240) count = (1 << 24) - count;
    ranges[i].MemoryRangeDesc = first | count << 40;
    is_good = is_good && first >= end && count != 0 && first + count <= kPages;
    end = first + count;
    if (!is_good) continue;
    for (uint64_t page = first; page < end; ++page) pages.push_back(page);
    bytes += world->Bytes(first * kPage, count * kPage);
  }
  world->Save(args, is_good, pages, bytes, 0);
}

void SaveMdl(World* world) {
  std::array<MDL, 4> elements = {};
  const size_t count = 1 + TakeByte(&world->input) % elements.size();
  bool is_good = true;
  std::vector<uint64_t> pages;
  std::string bytes;
  for (size_t i = 0; i < count; ++i) {
    const uint64_t offset = TakeByte(&world->input) % (kPages + 1) * kPage +
                            TakeByte(&world->input) % 8 * 512;
    const uint64_t size = TakeByte(&world->input) * uint64_t{512};
    const uint64_t end = offset + size;
    if (i + 1 < count) elements[i].Next = &elements[i + 1];
    // Perhaps beyond the memory: not to be computed as a pointer into it.
    elements[i].MappedSystemVa = reinterpret_cast<PVOID>(
        reinterpret_cast<uintptr_t>(world->memory->bytes().data()) + offset);
    elements[i].ByteCount = static_cast<ULONG>(size);
    is_good = is_good && size != 0 && end <= kPages * kPage &&
              (i == 0 || offset % kPage == 0) &&
              (i + 1 == count || end % kPage == 0);
    if (!is_good) continue;
    for (uint64_t page = offset / kPage; page * kPage < end; ++page) {
      pages.push_back(page);
    }
    bytes += world->Bytes(offset, size);
  }
  DXGKARGCB_SAVEMEMORYFORHOTUPDATE args = {};
  args.pDataMdl = elements.data();
  world->Save(args, is_good, pages, bytes, 0);
}

void SaveBuffer(World* world) {
  std::string buffer(TakeByte(&world->input) * size_t{300}, 'b');
  DXGKARGCB_SAVEMEMORYFORHOTUPDATE args = {};
  args.DataSize = static_cast<UINT>(buffer.size());
  args.pData = buffer.data();
  world->Save(args, !buffer.empty(), {}, buffer,
              (buffer.size() + kPage - 1) / kPage * kPage);
}

// Wrong ones only: none or several forms, or sizes without them.
void SaveOdd(World* world) {
  const uint8_t bits = TakeByte(&world->input);
  DXGK_KSR_MEMORY_RANGE range = {uint64_t{1} << 40};
  MDL mdl = {nullptr, world->memory->bytes().data(), 1};
  BYTE byte = 0;
  DXGKARGCB_SAVEMEMORYFORHOTUPDATE args = {};
  if ((bits & 1) != 0) args.pDataMemoryRanges = &range;
  if ((bits & 2) != 0) args.pDataMdl = &mdl;
  if ((bits & 4) != 0) args.pData = &byte;
  if ((bits & 8) != 0) args.NumDataMemoryRanges = 1;
  if ((bits & 16) != 0) args.DataSize = 1;
  const bool is_one = (bits & 31) == 9 || (bits & 31) == 2 || (bits & 31) == 20;
  if (is_one) {
    args.pMetaData = nullptr;
    args.MetaDataSize = 1;
  }
  const NTSTATUS status = DxgkCbSaveMemoryForHotUpdate(world->adapter, &args);
  FailIf(status != STATUS_INVALID_PARAMETER, "an odd call was taken");
}

NTSTATUS OnSave(PVOID context, const DXGKARG_SAVEMEMORYFORHOTUPDATE* args) {
  auto* world = static_cast<World*>(context);
  if (args->Flags.CancelHotUpdate != 0) {
    ++world->cancels;
    return STATUS_SUCCESS;
  }
  for (int i = 0; i < kStepsMax && !world->input.empty(); ++i) {
    switch (TakeByte(&world->input) % 8) {
      case 0:
      case 1:
        SaveRanges(world);
        break;
      case 2:
      case 3:
        SaveMdl(world);
        break;
      case 4:
      case 5:
        SaveBuffer(world);
        break;
      case 6:
        SaveOdd(world);
        break;
      default:
        return TakeByte(&world->input) % 8 == 7 ? STATUS_UNSUCCESSFUL
                                                : STATUS_SUCCESS;
    }
  }
  return STATUS_SUCCESS;
}

class Successor final : public HotUpdateDriver {
 public:
  explicit Successor(World* world) : world_(world) {
    world_->is_successor_alive = true;
  }
  ~Successor() override { world_->is_successor_alive = false; }
  absl::Status Save(HotUpdateBlocks&) override { return absl::OkStatus(); }
  void CancelUpdate() override { FailIf(true, "not the old driver"); }
  absl::Status Restore(HotUpdateBlock block) override {
    FailIf(world_->restored >= world_->blocks.size(), "a block too many");
    const Expected& expected = world_->blocks[world_->restored++];
    FailIf(ferrybus::vsp::ToText(Joined(block)) != expected.bytes ||
               block.size_bytes != expected.bytes.size(),
           "other bytes than were saved");
    FailIf(ferrybus::vsp::ToText(block.metadata) != expected.metadata,
           "other metadata");
    return Result();
  }
  absl::Status Start() override {
    FailIf(world_->restored != world_->blocks.size(), "a block too few");
    return Result();
  }
  void RestoreComplete() override {}

 private:
  absl::Status Result() {
    return std::exchange(world_->fails_next, false) ? absl::InternalError("")
                                                    : absl::OkStatus();
  }

  World* world_;
};

void Step(World* world, HotUpdate* update) {
  switch (TakeByte(&world->input) % 8) {
    case 4:
      update->Restore(TakeByte(&world->input) % 16).IgnoreError();
      return;
    case 5:
      world->fails_next = true;
      return;
    case 6:
      update->Start().IgnoreError();
      return;
    case 7:
      if (TakeByte(&world->input) % 2 == 0) {
        update->Cancel();
      } else {
        update->RequestCancel();
      }
      return;
    default:
      update->Restore(world->restored).IgnoreError();
  }
}

}  // namespace

// bad:H1 bad:H2 bad:H5 doc:HU4
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes) {
  static DeviceMemory* const memory = [] {
    auto* made = new DeviceMemory(kPages);
    made->Number();
    return made;
  }();
  World world{.input = {data, size_bytes}, .memory = memory};
  ferrybus::vsp::DocumentedHotUpdateFunctions functions;
  functions.context = &world;
  functions.save = &OnSave;
  functions.start = [&world] {
    ++world.starts;
    return STATUS_SUCCESS;
  };
  functions.stop = [&world] { ++world.stops; };
  auto old = std::make_unique<DocumentedHotUpdateDriver>(functions);
  world.adapter = old->adapter();
  const HotUpdateDriver* const first = old.get();
  std::unique_ptr<HotUpdateDriver> driver = std::move(old);
  {
    HotUpdate update(memory->bytes(), &driver,
                     std::make_unique<Successor>(&world), kLimits);
    if (update.Save().ok()) {
      FailIf(update.blocks().size() != world.blocks.size(), "block count");
      FailIf(update.blocks().copied_bytes() != world.copied, "copied bytes");
    }
    for (int i = 0; i < kStepsMax && !world.input.empty(); ++i) {
      Step(&world, &update);
    }
    if (update.phase() != Phase::kDone) update.Cancel();
    FailIf(update.blocks().copied_bytes() != 0, "memory is kept");
    const bool is_done = update.phase() == Phase::kDone;
    FailIf(is_done == (driver.get() == first), "the wrong driver");
    FailIf(world.is_successor_alive != is_done, "the wrong driver lives");
    FailIf(world.cancels != (is_done ? 0 : 1), "cancel calls");
    FailIf(world.starts != (is_done ? 0 : world.stops), "it does not run");
  }
  return 0;
}
