// SPDX-License-Identifier: MIT
//
// What ferrybus-migrated is, without its arguments and signals: machines, a
// server that takes and answers, and the migrations that operators start.
//
// Ownership: borrows the kinds.
// Thread safety: all methods from one thread.

#ifndef FERRYBUS_TOOLS_MIGRATE_MIGRATE_DAEMON_H_
#define FERRYBUS_TOOLS_MIGRATE_MIGRATE_DAEMON_H_

#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "ferrybus/tools/migrate/machine.h"

namespace ferrybus::migrate_tool {

struct NewMachine {
  std::string name;
  std::string kind;
  std::map<std::string, std::string> parameters;
};

struct DaemonOptions {
  std::string listen;     // HOST:PORT; port 0: any
  std::string advertise;  // how other hosts reach it; empty: as `listen`
  // unix:/PATH, for machines of other daemons of this host; empty: none.
  std::string listen_unix;
  std::string state_folder;
  std::shared_ptr<grpc::ChannelCredentials> channel_credentials;
  std::shared_ptr<grpc::ServerCredentials> server_credentials;
  std::vector<MachineKind*> kinds;
  std::vector<NewMachine> machines;
  absl::Duration silence_max = absl::Seconds(30);
};

class MigrateDaemon {
 public:
  explicit MigrateDaemon(const DaemonOptions& options);
  ~MigrateDaemon();
  MigrateDaemon(const MigrateDaemon&) = delete;
  MigrateDaemon& operator=(const MigrateDaemon&) = delete;

  // Listens, and runs the machines, until Stop().
  absl::Status Start();
  // Where it listens.
  std::string address() const;
  // Cancels what can be cancelled, and stands still.
  void Stop();

 private:
  class Service;
  const std::unique_ptr<Service> service_;
};

}  // namespace ferrybus::migrate_tool

#endif  // FERRYBUS_TOOLS_MIGRATE_MIGRATE_DAEMON_H_
