// SPDX-License-Identifier: MIT
//
// Where the machines of other processes of this host come to, with their
// memory by descriptor, and where those processes ask what became of machines
// that left: a socket, and a thread for each connection.
//
// Ownership: borrows registry and book, which outlive it.  The socket's path is
// made, with access for this user only, and removed at the end.
// Thread safety: all methods, from any thread; Stop() before it ends.
// Trust: processes of the same user, or root's, which the system says; what
// they send is checked, what they can make grow is bounded.
//
//   UnixServer server({.address = "unix:/run/ferrybus/a.sock"}, &registry,
//                     &book);
//   absl::Status status = server.Start();

#ifndef FERRYBUS_SAVESTATE_MIGRATION_UNIX_UNIX_SERVER_H_
#define FERRYBUS_SAVESTATE_MIGRATION_UNIX_UNIX_SERVER_H_

#include <list>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "ferrybus/savestate/migration/host/arrivals.h"
#include "ferrybus/savestate/migration/host/migration_book.h"
#include "ferrybus/savestate/migration/unix/unix_socket.h"
#include "ferrybus/savestate/unique_fd.h"

namespace ferrybus::migration {

struct UnixServerOptions {
  std::string address = {};
  absl::Duration silence_max = absl::Seconds(30);
  // At a time.
  int arrivals_max = 16;
  size_t connections_max = 64;
  MessageLimits limits = {};
  SharedMemoryRule shared_memory = SharedMemoryRule::kSealed;
};

class UnixServer {
 public:
  UnixServer(const UnixServerOptions& options, MachineRegistry* registry,
             MigrationBook* book);
  ~UnixServer();
  UnixServer(const UnixServer&) = delete;
  UnixServer& operator=(const UnixServer&) = delete;

  // Listens.  AlreadyExists: another process does so there.  Without it the
  // methods below work all the same.
  absl::Status Start();

  // As Arrivals.
  absl::Status Recover(const std::string& machine) {
    return arrivals_.Recover(machine);
  }
  absl::Status Settle(const std::string& machine, Decision decision) {
    return arrivals_.Settle(machine, decision);
  }

  // Ends what is under way; what is undecided stays so, on the disk.
  void Stop();

 private:
  struct Connection {
    std::unique_ptr<UnixSocket> socket;  // until it is over
    std::thread thread;
    bool is_over = false;
  };

  void AcceptAll();
  void Accept(savestate::UniqueFd fd);
  void Serve(UnixSocket& socket);
  void TakeMachine(UnixSocket& socket, const std::string& greeting);
  bool Read(UnixSocket& socket, const std::string& ticket,
            LinkMessage* message);

  const UnixServerOptions options_;
  Arrivals arrivals_;
  std::string path_;  // once it is made
  savestate::UniqueFd listener_;
  savestate::UniqueFd stop_;  // readable: Stop()
  std::thread acceptor_;

  absl::Mutex mutex_;
  bool is_stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::list<Connection> connections_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace ferrybus::migration

#endif  // FERRYBUS_SAVESTATE_MIGRATION_UNIX_UNIX_SERVER_H_
