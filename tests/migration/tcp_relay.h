// SPDX-License-Identifier: MIT
//
// A relay between two hosts that cuts, stalls, slows down, delays or corrupts
// what goes through it: a link that fails where a test says.
//
// Thread safety: all methods, from any thread.

#ifndef FERRYBUS_TESTS_MIGRATION_TCP_RELAY_H_
#define FERRYBUS_TESTS_MIGRATION_TCP_RELAY_H_

#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace ferrybus::migration {

enum class RelayFault {
  kNone,
  kCut,      // of all connections, for good
  kCutOne,   // of the one whose byte it is
  kStall,    // in this direction, for good
  kTrickle,  // one byte a second from then on
  kCorrupt,  // that byte
  kDelay,    // every piece from then on
};

struct RelayPlan {
  RelayFault fault = RelayFault::kNone;
  bool to_target = true;
  // Of all bytes in that direction, or of `connection`'s only.
  uint64_t after_bytes = 0;
  int connection = -1;  // in the order in which they came
  absl::Duration delay = absl::Milliseconds(20);
};

class TcpRelay {
 public:
  TcpRelay(int target_port, const RelayPlan& plan);
  ~TcpRelay();

  int port() const { return port_; }
  std::string address() const;
  uint64_t bytes_to_target() const { return Bytes(0); }
  uint64_t bytes_to_source() const { return Bytes(1); }
  int connections() const;
  bool is_fault_done() const;
  // As RelayFault::kCut, now.
  void Cut();

 private:
  struct Connection {
    int sockets[2];  // the source's, the target's
    uint64_t bytes[2] = {0, 0};
  };

  void Accept();
  void Pump(int connection, int direction);
  // False: this connection is over.
  bool Forward(int connection, int direction, std::string bytes);
  bool Meets(int connection, int direction, uint64_t* before);
  uint64_t Bytes(int direction) const;
  void CutAll() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AwaitCut();

  const int target_port_;
  const RelayPlan plan_;
  int listener_ = -1;
  int port_ = 0;
  mutable absl::Mutex mutex_;
  std::vector<Connection> connections_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> pumps_ ABSL_GUARDED_BY(mutex_);
  uint64_t bytes_[2] ABSL_GUARDED_BY(mutex_) = {0, 0};
  bool is_cut_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_fault_done_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread acceptor_;
};

}  // namespace ferrybus::migration

#endif  // FERRYBUS_TESTS_MIGRATION_TCP_RELAY_H_
