// SPDX-License-Identifier: MIT
//
// What a bus says of itself: its connection, and each of its offers, channels,
// rings, GPADLs and packets in flight.
//
// What it is: one JSON text, for logs, tests, tools and people.  Keys come in a
// fixed order, and are only added from version to version.
//
// Thread safety: the bus's thread.
// Trust: what a guest chose (transaction ids, user data, a fault's reason that
// quotes it) comes as numbers or escaped: the text is ASCII without control
// characters.  It holds no payload bytes.
// Cost: for people: copies the list of GPADLs.  Its length is bounded by
// ReportBounds, not by the guest.
//
//   LOG(INFO) << vsp::BusReport(bus);

#ifndef FERRYBUS_VSP_BUS_REPORT_H_
#define FERRYBUS_VSP_BUS_REPORT_H_

#include <cstddef>
#include <string>

#include "ferrybus/vsp/bus.h"

namespace ferrybus::vsp {

// Of each list so many are shown, with the number of the rest.
struct ReportBounds {
  size_t offers = 256;
  size_t gpadls = 64;
  size_t requests = 16;  // of hv_sock
  size_t packets = 16;   // of a channel, of each kind
  // Blanks in front of a nested line; negative: all on one line.
  int indent = -1;
};

std::string BusReport(const Bus& bus,
                      const ReportBounds& bounds = ReportBounds());

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_BUS_REPORT_H_
