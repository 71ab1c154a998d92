// SPDX-License-Identifier: MIT

#include "ferrybus/examples/demo/two_hosts.h"

#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "ferrybus/examples/demo/shell.h"

namespace ferrybus::demo {
namespace {

constexpr char kNamePrefix[] = "ferrybus-demo-";
constexpr int kPort = 17070;
constexpr absl::Duration kStartPatience = absl::Seconds(10);

absl::Status Must(const std::string& command) {
  const auto [code, output] = Run(command);
  if (code == 0) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat(command, ": exit code ", code, ": ", output));
}

}  // namespace

absl::StatusOr<std::unique_ptr<TwoHosts>> TwoHosts::Make(
    const TwoHostsOptions& options) {
  auto hosts = absl::WrapUnique(new TwoHosts(options));
  for (int host : {0, 1}) {
    std::error_code error;
    std::filesystem::create_directories(hosts->Folder(host), error);
    if (error) return absl::InternalError(error.message());
  }
  absl::Status status = hosts->MakeCertificates();
  if (!status.ok()) return status;
  if (options.one_host) return hosts;
  status = geteuid() == 0 ? hosts->MakeLink()
                          : absl::PermissionDeniedError("namespaces need root");
  if (!status.ok()) {
    hosts->DeleteNamespaces();
    hosts->has_namespaces_ = false;
    hosts->without_namespaces_ = std::string(status.message());
  }
  return hosts;
}

TwoHosts::~TwoHosts() {
  for (int host : {0, 1}) StopDaemon(host);
  if (has_namespaces_) DeleteNamespaces();
}

std::string TwoHosts::Namespace(int host) const {
  return absl::StrCat(kNamePrefix, getpid(), host == 0 ? "a" : "b");
}

std::string TwoHosts::On(int host) const {
  if (!has_namespaces_) return "";
  // `ip netns exec` mounts things, which not every root may.
  return absl::StrCat("nsenter --net=/run/netns/", Namespace(host), " ");
}

std::string TwoHosts::Address(int host) const {
  if (has_namespaces_) return absl::StrCat("10.77.0.", host + 1, ":", kPort);
  return absl::StrCat("127.0.0.1:", kPort + host);
}

std::string TwoHosts::Socket(int host) const {
  return absl::StrCat("unix:", Folder(host), "/daemon.sock");
}

std::string TwoHosts::Folder(int host) const {
  return absl::StrCat(options_.folder, host == 0 ? "/host-a" : "/host-b");
}

std::string TwoHosts::GuestSocket(int host, const std::string& machine) const {
  return absl::StrCat(Folder(host), "/state/", machine, "/data/guest.sock");
}

// ---- The link

