// SPDX-License-Identifier: MIT
//
// A stream of messages with a thread for each direction, so that the one who
// runs a state machine never blocks in it: a peer that reads nothing, or says
// nothing, is the state machine's to notice.
//
// Ownership: of its threads, and of the descriptors in messages; the functions'
// stream outlives it.
// Thread safety: Poke() from any thread, the others from one.
// Trust: what comes in is bytes of a peer; a few messages wait here at most,
// then the stream is not read on.
//
//   ControlLink link({.open = ..., .read = ..., .write = ..., .cancel = ...});
//   while (...) { auto it = link.Receive(timeout); ... link.Send({reply}); }
//   link.Close(absl::Seconds(1));

#ifndef FERRYBUS_SAVESTATE_MIGRATION_HOST_CONTROL_LINK_H_
#define FERRYBUS_SAVESTATE_MIGRATION_HOST_CONTROL_LINK_H_

#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "ferrybus/savestate/unique_fd.h"

namespace ferrybus::migration {

struct LinkMessage {
  std::string bytes;
  // Between processes of one host only.
  std::vector<savestate::UniqueFd> descriptors = {};
};

class ControlLink {
 public:
  struct Stream {
    // First, in the reader's thread; may block.
    std::function<void()> open;
    // Blocks.  False: the stream has ended.
    std::function<bool(LinkMessage*)> read;
    std::function<bool(const LinkMessage&)> write;
    // Nothing more is written.
    std::function<void()> writes_done;
    // Ends both, from any thread.
    std::function<void()> cancel;
  };

  explicit ControlLink(Stream stream);
  ~ControlLink();  // after Close()
  ControlLink(const ControlLink&) = delete;
  ControlLink& operator=(const ControlLink&) = delete;

  void Send(LinkMessage message);
  // The next message, at once if there is one; else waits until there is one,
  // the stream ends, somebody pokes, or the time is over.
  std::optional<LinkMessage> Receive(absl::Duration timeout);
  // Nothing comes any more, and all that came was received.
  bool is_ended() const;
  void Poke();

  // Waits until all is written and the other side has ended it as well, but no
  // longer than `patience`; then cancels.
  void Close(absl::Duration patience);

 private:
  void ReadAll();
  void WriteAll();

  const Stream stream_;
  mutable absl::Mutex mutex_;
  std::deque<LinkMessage> received_ ABSL_GUARDED_BY(mutex_);
  std::deque<LinkMessage> to_send_ ABSL_GUARDED_BY(mutex_);
  bool is_poked_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_open_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_read_ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_write_ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_closing_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread reader_;
  std::thread writer_;
};

}  // namespace ferrybus::migration

#endif  // FERRYBUS_SAVESTATE_MIGRATION_HOST_CONTROL_LINK_H_
