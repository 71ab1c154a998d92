// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/virtual_function/documented_hot_update.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ferrybus/vsp/virtual_function/driver_hot_update.h"
#include "ferrybus/vsp/virtual_function/hot_update.h"
#include "ferrybus/vsp/virtual_function/hot_update_blocks.h"
#include "ferrybus/vsp/virtual_function/hot_update_test_util.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

using absl::StatusCode;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint64_t kPage = kHotUpdatePageBytes;

// A driver by the documents.
struct Driver {
  DocumentedHotUpdateFunctions Functions();

  std::string name;
  std::vector<std::string>* calls = nullptr;
  std::function<NTSTATUS()> on_save = [] { return STATUS_SUCCESS; };
  NTSTATUS restore_status = STATUS_SUCCESS;
  NTSTATUS start_status = STATUS_SUCCESS;
  UINT save_flags = 0;
  std::vector<PMDL> restored = {};
  std::vector<std::string> metadata = {};
  std::vector<DXGKARG_RESTOREMEMORYFORHOTUPDATE> restore_args = {};
};

NTSTATUS OnSave(PVOID context, const DXGKARG_SAVEMEMORYFORHOTUPDATE* args) {
  auto* driver = static_cast<Driver*>(context);
  driver->save_flags = args->Flags.Value;
  const bool is_cancel = args->Flags.CancelHotUpdate != 0;
  driver->calls->push_back(driver->name + (is_cancel ? ":cancel" : ":save"));
  return is_cancel ? STATUS_UNSUCCESSFUL : driver->on_save();
}

NTSTATUS OnRestore(PVOID context,
                   const DXGKARG_RESTOREMEMORYFORHOTUPDATE* args) {
  auto* driver = static_cast<Driver*>(context);
  driver->restore_args.push_back(*args);
  const bool is_complete = args->Flags.RestoreComplete != 0;
  driver->calls->push_back(driver->name +
                           (is_complete ? ":complete" : ":restore"));
  if (is_complete) return STATUS_UNSUCCESSFUL;
  if (!NT_SUCCESS(driver->restore_status)) return driver->restore_status;
  driver->restored.push_back(args->pDataMdl);
  driver->metadata.emplace_back(static_cast<const char*>(args->pMetaData),
                                args->MetaDataSize);
  return STATUS_SUCCESS;
}

DocumentedHotUpdateFunctions Driver::Functions() {
  return {this,
          true,
          &OnSave,
          &OnRestore,
          [this] {
            calls->push_back(name + ":start");
            return start_status;
          },
          [this] { calls->push_back(name + ":stop"); }};
}

std::string MdlText(const MDL* mdl) {
  std::string text;
  for (; mdl != nullptr; mdl = mdl->Next) {
    text.append(static_cast<const char*>(mdl->MappedSystemVa), mdl->ByteCount);
  }
  return text;
}

class DocumentedHotUpdateTest : public ::testing::Test {
 protected:
  DocumentedHotUpdateTest() {
    memory_.Number();
    auto old = std::make_unique<DocumentedHotUpdateDriver>(old_.Functions());
    adapter_ = old->adapter();
    driver_ = std::move(old);
  }
  ~DocumentedHotUpdateTest() override {
    for (PMDL mdl : new_.restored) ferrybus_free_mdl(mdl);
  }
  std::byte* At(uint64_t offset) { return memory_.bytes().data() + offset; }
  std::string Text(uint64_t offset, uint64_t size_bytes) {
    return ToText(memory_.bytes().subspan(offset, size_bytes));
  }
  NTSTATUS Save(const DXGKARGCB_SAVEMEMORYFORHOTUPDATE& args) {
    return DxgkCbSaveMemoryForHotUpdate(adapter_, &args);
  }
  NTSTATUS SaveRange(const HotUpdateRange& range) {
    DXGK_KSR_MEMORY_RANGE ksr = *ToKsrRange(range);
    DXGKARGCB_SAVEMEMORYFORHOTUPDATE args = {};
    args.NumDataMemoryRanges = 1;
    args.pDataMemoryRanges = &ksr;
    return Save(args);
  }
  NTSTATUS SaveMdl(MDL* mdl) {
    DXGKARGCB_SAVEMEMORYFORHOTUPDATE args = {};
    args.pDataMdl = mdl;
    return Save(args);
  }
  absl::Status Update() {
    HotUpdate update(
        memory_.bytes(), &driver_,
        std::make_unique<DocumentedHotUpdateDriver>(new_.Functions()));
    return update.Run();
  }

