// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/virtual_function/physical_function.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/check.h"

namespace ferrybus::vsp {
namespace {

constexpr uint64_t kPagingStepBytes = 4096;

std::vector<migration::DirtySegment> DirtySegments(
    absl::Span<const AcceleratorSegment> segments) {
  std::vector<migration::DirtySegment> dirty;
  for (const AcceleratorSegment& segment : segments) {
    dirty.push_back({.id = segment.id,
                     .size_bytes = segment.memory.size(),
                     .page_size_bytes = segment.page_size_bytes});
  }
  return dirty;
}

AcceleratorOptions OptionsOf(const VirtualFunctionParams& params,
                             absl::Span<const AcceleratorSegment> segments) {
  AcceleratorOptions options;
  options.segments.assign(segments.begin(), segments.end());
  options.is_powered = false;
  options.on_work = params.on_work;
  return options;
}

absl::Status Named(absl::StatusCode code, uint32_t index,
                   absl::string_view what) {
  return absl::Status(code,
                      absl::StrCat("virtual function ", index, ": ", what));
}

absl::Status InvalidArgument(uint32_t index, absl::string_view what) {
  return Named(absl::StatusCode::kInvalidArgument, index, what);
}

absl::Status FailedPrecondition(uint32_t index, absl::string_view what) {
  return Named(absl::StatusCode::kFailedPrecondition, index, what);
}

bool Overlap(const FunctionResource& a, const FunctionResource& b) {
  return a.segment == b.segment &&
         a.offset_bytes < b.offset_bytes + b.size_bytes &&
         b.offset_bytes < a.offset_bytes + a.size_bytes;
}

}  // namespace

VirtualFunction::VirtualFunction(const VirtualFunctionParams& params,
                                 absl::Span<const AcceleratorSegment> segments,
                                 std::vector<ScatteredMemory> scattered)
    : scattered_(std::move(scattered)),
      interrupts_({.vectors = params.vectors}, params.host, params.device),
      dirty_(DirtySegments(segments)),
      config_(&interrupts_),
      accelerator_(OptionsOf(params, segments), &interrupts_, &dirty_) {}

// What the physical device keeps of one; what is not atomic is guarded by its
// lock.
struct PhysicalFunction::Function final : public PagingBudget {
  absl::Status BeginPaging() override {
    if (is_migrating.exchange(true)) {
      return absl::FailedPreconditionError(
          "virtual function: it is being moved already");
    }
    debt_bytes = 0;
    return absl::OkStatus();
  }
  void ChargePaging(uint64_t bytes) override { debt_bytes += bytes; }
  void EndPaging() override {
    is_migrating = false;
    debt_bytes = 0;
  }
  // It may have been forgotten meanwhile.
  void PayPaging(uint64_t bytes) {
    uint64_t debt = debt_bytes;
    while (
        !debt_bytes.compare_exchange_weak(debt, debt - std::min(debt, bytes))) {
    }
  }

