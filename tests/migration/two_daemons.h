// SPDX-License-Identifier: MIT
//
// Two daemons as processes, with TLS, each with its state in a folder, and the
// command beside them: for tests of what happens to processes.
//
// Ownership: owns the processes and the folders, and ends them.
// Thread safety: one thread; DaemonHost::Kill() any that nobody else races.

#ifndef FERRYBUS_TESTS_MIGRATION_TWO_DAEMONS_H_
#define FERRYBUS_TESTS_MIGRATION_TWO_DAEMONS_H_

#include <sys/types.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "ferrybus/tests/migration/test_certificates.h"
#include "gtest/gtest.h"

namespace ferrybus::migration {

inline constexpr char kDaemon[] = "tools/migrate/ferrybus-migrated";
inline constexpr char kCommand[] = "tools/migrate/ferrybus-migrate";
inline constexpr char kMachineArgument[] =
    "--machine=name=m,kind=memory,size=16MiB,dirty=8MiB/s";
inline constexpr absl::Duration kPatience = absl::Seconds(60);

std::string ReadText(const std::string& path);
// Starts a program with its output in files.
pid_t Spawn(const std::vector<std::string>& arguments, const std::string& out,
            const std::string& err);
// Its exit code, or the signal that ended it, negative.
int Wait(pid_t child);

struct Result {
  int code = -1;
  std::string out;
  std::string err;
};

// A daemon that keeps its port and its state folder when it starts again.
class DaemonHost {
 public:
  DaemonHost(const std::string& folder, const std::string& name,
             const TlsFiles& files, const std::string& socket)
      : prefix_(folder + "/" + name), files_(files), socket_(socket) {}
  ~DaemonHost() { Kill(); }

  // After which a peer that says nothing counts as lost; from the next start.
  void set_silence_max(absl::Duration silence) { silence_max_ = silence; }
  void Start(const std::vector<std::string>& more = {});
  // Nothing, if it does not run.
  void Kill();
  // The exit code after SIGTERM; -1: it does not run.
  int Terminate();
  // SIGSTOP, SIGCONT, SIGTERM.
  void Signal(int number) const;

  std::string address() const;
  const std::string& socket() const { return socket_; }
  std::string state() const { return prefix_ + ".state"; }

 private:
  const std::string prefix_;
  const TlsFiles files_;
  const std::string socket_;
  absl::Duration silence_max_ = absl::Seconds(3);
  pid_t pid_ = -1;
  int port_ = 0;
};

class DaemonsTest : public ::testing::Test {
 protected:
  DaemonsTest();
  ~DaemonsTest() override;

  // The command in the background, and its end.
  pid_t Begin(const std::vector<std::string>& arguments) const;
  Result End(pid_t child) const;
  Result Run(const std::vector<std::string>& arguments) const {
    return End(Begin(arguments));
  }
  std::vector<std::string> StartArguments(int from, std::string to = "") const;
  // So slow that there is something to interrupt.
  pid_t BeginSlowMove(int from) const;
  // The machine at a host, or null.
  nlohmann::json MachineAt(int host) const;
  std::string OwnershipAt(int host) const;
  // The one owner, once nothing is undecided; else -1.
  int Owner() const;

  std::string folder_;
  std::string sockets_;
  TlsFiles files_;
  std::vector<std::unique_ptr<DaemonHost>> hosts_;
};

}  // namespace ferrybus::migration

#endif  // FERRYBUS_TESTS_MIGRATION_TWO_DAEMONS_H_
