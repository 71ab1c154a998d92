// SPDX-License-Identifier: MIT
//
// ferrybus migrate: moves machines between ferrybus-migrated daemons
// (docs/MIGRATE_COMMAND.md).

#include <grpcpp/client_context.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "ferrybus/savestate/migration/grpc/channel.h"
#include "ferrybus/savestate/migration/grpc/transport.grpc.pb.h"
#include "ferrybus/savestate/steady_clock.h"
#include "ferrybus/tools/migrate/control.grpc.pb.h"
#include "ferrybus/tools/migrate/report_text.h"
#include "ferrybus/tools/migrate/sizes.h"
#include "ferrybus/tools/migrate/tls_arguments.h"

namespace {

using namespace ferrybus::migrate_tool;  // NOLINT: this is the tool
namespace migration = ferrybus::migration;
using migration::v1::MigrationReport;

constexpr int kFine = 0;
constexpr int kFailed = 1;
constexpr int kCannot = 2;
constexpr int kUncertain = 3;

constexpr absl::Duration kAnswerTime = absl::Seconds(10);
constexpr absl::Duration kAskAgain = absl::Milliseconds(100);
// A daemon that answers nothing for so long is gone; the migration may go on.
constexpr absl::Duration kLostAfter = absl::Seconds(15);

constexpr char kFooter[] =
    "  ferrybus migrate start --machine a --from host1:7070 --to host2:7070\n"
    "  ferrybus migrate query --machine a --at host1:7070 --json\n"
    "  ferrybus migrate cancel --machine a --at host1:7070\n"
    "  ferrybus migrate list --at host2:7070\n\n"
    "HOST:PORT is that of a ferrybus-migrated; its certificate must be for "
    "HOST, and\nsigned by --ca, as ours.  `start` waits for the end; if it is "
    "interrupted, the\nmigration goes on, and `query` tells how.\n\n"
    "Exit codes: 0 done; 1 it failed, and the machine goes on where it was; 2 "
    "cannot\n(usage, certificates, nobody answers); 3 it is the target's, but "
    "whether it runs\nthere is not known: look at the target with `list`.\n";

struct Arguments {
  TlsArguments tls;
  std::string machine;
  std::string id;
  std::string from;
  std::string to;
  std::string at;
  uint32_t streams = 2;
  std::string bandwidth_limit;
  std::string downtime_limit = "250ms";
  std::string timeout;
  std::string on_timeout = "cancel";
  std::string resolution;
  bool source_is_gone = false;
  bool quick = false;
  bool no_compression = false;
  bool json = false;
};

int Cannot(absl::string_view why) {
  std::fprintf(stderr, "ferrybus migrate: %s\n", Escaped(why).c_str());
  return kCannot;
}

int Print(const std::string& text, int code) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size() &&
      std::fflush(stdout) == 0) {
    return code;
  }
  return Cannot("cannot write to standard output");
}

// A daemon, and the questions to it.
class Daemon {
 public:
  Daemon(const std::string& address, const TlsCredentials& credentials)
      : address_(address),
        channel_(migration::MakeChannel({address, credentials.channel}, {})),
        transport_(migration::v1::MigrationTransport::NewStub(channel_)),
        control_(v1::MigrateControl::NewStub(channel_)) {}

  absl::Status Start(const v1::StartRequest& request, std::string* id) {
    v1::StartReply reply;
    const absl::Status status = Call([&](grpc::ClientContext* context) {
      return control_->Start(context, request, &reply);
    });
    *id = reply.migration_id();
    return status;
  }
  absl::Status Query(const migration::v1::MigrationName& name,
                     MigrationReport* report) {
    return Call([&](grpc::ClientContext* context) {
      return transport_->Query(context, name, report);
    });
  }
  absl::Status Cancel(const migration::v1::MigrationName& name) {
    return Call([&](grpc::ClientContext* context) {
      migration::v1::CancelReply reply;
      return transport_->Cancel(context, name, &reply);
    });
  }
  absl::Status List(v1::ListReply* reply) {
    return Call([&](grpc::ClientContext* context) {
      return control_->List(context, {}, reply);
    });
  }
  absl::Status Resolve(const v1::ResolveRequest& request) {
    return Call([&](grpc::ClientContext* context) {
      v1::ResolveReply reply;
      return control_->Resolve(context, request, &reply);
    });
  }

 private:
  template <typename Method>
  absl::Status Call(Method method) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + kAnswerTime));
    const absl::Status status = migration::FromGrpc(method(&context));
    if (status.ok()) return status;
    return absl::Status(status.code(),
                        absl::StrCat(address_, ": ", status.message()));
  }

  const std::string address_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<migration::v1::MigrationTransport::Stub> transport_;
  const std::unique_ptr<v1::MigrateControl::Stub> control_;
};

int CodeOf(const MigrationReport& report) {
  if (!report.is_handed_over()) return kFailed;
  return report.code() == 0 ? kFine : kUncertain;
}

int PrintEnd(const Arguments& arguments, const MigrationReport& report) {
  return Print(
      arguments.json ? ReportJson(report).dump(2) + "\n" : Summary(report),
      CodeOf(report));
}

