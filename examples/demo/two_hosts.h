// SPDX-License-Identifier: MIT
//
// Two hosts on this machine: network namespaces with a link of a given rate
// between them, each with a certificate and a ferrybus-migrated.
//
// Where there can be no namespaces (without root, in some containers) both
// hosts are this one, and the link is loopback, which the report says.  Or both
// are this one because that is asked for: then machines are handed over at
// sockets, and their memory is not copied.
//
// Ownership: owns namespaces, daemons and the folders beneath `folder`; the
// namespaces are deleted at the end, also those of runs that were killed.
// Thread safety: one thread.

#ifndef FERRYBUS_EXAMPLES_DEMO_TWO_HOSTS_H_
#define FERRYBUS_EXAMPLES_DEMO_TWO_HOSTS_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ferrybus/examples/demo/control.h"

namespace ferrybus::demo {

struct TwoHostsOptions {
  std::string folder;
  // Programs of tools/migrate.
  std::string daemon_program;
  std::string command_program;
  uint64_t link_mbit = 1000;
  bool one_host = false;
};

class TwoHosts {
 public:
  // Namespaces, link and certificates.
  static absl::StatusOr<std::unique_ptr<TwoHosts>> Make(
      const TwoHostsOptions& options);
  ~TwoHosts();

  bool has_namespaces() const { return has_namespaces_; }
  // Why there are none.
  const std::string& without_namespaces() const { return without_namespaces_; }

  // ferrybus-migrated on a host; with `machine` (as its --machine) or without.
  absl::Status StartDaemon(int host, const std::string& machine);
  // SIGTERM, and the exit code.
  int StopDaemon(int host);
  // The socket at which a guest finds the machine there.
  std::string GuestSocket(int host, const std::string& machine) const;
  // What `ferrybus migrate start --json` says of a move that has ended.
  absl::StatusOr<Json> Migrate(const std::string& machine, int from, int to,
                               const std::string& arguments);
  // What `ferrybus migrate list --json` says.
  absl::StatusOr<Json> List(int host);
  // Bytes a second of one TCP stream over the link, by iperf3.
  absl::StatusOr<double> MeasureLink(int from = 0);

 private:
  explicit TwoHosts(const TwoHostsOptions& options) : options_(options) {}

  absl::Status MakeLink();
  void DeleteNamespaces();
  absl::Status MakeCertificates();
  std::string Namespace(int host) const;
  // Before a command that runs on that host.
  std::string On(int host) const;
  std::string Address(int host) const;
  // unix:PATH
  std::string Socket(int host) const;
  std::string Folder(int host) const;
  std::string Certificates(int host) const;

  const TwoHostsOptions options_;
  bool has_namespaces_ = false;
  std::string without_namespaces_;
  std::array<Child, 2> daemons_;
};

}  // namespace ferrybus::demo

#endif  // FERRYBUS_EXAMPLES_DEMO_TWO_HOSTS_H_
