// SPDX-License-Identifier: MIT

#include "ferrybus/tests/simulation/process_update.h"

#include <numeric>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "ferrybus/tests/simulation/documented_process.h"

namespace ferrybus::simulation {
namespace {

using vsp::HotUpdate;
using vsp::HotUpdateBlock;
using vsp::HotUpdateBlocks;
using vsp::kHotUpdatePageBytes;

// Blocks: each segment of the accelerator, then all else.
constexpr size_t kBlocks = kFunctionSegments + 1;

absl::Status MadeToFail() {
  return absl::UnavailableError("it was made to fail");
}

}  // namespace

// ---- Drivers

ProcessDriver::~ProcessDriver() {
  if (is_saved_) host_->EndPredecessor();
}

vsp::HotUpdateRange ProcessDriver::SegmentPages(size_t segment) {
  return {segment == 0 ? 0 : kFunctionBytes[0] / kHotUpdatePageBytes,
          kFunctionBytes[segment] / kHotUpdatePageBytes};
}

absl::Span<std::byte> ProcessDriver::SegmentMemory(size_t segment) const {
  return host_->function_memory().subspan(
      SegmentPages(segment).first_page * kHotUpdatePageBytes,
      kFunctionBytes[segment]);
}

const std::string& ProcessDriver::Stop() {
  saved_ = host_->Freeze();
  is_saved_ = true;
  return saved_;
}

absl::Status ProcessDriver::Save(HotUpdateBlocks& blocks) {
  Stop();
  const vsp::HotUpdateRange first = SegmentPages(0);
  absl::Status status = blocks.SaveRanges({&first, 1});
  const vsp::HotUpdateRange second = SegmentPages(1);
  std::vector<uint64_t> pages(second.pages);
  std::iota(pages.begin(), pages.end(), second.first_page);
  status.Update(blocks.SavePageList({pages, 0, kFunctionBytes[1]}));
  if (status.ok() && end_ == UpdateEnd::kSaveFails) return MadeToFail();
  status.Update(blocks.SaveBuffer(
      {reinterpret_cast<const std::byte*>(saved_.data()), saved_.size()}));
  if (!status.ok()) {
    context_->Fail("update", std::string(status.message()));
  }
  return status;
}

void ProcessDriver::CancelUpdate() {
  is_saved_ = false;
  host_->Thaw();
}

absl::Status ProcessDriver::CheckMemory(const HotUpdateBlock& block,
                                        size_t segment) {
  const std::byte* at = SegmentMemory(segment).data();
  for (absl::Span<const std::byte> part : block.segments) {
    if (part.data() != at) return absl::DataLossError("not in its place");
    at += part.size();
  }
  if (block.size_bytes == kFunctionBytes[segment]) return absl::OkStatus();
  return absl::DataLossError("another size");
}

absl::Status ProcessDriver::Restore(HotUpdateBlock block) {
  const size_t index = restored_++;
  if (end_ == UpdateEnd::kBlockRefused &&
      (index + 1 == kBlocks || context_->random.OneIn(2))) {
    return MadeToFail();
  }
  if (index < kFunctionSegments) {
    const absl::Status status = CheckMemory(block, index);
    if (!status.ok()) context_->Fail("update", std::string(status.message()));
    return status;
  }
  for (absl::Span<const std::byte> part : block.segments) {
    saved_.append(reinterpret_cast<const char*>(part.data()), part.size());
  }
  return absl::OkStatus();
}

absl::Status ProcessDriver::Start() {
  if (end_ == UpdateEnd::kStartRefused) return MadeToFail();
  host_->refuses_restore = end_ == UpdateEnd::kDeviceRefuses;
  const absl::Status status =
      host_->StartSuccessor(saved_, end_ == UpdateEnd::kStartFailsLate);
  host_->refuses_restore = false;
  return status;
}

// ---- The update

void ProcessUpdate::Begin(SimulatedHost* host) {
  context_->Happened(Fault::kHotUpdate);
  host_ = host;
  host_->Enter();
  host_->Suspend();
  const uint64_t one_in = plan_->one_in(Fault::kUpdateFails);
  const bool fails = one_in != 0 && context_->random.OneIn(one_in);
  end_ = fails ? static_cast<UpdateEnd>(context_->random.Between(
                     1, static_cast<uint64_t>(UpdateEnd::kCancelled)))
               : UpdateEnd::kDone;
}

void ProcessUpdate::Step() {
  if (host_ == nullptr) return;
  if (update_.has_value()) return StepUpdate();
  if (host_->IsQuiescent()) {
    driver_ = MakeDriver();
    old_ = driver_.get();
    update_.emplace(host_->function_memory(), &driver_, MakeDriver());
    next_block_ = 0;
    (void)update_->Save();
    CheckEnd();
  } else if (context_->random.OneIn(20)) {
    host_->Thaw();
    host_ = nullptr;
  }
}

// Each of the two may be written to the documents.
std::unique_ptr<vsp::HotUpdateDriver> ProcessUpdate::MakeDriver() {
  if (context_->random.OneIn(2)) {
    return DocumentedProcess::Make(context_, host_, end_);
  }
  return std::make_unique<ProcessDriver>(context_, host_, end_);
}

void ProcessUpdate::StepUpdate() {
  if (end_ == UpdateEnd::kCancelled &&
      (next_block_ == kBlocks || context_->random.OneIn(3))) {
    if (context_->random.OneIn(2)) {
      update_->Cancel();
      return CheckEnd();
    }
    update_->RequestCancel();
  }
  if (next_block_ < kBlocks) {
    (void)update_->Restore(next_block_++);
  } else {
    (void)update_->Start();
  }
  CheckEnd();
}

// The one that runs is the successor, or the one before, as it was told.
void ProcessUpdate::CheckEnd() {
  const bool is_done = update_->phase() == HotUpdate::Phase::kDone;
  if (!is_done && update_->phase() != HotUpdate::Phase::kRolledBack) return;
  ++(is_done ? context_->totals.updates : context_->totals.updates_failed);
  if (is_done != (driver_.get() != old_) || host_->is_frozen()) {
    context_->Fail("update", "the driver that runs is not the one it says");
  }
  if (is_done != (end_ == UpdateEnd::kDone) &&
      end_ != UpdateEnd::kDeviceRefuses) {
    context_->Fail("update",
                   absl::StrCat("it ended otherwise than it was made to: ",
                                std::string(update_->reason().message())));
  }
  if (!is_done) context_->Happened(Fault::kUpdateFails);
  context_->trace.Add(static_cast<uint64_t>(end_));
  update_.reset();
  driver_ = nullptr;
  host_ = nullptr;
}

void ProcessUpdate::Forget() {
  if (host_ == nullptr) return;
  host_->Enter();
  update_.reset();
  driver_ = nullptr;
  host_ = nullptr;
}

}  // namespace ferrybus::simulation
