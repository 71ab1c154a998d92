// SPDX-License-Identifier: MIT
//
// A stream between two processes of one host that carries frames
// (socket_frame.h), and descriptors with them.
//
// Ownership: owns its descriptor, and those that have come and were not taken.
// Thread safety: Send() and Shutdown() from any thread; Receive() from one.
// Trust: the peer is a process of the same user or of root, which the system
// says; its bytes are checked all the same.  A descriptor that came is in a
// frame, or closed.
// Blocking: Send() and Receive() until the peer goes on, or Shutdown().
//
//   absl::StatusOr<std::unique_ptr<UnixSocket>> socket =
//       UnixSocket::Connect("/run/ferrybus/a.sock", absl::Seconds(1));
//   (*socket)->Send({.kind = FrameKind::kMessage, .bytes = hello});

#ifndef FERRYBUS_SAVESTATE_MIGRATION_UNIX_UNIX_SOCKET_H_
#define FERRYBUS_SAVESTATE_MIGRATION_UNIX_UNIX_SOCKET_H_

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ferrybus/savestate/migration/migration_messages.h"
#include "ferrybus/savestate/migration/unix/socket_frame.h"
#include "ferrybus/savestate/unique_fd.h"

namespace ferrybus::migration {

struct Frame {
  FrameKind kind = FrameKind::kMessage;
  std::string bytes = {};
  std::vector<savestate::UniqueFd> descriptors = {};
};

class UnixSocket {
 public:
  // PermissionDenied: the process at the other end is another user's.
  // Unavailable: nobody listens there.  DeadlineExceeded: too many wait there.
  static absl::StatusOr<std::unique_ptr<UnixSocket>> Connect(
      const std::string& path, absl::Duration timeout);
  // One that was accepted.
  static absl::StatusOr<std::unique_ptr<UnixSocket>> Adopt(
      savestate::UniqueFd fd);
  UnixSocket(const UnixSocket&) = delete;
  UnixSocket& operator=(const UnixSocket&) = delete;

  // The descriptors stay the caller's.
  absl::Status Send(FrameKind kind, absl::string_view bytes,
                    absl::Span<const savestate::UniqueFd> descriptors = {});
  // The next frame.  OutOfRange: the peer has ended the stream between two of
  // them.
  absl::StatusOr<Frame> Receive(const MessageLimits& limits,
                                absl::Time deadline);
  // Nothing more is sent.
  void EndSending();
  // Ends both directions; whoever waits in them returns.
  void Shutdown();

 private:
  explicit UnixSocket(savestate::UniqueFd fd) : fd_(std::move(fd)) {}

  absl::Status CheckPeer() const;
  absl::Status SendAll(absl::string_view bytes,
                       absl::Span<const savestate::UniqueFd> descriptors)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(send_mutex_);
  absl::Status ReceiveAll(absl::Span<char> out, size_t descriptors_max,
                          absl::Time deadline,
                          std::vector<savestate::UniqueFd>* descriptors);
  absl::Status AwaitReadable(absl::Time deadline) const;

  const savestate::UniqueFd fd_;
  absl::Mutex send_mutex_;
};

}  // namespace ferrybus::migration

#endif  // FERRYBUS_SAVESTATE_MIGRATION_UNIX_UNIX_SOCKET_H_