  VirtualFunctionParams params;
  std::vector<FunctionResource> resources;
  std::shared_ptr<VirtualFunction> parts;  // null: it has no resources
  bool was_powered = false;
  bool is_powered = false;
  bool is_paused = false;
  std::atomic<bool> is_migrating{false};
  std::atomic<uint64_t> debt_bytes{0};
  std::atomic<uint64_t> steps{0};
  uint64_t paging_steps = 0;
};

PhysicalFunction::PhysicalFunction(const PhysicalFunctionOptions& options)
    : options_(options) {
  FERRYBUS_CHECK(options_.steps_per_period >= 1, "a period has no time");
}

// -- What there is ------------------------------------------------------------

absl::StatusOr<PhysicalFunction::Function*> PhysicalFunction::FindFunction(
    uint32_t index) const {
  const auto found = functions_.find(index);
  if (found != functions_.end()) return found->second.get();
  return Named(absl::StatusCode::kNotFound, index, "there is none");
}

absl::StatusOr<PhysicalFunction::Function*> PhysicalFunction::FindReady(
    uint32_t index) const {
  absl::StatusOr<Function*> function = FindFunction(index);
  if (function.ok() && (*function)->parts == nullptr) {
    return FailedPrecondition(index, "it has no resources yet");
  }
  return function;
}

uint32_t PhysicalFunction::AssignedSteps() const {
  uint32_t steps = 0;
  for (const auto& [index, its] : functions_) steps += its->params.share_steps;
  return steps;
}

absl::Status PhysicalFunction::Create(uint32_t index,
                                      const VirtualFunctionParams& params) {
  if (index >= options_.functions_max) {
    return InvalidArgument(
        index, absl::StrCat("the device has ", options_.functions_max));
  }
  if (params.vectors < 1 || params.vectors > kMsixVectorsMax ||
      params.host == nullptr || params.device == nullptr) {
    return InvalidArgument(index,
                           absl::StrCat("it needs a host, a device and 1 to ",
                                        kMsixVectorsMax, " vectors"));
  }
  absl::MutexLock lock(&mu_);
  if (functions_.count(index) != 0) {
    return Named(absl::StatusCode::kAlreadyExists, index, "it is there");
  }
  const uint32_t left = options_.steps_per_period - AssignedSteps();
  if (params.share_steps > left) {
    return Named(absl::StatusCode::kResourceExhausted, index,
                 absl::StrCat("a share of ", params.share_steps, " steps, and ",
                              left, " are left"));
  }
  auto function = std::make_shared<Function>();
  function->params = params;
  functions_[index] = std::move(function);
  return absl::OkStatus();
}

absl::Status PhysicalFunction::Destroy(uint32_t index) {
  std::shared_ptr<VirtualFunction> parts;
  {
    absl::MutexLock lock(&mu_);
    const absl::StatusOr<Function*> function = FindFunction(index);
    if (!function.ok()) return function.status();
    if ((*function)->is_migrating) {
      return FailedPrecondition(index, "it is being moved: end that first");
    }
    parts = (*function)->parts;
    functions_.erase(index);
  }
  if (parts != nullptr) parts->accelerator().Retire();
  return absl::OkStatus();
}

absl::StatusOr<FunctionInfo> PhysicalFunction::GetInfo(uint32_t index) const {
  absl::MutexLock lock(&mu_);
  const absl::StatusOr<Function*> function = FindFunction(index);
  if (!function.ok()) return function.status();
  const Function& its = **function;
  FunctionInfo info;
  info.share_steps = its.params.share_steps;
  info.resources = its.resources;
  info.is_powered = its.is_powered;
  info.is_paused = its.is_paused;
  info.is_migrating = its.is_migrating;
  info.steps = its.steps;
  info.paging_steps = its.paging_steps;
  info.paging_debt_steps = its.debt_bytes / kPagingStepBytes;
  return info;
}

absl::StatusOr<std::shared_ptr<VirtualFunction>> PhysicalFunction::Find(
    uint32_t index) const {
  absl::MutexLock lock(&mu_);
  const absl::StatusOr<Function*> function = FindReady(index);
  if (!function.ok()) return function.status();
  return (*function)->parts;
}

absl::StatusOr<VirtualFunctionParts> PhysicalFunction::PartsOf(uint32_t index) {
  absl::MutexLock lock(&mu_);
  const absl::StatusOr<Function*> function = FindReady(index);
  if (!function.ok()) return function.status();
  VirtualFunction& parts = *(*function)->parts;
  return VirtualFunctionParts{.accelerator = &parts.accelerator(),
                              .interrupts = &parts.interrupts(),
                              .dirty = &parts.dirty(),
                              .config = &parts.config(),
                              .budget = *function};
}

// -- What is set --------------------------------------------------------------

absl::Status PhysicalFunction::CheckResource(
    uint32_t index, const FunctionResource& resource) const {
  const AcceleratorSegment* segment =
      FindSegment(options_.segments, resource.segment);
  const accelerator::Place place = {resource.segment, 0, resource.offset_bytes};
  if (segment == nullptr || resource.size_bytes == 0 ||
      resource.offset_bytes % PageBytes(*segment) != 0 ||
      resource.size_bytes % PageBytes(*segment) != 0 ||
      FindMemory(options_.segments, place, resource.size_bytes) == nullptr) {
    return InvalidArgument(
        index,
        absl::StrCat(resource.size_bytes, " bytes at ", resource.offset_bytes,
                     " of segment ", resource.segment,
                     ": not whole pages that the device has"));
  }
  for (const auto& [other, function] : functions_) {
    if (other == index) continue;
    for (const FunctionResource& its : function->resources) {
      if (!Overlap(resource, its)) continue;
      return InvalidArgument(
          index,
          absl::StrCat("function ", other, " has some of the ",
                       resource.size_bytes, " bytes at ", resource.offset_bytes,
                       " of segment ", resource.segment));
    }
  }
  return absl::OkStatus();
}

// Of one function: beside each other.
absl::Status PhysicalFunction::CheckParts(
    uint32_t index, absl::Span<const FunctionResource> resources) const {
  for (size_t i = 0; i < resources.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (resources[i].segment != resources[j].segment) continue;
      const uint32_t segment = resources[i].segment;
      if (options_.scatter_page_bytes == 0) {
        return InvalidArgument(index,
                               absl::StrCat("segment ", segment, " twice"));
      }
      if (FindSegment(options_.segments, segment)->file < 0) {
        return FailedPrecondition(
            index, absl::StrCat("segment ", segment,
                                " has no file: it cannot be scattered"));
      }
      if (Overlap(resources[i], resources[j])) {
        return InvalidArgument(index, absl::StrCat("the same pages of segment ",
                                                   segment, " twice"));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status PhysicalFunction::SetResources(
    uint32_t index, absl::Span<const FunctionResource> resources) {
  absl::MutexLock lock(&mu_);
  const absl::StatusOr<Function*> function = FindFunction(index);
  if (!function.ok()) return function.status();
  if ((*function)->was_powered || (*function)->is_migrating) {
    return FailedPrecondition(
        index, "resources are set before it is powered or moved");
  }
  if (resources.empty()) return InvalidArgument(index, "no resources");
  std::map<uint32_t, std::vector<ScatteredMemory::Piece>> pieces;
  for (const FunctionResource& resource : resources) {
    if (absl::Status status = CheckResource(index, resource); !status.ok()) {
      return status;
    }
    pieces[resource.segment].push_back(
        {resource.offset_bytes, resource.size_bytes});
  }
  absl::Status status = CheckParts(index, resources);
  if (!status.ok()) return status;
  std::vector<AcceleratorSegment> segments;
  std::vector<ScatteredMemory> scattered;
  for (const auto& [id, parts] : pieces) {
    const AcceleratorSegment& whole = *FindSegment(options_.segments, id);
    absl::Span<std::byte> memory =
        whole.memory.subspan(parts[0].offset_bytes, parts[0].size_bytes);
    if (parts.size() > 1) {
      absl::StatusOr<ScatteredMemory> map =
          ScatteredMemory::Map(whole.file, parts);
      if (!map.ok()) return map.status();
      memory = map->memory();
      scattered.push_back(*std::move(map));
    }
    segments.push_back({whole.id, whole.page_size_bytes, memory});
  }
  (*function)->resources.assign(resources.begin(), resources.end());
  (*function)->parts = std::make_shared<VirtualFunction>(
      (*function)->params, segments, std::move(scattered));
  return absl::OkStatus();
}

absl::Status PhysicalFunction::SetPower(uint32_t index, bool is_on) {
  absl::MutexLock lock(&mu_);
  const absl::StatusOr<Function*> function = FindReady(index);
  if (!function.ok()) return function.status();
  VirtualFunction& parts = *(*function)->parts;
  // The first time: interrupts begin.
  if (is_on && !std::exchange((*function)->was_powered, true) &&
      parts.accelerator().is_new()) {
    (void)parts.interrupts().Resume();
  }
  (*function)->is_powered = is_on;
  parts.accelerator().SetPower(is_on);
  return absl::OkStatus();
}

absl::Status PhysicalFunction::SetPause(uint32_t index, bool is_paused) {
  absl::MutexLock lock(&mu_);
  const absl::StatusOr<Function*> function = FindReady(index);
  if (!function.ok()) return function.status();
  (*function)->is_paused = is_paused;
  (*function)->parts->accelerator().SetHold(Accelerator::kOverlay, is_paused);
  return absl::OkStatus();
}

absl::Status PhysicalFunction::Reset(uint32_t index) {
  absl::MutexLock lock(&mu_);
  const absl::StatusOr<Function*> function = FindReady(index);
  if (!function.ok()) return function.status();
  if ((*function)->is_migrating) {
    return FailedPrecondition(index, "it is being moved: end that first");
  }
  VirtualFunction& parts = *(*function)->parts;
  parts.accelerator().Reset();
  parts.interrupts().Reset();
  parts.config().Reset();
  return absl::OkStatus();
}

absl::Status PhysicalFunction::ReadConfig(uint32_t index, size_t offset_bytes,
                                          absl::Span<std::byte> out) const {
  const auto function = Find(index);
  if (!function.ok()) return function.status();
  return (*function)->config().Read(offset_bytes, out);
}

absl::Status PhysicalFunction::WriteConfig(uint32_t index, size_t offset_bytes,
                                           absl::Span<const std::byte> bytes) {
  const auto function = Find(index);
  if (!function.ok()) return function.status();
  return (*function)->config().Write(offset_bytes, bytes);
}

// -- Time ---------------------------------------------------------------------

std::vector<PhysicalFunction::Turn> PhysicalFunction::PlanPeriod() {
  absl::MutexLock lock(&mu_);
  uint64_t free_steps = options_.steps_per_period - AssignedSteps();
  std::vector<Turn> turns;
  for (const auto& [index, its] : functions_) {
    if (its->parts == nullptr) continue;
    const uint64_t share = its->params.share_steps;
    const Accelerator& accelerator = its->parts->accelerator();
    const uint64_t debt =
        (its->debt_bytes + kPagingStepBytes - 1) / kPagingStepBytes;
    const uint64_t from_free = std::min(free_steps, debt);
    const bool is_paused = accelerator.is_held(Accelerator::kMigration);
    const uint64_t from_own =
        std::min(is_paused ? share : share / 2, debt - from_free);
    free_steps -= from_free;
    its->paging_steps += from_free + from_own;
    its->PayPaging((from_free + from_own) * kPagingStepBytes);
    turns.push_back({its, its->parts, static_cast<uint32_t>(share - from_own)});
  }
  return turns;
}

uint64_t PhysicalFunction::RunPeriod() {
  uint64_t all = 0;
  for (const Turn& turn : PlanPeriod()) {
    const uint32_t steps = turn.virtual_function->accelerator().Run(turn.steps);
    turn.function->steps += steps;
    all += steps;
  }
  return all;
}

}  // namespace ferrybus::vsp
