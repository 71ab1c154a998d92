// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/services/integration_service.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/check.h"
#include "ferrybus/channel/protocols/pipe_offer.h"
#include "ferrybus/vsp/server_channel.h"
#include "ferrybus/vsp/services/integration_state_persist.h"

namespace ferrybus::vsp {
namespace {

constexpr ic::Version kFrameworkVersions[] = {{1, 0}, {3, 0}};
// Of the negotiation itself.
constexpr ic::Version kFirstVersion = {1, 0};

bool Contains(absl::Span<const ic::Version> versions, ic::Version version) {
  return std::find(versions.begin(), versions.end(), version) != versions.end();
}

}  // namespace

IntegrationService::IntegrationService(const Kind& kind,
                                       const IntegrationLimits& limits)
    : kind_(kind), limits_(limits) {
  FERRYBUS_CHECK(
      limits.requests_max > 0 && limits.requests_max <= kIntegrationQueueMax,
      "requests_max must be 1 to kIntegrationQueueMax");
  state_.service = kind.type;
}

IntegrationService::~IntegrationService() = default;

OfferParams IntegrationService::Params(const Guid& instance) const {
  OfferParams params;
  params.interface_type = kind_.interface;
  params.interface_instance = instance;
  params.flags = kOfferNamedPipeMode;
  params.user_data = PipeOfferUserData(PipeType::kMessage);
  return params;
}

// -- Life --------------------------------------------------------------------

absl::Status IntegrationService::OnOpened(ServerChannel& channel,
                                          absl::Span<const std::byte>) {
  channel_ = &channel;
  state_ = IntegrationState();
  state_.service = kind_.type;
  state_.phase = IntegrationPhase::kNegotiating;
  is_restored_ = false;
  return absl::OkStatus();
}

void IntegrationService::OnStarted() {
  if (std::exchange(is_restored_, false) &&
      state_.phase == IntegrationPhase::kReady) {
    OnReady();
  }
  Pump();
}

void IntegrationService::OnClosed() {
  channel_ = nullptr;
  state_.phase = IntegrationPhase::kClosed;
  state_.is_sent = false;
  while (!state_.requests.empty()) {
    OnLost(PopRequest(), IntegrationOutcome::kClosed);
  }
}

void IntegrationService::Tick(uint64_t now_ns) {
  const uint64_t last_ns = last_tick_ns_.value_or(now_ns);
  const uint64_t elapsed_ns = now_ns > last_ns ? now_ns - last_ns : 0;
  last_tick_ns_ = now_ns;
  if (is_restored_) return;
  if (!state_.requests.empty()) {
    state_.remaining_ns -= std::min(elapsed_ns, state_.remaining_ns);
    if (state_.remaining_ns == 0) {
      ++counters_.timeouts;
      OnLost(PopRequest(), IntegrationOutcome::kTimedOut);
    }
  }
  OnTimePassed(elapsed_ns);
  Pump();
}

// -- Requests ----------------------------------------------------------------

absl::Status IntegrationService::Enqueue(uint64_t cookie,
                                         absl::Span<const std::byte> body) {
  FERRYBUS_CHECK(body.size() <= kIntegrationBodyBytesMax, "the body's size");
  if (state_.phase != IntegrationPhase::kReady || is_restored_) {
    return absl::FailedPreconditionError(
        "integration service: the guest's driver has not negotiated; try "
        "again when the phase is kReady");
  }
  if (state_.requests.size() >= limits_.requests_max) {
    return absl::ResourceExhaustedError(
        absl::StrCat("integration service: ", state_.requests.size(),
                     " requests wait for the guest, which is the maximum"));
  }
  if (state_.requests.empty()) {
    state_.remaining_ns = limits_.request_timeout_ns;
  }
  state_.requests.push_back({cookie, {body.begin(), body.end()}});
  Pump();
  return absl::OkStatus();
}

// The first request ends, and the next one's time begins.
IntegrationRequest IntegrationService::PopRequest() {
  IntegrationRequest request = std::move(state_.requests.front());
  state_.requests.pop_front();
  state_.is_sent = false;
  state_.remaining_ns =
      state_.requests.empty() ? 0 : limits_.request_timeout_ns;
  return request;
}

// Sends what is due, if the ring has room; else a later call does.
void IntegrationService::Pump() {
  if (channel_ == nullptr || is_restored_ || state_.is_sent) return;
  if (state_.phase == IntegrationPhase::kNegotiating) {
    (void)SendMessage(
        ic::MessageType::kNegotiate,
        ic::BuildNegotiateBody(kFrameworkVersions, kind_.versions));
  } else if (state_.phase == IntegrationPhase::kReady &&
             !state_.requests.empty()) {
    if (SendMessage(kind_.type, state_.requests.front().body)) {
      ++counters_.requests;
    }
  }
}

bool IntegrationService::SendMessage(ic::MessageType type,
                                     absl::Span<const std::byte> body) {
  const bool is_first = type == ic::MessageType::kNegotiate;
  ic::Header header;
  header.framework = is_first ? kFirstVersion : state_.framework;
  header.type = type;
  header.message = is_first ? kFirstVersion : state_.message;
  header.transaction = state_.next_transaction;
  const std::vector<std::byte> message = ic::BuildMessage(header, body);
  OutgoingPacket packet;
  packet.payload = message;
  if (channel_->SendNow(packet) != SendStatus::kOk) return false;
  state_.is_sent = true;
  state_.sent_transaction = state_.next_transaction++;
  return true;
}

// -- Answers -----------------------------------------------------------------

void IntegrationService::ProcessPacket(IncomingPacket packet) {
  HandleMessage(packet.payload());
  packet.Complete();
  Pump();
}

void IntegrationService::HandleMessage(absl::Span<const std::byte> payload) {
  ic::Header header;
  absl::Span<const std::byte> body;
  if (!ic::ParseMessage(payload, &header, &body) ||
      (header.flags & ic::kFlagResponse) == 0) {
    CountBadMessage();
    return;
  }
  const bool is_negotiating = state_.phase == IntegrationPhase::kNegotiating;
  const ic::MessageType due =
      is_negotiating ? ic::MessageType::kNegotiate : kind_.type;
  if (!state_.is_sent || header.type != due ||
      header.transaction != state_.sent_transaction) {
    ++counters_.late_answers;
    return;
  }
  if (is_negotiating) {
    TakeVersions(body);
    return;
  }
  ++counters_.answers;
  const IntegrationRequest request = PopRequest();
  OnAnswer(request, header.status, body);
}

// One of each, or none at all.
void IntegrationService::TakeVersions(absl::Span<const std::byte> body) {
  std::vector<ic::Version> framework;
  std::vector<ic::Version> message;
  if (!ic::ParseNegotiateBody(body, &framework, &message) ||
      framework.size() > 1 || message.size() != framework.size()) {
    CountBadMessage();
    return;
  }
  if (framework.empty()) {
    state_.is_sent = false;
    state_.phase = IntegrationPhase::kRefused;
    return;
  }
  if (!Contains(kFrameworkVersions, framework[0]) ||
      !Contains(kind_.versions, message[0])) {
    CountBadMessage();
    return;
  }
  state_.is_sent = false;
  state_.phase = IntegrationPhase::kReady;
  state_.framework = framework[0];
  state_.message = message[0];
  OnReady();
}

// -- Moving ------------------------------------------------------------------

absl::StatusOr<std::string> IntegrationService::SaveDevice() {
  if (state_.phase == IntegrationPhase::kClosed) return std::string();
  return SerializeIntegrationState(state_);
}

absl::Status IntegrationService::CheckRestored(
    const IntegrationState& saved) const {
  if (saved.service != kind_.type) {
    return absl::FailedPreconditionError(absl::StrCat(
        "integration service: message type ", static_cast<int>(saved.service),
        " was saved and ", static_cast<int>(kind_.type),
        " is here: attach the service that the guest had"));
  }
  if (saved.phase != IntegrationPhase::kReady) return absl::OkStatus();
  bool is_sound = Contains(kFrameworkVersions, saved.framework) &&
                  Contains(kind_.versions, saved.message);
  for (const IntegrationRequest& request : saved.requests) {
    is_sound = is_sound && IsSound(request, saved.message);
  }
  if (is_sound) return absl::OkStatus();
  return absl::DataLossError(
      "integration service: a saved version or request is none of this "
      "service's: the saved state is corrupt");
}

absl::Status IntegrationService::OnRestored(ServerChannel& channel,
                                            absl::Span<const std::byte> bytes) {
  absl::StatusOr<IntegrationState> saved = ParseIntegrationState(bytes);
  if (!saved.ok()) return saved.status();
  const absl::Status status = CheckRestored(*saved);
  if (!status.ok()) return status;
  state_ = *std::move(saved);
  state_.remaining_ns =
      std::min(state_.remaining_ns, limits_.request_timeout_ns);
  channel_ = &channel;
  last_tick_ns_.reset();
  is_restored_ = true;
  return absl::OkStatus();
}

}  // namespace ferrybus::vsp
