// SPDX-License-Identifier: MIT
//
// What the integration services have in common: the version negotiation, one
// request at the guest at a time, a bounded queue behind it, and timeouts.
//
// What it is: a Device that speaks first.  Its embedder calls Tick() now and
// then; there is no clock and no thread in it.  A guest's driver may take
// minutes to negotiate (Linux waits for its daemons) or never answer: the
// service waits, and nothing piles up.
//
// Ownership: borrowed by its channel's bus, like every device.
// Thread safety: one thread, the bus's.
//
// Trust: what the guest answers may be anything.  A message that cannot be, or
// that answers nothing, is counted and dropped; the channel goes on.
//
// Moving: versions, the request in flight and those behind it are saved, each
// with its time left.  After the restore they end as they would have.
//
//   HeartbeatService heartbeat(&events);
//   bus.Offer(heartbeat.Params(instance), &heartbeat);
//   for (;;) { heartbeat.Tick(now_ns); bus.Poll(); }

#ifndef FERRYBUS_VSP_SERVICES_INTEGRATION_SERVICE_H_
#define FERRYBUS_VSP_SERVICES_INTEGRATION_SERVICE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/channel/guid.h"
#include "ferrybus/channel/incoming_packet.h"
#include "ferrybus/channel/protocols/integration.h"
#include "ferrybus/channel/server_connection_types.h"
#include "ferrybus/vsp/device.h"
#include "ferrybus/vsp/services/integration_state.h"

namespace ferrybus::vsp {

// How a request ended.
enum class IntegrationOutcome {
  kOk,
  kRefused,    // the guest's status says so
  kBadAnswer,  // an answer that cannot be
  kTimedOut,   // an answer that comes later is dropped
  kClosed,     // the channel ended
};

struct IntegrationLimits {
  // From the moment it is its turn until a request is given up.
  uint64_t request_timeout_ns = 15'000'000'000;
  // Requests not answered; at most kIntegrationQueueMax.
  size_t requests_max = 16;
};

class IntegrationService : public Device {
 public:
  struct Counters {
    uint64_t requests = 0;      // sent
    uint64_t answers = 0;       // taken
    uint64_t timeouts = 0;      // requests given up
    uint64_t bad_messages = 0;  // malformed
    uint64_t late_answers = 0;  // to nothing that waits
  };

  ~IntegrationService() override;
  IntegrationService(const IntegrationService&) = delete;
  IntegrationService& operator=(const IntegrationService&) = delete;

  // Time goes on: `now_ns` is of any clock that does not go back.  The more
  // often, the finer the timeouts.
  void Tick(uint64_t now_ns);

  // What to offer the service as.
  OfferParams Params(const Guid& instance) const;

  IntegrationPhase phase() const { return state_.phase; }
  // Once ready.
  ic::Version framework_version() const { return state_.framework; }
  ic::Version message_version() const { return state_.message; }
  // Requests that have not ended.
  size_t pending() const { return state_.requests.size(); }
  const Counters& counters() const { return counters_; }

  // -- Device --------------------------------------------------------------
  absl::Status OnOpened(ServerChannel& channel,
                        absl::Span<const std::byte> user_data) final;
  void OnStarted() final;
  void OnClosed() final;
  void ProcessPacket(IncomingPacket packet) final;
  absl::StatusOr<std::string> SaveDevice() final;
  absl::Status OnRestored(ServerChannel& channel,
                          absl::Span<const std::byte> bytes) final;

 protected:
  struct Kind {
    ic::MessageType type;
    Guid interface;
    absl::Span<const ic::Version> versions;
  };
  IntegrationService(const Kind& kind, const IntegrationLimits& limits);

  // Sends the body when its turn has come; OnAnswer or OnLost follows.
  // FailedPrecondition: not ready.  ResourceExhausted: too many wait.
  absl::Status Enqueue(uint64_t cookie, absl::Span<const std::byte> body);
  // Numbers that stay unique over a restore.
  uint64_t TakeCookie() { return state_.next_cookie++; }
  void CountBadMessage() { ++counters_.bad_messages; }

  // The rest is for the service.  All but IsSound() may enqueue.

  // Requests may be sent: after the negotiation, or after a restore.
  virtual void OnReady() {}
  virtual void OnTimePassed(uint64_t elapsed_ns) { (void)elapsed_ns; }
  // `answer` is the guest's body, of any length.
  virtual void OnAnswer(const IntegrationRequest& request, uint32_t status,
                        absl::Span<const std::byte> answer) = 0;
  virtual void OnLost(const IntegrationRequest& request,
                      IntegrationOutcome outcome) = 0;
  // Whether the service could have sent it; it comes from a saved state.
  virtual bool IsSound(const IntegrationRequest& request,
                       ic::Version message_version) const = 0;

 private:
  void Pump();
  bool SendMessage(ic::MessageType type, absl::Span<const std::byte> body);
  void HandleMessage(absl::Span<const std::byte> payload);
  void TakeVersions(absl::Span<const std::byte> body);
  IntegrationRequest PopRequest();
  absl::Status CheckRestored(const IntegrationState& saved) const;

  const Kind kind_;
  const IntegrationLimits limits_;
  ServerChannel* channel_ = nullptr;
  IntegrationState state_;
  std::optional<uint64_t> last_tick_ns_;
  bool is_restored_ = false;  // and not started
  Counters counters_;
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_SERVICES_INTEGRATION_SERVICE_H_
