// SPDX-License-Identifier: MIT
//
// ferrybus-migrated: has machines, and lets them come and go
// (docs/MIGRATE_COMMAND.md).

#include <signal.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "ferrybus/tools/migrate/memory_machine.h"
#include "ferrybus/tools/migrate/migrate_daemon.h"
#include "ferrybus/tools/migrate/tls_arguments.h"
#include "ferrybus/tools/migrate/vmbus_machine.h"

namespace {

using namespace ferrybus::migrate_tool;  // NOLINT: this is the tool

constexpr int kFine = 0;
constexpr int kCannot = 2;

constexpr char kFooter[] =
    "A machine that is new is made as --machine says; one that the state "
    "folder "
    "knows\nis as it was, wherever it came from.\n\n"
    "  ferrybus-migrated --listen 0.0.0.0:7070 --advertise host1:7070 \\\n"
    "    --state-dir /var/lib/ferrybus --ca ca.pem --cert host1.pem --key "
    "host1.key \\\n"
    "    --machine name=a,kind=memory,size=1GiB,dirty=50MiB/s\n\n"
    "Ends on SIGTERM or SIGINT: migrations that are not decided are "
    "cancelled.\n"
    "Exit codes: 0 was told to end; 2 cannot (usage, certificates, port, "
    "state).\n";

struct Arguments {
  DaemonOptions daemon;
  TlsArguments tls;
  std::vector<std::string> listen;
  std::vector<std::string> machines;
  std::string images = ".";
  double silence_seconds = 30;
};

int Cannot(const absl::Status& status) {
  std::fprintf(stderr, "ferrybus-migrated: %s\n",
               std::string(status.message()).c_str());
  return kCannot;
}

absl::StatusOr<NewMachine> ParseMachine(const std::string& text) {
  NewMachine machine;
  for (absl::string_view part : absl::StrSplit(text, ',')) {
    std::vector<std::string> pair =
        absl::StrSplit(part, absl::MaxSplits('=', 1));
    if (pair.size() != 2) {
      return absl::InvalidArgumentError("--machine " + text +
                                        ": write KEY=VALUE,KEY=VALUE");
    }
    if (pair[0] == "name") {
      machine.name = pair[1];
    } else if (pair[0] == "kind") {
      machine.kind = pair[1];
    } else {
      machine.parameters[pair[0]] = pair[1];
    }
  }
  if (!machine.name.empty() && !machine.kind.empty()) return machine;
  return absl::InvalidArgumentError("--machine " + text +
                                    ": name= and kind= are needed");
}

// One address of each kind.
absl::Status ReadAddresses(const std::vector<std::string>& listen,
                           DaemonOptions* options) {
  for (const std::string& address : listen) {
    std::string& place = absl::StartsWith(address, "unix:")
                             ? options->listen_unix
                             : options->listen;
    if (!place.empty()) {
      return absl::InvalidArgumentError("--listen " + address +
                                        ": one of this kind is enough");
    }
    place = address;
  }
  if (options->listen.empty()) options->listen = "127.0.0.1:7070";
  return absl::OkStatus();
}

// Of what ends it; all threads that begin from here on leave them to this one.
// gRPC's are among them, so this comes before all else.
sigset_t BlockSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  return signals;
}

// Until somebody ends it.
int Serve(Arguments& arguments) {
  const sigset_t signals = BlockSignals();
  absl::StatusOr<TlsCredentials> credentials = LoadCredentials(arguments.tls);
  if (!credentials.ok()) return Cannot(credentials.status());
  DaemonOptions& options = arguments.daemon;
  const absl::Status addresses = ReadAddresses(arguments.listen, &options);
  if (!addresses.ok()) return Cannot(addresses);
  options.channel_credentials = credentials->channel;
  options.server_credentials = credentials->server;
  options.silence_max = absl::Seconds(arguments.silence_seconds);
  for (const std::string& text : arguments.machines) {
    absl::StatusOr<NewMachine> machine = ParseMachine(text);
    if (!machine.ok()) return Cannot(machine.status());
    options.machines.push_back(*std::move(machine));
  }
  MemoryMachineKind memory;
  VmbusKind vmbus(arguments.images);
  options.kinds = {&memory, &vmbus};
  MigrateDaemon daemon(options);
  absl::Status status = daemon.Start();
  if (!status.ok()) {
    daemon.Stop();
    return Cannot(status);
  }
  if (arguments.tls.insecure_plaintext) {
    std::fprintf(stderr,
                 "ferrybus-migrated: WITHOUT TLS: anybody who reaches "
                 "this port may take all machines\n");
  }
  std::printf("ferrybus-migrated: listens on %s\n", daemon.address().c_str());
  std::fflush(stdout);
  int signal_number = 0;
  sigwait(&signals, &signal_number);
  daemon.Stop();
  std::printf("ferrybus-migrated: ended\n");
  return kFine;
}

}  // namespace

int main(int argc, char** argv) {
  // It tells of each handshake that fails, as often as somebody tries.
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  CLI::App app("Has machines, and lets them move to and from other hosts.",
               "ferrybus-migrated");
  app.footer(kFooter);
  Arguments arguments;
  app.add_option("--listen", arguments.listen,
                 "HOST:PORT to listen on; port 0 takes any (default: "
                 "127.0.0.1:7070); and unix:/PATH, as well, for daemons of "
                 "this host, which hand over memory without copying");
  app.add_option("--advertise", arguments.daemon.advertise,
                 "HOST:PORT where other hosts reach this daemon, also later, "
                 "to ask what was decided (default: as --listen)");
  app.add_option("--state-dir", arguments.daemon.state_folder,
                 "folder of the machines; on a disk that survives a crash")
      ->required();
  app.add_option(
      "--machine", arguments.machines,
      "name=NAME,kind=KIND,...; may be repeated.  Kinds: memory "
      "(size=, dirty=RATE, fill=yes|no), vmbus (image=, ram=, vram=, "
      "steps=)");
  app.add_option("--images", arguments.images,
                 "folder of the disk images of vmbus machines, the same on "
                 "all hosts")
      ->capture_default_str();
  app.add_option("--silence-max", arguments.silence_seconds,
                 "seconds without a word after which a peer is given up")
      ->check(CLI::Range(0.1, 3600.0))
      ->default_val(30);
  arguments.tls.AddTo(&app);
  CLI11_PARSE(app, argc, argv);
  return Serve(arguments);
}
