// SPDX-License-Identifier: MIT
//
// Time synchronisation: tells the guest what time it is.
//
// What it is: an IntegrationService that tells the guest to set its clock once
// it is there, and again after each restore, since the guest's clock stood
// still meanwhile; between, samples by which the guest corrects it slowly.
//
// Ownership: borrows the source.  Thread safety: one thread, the bus's.
// Trust: nothing of the guest's answer is used.
//
//   class HostTime final : public TimeSource { ... };
//   TimeSyncService time(&host_time);

#ifndef FERRYBUS_VSP_SERVICES_TIME_SYNC_SERVICE_H_
#define FERRYBUS_VSP_SERVICES_TIME_SYNC_SERVICE_H_

#include <cstdint>

#include "ferrybus/vsp/services/integration_service.h"

namespace ferrybus::vsp {

// Two clocks, read at the same moment.  In units of 100 ns.
struct HostTime {
  uint64_t utc = 0;        // since 1601-01-01
  uint64_t reference = 0;  // the partition's reference counter
};

class TimeSource {
 public:
  virtual HostTime Now() = 0;

 protected:
  ~TimeSource() = default;
};

struct TimeSyncOptions {
  // Between samples; 0: none.
  uint64_t period_ns = 5'000'000'000;
  uint64_t timeout_ns = 10'000'000'000;
};

class TimeSyncService final : public IntegrationService {
 public:
  explicit TimeSyncService(TimeSource* source, TimeSyncOptions options = {});

  // The guest is to set its clock (after the host's was set, or the virtual
  // processors stood still); once it is ready, if it is not.
  void SetGuestClock();

 protected:
  void OnReady() override { SetGuestClock(); }
  void OnTimePassed(uint64_t elapsed_ns) override;
  void OnAnswer(const IntegrationRequest& request, uint32_t status,
                absl::Span<const std::byte> answer) override;
  void OnLost(const IntegrationRequest&, IntegrationOutcome) override {}
  bool IsSound(const IntegrationRequest& request,
               ic::Version message_version) const override;

 private:
  void SendWhatIsDue();

  TimeSource* const source_;
  const TimeSyncOptions options_;
  uint64_t since_last_ns_ = 0;
  bool must_set_ = false;
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_SERVICES_TIME_SYNC_SERVICE_H_
