// SPDX-License-Identifier: MIT
//
// A guest with requests in flight whose host has saved itself and is gone: the
// next one gets the port over a socket, and takes over.
//
// Ownership: owns everything.
// Thread safety: one thread.

#ifndef FERRYBUS_TESTS_FAULTS_HANDOVER_WORLD_H_
#define FERRYBUS_TESTS_FAULTS_HANDOVER_WORLD_H_

#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ferrybus/channel/guest_memory.h"
#include "ferrybus/channel/transport/port.h"
#include "ferrybus/tests/testing/counted_traffic.h"
#include "ferrybus/vsc/bus.h"
#include "ferrybus/vsc/guest_port.h"
#include "ferrybus/vsp/bus.h"
#include "ferrybus/vsp/host_port.h"

namespace ferrybus::testing {

class HandoverWorld final : public vsp::BusObserver {
 public:
  // The guest and its port.
  static absl::StatusOr<std::unique_ptr<HandoverWorld>> Create();
  // A first host that offers a device, which the guest opens.
  absl::Status Connect();
  // It saves itself with requests of both sides in flight, and ends.
  void AskAndSave();
  // The next one.  A failure: it is gone again.
  absl::Status TakeOver();
  // All is answered, once.
  void Finish();
  // Ends the host as a kill would.
  void DropHost();

 private:
  void OnOpenRefused(const vsp::ServerChannel& channel,
                     const absl::Status& why) override;
  explicit HandoverWorld(std::unique_ptr<MemfdGuestMemory> memory)
      : memory_(std::move(memory)) {}
  void Pump();
  std::unique_ptr<PiledDevice> NewDevice();

  CountedTraffic traffic_;
  EchoDriver driver_{&traffic_};
  std::unique_ptr<MemfdGuestMemory> memory_;
  std::unique_ptr<vsc::GuestPages> pages_;
  Port host_ends_;
  std::unique_ptr<vsc::GuestPort> guest_port_;
  std::unique_ptr<vsc::Bus> guest_;
  std::unique_ptr<PiledDevice> device_;
  std::unique_ptr<vsp::HostPort> host_port_;
  std::unique_ptr<vsp::Bus> host_;
  std::string saved_;
  absl::Status refused_;
};

// What the tests of limits try.  Both ends of a port, with a channel and
// traffic:
absl::Status OpenBothEnds();

// Hosts that take over, each from another one that saved itself.
class Takeovers {
 public:
  Takeovers() { Renew(); }
  absl::Status TakeOver();
  // After one, without a limit: what failed works now.  Then a new world.
  void Look(const absl::Status& status);

 private:
  void Renew();

  std::unique_ptr<HandoverWorld> world_;
};

}  // namespace ferrybus::testing

#endif  // FERRYBUS_TESTS_FAULTS_HANDOVER_WORLD_H_
