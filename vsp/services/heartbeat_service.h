// SPDX-License-Identifier: MIT
//
// Heartbeat: asks the guest now and then whether it lives.
//
// What it is: an IntegrationService that sends a number each period; a living
// guest answers with the next one.  Linux answers from its channel interrupt,
// so that an answer says that the kernel runs, and not more.
//
// Ownership: borrows the events.  Thread safety: one thread, the bus's.
// Trust: a guest that answers wrongly counts as one that does not.
//
//   HeartbeatService heartbeat(&events, {.period_ns = 1'000'000'000});

#ifndef FERRYBUS_VSP_SERVICES_HEARTBEAT_SERVICE_H_
#define FERRYBUS_VSP_SERVICES_HEARTBEAT_SERVICE_H_

#include <cstdint>

#include "ferrybus/vsp/services/integration_service.h"

namespace ferrybus::vsp {

struct HeartbeatOptions {
  uint64_t period_ns = 2'000'000'000;
  // An answer that takes longer is missed.
  uint64_t timeout_ns = 10'000'000'000;
};

class HeartbeatService final : public IntegrationService {
 public:
  // May be null: alive() and missed() tell the same.
  class Events {
   public:
    virtual void OnHeartbeat() = 0;
    // `in_a_row` since the last answer.
    virtual void OnHeartbeatMissed(uint32_t in_a_row) = 0;

   protected:
    ~Events() = default;
  };

  explicit HeartbeatService(Events* events = nullptr,
                            HeartbeatOptions options = {});

  // The last heartbeat was answered.
  bool alive() const { return was_answered_ && missed_ == 0; }
  // In a row.
  uint32_t missed() const { return missed_; }

 protected:
  void OnReady() override;
  void OnTimePassed(uint64_t elapsed_ns) override;
  void OnAnswer(const IntegrationRequest& request, uint32_t status,
                absl::Span<const std::byte> answer) override;
  void OnLost(const IntegrationRequest& request,
              IntegrationOutcome outcome) override;
  bool IsSound(const IntegrationRequest& request,
               ic::Version message_version) const override;

 private:
  void SendOne();
  void Miss();

  Events* const events_;
  const HeartbeatOptions options_;
  uint64_t since_last_ns_ = 0;
  bool was_answered_ = false;
  uint32_t missed_ = 0;
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_SERVICES_HEARTBEAT_SERVICE_H_