// Until it is over.
int Follow(const Arguments& arguments, const std::string& id, Daemon& source) {
  const bool shows = isatty(STDERR_FILENO) != 0 && !arguments.json;
  migration::v1::MigrationName name;
  name.set_migration_id(id);
  absl::Time answered = ferrybus::savestate::SteadyNow();
  while (true) {
    MigrationReport report;
    const absl::Status status = source.Query(name, &report);
    if (status.ok()) {
      answered = ferrybus::savestate::SteadyNow();
      if (shows) {
        std::fprintf(stderr, "\r\033[K%s", ProgressLine(report).c_str());
      }
      if (report.is_finished()) {
        if (shows) std::fprintf(stderr, "\r\033[K");
        return PrintEnd(arguments, report);
      }
    } else if (!absl::IsNotFound(status) &&
               ferrybus::savestate::SteadyNow() - answered > kLostAfter) {
      (void)Cannot(status.message());
      return kUncertain;
    } else if (absl::IsNotFound(status) &&
               ferrybus::savestate::SteadyNow() - answered > kAnswerTime) {
      // It was there, and is not: the daemon has restarted.
      (void)Cannot(status.message());
      return kUncertain;
    }
    absl::SleepFor(kAskAgain);
  }
}

absl::StatusOr<v1::StartRequest> ReadStart(const Arguments& arguments) {
  v1::StartRequest request;
  request.set_machine(arguments.machine);
  request.set_to(arguments.to);
  request.set_streams(arguments.streams);
  request.set_quick(arguments.quick);
  request.set_no_compression(arguments.no_compression);
  request.set_force_on_timeout(arguments.on_timeout == "force");
  if (!arguments.bandwidth_limit.empty()) {
    absl::StatusOr<uint64_t> limit = ParseSize(arguments.bandwidth_limit);
    if (!limit.ok()) return limit.status();
    request.set_bandwidth_max_bytes(*limit);
  }
  absl::Duration downtime;
  if (!absl::ParseDuration(arguments.downtime_limit, &downtime) ||
      downtime < absl::Microseconds(1)) {
    return absl::InvalidArgumentError(
        "--downtime-limit: write 250ms, 1s, 1m30s");
  }
  request.set_downtime_limit_us(
      static_cast<uint64_t>(absl::ToInt64Microseconds(downtime)));
  absl::Duration timeout = absl::ZeroDuration();
  if (!arguments.timeout.empty() &&
      (!absl::ParseDuration(arguments.timeout, &timeout) ||
       timeout < absl::Microseconds(1))) {
    return absl::InvalidArgumentError("--timeout: write 30s, 5m, 1h30m");
  }
  request.set_timeout_us(
      static_cast<uint64_t>(absl::ToInt64Microseconds(timeout)));
  return request;
}

int Start(const Arguments& arguments, const TlsCredentials& credentials) {
  absl::StatusOr<v1::StartRequest> request = ReadStart(arguments);
  if (!request.ok()) return Cannot(request.status().message());
  Daemon source(arguments.from, credentials);
  std::string id;
  const absl::Status status = source.Start(*request, &id);
  if (!status.ok()) return Cannot(status.message());
  return Follow(arguments, id, source);
}

absl::StatusOr<migration::v1::MigrationName> ReadName(
    const Arguments& arguments) {
  migration::v1::MigrationName name;
  name.set_machine(arguments.machine);
  if (arguments.id.empty()) return name;
  if (arguments.id.size() != 2 * migration::kIdSizeBytes ||
      arguments.id.find_first_not_of("0123456789abcdefABCDEF") !=
          std::string::npos) {
    return absl::InvalidArgumentError("--id: 32 digits, as `query` shows it");
  }
  name.set_migration_id(absl::HexStringToBytes(arguments.id));
  return name;
}

int Query(const Arguments& arguments, Daemon& daemon) {
  absl::StatusOr<migration::v1::MigrationName> name = ReadName(arguments);
  if (!name.ok()) return Cannot(name.status().message());
  MigrationReport report;
  const absl::Status status = daemon.Query(*name, &report);
  if (!status.ok()) return Cannot(status.message());
  if (arguments.json) return Print(ReportJson(report).dump(2) + "\n", kFine);
  return Print(
      report.is_finished() ? Summary(report) : ProgressLine(report) + "\n",
      kFine);
}

int Cancel(const Arguments& arguments, Daemon& daemon) {
  absl::StatusOr<migration::v1::MigrationName> name = ReadName(arguments);
  if (!name.ok()) return Cannot(name.status().message());
  const absl::Status status = daemon.Cancel(*name);
  if (!status.ok()) return Cannot(status.message());
  return Print("asked for; `query` tells whether it came before the decision\n",
               kFine);
}

int List(const Arguments& arguments, Daemon& daemon) {
  v1::ListReply reply;
  const absl::Status status = daemon.List(&reply);
  if (!status.ok()) return Cannot(status.message());
  Json json = Json::array();
  std::string text;
  for (const v1::MachineState& machine : reply.machines()) {
    json.push_back(MachineJson(machine));
    text += MachineLine(machine);
  }
  if (text.empty()) text = "no machine\n";
  return Print(arguments.json ? json.dump(2) + "\n" : text, kFine);
}

