// SPDX-License-Identifier: MIT
//
// A relay between two processes of one host that looks at what goes through it
// frame by frame, descriptors included, and fails where a test says.
//
// Thread safety: all methods, from any thread.

#ifndef FERRYBUS_TESTS_MIGRATION_UNIX_RELAY_H_
#define FERRYBUS_TESTS_MIGRATION_UNIX_RELAY_H_

#include <functional>
#include <list>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "ferrybus/savestate/migration/unix/unix_socket.h"
#include "ferrybus/savestate/unique_fd.h"

namespace ferrybus::migration {

enum class FrameFault {
  kNone,
  kCut,      // in place of the frame
  kTear,     // in the middle of it
  kStall,    // nothing goes any more, either way
  kCorrupt,  // a bit of the frame
  kSwap,     // comes after the one behind it, or never
  kTwice,
  kCall,  // `act`, and then it goes on
};

struct FramePlan {
  FrameFault fault = FrameFault::kNone;
  bool to_target = true;
  int frame = 0;  // in this direction
  std::function<void()> act = {};
};

class UnixRelay {
 public:
  UnixRelay(const std::string& path, const std::string& target_path,
            const FramePlan& plan);
  ~UnixRelay();

  std::string address() const;
  // Of all connections.
  int frames(bool to_target) const;
  bool is_fault_done() const;

 private:
  struct Connection {
    std::unique_ptr<UnixSocket> sockets[2];  // the source's, the target's
    savestate::UniqueFd raw[2];              // the same
    std::thread pumps[2];
  };

  void Accept();
  void Pump(Connection& connection, bool to_target);
  // False: this direction is over.
  bool Forward(Connection& connection, bool to_target, Frame frame);
  bool Fail(Connection& connection, bool to_target, Frame frame);

  const std::string path_;
  const std::string target_path_;
  const FramePlan plan_;
  savestate::UniqueFd listener_;
  mutable absl::Mutex mutex_;
  std::list<Connection> connections_ ABSL_GUARDED_BY(mutex_);
  int frames_[2] ABSL_GUARDED_BY(mutex_) = {0, 0};
  bool is_stalled_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_ending_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_fault_done_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread acceptor_;
};

}  // namespace ferrybus::migration

#endif  // FERRYBUS_TESTS_MIGRATION_UNIX_RELAY_H_
