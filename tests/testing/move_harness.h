// SPDX-License-Identifier: MIT
//
// A guest and a host in one process, joined by a real port: guest RAM in a
// memfd, eventfds, a message socket.  The host can be replaced at any moment.
//
// Ownership: owns everything but the devices and drivers.
// Thread safety: one thread.

#ifndef FERRYBUS_TESTS_TESTING_MOVE_HARNESS_H_
#define FERRYBUS_TESTS_TESTING_MOVE_HARNESS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "ferrybus/channel/guest_memory.h"
#include "ferrybus/channel/transport/port.h"
#include "ferrybus/vsc/bus.h"
#include "ferrybus/vsc/guest_port.h"
#include "ferrybus/vsp/bus.h"
#include "ferrybus/vsp/host_port.h"

namespace ferrybus::testing {

// The interface type that the harness's tests offer.
inline constexpr Guid kTestInterface = {
    {0x66, 0x65, 0x72, 0x72, 0x79, 0x62, 0x75, 0x73, 1, 2, 3, 4, 5, 6, 7, 8}};

class MoveHarness final : public vsp::BusObserver {
 public:
  struct Options {
    vsp::BusOptions host;
    vsc::BusOptions guest;
    uint64_t ram_bytes = 16 << 20;
    // How often Save() polls a host that is not quiescent yet.
    int save_rounds = 1000;
  };
  explicit MoveHarness(const Options& options);

  // A host that has not served before, offering `device`.
  void StartHost(vsp::Device* device);
  // The host's state, frozen.  Suspends and polls until it is quiescent.
  absl::StatusOr<std::string> Save();
  // A guest that boots anew on the memory as it is; the host, if there is one,
  // is dropped: it had the old guest's port.
  void RestartGuest();
  // Ends the host as a kill would: nothing is called on the bus.
  void DropHost() {
    host_.reset();
    host_port_.reset();
  }
  // A new host on the same port, from saved bytes.
  absl::Status RestoreHost(const std::string& saved, vsp::Device* device,
                           bool start = true);

  // Runs both sides until neither has anything to do, or `rounds` are over.
  // True: idle.
  bool Pump(int rounds = 1000);
  void PumpGuest() { guest_port_->Pump(*guest_); }
  void PumpHost() { host_port_->Pump(*host_); }

  vsp::Bus& host() { return *host_; }
  vsc::Bus& guest() { return *guest_; }
  vsc::GuestPages& pages() { return *pages_; }
  const MemfdGuestMemory& memory() { return *memory_; }
  OfferId offer() const { return offer_; }
  static OfferParams Params();
  const std::vector<std::string>& faults() const { return faults_; }

 private:
  void OnChannelFault(const vsp::ServerChannel& channel,
                      const std::string& reason) override;
  void OpenGuest();
  void OpenHostPort();
  bool AnythingToRead() const;

  Options options_;
  std::unique_ptr<MemfdGuestMemory> memory_;
  std::unique_ptr<vsc::GuestPages> pages_;
  Port host_ends_;
  std::unique_ptr<vsc::GuestPort> guest_port_;
  std::unique_ptr<vsc::Bus> guest_;
  std::unique_ptr<vsp::HostPort> host_port_;
  std::unique_ptr<vsp::Bus> host_;
  OfferId offer_{};
  std::vector<std::string> faults_;
};

}  // namespace ferrybus::testing

#endif  // FERRYBUS_TESTS_TESTING_MOVE_HARNESS_H_
