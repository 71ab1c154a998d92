// SPDX-License-Identifier: MIT
//
// Saved states as a real vsp::Bus writes them, for the tests of the tool: a
// disk and an unknown device with packets in flight, a socket, a service, a
// half-made GPADL and a message that waits.
//
// Thread safety: functions without state.

#ifndef FERRYBUS_TOOLS_STATE_STATE_TEST_UTIL_H_
#define FERRYBUS_TOOLS_STATE_STATE_TEST_UTIL_H_

#include <cstdint>
#include <functional>
#include <string>

#include "ferrybus/savestate/channel.pb.h"
#include "ferrybus/savestate/connection.pb.h"

namespace ferrybus::state_tool {

// `requests` to the disk are in flight.
std::string SavedBus(uint64_t requests = 3);

// What SavedBus(3) gives, the socket's state a little different.
std::string OtherSavedBus();

// The same file with a section's message changed and all checksums right.
std::string WithConnection(
    const std::string& file,
    const std::function<void(savestate::v1::ConnectionState&)>& change);
std::string WithChannel(
    const std::string& file, uint64_t channel,
    const std::function<void(savestate::v1::ChannelState&)>& change);

// The same sections, and one more.
std::string WithSection(const std::string& file, const std::string& name,
                        uint32_t version, bool is_required);
// Without one of its sections.
std::string WithoutSection(const std::string& file, const std::string& name,
                           uint64_t instance);

}  // namespace ferrybus::state_tool

#endif  // FERRYBUS_TOOLS_STATE_STATE_TEST_UTIL_H_
