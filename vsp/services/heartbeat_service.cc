// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/services/heartbeat_service.h"

#include "ferrybus/channel/protocols/device_classes.h"

namespace ferrybus::vsp {
namespace {

constexpr ic::Version kVersions[] = {{1, 0}, {3, 0}};

}  // namespace

HeartbeatService::HeartbeatService(Events* events, HeartbeatOptions options)
    : IntegrationService(
          {ic::MessageType::kHeartbeat, kHeartbeatInterface, kVersions},
          {.request_timeout_ns = options.timeout_ns, .requests_max = 1}),
      events_(events),
      options_(options) {}

void HeartbeatService::OnReady() {
  was_answered_ = false;
  missed_ = 0;
  if (pending() == 0) SendOne();
}

void HeartbeatService::OnTimePassed(uint64_t elapsed_ns) {
  since_last_ns_ += elapsed_ns;
  if (phase() == IntegrationPhase::kReady && pending() == 0 &&
      since_last_ns_ >= options_.period_ns) {
    SendOne();
  }
}

void HeartbeatService::SendOne() {
  since_last_ns_ = 0;
  ic::HeartbeatBody body;
  body.sequence = TakeCookie();
  (void)Enqueue(body.sequence, ic::BytesOf(body));
}

void HeartbeatService::OnAnswer(const IntegrationRequest& request, uint32_t,
                                absl::Span<const std::byte> answer) {
  ic::HeartbeatBody body;
  if (!ic::ReadBody(answer, &body) || body.sequence != request.cookie + 1) {
    CountBadMessage();
    Miss();
    return;
  }
  was_answered_ = true;
  missed_ = 0;
  if (events_ != nullptr) events_->OnHeartbeat();
}

void HeartbeatService::OnLost(const IntegrationRequest&,
                              IntegrationOutcome outcome) {
  if (outcome == IntegrationOutcome::kClosed) {
    was_answered_ = false;
    return;
  }
  Miss();
}

void HeartbeatService::Miss() {
  ++missed_;
  if (events_ != nullptr) events_->OnHeartbeatMissed(missed_);
}

bool HeartbeatService::IsSound(const IntegrationRequest& request,
                               ic::Version) const {
  ic::HeartbeatBody body;
  return request.body.size() == sizeof(body) &&
         ic::ReadBody(request.body, &body) && body.sequence == request.cookie;
}

}  // namespace ferrybus::vsp
