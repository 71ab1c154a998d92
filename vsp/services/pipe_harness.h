// SPDX-License-Identifier: MIT
//
// One device of a pipe on a bus, and a guest's end of its channel that takes
// and sends raw datagrams.
//
// Ownership: owns bus and guest, borrows the device.  Thread safety: none.

#ifndef FERRYBUS_VSP_SERVICES_PIPE_HARNESS_H_
#define FERRYBUS_VSP_SERVICES_PIPE_HARNESS_H_

#include <cstddef>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "ferrybus/vsp/bus.h"
#include "ferrybus/vsp/bus_test_util.h"
#include "ferrybus/vsp/services/integration_service.h"
#include "ferrybus/vsp/services/linux_util_guest.h"

namespace ferrybus::vsp {

class PipeHarness {
 public:
  // Offers the device; the guest opens it.
  PipeHarness(Device* device, const OfferParams& params,
              uint32_t ring_data_pages = 3);
  explicit PipeHarness(IntegrationService* service,
                       uint32_t ring_data_pages = 3)
      : PipeHarness(service, service->Params(Guid{{0x5e}}), ring_data_pages) {}

  // Runs both sides until neither has anything to do; what the device sends
  // stands in `payloads`.
  void Pump();
  // As Pump(); `driver` answers all that comes.
  void PumpWith(LinuxUtilGuest& driver);
  // Sends a datagram; false: no room in the ring.
  bool Send(absl::Span<const std::byte> message);
  // Sends a packet's whole payload, pipe header included.
  bool SendRaw(absl::Span<const std::byte> payload);
  // The oldest message in `payloads`, without its pipe header.
  std::vector<std::byte> TakeMessage();
  void Close();
  void Open(uint32_t ring_data_pages = 3);
  // Replaces the bus by one that `next` is attached to.
  absl::Status MoveTo(Device* next);
  // The guest takes nothing out of its ring meanwhile.
  void StopReading(bool stop);

  const EndpointCounters counters() const;
  std::string fault() const;
  TestGuest& guest() { return guest_; }
  Bus& bus() { return *bus_; }
  ServerChannel& channel() { return *bus_->channel(offer_); }

  // Whole payloads, as they stood in the ring.
  std::deque<std::vector<std::byte>> payloads;

 private:
  OfferParams params_;
  TestGuest guest_;
  std::unique_ptr<Bus> bus_;
  OfferId offer_{};
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_SERVICES_PIPE_HARNESS_H_
