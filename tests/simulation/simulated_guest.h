// SPDX-License-Identifier: MIT
//
// The guest: a bus, a driver for each channel, and what it does on its own.
//
// Ownership: borrows the machine.  Thread safety: none.

#ifndef FERRYBUS_TESTS_SIMULATION_SIMULATED_GUEST_H_
#define FERRYBUS_TESTS_SIMULATION_SIMULATED_GUEST_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "ferrybus/tests/simulation/accelerator_user.h"
#include "ferrybus/tests/simulation/guest_drivers.h"
#include "ferrybus/tests/simulation/machine.h"
#include "ferrybus/vsc/bus.h"

namespace ferrybus::simulation {

class SimulatedGuest {
 public:
  explicit SimulatedGuest(Machine* machine);
  ~SimulatedGuest() { Halt(); }

  // Starts from nothing, on memory that its host has cleared and activated.
  void Boot();
  // Its memory is gone, or is about to be cleared.
  void Halt();
  bool is_on() const { return bus_ != nullptr; }
  vsc::Bus& bus() { return *bus_; }

  // Takes its signals, but those of deaf_channel.
  void Poll();
  void Ask(uint64_t count);
  void Answer(uint64_t count);

  void CloseChannel(size_t index);
  // Whether the driver has what it wants.
  bool IsOpen(size_t index) const;
  // Drivers that have no channel ask for one again.
  void ReopenChannels();
  void Unload();

  // Takes a message that the host has for it.
  void TakeMessage(absl::Span<const std::byte> message);

  // Reads all of the disk and of the accelerator.
  void BeginVerify() { verified_sector_ = verified_step_ = 0; }
  // True: all was begun.
  bool ContinueVerify();

  // Empty: nothing is owed to it, and it has what it wants.
  std::string Wants() const;

  uint32_t deaf_channel = 0;  // 0: none

 private:
  vsc::Driver* driver(size_t index) const;
  void AddDriver(size_t index);

  Machine* const machine_;
  Context* const context_;
  std::set<uint32_t> rung_;
  SetDoorbell doorbell_{&rung_};
  std::unique_ptr<vsc::GuestPages> pages_;
  std::array<std::unique_ptr<NumberedDriver>, kChannelCount> numbered_;
  std::unique_ptr<DiskUser> disk_;
  std::unique_ptr<AcceleratorUser> accelerator_;
  std::unique_ptr<vsc::Bus> bus_;
  std::array<bool, kChannelCount> is_added_ = {};
  bool is_unloading_ = false;
  uint64_t verified_sector_ = 0;
  uint64_t verified_step_ = 0;
};

}  // namespace ferrybus::simulation

#endif  // FERRYBUS_TESTS_SIMULATION_SIMULATED_GUEST_H_
