// SPDX-License-Identifier: MIT
//
// Shutdown: asks the guest to power off, restart or hibernate by itself.
//
// What it is: an IntegrationService with one request at a time.  The guest
// answers whether it will, and does it after the answer; that it has done it
// is seen elsewhere (the connection ends, the virtual processors stop).
//
// Ownership: borrows the events.  Thread safety: one thread, the bus's.
// Trust: the answer is the guest's word and nothing more.
//
//   absl::Status status = shutdown.Request({.action = kPowerOff});
//   ... OnShutdownAnswered(IntegrationOutcome::kOk, 0)

#ifndef FERRYBUS_VSP_SERVICES_SHUTDOWN_SERVICE_H_
#define FERRYBUS_VSP_SERVICES_SHUTDOWN_SERVICE_H_

#include <cstdint>
#include <string_view>

#include "ferrybus/vsp/services/integration_service.h"

namespace ferrybus::vsp {

enum class ShutdownAction : uint8_t { kPowerOff, kRestart, kHibernate };

struct ShutdownRequest {
  ShutdownAction action = ShutdownAction::kPowerOff;
  // Without asking what runs in the guest.
  bool force = false;
  uint32_t reason = 0;  // a Windows reason code
  uint32_t timeout_seconds = 0;
  std::u16string_view text = {};  // for the guest's screen; at most 1023 units
};

class ShutdownService final : public IntegrationService {
 public:
  class Events {
   public:
    // kOk: the guest goes down now.  kRefused: `status` says why not.
    virtual void OnShutdownAnswered(IntegrationOutcome outcome,
                                    uint32_t status) = 0;

   protected:
    ~Events() = default;
  };

  explicit ShutdownService(Events* events,
                           uint64_t timeout_ns = 15'000'000'000);

  // FailedPrecondition: the guest's driver is not ready, or does not know the
  // action (hibernation is known from 3.2 on).  ResourceExhausted: a request
  // waits for its answer.  InvalidArgument: the text is too long.
  absl::Status Request(const ShutdownRequest& request);

 protected:
  void OnAnswer(const IntegrationRequest& request, uint32_t status,
                absl::Span<const std::byte> answer) override;
  void OnLost(const IntegrationRequest& request,
              IntegrationOutcome outcome) override;
  bool IsSound(const IntegrationRequest& request,
               ic::Version message_version) const override;

 private:
  Events* const events_;
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_SERVICES_SHUTDOWN_SERVICE_H_
