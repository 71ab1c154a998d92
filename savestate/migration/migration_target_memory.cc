// SPDX-License-Identifier: MIT
//
// MigrationTarget: memory, as it comes.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ferrybus/savestate/fault_points.h"
#include "ferrybus/savestate/migration/migration_target.h"

namespace ferrybus::migration {
namespace {

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

}  // namespace

// ---- Memory

void MigrationTarget::OnBlock(absl::Span<const std::byte> bytes,
                              absl::Time now) {
  absl::StatusOr<PageBlock> block = ParseBlock(bytes);
  Memory memory;
  absl::Status status = block.status();
  if (status.ok()) {
    status = BeginBlock(*block, &memory);
    if (status.ok()) {
      status = ApplyBlock(*std::move(block), memory);
      absl::MutexLock lock(&mutex_);
      --pass_.writers;
      if (status.ok()) ++pass_.applied;
    }
  }
  absl::MutexLock lock(&mutex_);
  pass_.last_block = std::max(pass_.last_block, now);
  pass_.failure.Update(status);
}

// Checks that it is due, and holds the devices until it is applied.
absl::Status MigrationTarget::BeginBlock(const PageBlock& block,
                                         Memory* memory) {
  absl::MutexLock lock(&mutex_);
  if (!pass_.is_open) {
    return absl::FailedPreconditionError(
        absl::StrCat("pages while ", TargetPhaseName(phase_)));
  }
  if (block.session != options_.session) {
    return absl::PermissionDeniedError("pages of another session");
  }
  if (block.pass != pass_.number) {
    return absl::InvalidArgumentError(absl::StrCat(
        "pages of pass ", block.pass, ", this is pass ", pass_.number));
  }
  absl::StatusOr<Memory> found = FindMemory(block);
  if (!found.ok()) return found.status();
  // Bounds what is remembered: each has at least a page.
  if (pass_.blocks.has_value() && block.sequence >= *pass_.blocks) {
    return absl::InvalidArgumentError(absl::StrCat(
        "block ", block.sequence, " of a pass of ", *pass_.blocks));
  }
  if (!pass_.seen.insert(block.sequence).second) {
    return absl::InvalidArgumentError(absl::StrCat(
        "block ", block.sequence, " of pass ", block.pass, " comes twice"));
  }
  ++pass_.writers;
  *memory = *found;
  return absl::OkStatus();
}

absl::StatusOr<MigrationTarget::Memory> MigrationTarget::FindMemory(
    const PageBlock& block) const {
  uint64_t pages = 0;
  std::optional<Memory> found;
  for (size_t i = 0; i < devices_.size(); ++i) {
    for (const Memory& memory : devices_[i].memories) {
      pages += memory.pages;
      if (i == block.device && memory.segment == block.segment &&
          !memory.is_shared) {
        found = memory;
      }
    }
  }
  if (!found.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("pages of device ", block.device, ", segment ",
                     block.segment, ": there is none to fill"));
  }
  if (pass_.seen.size() >= pages) {
    return absl::InvalidArgumentError(
        absl::StrCat("more blocks than pages: ", pages));
  }
  return *found;
}

absl::Status MigrationTarget::ApplyBlock(PageBlock&& block,
                                         const Memory& memory) {
  absl::StatusOr<uint64_t> plain_size =
      PlainSizeBytes(block, memory.page_size_bytes, memory.pages);
  if (!plain_size.ok()) return plain_size.status();
  absl::Status passed =
      savestate::PassFaultPoint(savestate::FaultPoint::kArriveBlock);
  if (!passed.ok()) return passed;
  Migratable& device = *devices_[block.device].device;
  const std::vector<PageRun> runs = std::move(block.runs);
  const std::vector<PageRun> zero_runs = std::move(block.zero_runs);
  absl::StatusOr<std::string> plain =
      DecodePages(std::move(block), *plain_size);
  if (!plain.ok()) return plain.status();
  absl::Span<const std::byte> data = AsBytes(*plain);
  for (const PageRun& run : runs) {
    const uint64_t size = run.pages * memory.page_size_bytes;
    absl::Status status = device.WriteMemory(
        memory.segment, run.first_page * memory.page_size_bytes,
        data.subspan(0, size));
    if (!status.ok()) return OfDevice(device, "writing memory", status);
    data.remove_prefix(size);
  }
  if (zero_runs.empty()) return absl::OkStatus();
  const std::string zeros(memory.page_size_bytes, '\0');
  for (const PageRun& run : zero_runs) {
    for (uint64_t i = 0; i < run.pages; ++i) {
      absl::Status status = device.WriteMemory(
          memory.segment, (run.first_page + i) * memory.page_size_bytes,
          AsBytes(zeros));
      if (!status.ok()) return OfDevice(device, "writing memory", status);
    }
  }
  return absl::OkStatus();
}

void MigrationTarget::Handle(const PassEnd& end) {
  if (!CheckPhase(TargetPhase::kReceiving, end)) return;
  absl::Status status;
  {
    absl::MutexLock lock(&mutex_);
    if (end.pass != pass_.number || pass_.blocks.has_value()) {
      status = absl::InvalidArgumentError(absl::StrCat(
          "the end of pass ", end.pass, " in pass ", pass_.number));
    } else if (end.blocks < pass_.seen.size()) {
      status = absl::InvalidArgumentError(
          absl::StrCat("pass ", end.pass, " has ", end.blocks, " blocks; ",
                       pass_.seen.size(), " came"));
    } else {
      pass_.blocks = end.blocks;
      for (uint64_t sequence : pass_.seen) {
        if (sequence < end.blocks) continue;
        status = absl::InvalidArgumentError(absl::StrCat(
            "block ", sequence, " came in a pass of ", end.blocks));
      }
    }
  }
  if (!status.ok()) return Fail(status, true);
  FinishPass();
}

// Answers a pass whose blocks are all there.
void MigrationTarget::FinishPass() {
  uint32_t pass = 0;
  {
    absl::MutexLock lock(&mutex_);
    if (!pass_.failure.ok() || pass_.applied != pass_.blocks) return;
    pass = pass_.number++;
    pass_.applied = 0;
    pass_.seen.clear();
    pass_.blocks.reset();
  }
  Send(PassDone{.pass = pass});
}

}  // namespace ferrybus::migration
