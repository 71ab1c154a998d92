// SPDX-License-Identifier: MIT

#include "ferrybus/tests/simulation/documented_process.h"

#include <utility>

#include "ferrybus/channel/check.h"

namespace ferrybus::simulation {
namespace {

NTSTATUS StatusOf(const absl::Status& status) {
  return status.ok() ? STATUS_SUCCESS : STATUS_UNSUCCESSFUL;
}

}  // namespace

std::unique_ptr<vsp::HotUpdateDriver> DocumentedProcess::Make(
    Context* context, SimulatedHost* host, UpdateEnd end) {
  auto process = std::make_shared<DocumentedProcess>(context, host, end);
  vsp::DocumentedHotUpdateFunctions functions;
  functions.context = process.get();
  functions.save = [](PVOID its,
                      const DXGKARG_SAVEMEMORYFORHOTUPDATE* args) -> NTSTATUS {
    return static_cast<DocumentedProcess*>(its)->Save(*args);
  };
  functions.restore =
      [](PVOID its, const DXGKARG_RESTOREMEMORYFORHOTUPDATE* args) -> NTSTATUS {
    return static_cast<DocumentedProcess*>(its)->Restore(*args);
  };
  functions.start = [process] { return process->Start(); };
  functions.stop = [] {};  // it stopped when it saved
  auto driver = std::make_unique<vsp::DocumentedHotUpdateDriver>(functions);
  process->driver_ = driver.get();
  return driver;
}

NTSTATUS DocumentedProcess::Save(const DXGKARG_SAVEMEMORYFORHOTUPDATE& args) {
  if (args.Flags.CancelHotUpdate != 0) {
    process_.CancelUpdate();
    return STATUS_SUCCESS;
  }
  const std::string& saved = process_.Stop();
  absl::StatusOr<DXGK_KSR_MEMORY_RANGE> range =
      vsp::ToKsrRange(ProcessDriver::SegmentPages(0));
  FERRYBUS_CHECK(range.ok(), "a range of few pages");
  const absl::Span<std::byte> second = process_.SegmentMemory(1);
  MDL mdl = {.Next = nullptr,
             .MappedSystemVa = second.data(),
             .ByteCount = static_cast<ULONG>(second.size())};
  DXGKARGCB_SAVEMEMORYFORHOTUPDATE blocks[3] = {};
  blocks[0].NumDataMemoryRanges = 1;
  blocks[0].pDataMemoryRanges = &*range;
  blocks[1].pDataMdl = &mdl;
  blocks[2].DataSize = static_cast<UINT>(saved.size());
  blocks[2].pData = const_cast<char*>(saved.data());
  for (const DXGKARGCB_SAVEMEMORYFORHOTUPDATE& block : blocks) {
    const NTSTATUS status =
        DxgkCbSaveMemoryForHotUpdate(driver_->adapter(), &block);
    if (!NT_SUCCESS(status)) return status;
  }
  return end_ == UpdateEnd::kSaveFails ? STATUS_UNSUCCESSFUL : STATUS_SUCCESS;
}

NTSTATUS DocumentedProcess::Restore(
    const DXGKARG_RESTOREMEMORYFORHOTUPDATE& args) {
  if (args.Flags.RestoreComplete != 0) {
    process_.RestoreComplete();
    return STATUS_SUCCESS;
  }
  is_successor_ = true;
  vsp::HotUpdateBlock block;
  for (const MDL* at = args.pDataMdl; at != nullptr; at = at->Next) {
    block.segments.emplace_back(static_cast<std::byte*>(at->MappedSystemVa),
                                at->ByteCount);
    block.size_bytes += at->ByteCount;
  }
  const absl::Status status = process_.Restore(std::move(block));
  if (status.ok()) ferrybus_free_mdl(args.pDataMdl);
  return StatusOf(status);
}

// One whose update was cancelled runs already.
NTSTATUS DocumentedProcess::Start() {
  return is_successor_ ? StatusOf(process_.Start()) : STATUS_SUCCESS;
}

}  // namespace ferrybus::simulation
