// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/migration/fake_machine.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace ferrybus::migration {
namespace {

constexpr char kModel[] = "fake machine 1";

uint64_t PageOf(uint64_t request, uint64_t pages) {
  // Spreads over all pages, and comes back to each.
  return request * 29 % pages;
}

void WritePage(uint64_t request, absl::Span<std::byte> page) {
  // Some pages compress, some do not, some are zeros again.
  if (request % 7 == 3) {
    std::fill(page.begin(), page.end(), std::byte{0});
    return;
  }
  uint64_t value = request + 1;
  for (size_t i = 0; i + sizeof(value) <= page.size(); i += sizeof(value)) {
    std::memcpy(&page[i], &value, sizeof(value));
    if (request % 2 == 0) value = value * 6364136223846793005u + 1442695;
  }
}

savestate::SizeAnswer Give(absl::Span<const std::byte> bytes,
                           absl::Span<std::byte> out) {
  if (out.size() < bytes.size()) {
    return savestate::SizeAnswer::TooSmall(bytes.size());
  }
  if (!bytes.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
  return savestate::SizeAnswer::Ok(bytes.size());
}

}  // namespace

absl::Status FakeFault::Call(absl::string_view name) {
  calls.emplace_back(name);
  if (calls_until < 0) return absl::OkStatus();
  if (calls_until-- > 0) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(name, " was made to fail"));
}

FakeDevice::FakeDevice(std::string name, Capabilities capabilities,
                       FakeMachineState* state, FakeFault* fault)
    : name_(std::move(name)),
      capabilities_(capabilities),
      state_(state),
      fault_(fault),
      dirty_(state->memory.size() / kFakePageSize) {}

FakeDevice::~FakeDevice() {
  if (shared_ >= 0) close(shared_);
}

int FakeDevice::SharedMemory(uint32_t) {
  if (shared_ < 0) shared_ = memfd_create("fake", MFD_CLOEXEC);
  return shared_;
}

absl::Status FakeDevice::Call(absl::string_view name) {
  return fault_ == nullptr ? absl::OkStatus() : fault_->Call(name);
}

void FakeDevice::Mark(uint64_t page) {
  if (!forgets_to_mark_) dirty_[page] = true;
}

void FakeDevice::Do(uint64_t request) {
  const uint64_t page = PageOf(request, dirty_.size());
  WritePage(request, absl::MakeSpan(state_->memory)
                         .subspan(page * kFakePageSize, kFakePageSize));
  Mark(page);
  state_->done.push_back(request);
}

std::vector<Segment> FakeDevice::segments() const {
  // Two ranges, to be told apart by no one.
  const uint64_t half = dirty_.size() / 2 * kFakePageSize;
  return {
      {.id = 1,
       .page_size_bytes = kFakePageSize,
       .ranges = {{1 << 20, half}, {8 << 20, state_->memory.size() - half}}}};
}

absl::Status FakeDevice::Prepare(Role role) {
  absl::Status status =
      Call(role == Role::kSource ? "PrepareSource" : "PrepareTarget");
  if (status.ok()) ++prepared_;
  return status;
}

void FakeDevice::End() { --prepared_; }

savestate::SizeAnswer FakeDevice::SaveImmutable(absl::Span<std::byte> out) {
  absl::Status status = Call("SaveImmutable");
  if (!status.ok()) return savestate::SizeAnswer::Failed(status);
  return Give({reinterpret_cast<const std::byte*>(kModel), sizeof(kModel)},
              out);
}

absl::Status FakeDevice::RestoreImmutable(absl::Span<const std::byte> data) {
  absl::Status status = Call("RestoreImmutable");
  if (!status.ok()) return status;
  if (data.size() == sizeof(kModel) &&
      std::memcmp(data.data(), kModel, sizeof(kModel)) == 0) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      absl::StrCat("model: here it is ", kModel));
}

absl::Status FakeDevice::ReadMemory(uint32_t, uint64_t offset_bytes,
                                    absl::Span<std::byte> out) {
  absl::Status status = Call("ReadMemory");
  if (!status.ok()) return status;
  std::memcpy(out.data(), &state_->memory[offset_bytes], out.size());
  return absl::OkStatus();
}

