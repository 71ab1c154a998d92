// SPDX-License-Identifier: MIT
//
// The two adapters that come with the kit, as factories for RunOptions.

#ifndef FERRYBUS_TESTS_CONFORMANCE_ADAPTERS_H_
#define FERRYBUS_TESTS_CONFORMANCE_ADAPTERS_H_

#include <filesystem>
#include <memory>
#include <string>
#include <system_error>

#include "ferrybus/tests/conformance/bus_endpoint.h"
#include "ferrybus/tests/conformance/endpoint.h"
#include "ferrybus/tests/conformance/process_endpoint.h"

namespace ferrybus::conformance {

inline EndpointFactory InProcessAdapter() {
  return [](const MemfdGuestMemory& guest_ram) {
    return std::make_unique<BusEndpoint>(guest_ram);
  };
}

// Empty: conformance_vsp beside the running program.
inline EndpointFactory ProcessAdapter(std::string command) {
  if (command.empty()) {
    std::error_code error;
    const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
    command = "'" + (self.parent_path() / "conformance_vsp").string() + "'";
  }
  return [command](const MemfdGuestMemory& guest_ram) {
    return ProcessEndpoint::Make(command, guest_ram);
  };
}

}  // namespace ferrybus::conformance

#endif  // FERRYBUS_TESTS_CONFORMANCE_ADAPTERS_H_
