// SPDX-License-Identifier: MIT
//
// What a process at the other end of a socket writes: frames that are within
// their bounds, until it is refused; and what is in them, written and read
// again as the same.

#include <fcntl.h>
#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "ferrybus/savestate/migration/unix/socket_frame.h"
#include "ferrybus/savestate/migration/unix/unix_socket.h"
#include "ferrybus/savestate/unique_fd.h"

namespace {

using namespace ferrybus::migration;  // NOLINT: this is its test
using ferrybus::savestate::UniqueFd;

void Need(bool holds) {
  if (!holds) std::abort();
}

void LookInto(absl::string_view bytes) {
  if (absl::StatusOr<std::string> address = ParseGreeting(bytes);
      address.ok()) {
    Need(ParseUnixAddress(*address).ok());
    Need(SerializeGreeting(*address) == bytes);
  }
  if (absl::StatusOr<DecisionQuestion> question = ParseQuestion(bytes);
      question.ok()) {
    Need(SerializeQuestion(*question) == bytes);
  }
  const absl::StatusOr<Decision> answer = ParseAnswer(bytes);
  if (answer.ok()) Need(SerializeAnswer(answer) == bytes);
  // Whatever it was: what is told on is understood.
  const absl::StatusOr<Decision> again = ParseAnswer(SerializeAnswer(answer));
  Need(again.ok() == answer.ok());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes) {
  // What a socket takes without somebody who reads.
  if (size_bytes > size_t{1} << 15) return 0;
  LookInto({reinterpret_cast<const char*>(data), size_bytes});
  int pair[2] = {};
  Need(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
  const UniqueFd peer(pair[0]);
  auto socket = UnixSocket::Adopt(UniqueFd(pair[1]));
  Need(socket.ok());
  Need(send(peer.get(), data, size_bytes, MSG_NOSIGNAL | MSG_DONTWAIT) ==
       static_cast<ssize_t>(size_bytes));
  shutdown(peer.get(), SHUT_WR);
  const MessageLimits limits = {.blob_bytes_max = 4096};
  while (true) {
    const absl::StatusOr<Frame> frame =
        (*socket)->Receive(limits, absl::InfiniteFuture());
    if (!frame.ok()) return 0;
    Need(frame->bytes.size() <= FrameBytesMax(frame->kind, limits));
    Need(frame->descriptors.empty());
    LookInto(frame->bytes);
  }
}