  DeviceMemory memory_{16};
  std::vector<std::string> calls_;
  Driver old_{.name = "old", .calls = &calls_};
  Driver new_{.name = "new", .calls = &calls_};
  std::unique_ptr<HotUpdateDriver> driver_;
  PVOID adapter_ = nullptr;
};

// doc:HU3 doc:HU7 doc:HU9 doc:HU11 doc:HU12 doc:HU13 doc:HU14
TEST_F(DocumentedHotUpdateTest, EachFormComesBackAsAnMdl) {
  std::string registers(5000, 'r');
  std::string about = "about";
  old_.on_save = [&] {
    EXPECT_EQ(old_.save_flags, 0u);
    EXPECT_EQ(SaveRange({1, 2}), STATUS_SUCCESS);
    MDL last = {nullptr, At(4 * kPage), 100};
    MDL first = {&last, At(8 * kPage + 96), kPage - 96};
    EXPECT_EQ(SaveMdl(&first), STATUS_SUCCESS);
    DXGKARGCB_SAVEMEMORYFORHOTUPDATE args = {};
    args.DataSize = 5000;
    args.pData = registers.data();
    args.MetaDataSize = 5;
    args.pMetaData = reinterpret_cast<BYTE*>(about.data());
    EXPECT_EQ(Save(args), STATUS_SUCCESS);
    registers.assign(5000, 'x');
    return STATUS_SUCCESS;
  };
  ASSERT_TRUE(Update().ok());
  EXPECT_THAT(calls_,
              ElementsAre("old:save", "old:stop", "new:restore", "new:restore",
                          "new:restore", "new:start", "new:complete"));
  ASSERT_EQ(new_.restored.size(), 3u);
  EXPECT_EQ(new_.restored[0]->MappedSystemVa, At(kPage));  // in place
  EXPECT_EQ(new_.restored[0]->ByteCount, 2 * kPage);
  EXPECT_EQ(new_.restored[1]->MappedSystemVa, At(8 * kPage + 96));
  EXPECT_EQ(MdlText(new_.restored[1]),
            Text(8 * kPage + 96, kPage - 96) + Text(4 * kPage, 100));
  EXPECT_EQ(MdlText(new_.restored[2]), std::string(5000, 'r'));
  EXPECT_EQ(
      reinterpret_cast<uintptr_t>(new_.restored[2]->MappedSystemVa) % kPage,
      0u);
  EXPECT_THAT(new_.metadata, ElementsAre("", "", "about"));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(new_.restore_args[i].Flags.Value, 0u);
  // They are mapped, and the driver's own now.
  for (PMDL mdl : new_.restored) {
    std::memset(mdl->MappedSystemVa, 'w', mdl->ByteCount);
  }
  EXPECT_EQ(Text(kPage, 2 * kPage), std::string(2 * kPage, 'w'));
  EXPECT_EQ(MdlText(new_.restored[2]), std::string(5000, 'w'));
  EXPECT_EQ(new_.restore_args[0].pMetaData, nullptr);
  EXPECT_EQ(new_.restore_args[3].Flags.Value, 1u);
  EXPECT_EQ(new_.restore_args[3].pDataMdl, nullptr);
  EXPECT_EQ(new_.restore_args[3].pMetaData, nullptr);
  EXPECT_EQ(new_.restore_args[3].MetaDataSize, 0u);
  driver_.reset();  // it is not told twice
  EXPECT_EQ(calls_.size(), 7u);
}

