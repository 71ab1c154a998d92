// SPDX-License-Identifier: MIT

#include "ferrybus/examples/demo/link_demo.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "ferrybus/examples/demo/control.h"
#include "ferrybus/examples/demo/disk_image.h"
#include "ferrybus/examples/demo/two_hosts.h"

namespace ferrybus::demo {
namespace {

constexpr char kMachine[] = "m";
constexpr absl::Duration kFillTime = absl::Seconds(120);

// Until each of its pages was written once.
absl::Status AwaitFilled(TwoHosts& hosts, uint64_t mib) {
  const std::string filled =
      absl::StrCat("writes=", mib * 256 - 1, " fault=no");
  const absl::Time until = absl::Now() + kFillTime;
  while (absl::Now() < until) {
    absl::StatusOr<Json> list = hosts.List(0);
    if (!list.ok()) return list.status();
    if (absl::StrContains(list->dump(), filled)) return absl::OkStatus();
    absl::SleepFor(absl::Milliseconds(100));
  }
  return absl::DeadlineExceededError("the machine's memory is not filled");
}

Json Spread(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return {{"median", values[values.size() / 2]},
          {"min", values.front()},
          {"max", values.back()}};
}

absl::StatusOr<Json> Measure(const MigrateDemoOptions& options,
                             TwoHosts& hosts) {
  std::vector<double> link;
  std::vector<double> migration;
  std::vector<double> ratio;
  for (uint64_t move = 0; move < options.moves; ++move) {
    const int from = static_cast<int>(move % 2);
    absl::StatusOr<double> iperf = hosts.MeasureLink(from);
    if (!iperf.ok()) return iperf.status();
    absl::StatusOr<Json> moved = hosts.Migrate(
        kMachine, from, 1 - from,
        absl::StrCat("--no-compression --streams ", options.streams));
    if (!moved.ok()) return moved.status();
    // All of it: greeting, validation, pause and decision, too.
    const double rate = (*moved)["wire_bytes_sent"].get<double>() /
                        (*moved)["elapsed_us"].get<double>() * 1e6;
    link.push_back(*iperf);
    migration.push_back(rate);
    ratio.push_back(rate / *iperf);
    std::printf("%d: iperf3 %.1f MB/s, migration %.1f MB/s: %.1f %%\n",
                static_cast<int>(move + 1), *iperf / 1e6, rate / 1e6,
                100 * ratio.back());
    std::fflush(stdout);
  }
  return Json{{"namespaces", hosts.has_namespaces()},
              {"link_mbit", options.link_mbit},
              {"memory_mib", options.vram_mib},
              {"streams", options.streams},
              {"moves", options.moves},
              {"iperf3_bytes_per_second", Spread(link)},
              {"migration_bytes_per_second", Spread(migration)},
              {"ratio", Spread(ratio)}};
}

absl::Status Run(const MigrateDemoOptions& options, const std::string& folder) {
  absl::StatusOr<std::unique_ptr<TwoHosts>> hosts =
      TwoHosts::Make({.folder = folder,
                      .daemon_program = options.daemon_program,
                      .command_program = options.command_program,
                      .link_mbit = options.link_mbit});
  if (!hosts.ok()) return hosts.status();
  if (!(*hosts)->has_namespaces()) {
    std::printf("two hosts: two daemons on loopback: %s\n",
                (*hosts)->without_namespaces().c_str());
  }
  absl::Status status = (*hosts)->StartDaemon(
      0, absl::StrCat("name=", kMachine, ",kind=memory,size=", options.vram_mib,
                      "MiB,dirty=0,fill=yes"));
  if (status.ok()) status = (*hosts)->StartDaemon(1, "");
  if (status.ok()) status = AwaitFilled(**hosts, options.vram_mib);
  if (!status.ok()) return status;
  absl::StatusOr<Json> result = Measure(options, **hosts);
  if (!result.ok()) return result.status();
  std::printf("%s\n", result->dump(2).c_str());
  if (options.json_path.empty()) return absl::OkStatus();
  std::ofstream out(options.json_path);
  out << result->dump(2) << "\n";
  if (out) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("cannot write ", options.json_path));
}

}  // namespace

absl::Status RunLinkDemo(const MigrateDemoOptions& options) {
  const absl::StatusOr<std::string> folder = MakeFolder(options.folder);
  if (!folder.ok()) return folder.status();
  const absl::Status status = Run(options, *folder);
  if (options.folder.empty()) {
    std::error_code ignored;
    std::filesystem::remove_all(*folder, ignored);
  }
  return status;
}

}  // namespace ferrybus::demo