absl::Status TwoHosts::MakeLink() {
  DeleteNamespaces();  // of runs that were killed
  const std::string ip = Tool("ip");
  const std::string tc = Tool("tc");
  const std::string a = Namespace(0);
  const std::string b = Namespace(1);
  // From now on there is something to delete.
  has_namespaces_ = true;
  std::vector<std::string> commands = {
      absl::StrCat(ip, " netns add ", a), absl::StrCat(ip, " netns add ", b),
      absl::StrCat(ip, " link add name uplink netns ", a,
                   " type veth peer name uplink netns ", b)};
  for (int host : {0, 1}) {
    const std::string on = On(host);
    commands.push_back(
        absl::StrCat(on, ip, " addr add 10.77.0.", host + 1, "/24 dev uplink"));
    commands.push_back(absl::StrCat(on, ip, " link set lo up"));
    commands.push_back(absl::StrCat(on, ip, " link set uplink up"));
    commands.push_back(
        absl::StrCat(on, tc, " qdisc add dev uplink root tbf rate ",
                     options_.link_mbit, "mbit burst 1mb latency 20ms"));
  }
  for (const std::string& command : commands) {
    absl::Status status = Must(command);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

// Ours, and those whose process is gone.
void TwoHosts::DeleteNamespaces() {
  const std::string ip = Tool("ip");
  const auto [code, output] = Run(absl::StrCat(ip, " netns list"));
  if (code != 0) return;
  for (absl::string_view line : absl::StrSplit(output, '\n')) {
    const std::string name(line.substr(0, line.find(' ')));
    if (name.rfind(kNamePrefix, 0) != 0) continue;
    const absl::string_view number(
        absl::string_view(name).substr(sizeof(kNamePrefix) - 1));
    pid_t owner = 0;
    if (number.empty() ||
        !absl::SimpleAtoi(number.substr(0, number.size() - 1), &owner)) {
      continue;
    }
    const bool is_gone = kill(owner, 0) != 0 && errno == ESRCH;
    if (owner == getpid() || is_gone) {
      Run(absl::StrCat(ip, " netns delete ", name));
    }
  }
}

absl::StatusOr<double> TwoHosts::MeasureLink(int from) {
  absl::StatusOr<Child> server = Child::StartProgram(
      {"/bin/sh", "-c",
       absl::StrCat("exec ", On(1 - from), "iperf3 -s -1 -p ", kPort + 9,
                    " >/dev/null 2>&1")});
  if (!server.ok()) return server.status();
  absl::SleepFor(absl::Milliseconds(300));
  const auto [code, output] = Run(absl::StrCat(
      On(from), "iperf3 -J -t 3 -p ", kPort + 9, " -c ",
      has_namespaces_ ? absl::StrCat("10.77.0.", 2 - from) : "127.0.0.1"));
  const Json result = Json::parse(output, nullptr, /*allow_exceptions=*/false);
  if (code != 0 || result.is_discarded()) {
    return absl::UnavailableError(absl::StrCat("iperf3: ", output));
  }
  const double bits = result["end"]["sum_received"]["bits_per_second"];
  return bits / 8;
}

// ---- Certificates

absl::Status TwoHosts::MakeCertificates() {
  const std::string& folder = options_.folder;
  const std::string openssl = "openssl ";
  absl::Status status = Must(absl::StrCat(
      openssl, "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 ",
      "-nodes -days 2 -subj /CN=ferrybus-demo -keyout ", folder,
      "/ca.key -out ", folder, "/ca.pem"));
  for (int host = 0; host < 2 && status.ok(); ++host) {
    const std::string base = absl::StrCat(Folder(host), "/host");
    std::ofstream(base + ".ext")
        << "subjectAltName=IP:10.77.0." << host + 1 << ",IP:127.0.0.1\n";
    status = Must(absl::StrCat(
        openssl, "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes ",
        "-subj /CN=host", host, " -keyout ", base, ".key -out ", base, ".csr"));
    if (!status.ok()) break;
    status = Must(absl::StrCat(openssl, "x509 -req -days 2 -in ", base,
                               ".csr -CA ", folder, "/ca.pem -CAkey ", folder,
                               "/ca.key -CAcreateserial -extfile ", base,
                               ".ext -out ", base, ".pem"));
  }
  return status;
}

std::string TwoHosts::Certificates(int host) const {
  return absl::StrCat("--ca ", options_.folder, "/ca.pem --cert ", Folder(host),
                      "/host.pem --key ", Folder(host), "/host.key");
}

// ---- The programs

absl::Status TwoHosts::StartDaemon(int host, const std::string& machine) {
  std::string command = absl::StrCat(
      "exec ", On(host), options_.daemon_program, " --listen ", Address(host),
      " --state-dir ", Folder(host), "/state --images ", options_.folder, " ",
      Certificates(host));
  if (options_.one_host) absl::StrAppend(&command, " --listen ", Socket(host));
  if (!machine.empty()) absl::StrAppend(&command, " --machine ", machine);
  const std::string log = absl::StrCat(Folder(host), "/daemon.log");
  absl::StrAppend(&command, " >>", log, " 2>&1");
  absl::StatusOr<Child> daemon =
      Child::StartProgram({"/bin/sh", "-c", command});
  if (!daemon.ok()) return daemon.status();
  daemons_[static_cast<size_t>(host)] = *std::move(daemon);
  for (const absl::Time deadline = absl::Now() + kStartPatience;
       absl::Now() < deadline; absl::SleepFor(absl::Milliseconds(20))) {
    std::ifstream in(log);
    const std::string said{std::istreambuf_iterator<char>(in), {}};
    if (said.find("listens on") != std::string::npos) return absl::OkStatus();
  }
  std::ifstream in(log);
  return absl::UnavailableError(
      absl::StrCat("the daemon does not start: ",
                   std::string(std::istreambuf_iterator<char>(in), {})));
}

int TwoHosts::StopDaemon(int host) {
  Child& daemon = daemons_[static_cast<size_t>(host)];
  daemon.Terminate();
  return daemon.Wait();
}

absl::StatusOr<Json> TwoHosts::List(int host) {
  const auto [code, output] = Run(
      absl::StrCat(On(host), options_.command_program, " migrate list --at ",
                   Address(host), " --json ", Certificates(host)));
  const Json result = Json::parse(output, nullptr, /*allow_exceptions=*/false);
  if (code == 0 && !result.is_discarded()) return result;
  return absl::UnavailableError(
      absl::StrCat("list: exit code ", code, ": ", output));
}

absl::StatusOr<Json> TwoHosts::Migrate(const std::string& machine, int from,
                                       int to, const std::string& arguments) {
  const auto [code, output] = Run(absl::StrCat(
      On(from), options_.command_program, " migrate start --machine ", machine,
      " --from ", Address(from), " --to ",
      options_.one_host ? Socket(to) : Address(to), " --json ",
      Certificates(from), " ", arguments));
  const Json result = Json::parse(output, nullptr, /*allow_exceptions=*/false);
  if (code == 0 && !result.is_discarded()) return result;
  return absl::AbortedError(
      absl::StrCat("migrate: exit code ", code, ": ", output));
}

}  // namespace ferrybus::demo
