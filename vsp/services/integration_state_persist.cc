// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/services/integration_state_persist.h"

#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ferrybus/vsp/services/integration_state.pb.h"

namespace ferrybus::vsp {
namespace {

namespace pb = ::ferrybus::vsp::services::v1;

template <typename Found, typename Allowed>
absl::Status Corrupt(absl::string_view field, const Found& found,
                     const Allowed& allowed) {
  return absl::DataLossError(absl::StrCat("integration service state: ", field,
                                          " is ", found, ", must be ", allowed,
                                          ": the saved state is corrupt"));
}

pb::ServicePhase ToProto(IntegrationPhase phase) {
  switch (phase) {
    case IntegrationPhase::kClosed:
      break;
    case IntegrationPhase::kNegotiating:
      return pb::SERVICE_PHASE_NEGOTIATING;
    case IntegrationPhase::kReady:
      return pb::SERVICE_PHASE_READY;
    case IntegrationPhase::kRefused:
      return pb::SERVICE_PHASE_REFUSED;
  }
  return pb::SERVICE_PHASE_UNSPECIFIED;
}

IntegrationPhase FromProto(pb::ServicePhase phase) {
  switch (phase) {
    case pb::SERVICE_PHASE_NEGOTIATING:
      return IntegrationPhase::kNegotiating;
    case pb::SERVICE_PHASE_READY:
      return IntegrationPhase::kReady;
    case pb::SERVICE_PHASE_REFUSED:
      return IntegrationPhase::kRefused;
    default:
      return IntegrationPhase::kClosed;
  }
}

absl::Status ParseVersion(absl::string_view field, const pb::Version& from,
                          ic::Version* to) {
  if (from.major() > 0xffff || from.minor() > 0xffff) {
    return Corrupt(field, absl::StrCat(from.major(), ".", from.minor()),
                   "at most 65535.65535");
  }
  to->major = static_cast<uint16_t>(from.major());
  to->minor = static_cast<uint16_t>(from.minor());
  return absl::OkStatus();
}

absl::Status ParseRequests(const pb::ServiceState& from, IntegrationState* to) {
  if (from.requests_size() > static_cast<int>(kIntegrationQueueMax)) {
    return Corrupt("number of requests", from.requests_size(),
                   absl::StrCat("at most ", kIntegrationQueueMax));
  }
  for (const pb::Request& request : from.requests()) {
    if (request.body().size() > kIntegrationBodyBytesMax) {
      return Corrupt("request.body length", request.body().size(),
                     absl::StrCat("at most ", kIntegrationBodyBytesMax));
    }
    IntegrationRequest& added = to->requests.emplace_back();
    added.cookie = request.cookie();
    added.body.resize(request.body().size());
    if (!added.body.empty()) {
      std::memcpy(added.body.data(), request.body().data(), added.body.size());
    }
  }
  return absl::OkStatus();
}

// What holds between the fields.
absl::Status CheckPhase(const IntegrationState& state) {
  const bool is_ready = state.phase == IntegrationPhase::kReady;
  for (const ic::Version& version : {state.framework, state.message}) {
    if ((version != ic::Version()) != is_ready) {
      return Corrupt("version", is_ready ? "absent" : "present",
                     is_ready ? "present once ready" : "absent before");
    }
  }
  if (!is_ready && !state.requests.empty()) {
    return Corrupt("number of requests", state.requests.size(),
                   "0 before the versions are agreed on");
  }
  const bool may_be_sent =
      state.phase == IntegrationPhase::kNegotiating || !state.requests.empty();
  if (state.is_sent && !may_be_sent) {
    return Corrupt("is_sent", "true", "false without a request");
  }
  return absl::OkStatus();
}

}  // namespace

std::string SerializeIntegrationState(const IntegrationState& state) {
  pb::ServiceState message;
  message.set_service(static_cast<uint32_t>(state.service));
  message.set_phase(ToProto(state.phase));
  if (state.phase == IntegrationPhase::kReady) {
    message.mutable_framework()->set_major(state.framework.major);
    message.mutable_framework()->set_minor(state.framework.minor);
    message.mutable_message()->set_major(state.message.major);
    message.mutable_message()->set_minor(state.message.minor);
  }
  message.set_next_transaction(state.next_transaction);
  message.set_is_sent(state.is_sent);
  message.set_sent_transaction(state.sent_transaction);
  message.set_remaining_ns(state.remaining_ns);
  message.set_next_cookie(state.next_cookie);
  for (const IntegrationRequest& request : state.requests) {
    pb::Request& added = *message.add_requests();
    added.set_cookie(request.cookie);
    added.set_body(request.body.data(), request.body.size());
  }
  return message.SerializeAsString();
}

absl::StatusOr<IntegrationState> ParseIntegrationState(
    absl::Span<const std::byte> bytes) {
  if (bytes.size() > kIntegrationStateBytesMax) {
    return Corrupt("size in bytes", bytes.size(),
                   absl::StrCat("at most ", kIntegrationStateBytesMax));
  }
  pb::ServiceState message;
  if (!message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return absl::DataLossError(
        "integration service state: not a valid message: the saved state is "
        "corrupt");
  }
  IntegrationState state;
  if (message.service() < 1 || message.service() > 4) {
    return Corrupt("service", message.service(), "1 to 4");
  }
  state.service = ic::MessageType{static_cast<uint16_t>(message.service())};
  state.phase = FromProto(message.phase());
  if (state.phase == IntegrationPhase::kClosed) {
    return Corrupt("phase", message.phase(), "1 to 3");
  }
  for (const uint32_t number :
       {message.next_transaction(), message.sent_transaction()}) {
    if (number > 0xff) return Corrupt("transaction", number, "at most 255");
  }
  state.next_transaction = static_cast<uint8_t>(message.next_transaction());
  state.is_sent = message.is_sent();
  state.sent_transaction = static_cast<uint8_t>(message.sent_transaction());
  state.remaining_ns = message.remaining_ns();
  state.next_cookie = message.next_cookie();
  for (const absl::Status& status :
       {ParseVersion("framework", message.framework(), &state.framework),
        ParseVersion("message", message.message(), &state.message),
        ParseRequests(message, &state)}) {
    if (!status.ok()) return status;
  }
  const absl::Status status = CheckPhase(state);
  if (!status.ok()) return status;
  return state;
}

}  // namespace ferrybus::vsp