// bad:H1 bad:H2 bad:H3 doc:HU2
TEST_F(DocumentedHotUpdateTest, ExactlyOneFormWithItsOwnSizes) {
  old_.on_save = [&] {
    DXGK_KSR_MEMORY_RANGE range = *ToKsrRange({3, 1});
    MDL mdl = {nullptr, At(kPage), 10};
    BYTE byte = 1;
    // Which pointers are set, and which sizes; the bad ones first, while no
    // page is saved.
    for (int i = 0; i < 256; ++i) {
      const int bits = i % 128;
      const auto is_set = [bits](int bit) { return (bits >> bit & 1) != 0; };
      DXGKARGCB_SAVEMEMORYFORHOTUPDATE args = {};
      if (is_set(0)) args.pDataMemoryRanges = &range;
      if (is_set(1)) args.pDataMdl = &mdl;
      if (is_set(2)) args.pData = &byte;
      if (is_set(3)) args.NumDataMemoryRanges = 1;
      if (is_set(4)) args.DataSize = 1;
      if (is_set(5)) args.pMetaData = &byte;
      if (is_set(6)) args.MetaDataSize = 1;
      const int forms = is_set(0) + is_set(1) + is_set(2);
      const bool is_good = forms == 1 && is_set(0) == is_set(3) &&
                           is_set(2) == is_set(4) && is_set(5) >= is_set(6);
      if (is_good != (i >= 128)) continue;
      // Pages that were saved once.
      const bool is_new = is_set(2) || (bits & 0x60) == 0;
      EXPECT_EQ(Save(args),
                is_good && is_new ? STATUS_SUCCESS : STATUS_INVALID_PARAMETER)
          << bits;
    }
    return STATUS_SUCCESS;
  };
  EXPECT_TRUE(Update().ok());
  EXPECT_EQ(new_.restored.size(), 2u + 3);
}

// bad:H2 bad:H3 doc:HU4 doc:HU17
TEST_F(DocumentedHotUpdateTest, RefusesCountsAndPagesBeyondTheirLimits) {
  old_.on_save = [&] {
    DXGK_KSR_MEMORY_RANGE none = {0};
    DXGKARGCB_SAVEMEMORYFORHOTUPDATE args = {};
    args.pDataMemoryRanges = &none;
    // The array is not read.
    args.NumDataMemoryRanges = 0xffffffff;
    EXPECT_EQ(Save(args), STATUS_INSUFFICIENT_RESOURCES);
    args.NumDataMemoryRanges = 1;
    EXPECT_EQ(Save(args), STATUS_INVALID_PARAMETER);
    BYTE byte = 0;
    args.MetaDataSize = 65537;
    args.pMetaData = &byte;
    EXPECT_EQ(Save(args), STATUS_INVALID_PARAMETER);
    args = {};
    args.pData = &byte;
    args.DataSize = 0xffffffff;  // not read either
    EXPECT_EQ(Save(args), STATUS_INSUFFICIENT_RESOURCES);
    for (const HotUpdateRange& range :
         {HotUpdateRange{kKsrPageMax, kKsrPagesMax}, HotUpdateRange{16, 1},
          HotUpdateRange{15, 2}, HotUpdateRange{0, kKsrPagesMax}}) {
      EXPECT_EQ(SaveRange(range), STATUS_INVALID_PARAMETER);
    }
    EXPECT_EQ(SaveRange({15, 1}), STATUS_SUCCESS);
    EXPECT_EQ(SaveRange({14, 2}), STATUS_INVALID_PARAMETER);
    return STATUS_SUCCESS;
  };
  EXPECT_TRUE(Update().ok());
  EXPECT_EQ(new_.restored.size(), 1u);
}

// bad:H2
TEST_F(DocumentedHotUpdateTest, RefusesBadMdls) {
  old_.on_save = [&] {
    const auto size = static_cast<ULONG>(16 * kPage);
    MDL outside[] = {{nullptr, At(0) - 1, 2}, {nullptr, At(0) + size, 1},
                     {nullptr, At(1), size},  {nullptr, At(0), 0xffffffff},
                     {nullptr, nullptr, 1},   {nullptr, At(0), 0}};
    for (MDL& mdl : outside) EXPECT_EQ(SaveMdl(&mdl), STATUS_INVALID_PARAMETER);
    MDL circle = {nullptr, At(0), static_cast<ULONG>(kPage)};
    circle.Next = &circle;
    EXPECT_EQ(SaveMdl(&circle), STATUS_INVALID_PARAMETER);
    // Only the ends may lie within pages.
    MDL last = {nullptr, At(4 * kPage), 100};
    MDL first = {&last, At(2 * kPage), kPage - 1};
    EXPECT_EQ(SaveMdl(&first), STATUS_INVALID_PARAMETER);
    first.ByteCount = kPage;
    last.MappedSystemVa = At(4 * kPage + 8);
    EXPECT_EQ(SaveMdl(&first), STATUS_INVALID_PARAMETER);
    last.MappedSystemVa = At(2 * kPage);
    EXPECT_EQ(SaveMdl(&first), STATUS_INVALID_PARAMETER);
    last.MappedSystemVa = At(4 * kPage);
    EXPECT_EQ(SaveMdl(&first), STATUS_SUCCESS);
    return STATUS_SUCCESS;
  };
  EXPECT_TRUE(Update().ok());
  EXPECT_EQ(new_.restored.size(), 1u);
}

