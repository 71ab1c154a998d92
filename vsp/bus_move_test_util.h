// SPDX-License-Identifier: MIT
//
// The fixture of tests that move a bus: a guest, two devices of the old owner
// and two of the next.
//
// Ownership: the fixture owns all of them.  Thread safety: none.

#ifndef FERRYBUS_VSP_BUS_MOVE_TEST_UTIL_H_
#define FERRYBUS_VSP_BUS_MOVE_TEST_UTIL_H_

#include <poll.h>

#include <memory>
#include <string>
#include <vector>

#include "ferrybus/vsp/bus.h"
#include "ferrybus/vsp/bus_test_util.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {

class FaultLog final : public BusObserver {
 public:
  void OnChannelFault(const ServerChannel&,
                      const std::string& reason) override {
    faults.push_back(reason);
  }
  std::vector<std::string> faults;
};

inline bool IsReadable(int fd) {
  pollfd poll_fd = {fd, POLLIN, 0};
  return poll(&poll_fd, 1, 0) == 1;
}

// The status of a save or a restore, if it failed.
template <typename T>
absl::StatusCode CodeOf(const absl::StatusOr<T>& value) {
  return value.status().code();
}

class BusMoveTest : public ::testing::Test {
 protected:
  BusMoveTest() {
    bus_ = NewBus();
    first_ = *bus_->Offer(TestParams(1), &device_);
    second_ = *bus_->Offer(TestParams(2), &other_);
  }

  std::unique_ptr<Bus> NewBus() {
    return std::make_unique<Bus>(BusOptions(), guest_.memory.get(),
                                 &guest_.doorbell, &observer_);
  }
  std::string Save() {
    bus_->Suspend();
    bus_->Freeze();
    absl::StatusOr<std::string> saved = bus_->Save();
    EXPECT_TRUE(saved.ok()) << saved.status().ToString();
    return saved.ok() ? *saved : std::string();
  }
  // Onto devices that were never told anything.
  absl::Status Restore(const std::string& saved,
                       const std::vector<DeviceOffer>& devices) {
    bus_.reset();
    absl::StatusOr<std::unique_ptr<Bus>> bus =
        Bus::Restore(AsBytes(saved), options_, guest_.memory.get(),
                     &guest_.doorbell, devices, &observer_);
    if (!bus.ok()) return bus.status();
    bus_ = *std::move(bus);
    for (auto& [id, channel] : guest_.channels) {
      channel.end.doorbell.on_ring = [this, id = id] { bus_->Signal(id); };
    }
    return absl::OkStatus();
  }
  std::vector<DeviceOffer> NextDevices() {
    return {{TestParams(1), &next_device_}, {TestParams(2), &next_other_}};
  }

  BusOptions options_;
  FaultLog observer_;
  TestGuest guest_;
  LoggingDevice device_;
  LoggingDevice other_;
  LoggingDevice next_device_;
  LoggingDevice next_other_;
  std::unique_ptr<Bus> bus_;
  OfferId first_{};
  OfferId second_{};
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_BUS_MOVE_TEST_UTIL_H_
