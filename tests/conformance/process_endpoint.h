// SPDX-License-Identifier: MIT
//
// The adapter to a program in any language, over the documented socket
// transport (channel/transport/port.h, README.md).
//
// What it is: the program is started with the host's ends of a port as
// descriptors 3 to 7 (guest RAM, signal page, host event, guest event, message
// socket) and is told what to do by lines on its standard input, each answered
// by one line on its standard output.  It is killed and started again for a
// restore; the port stays.
//
// Ownership: owns the program; it is killed when the adapter ends, or its
// process does.  Borrows guest RAM.
// Thread safety: one thread; forks.
// Trust: the program may answer anything, nothing, or end.

#ifndef FERRYBUS_TESTS_CONFORMANCE_PROCESS_ENDPOINT_H_
#define FERRYBUS_TESTS_CONFORMANCE_PROCESS_ENDPOINT_H_

#include <sys/types.h>

#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ferrybus/channel/transport/message_socket.h"
#include "ferrybus/channel/transport/port.h"
#include "ferrybus/channel/transport/signal_page.h"
#include "ferrybus/channel/transport/unique_fd.h"
#include "ferrybus/tests/conformance/endpoint.h"

namespace ferrybus::conformance {

class ProcessEndpoint final : public Endpoint {
 public:
  // `command` is run by the shell.
  static std::unique_ptr<Endpoint> Make(const std::string& command,
                                        const MemfdGuestMemory& guest_ram);
  ~ProcessEndpoint() override;

  absl::Status Start() override;
  void Post(uint32_t connection_id,
            absl::Span<const std::byte> payload) override;
  void Signal(uint32_t channel_id) override { sender_.Ring(channel_id); }
  absl::Status Run() override;
  std::vector<Bytes> TakeMessages() override;
  std::vector<uint32_t> TakeSignals() override;

  absl::StatusOr<std::string> Save() override;
  absl::Status Resume() override { return Tell("resume"); }
  void Kill() override;
  absl::Status Restore(const std::string& saved) override;
  absl::Status Rescind(uint32_t device) override;
  absl::Status Offer(uint32_t device) override;
  absl::Status Pause(uint32_t device) override;
  absl::Status Unpause(uint32_t device) override;

 private:
  ProcessEndpoint(std::string command, PortPair ports, SignalPage signals);

  absl::Status Spawn();
  // One line there, one line back: what follows "ok ".
  absl::StatusOr<std::string> Ask(const std::string& line);
  absl::Status Tell(const std::string& line) { return Ask(line).status(); }
  absl::StatusOr<std::string> ReadLine();
  absl::Status Ended(const std::string& when);

  const std::string command_;
  PortPair ports_;
  SignalPage signals_;
  SignalSender sender_;
  SignalReceiver receiver_;
  MessageSocket messages_;
  std::deque<std::pair<uint32_t, Bytes>> posted_;
  pid_t pid_ = -1;
  UniqueFd to_program_;
  UniqueFd from_program_;
  std::string unread_;
};

}  // namespace ferrybus::conformance

#endif  // FERRYBUS_TESTS_CONFORMANCE_PROCESS_ENDPOINT_H_
