// SPDX-License-Identifier: MIT
//
// Where a guest's process meets its machine, wherever that is.
//
// A machine that runs takes one guest at a socket: the guest gets its ends of
// a port, RAM among them (channel/transport/port.h).  After that one byte at a
// time: 'P' asks it to stand still, which it answers with 'p'; 'R' lets it go
// on.  When the socket closes the machine is gone from this host, and the guest
// looks for it elsewhere: what a processor is to a virtual machine, the guest's
// process is here.
//
// Ownership: owns its sockets.  Thread safety: none.
// Trust: whoever may open the socket's path; its bytes are looked at one by
// one.

#ifndef FERRYBUS_TOOLS_MIGRATE_GUEST_LINK_H_
#define FERRYBUS_TOOLS_MIGRATE_GUEST_LINK_H_

#include <array>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ferrybus/channel/transport/port.h"
#include "ferrybus/channel/transport/unique_fd.h"

namespace ferrybus::migrate_tool {

// What a machine says to its guest, and the guest's answer.
inline constexpr char kGuestPause = 'P';
inline constexpr char kGuestPaused = 'p';
inline constexpr char kGuestResume = 'R';

class GuestLink {
 public:
  // Listens at `path`, which is replaced if it is there.
  static absl::StatusOr<std::unique_ptr<GuestLink>> Listen(std::string path);
  ~GuestLink();

  // A guest that waits, if there is none yet: the host's ends of its port.
  // NotFound: nobody waits.
  absl::StatusOr<Port> Accept(int guest_ram);
  bool has_guest() const { return guest_.valid(); }

  // True: it stands still, or there is no guest.
  bool Pause();
  void Resume();
  // Sends it away.
  void Drop() { guest_ = UniqueFd(); }

  // Readable when there is something to do.
  std::array<int, 2> wait_fds() const {
    return {guest_.valid() ? -1 : listener_.get(), guest_.get()};
  }
  // Takes what the guest said; drops one that is gone.
  void Poll();

 private:
  GuestLink(std::string path, UniqueFd listener)
      : path_(std::move(path)), listener_(std::move(listener)) {}
  void Say(char command);

  const std::string path_;
  UniqueFd listener_;
  UniqueFd guest_;
  bool is_asked_ = false;
  bool is_paused_ = false;
};

}  // namespace ferrybus::migrate_tool

#endif  // FERRYBUS_TOOLS_MIGRATE_GUEST_LINK_H_
