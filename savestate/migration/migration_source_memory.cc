// SPDX-License-Identifier: MIT
//
// MigrationSource: memory, pass by pass, and the pause.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ferrybus/savestate/fault_points.h"
#include "ferrybus/savestate/migration/migration_source.h"

namespace ferrybus::migration {
namespace {

// A pass that leaves more than this part of what the one before left has
// hardly shrunk.
constexpr double kShrinkMin = 0.9;
constexpr uint32_t kNotShrunkMax = 3;
// Devices that are paused and still write are broken.
constexpr uint32_t kBlackoutPassesMax = 16;
// A bandwidth is measured over at least so much.
constexpr uint64_t kMeasuredBytesMin = uint64_t{1} << 20;

using savestate::FaultPoint;
using savestate::PassFaultPoint;

double PerSecond(uint64_t bytes, absl::Duration time) {
  const double seconds = absl::ToDoubleSeconds(time);
  return seconds > 0 ? static_cast<double>(bytes) / seconds : 0;
}

absl::StatusOr<std::string> ReadBatch(Migratable& device,
                                      const PageBatch& batch) {
  absl::Status passed = PassFaultPoint(FaultPoint::kLeaveBlock);
  if (!passed.ok()) return passed;
  std::string plain(PagesOf(batch.runs) * batch.page_size_bytes, '\0');
  auto* to = reinterpret_cast<std::byte*>(plain.data());
  for (const PageRun& run : batch.runs) {
    const uint64_t size = run.pages * batch.page_size_bytes;
    absl::Status status =
        device.ReadMemory(batch.segment, run.first_page * batch.page_size_bytes,
                          absl::MakeSpan(to, size));
    if (!status.ok()) return OfDevice(device, "reading memory", status);
    to += size;
  }
  return plain;
}

absl::StatusOr<bool> Pause(Migratable& device) {
  absl::Status passed = PassFaultPoint(FaultPoint::kLeavePause);
  if (!passed.ok()) return passed;
  return device.Pause();
}

}  // namespace

// ---- Passes

void MigrationSource::OpenPass() {
  absl::Status status = PassFaultPoint(FaultPoint::kLeavePass);
  if (!status.ok()) return Fail(status, true);
  const uint64_t pending = PendingBytes();
  pass_began_ = now_;
  is_pass_running_ = true;
  {
    absl::MutexLock lock(&mutex_);
    ++pass_.number;
    pass_.blocks = 0;
    pass_.is_exhausted = false;
    pass_.is_open = true;
    pass_.last_taken = now_;
    progress_.pass = pass_.number;
    progress_.pending_bytes = pending;
    pass_plain_bytes_before_ = progress_.plain_bytes_sent;
  }
  if (listener_ != nullptr) listener_->OnOutput();
}

MigrationSource::NextBlock MigrationSource::TakeBlock(PageEncoder& encoder,
                                                      absl::Time now) {
  PageBlock block;
  std::optional<PageBatch> batch;
  {
    absl::MutexLock lock(&mutex_);
    if (!pass_.is_open || pass_.is_exhausted || !pass_.failure.ok()) return {};
    if (now < pass_.not_before) {
      return {.bytes = {}, .not_before = pass_.not_before};
    }
    batch = TakeBatch(&block);
    pass_.last_taken = now;
    pass_.is_exhausted = !batch.has_value();
    if (batch.has_value()) ++pass_.readers;
  }
  if (!batch.has_value()) {
    if (listener_ != nullptr) listener_->OnOutput();
    return {};
  }
  absl::StatusOr<std::string> plain =
      ReadBatch(devices_[block.device]->device(), *batch);
  {
    absl::MutexLock lock(&mutex_);
    --pass_.readers;
    if (!plain.ok()) {
      pass_.failure = plain.status();
      return {};
    }
  }
  const uint64_t plain_bytes = plain->size();
  encoder.Encode(*std::move(plain), batch->runs, batch->page_size_bytes,
                 options_.compress, &block);
  NextBlock next = {.bytes = SerializeBlock(std::move(block))};
  absl::MutexLock lock(&mutex_);
  progress_.pages_sent += plain_bytes / batch->page_size_bytes;
  progress_.plain_bytes_sent += plain_bytes;
  progress_.wire_bytes_sent += next.bytes.size();
  progress_.pending_bytes -= std::min(progress_.pending_bytes, plain_bytes);
  if (options_.bandwidth_max_bytes > 0) {
    pass_.not_before =
        std::max(pass_.not_before, now) +
        absl::Seconds(static_cast<double>(next.bytes.size()) /
                      static_cast<double>(options_.bandwidth_max_bytes));
  }
  return next;
}

// The next pages, and what their block says of them.
std::optional<PageBatch> MigrationSource::TakeBatch(PageBlock* block) {
  for (uint32_t i = 0; i < devices_.size(); ++i) {
    std::optional<PageBatch> batch = devices_[i]->Take(options_.block_bytes);
    if (!batch.has_value()) continue;
    block->session = pass_.session;
    block->pass = pass_.number;
    block->sequence = pass_.blocks++;
    block->device = i;
    block->segment = batch->segment;
    return batch;
  }
  return std::nullopt;
}

void MigrationSource::EndPassIfExhausted() {
  PassEnd end;
  {
    absl::MutexLock lock(&mutex_);
    if (!pass_.is_open || !pass_.is_exhausted) return;
    pass_.is_open = false;
    end = {.pass = pass_.number, .blocks = pass_.blocks};
  }
  Send(end);
}

void MigrationSource::Handle(const PassDone& done) {
  uint32_t pass = 0;
  bool is_open = false;
  {
    absl::MutexLock lock(&mutex_);
    pass = pass_.number;
    is_open = pass_.is_open;
  }
  if (!is_pass_running_ || is_open || done.pass != pass) {
    return Fail(
        absl::InvalidArgumentError(absl::StrCat(
            "the target said that pass ", done.pass, " is done; this is pass ",
            pass, ", ", SourcePhaseName(phase()))),
        true);
  }
  is_pass_running_ = false;
  UpdateRates();
  if (phase() == SourcePhase::kCopying) return AfterCopyPass();
  if (phase() == SourcePhase::kBlackout) BlackoutPass();
}

// The bandwidth of the pass that ended.
void MigrationSource::UpdateRates() {
  absl::MutexLock lock(&mutex_);
  const uint64_t bytes = progress_.plain_bytes_sent - pass_plain_bytes_before_;
  const double rate = PerSecond(bytes, now_ - pass_began_);
  if (rate > 0 && (bytes >= kMeasuredBytesMin ||
                   progress_.bandwidth_bytes_per_second == 0)) {
    progress_.bandwidth_bytes_per_second = rate;
  }
}

void MigrationSource::AfterCopyPass() {
  for (PendingPages* pages : devices_) {
    absl::Status status = pages->Collect();
    if (!status.ok()) {
      return Fail(OfDevice(pages->device(), "dirty tracking", status), true);
    }
  }
  const uint64_t left = PendingBytes();
  uint32_t pass = 0;
  absl::Duration expected;
  {
    absl::MutexLock lock(&mutex_);
    pass = pass_.number;
    progress_.pending_bytes = left;
    progress_.dirty_bytes_per_second = PerSecond(left, now_ - collected_);
    const double bandwidth = progress_.bandwidth_bytes_per_second;
    expected = left == 0 ? absl::ZeroDuration()
               : bandwidth == 0
                   ? absl::InfiniteDuration()
                   : absl::Seconds(static_cast<double>(left) / bandwidth);
    progress_.expected_pause = expected;
    const bool has_shrunk =
        pass == 1 || static_cast<double>(left) <
                         kShrinkMin * static_cast<double>(last_left_bytes_);
    passes_not_shrunk_ = has_shrunk ? 0 : passes_not_shrunk_ + 1;
    progress_.is_converging =
        passes_not_shrunk_ < kNotShrunkMax && pass < options_.passes_max;
  }
  collected_ = now_;
  last_left_bytes_ = left;
  if (expected <= options_.downtime_limit) return BeginPause();
  const bool is_converging =
      passes_not_shrunk_ < kNotShrunkMax && pass < options_.passes_max;
  if (!is_converging && options_.timeout == absl::InfiniteDuration()) {
    return GiveUp(absl::DeadlineExceededError(absl::StrCat(
        "not converging: after ", pass, " passes ", left,
        " bytes are left, written again faster than they are sent; the pause "
        "would be ",
        absl::FormatDuration(expected), ", allowed are ",
        absl::FormatDuration(options_.downtime_limit))));
  }
  OpenPass();
}

void MigrationSource::GiveUp(const absl::Status& why) {
  if (options_.on_timeout == OnTimeout::kCancel) return Fail(why, true);
  BeginPause();
}

// ---- The pause

void MigrationSource::BeginPause() {
  SetPhase(SourcePhase::kPausing);
  phase_began_ = now_;
  PollPause();
}

void MigrationSource::PollPause() {
  while (paused_devices_ < devices_.size()) {
    Migratable& device = devices_[paused_devices_]->device();
    absl::StatusOr<bool> is_paused = Pause(device);
    if (!is_paused.ok()) {
      ++paused_devices_;  // it may have begun
      return Fail(OfDevice(device, "pause", is_paused.status()), true);
    }
    if (!*is_paused) {
      if (now_ - phase_began_ <= options_.pause_max) return;
      ++paused_devices_;
      return Fail(absl::DeadlineExceededError(
                      absl::StrCat(device.name(), ": did not pause within ",
                                   absl::FormatDuration(options_.pause_max))),
                  true);
    }
    ++paused_devices_;
  }
  {
    absl::MutexLock lock(&mutex_);
    progress_.pause.stop = now_ - phase_began_;
  }
  phase_began_ = now_;
  SetPhase(SourcePhase::kBlackout);
  if (!has_begun_pages_) {
    has_begun_pages_ = true;
    for (PendingPages* pages : devices_) {
      absl::Status status = pages->Begin(/*track=*/false);
      if (!status.ok()) {
        return Fail(OfDevice(pages->device(), "dirty tracking", status), true);
      }
    }
  }
  // A pass that was under way when the time-out forced the pause goes on.
  if (!is_pass_running_) BlackoutPass();
}

void MigrationSource::BlackoutPass() {
  for (PendingPages* pages : devices_) {
    absl::Status status = pages->Collect();
    if (!status.ok()) {
      return Fail(OfDevice(pages->device(), "dirty tracking", status), true);
    }
  }
  if (PendingBytes() == 0) return SendMutable();
  if (++blackout_passes_ > kBlackoutPassesMax) {
    return Fail(absl::InternalError(absl::StrCat(
                    "memory still changes after ", kBlackoutPassesMax,
                    " passes, and all devices said that they are paused")),
                true);
  }
  OpenPass();
}

void MigrationSource::SendMutable() {
  {
    absl::MutexLock lock(&mutex_);
    progress_.pause.memory = now_ - phase_began_;
  }
  phase_began_ = now_;
  SetPhase(SourcePhase::kPreparing);
  for (uint32_t i = 0; i < devices_.size(); ++i) {
    absl::StatusOr<std::string> blob = Save(false, devices_[i]->device());
    if (!blob.ok()) return Fail(blob.status(), true);
    Send(MutableData{.device = i, .data = *std::move(blob)});
  }
  Send(Prepare());
}

}  // namespace ferrybus::migration