// doc:HU5
TEST_F(DocumentedHotUpdateTest, SavesOnlyWithinACallToSave) {
  EXPECT_EQ(SaveRange({0, 1}), STATUS_INVALID_DEVICE_STATE);
  old_.on_save = [&] { return SaveRange({0, 1}); };
  new_.restore_status = STATUS_NOT_SUPPORTED;
  EXPECT_FALSE(Update().ok());
  EXPECT_EQ(SaveRange({1, 1}), STATUS_INVALID_DEVICE_STATE);
  // Blocks are of one update.
  new_.restore_status = STATUS_SUCCESS;
  EXPECT_TRUE(Update().ok());
}

// doc:HU11 doc:HU16 bad:H6
TEST_F(DocumentedHotUpdateTest, FailuresStartTheOldDriverAgain) {
  old_.on_save = [&] { return SaveRange({0, 1}); };
  new_.restore_status = STATUS_NOT_SUPPORTED;
  const absl::Status status = Update();
  EXPECT_EQ(status.code(), StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), HasSubstr("0xc00000bb"));
  EXPECT_THAT(calls_, ElementsAre("old:save", "old:stop", "new:restore",
                                  "new:complete", "old:cancel", "old:start"));
  EXPECT_EQ(old_.save_flags, 1u);

  calls_.clear();
  new_.restore_status = STATUS_SUCCESS;
  new_.start_status = STATUS_INSUFFICIENT_RESOURCES;
  EXPECT_EQ(Update().code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(calls_,
              ElementsAre("old:save", "old:stop", "new:restore", "new:start",
                          "new:complete", "old:cancel", "old:start"));

  // It was not stopped: so it is not started.
  calls_.clear();
  for (NTSTATUS failure : {STATUS_UNSUCCESSFUL, STATUS_CANCELLED}) {
    old_.on_save = [failure] { return failure; };
    EXPECT_EQ(Update().code(), failure == STATUS_CANCELLED
                                   ? StatusCode::kCancelled
                                   : StatusCode::kInternal);
  }
  EXPECT_THAT(calls_,
              ElementsAre("old:save", "old:cancel", "old:save", "old:cancel"));
}

// doc:HU15
TEST_F(DocumentedHotUpdateTest, CapabilityGates) {
  DocumentedHotUpdateFunctions functions = new_.Functions();
  functions.hot_driver_update = false;
  HotUpdate update(memory_.bytes(), &driver_,
                   std::make_unique<DocumentedHotUpdateDriver>(functions));
  EXPECT_EQ(update.Run().code(), StatusCode::kUnimplemented);
  EXPECT_TRUE(calls_.empty());
}

// doc:HU17
TEST_F(DocumentedHotUpdateTest, RangesHave40And24Bits) {
  EXPECT_EQ(ToKsrRange({0x123456789a, 0xabcdef})->MemoryRangeDesc,
            0xabcdef123456789au);
  for (uint64_t page :
       {uint64_t{0}, uint64_t{1}, kKsrPageMax - 1, kKsrPageMax}) {
    for (uint64_t pages : {uint64_t{0}, uint64_t{1}, kKsrPagesMax}) {
      const HotUpdateRange range = {page, pages};
      EXPECT_EQ(FromKsrRange(*ToKsrRange(range)), range);
    }
  }
  EXPECT_EQ(ToKsrRange({kKsrPageMax + 1, 1}).status().code(),
            StatusCode::kOutOfRange);
  EXPECT_EQ(ToKsrRange({0, kKsrPagesMax + 1}).status().code(),
            StatusCode::kOutOfRange);
}

}  // namespace
}  // namespace ferrybus::vsp