int Resolve(const Arguments& arguments, Daemon& daemon) {
  if (!arguments.source_is_gone) {
    return Cannot(
        "an undecided machine may still run, or start again, at its source. "
        "If that host and its state folder are gone for good, and only then, "
        "say so with --source-is-gone-for-good");
  }
  v1::ResolveRequest request;
  request.set_machine(arguments.machine);
  request.set_take_over(arguments.resolution == "take-over");
  const absl::Status status = daemon.Resolve(request);
  if (!status.ok()) return Cannot(status.message());
  std::fprintf(stderr,
               "ferrybus migrate: WARNING: %s is settled by hand. If its "
               "source comes back, its record must be removed before it "
               "starts, or two hosts may own the machine, or none.\n",
               Escaped(arguments.machine).c_str());
  return Print("settled\n", kFine);
}

void AddDaemon(CLI::App* command, Arguments& arguments) {
  command->add_option("--at", arguments.at, "HOST:PORT of the daemon")
      ->required();
}

void AddName(CLI::App* command, Arguments& arguments) {
  command->add_option("--machine", arguments.machine,
                      "the latest migration of this machine");
  command->add_option("--id", arguments.id, "this migration");
  command->require_option(2, 0);
}

void AddStart(CLI::App* command, Arguments& arguments) {
  command->add_option("--machine", arguments.machine, "its name")->required();
  command->add_option("--from", arguments.from, "HOST:PORT where it is")
      ->required();
  command
      ->add_option("--to", arguments.to,
                   "HOST:PORT where it shall be, as --from reaches it; or "
                   "unix:/PATH of a daemon on the same host")
      ->required();
  command
      ->add_option("--streams", arguments.streams,
                   "connections for the memory, beside each other")
      ->check(CLI::Range(1, 16))
      ->capture_default_str();
  command->add_option("--bandwidth-limit", arguments.bandwidth_limit,
                      "of the memory, such as 100MiB/s");
  command
      ->add_option("--downtime-limit", arguments.downtime_limit,
                   "the machine is paused when the rest takes no longer")
      ->capture_default_str();
  command->add_option("--timeout", arguments.timeout,
                      "for copying while it runs, such as 10m; without it a "
                      "migration that does not converge is given up");
  command
      ->add_option("--on-timeout", arguments.on_timeout,
                   "cancel, or force: pause it however long that takes")
      ->check(CLI::IsMember({"cancel", "force"}))
      ->capture_default_str();
  command->add_flag("--quick", arguments.quick,
                    "pause it first, and copy all of it then");
  command->add_flag("--no-compression", arguments.no_compression,
                    "for a link that is faster than compression");
  command->add_flag("--json", arguments.json, "the end for programs");
}

int Run(int argc, char** argv) {
  CLI::App app("Moves machines between hosts while they run.", "ferrybus");
  app.require_subcommand(1);
  CLI::App* migrate =
      app.add_subcommand("migrate", "moves machines between hosts");
  migrate->require_subcommand(1);
  migrate->footer(kFooter);
  Arguments arguments;
  arguments.tls.AddTo(migrate);
  migrate->fallthrough();
  CLI::App* start = migrate->add_subcommand("start", "moves a machine");
  CLI::App* query = migrate->add_subcommand("query", "how one goes, or went");
  CLI::App* cancel = migrate->add_subcommand("cancel", "ends one");
  CLI::App* list = migrate->add_subcommand(
      "list", "the machines of a daemon, and who owns them");
  CLI::App* resolve = migrate->add_subcommand(
      "resolve", "settles an undecided machine by hand: DANGEROUS");
  AddStart(start, arguments);
  for (CLI::App* command : {query, cancel, list, resolve}) {
    command->fallthrough();
    AddDaemon(command, arguments);
  }
  start->fallthrough();
  AddName(query, arguments);
  AddName(cancel, arguments);
  query->add_flag("--json", arguments.json, "for programs");
  list->add_flag("--json", arguments.json, "for programs");
  resolve->add_option("--machine", arguments.machine, "its name")->required();
  resolve
      ->add_option("RESOLUTION", arguments.resolution,
                   "take-over: it runs here; discard: it is thrown away here")
      ->required()
      ->check(CLI::IsMember({"take-over", "discard"}));
  resolve->add_flag("--source-is-gone-for-good", arguments.source_is_gone,
                    "nobody will ever run it there again");
  CLI11_PARSE(app, argc, argv);

  absl::StatusOr<TlsCredentials> credentials = LoadCredentials(arguments.tls);
  if (!credentials.ok()) return Cannot(credentials.status().message());
  if (start->parsed()) return Start(arguments, *credentials);
  Daemon daemon(arguments.at, *credentials);
  if (query->parsed()) return Query(arguments, daemon);
  if (cancel->parsed()) return Cancel(arguments, daemon);
  if (list->parsed()) return List(arguments, daemon);
  return Resolve(arguments, daemon);
}

}  // namespace

int main(int argc, char** argv) {
  // What goes wrong is in the statuses.
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  return Run(argc, argv);
}
