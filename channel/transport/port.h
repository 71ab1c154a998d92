// SPDX-License-Identifier: MIT
//
// The five descriptors through which one guest and one host process meet.
//
// What it is: guest RAM, a page of signal bits, an eventfd to wake each side,
// and the socket for channel messages.  The guest's side makes a port and
// keeps its own ends; the host's ends are sent over a Unix socket or
// inherited, and may be handed on to the next host process: nothing in a port
// belongs to the process that serves it, so a message or a signal under way
// when a host process ends is still there for the next one.
//
//   client process                                     serving process
//     guest_ram  memfd, sealed ────────────────────────── mapped
//     signals    memfd, one page: bit per channel id ──── mapped
//     host_event eventfd: written by the guest ────────── waited on
//     guest_event eventfd: waited on by the guest ─────── written
//     messages   SOCK_SEQPACKET pair ───────────────────── other end
//
// Ownership: a Port owns its descriptors.
// Thread safety: none; each end is used by one thread.
// Trust: the peer of a receiving process may send anything: count, kind and
// size of what arrives are checked, surplus descriptors are closed.
//
// Source: the transport of docs/DESIGN.md, "Between processes".

#ifndef FERRYBUS_CHANNEL_TRANSPORT_PORT_H_
#define FERRYBUS_CHANNEL_TRANSPORT_PORT_H_

#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "ferrybus/channel/transport/unique_fd.h"

namespace ferrybus {

struct Port {
  UniqueFd guest_ram;
  UniqueFd signals;
  UniqueFd host_event;
  UniqueFd guest_event;
  UniqueFd messages;
};

// A new port around `guest_ram` (a sealed memfd; duplicated): the guest's own
// ends, and the host's.
struct PortPair {
  Port guest;
  Port host;
};
absl::StatusOr<PortPair> CreatePort(int guest_ram);

// A second set of descriptors for the same port: what a process keeps when it
// hands the first one on.
absl::StatusOr<Port> DuplicatePort(const Port& port);

// Sends a port's descriptors over a connected Unix socket, and receives them.
// Receiving blocks; InvalidArgument when what came is not one port.
absl::Status SendPort(int socket, const Port& port);
absl::StatusOr<Port> ReceivePort(int socket);

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_TRANSPORT_PORT_H_
