// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/services/time_sync_service.h"

#include "ferrybus/channel/protocols/device_classes.h"

namespace ferrybus::vsp {
namespace {

constexpr ic::Version kVersions[] = {{1, 0}, {3, 0}, {4, 0}};
constexpr ic::Version kFirstWithReference = {4, 0};

}  // namespace

TimeSyncService::TimeSyncService(TimeSource* source, TimeSyncOptions options)
    : IntegrationService(
          {ic::MessageType::kTimeSync, kTimeSyncInterface, kVersions},
          {.request_timeout_ns = options.timeout_ns, .requests_max = 1}),
      source_(source),
      options_(options) {}

void TimeSyncService::SetGuestClock() {
  must_set_ = true;
  SendWhatIsDue();
}

void TimeSyncService::OnTimePassed(uint64_t elapsed_ns) {
  since_last_ns_ += elapsed_ns;
  SendWhatIsDue();
}

void TimeSyncService::SendWhatIsDue() {
  const bool is_sample_due =
      options_.period_ns != 0 && since_last_ns_ >= options_.period_ns;
  if (phase() != IntegrationPhase::kReady || pending() != 0 ||
      (!must_set_ && !is_sample_due)) {
    return;
  }
  const uint8_t flags = must_set_ ? ic::kTimeSyncSet : ic::kTimeSyncSample;
  const HostTime now = source_->Now();
  absl::Status status;
  if (message_version() >= kFirstWithReference) {
    ic::TimeSyncReferenceBody body;
    body.host_time = now.utc;
    body.reference_time = now.reference;
    body.flags = flags;
    status = Enqueue(0, ic::BytesOf(body));
  } else {
    ic::TimeSyncBody body;
    body.host_time = now.utc;
    body.flags = flags;
    status = Enqueue(0, ic::BytesOf(body));
  }
  if (!status.ok()) return;
  must_set_ = false;
  since_last_ns_ = 0;
}

void TimeSyncService::OnAnswer(const IntegrationRequest&, uint32_t,
                               absl::Span<const std::byte>) {
  SendWhatIsDue();
}

bool TimeSyncService::IsSound(const IntegrationRequest& request,
                              ic::Version message_version) const {
  return request.body.size() == (message_version >= kFirstWithReference
                                     ? sizeof(ic::TimeSyncReferenceBody)
                                     : sizeof(ic::TimeSyncBody));
}

}  // namespace ferrybus::vsp