absl::Status FakeDevice::WriteMemory(uint32_t, uint64_t offset_bytes,
                                     absl::Span<const std::byte> data) {
  absl::Status status = Call("WriteMemory");
  if (!status.ok()) return status;
  std::memcpy(&state_->memory[offset_bytes], data.data(), data.size());
  for (size_t i = 0; i < data.size(); i += kFakePageSize) {
    Mark((offset_bytes + i) / kFakePageSize);
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> FakeDevice::Pause() {
  absl::Status status = Call("Pause");
  if (!status.ok()) return status;
  if (pause_calls_-- > 0) return false;
  is_running_ = false;
  is_paused_ = true;
  return true;
}

savestate::SizeAnswer FakeDevice::SaveMutable(absl::Span<std::byte> out) {
  absl::Status status = Call("SaveMutable");
  if (!status.ok()) return savestate::SizeAnswer::Failed(status);
  if (!is_paused_) {
    return savestate::SizeAnswer::Failed(
        absl::FailedPreconditionError("not paused"));
  }
  return Give({reinterpret_cast<const std::byte*>(state_->done.data()),
               state_->done.size() * sizeof(uint64_t)},
              out);
}

absl::Status FakeDevice::RestoreMutable(absl::Span<const std::byte> data) {
  absl::Status status = Call("RestoreMutable");
  if (!status.ok()) return status;
  if (data.size() % sizeof(uint64_t) != 0) {
    return absl::DataLossError("half a request");
  }
  state_->done.resize(data.size() / sizeof(uint64_t));
  if (!data.empty()) {
    std::memcpy(state_->done.data(), data.data(), data.size());
  }
  return absl::OkStatus();
}

void FakeDevice::Retire() {
  is_running_ = false;
  is_retired_ = true;
}

void FakeDevice::Resume() {
  is_paused_ = false;
  is_running_ = true;
}

absl::StatusOr<BasisId> FakeDevice::CreateBasis(uint32_t,
                                                absl::Span<const MemoryRange>) {
  ++bases_;
  return 1;
}

absl::Status FakeDevice::DestroyBasis(BasisId) {
  --bases_;
  return absl::OkStatus();
}

absl::Status FakeDevice::StartTracking(BasisId) {
  absl::Status status = Call("StartTracking");
  if (!status.ok()) return status;
  ++tracked_;
  dirty_.assign(dirty_.size(), false);
  return absl::OkStatus();
}

absl::Status FakeDevice::StopTracking(BasisId) {
  if (tracked_ == 0) return absl::FailedPreconditionError("not tracked");
  --tracked_;
  return absl::OkStatus();
}

absl::Status FakeDevice::Query(BasisId, const DirtyQuery& query,
                               absl::Span<std::byte> bits) {
  absl::Status status = Call("Query");
  if (!status.ok()) return status;
  std::fill(bits.begin(), bits.end(), std::byte{0});
  for (size_t page = 0; page < dirty_.size(); ++page) {
    if (dirty_[page]) bits[page / 8] |= std::byte{1} << (page % 8);
  }
  if (query.clear) dirty_.assign(dirty_.size(), false);
  return absl::OkStatus();
}

std::vector<std::byte> ExpectedMemory(absl::Span<const uint64_t> requests,
                                      uint64_t pages) {
  std::vector<std::byte> memory(pages * kFakePageSize);
  for (uint64_t request : requests) {
    WritePage(request,
              absl::MakeSpan(memory).subspan(
                  PageOf(request, pages) * kFakePageSize, kFakePageSize));
  }
  return memory;
}

absl::Status FakeLedger::Store(const OwnershipRecord& record) {
  if (calls_until_ >= 0 && calls_until_-- == 0) {
    if (failure_ == Failure::kStored) record_ = record;
    return absl::UnavailableError("the disk was made to fail");
  }
  record_ = record;
  return absl::OkStatus();
}

}  // namespace ferrybus::migration
