// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/services/shutdown_service.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/protocols/device_classes.h"

namespace ferrybus::vsp {
namespace {

constexpr ic::Version kVersions[] = {{1, 0}, {3, 0}, {3, 1}, {3, 2}};
constexpr ic::Version kFirstWithHibernation = {3, 2};

uint32_t FlagsOf(const ShutdownRequest& request) {
  const uint32_t force = request.force ? ic::kShutdownForce : 0;
  switch (request.action) {
    case ShutdownAction::kPowerOff:
      break;
    case ShutdownAction::kRestart:
      return force | ic::kShutdownRestart;
    case ShutdownAction::kHibernate:
      return force | ic::kShutdownHibernate;
  }
  return force;
}

}  // namespace

ShutdownService::ShutdownService(Events* events, uint64_t timeout_ns)
    : IntegrationService(
          {ic::MessageType::kShutdown, kShutdownInterface, kVersions},
          {.request_timeout_ns = timeout_ns, .requests_max = 1}),
      events_(events) {}

absl::Status ShutdownService::Request(const ShutdownRequest& request) {
  ic::ShutdownBody body;
  if (request.text.size() >= std::size(body.text)) {
    return absl::InvalidArgumentError(
        absl::StrCat("shutdown: a text of ", request.text.size(),
                     " units; at most ", std::size(body.text) - 1, " fit"));
  }
  if (phase() == IntegrationPhase::kReady &&
      request.action == ShutdownAction::kHibernate &&
      message_version() < kFirstWithHibernation) {
    return absl::FailedPreconditionError(
        "shutdown: the guest's driver does not know hibernation; power off "
        "instead");
  }
  body.reason = request.reason;
  body.timeout_seconds = request.timeout_seconds;
  body.flags = FlagsOf(request);
  std::copy(request.text.begin(), request.text.end(), body.text);
  return Enqueue(0, ic::BytesOf(body));
}

void ShutdownService::OnAnswer(const IntegrationRequest&, uint32_t status,
                               absl::Span<const std::byte>) {
  events_->OnShutdownAnswered(status == ic::kStatusOk
                                  ? IntegrationOutcome::kOk
                                  : IntegrationOutcome::kRefused,
                              status);
}

void ShutdownService::OnLost(const IntegrationRequest&,
                             IntegrationOutcome outcome) {
  events_->OnShutdownAnswered(outcome, ic::kStatusOk);
}

bool ShutdownService::IsSound(const IntegrationRequest& request,
                              ic::Version) const {
  return request.body.size() == sizeof(ic::ShutdownBody);
}

}  // namespace ferrybus::vsp
