// SPDX-License-Identifier: MIT

#include "ferrybus/examples/demo/migrate_demo.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "ferrybus/examples/demo/client.h"
#include "ferrybus/examples/demo/control.h"
#include "ferrybus/examples/demo/disk_image.h"
#include "ferrybus/examples/demo/two_hosts.h"

namespace ferrybus::demo {
namespace {

constexpr char kMachine[] = "vm";
constexpr absl::Duration kPatience = absl::Seconds(120);

double Percentile(std::vector<double> values, double part) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const double last = static_cast<double>(values.size() - 1);
  return values[static_cast<size_t>(part * last + 0.5)];
}

Json Percentiles(const std::vector<double>& values) {
  return {{"p50", Percentile(values, 0.5)},
          {"p99", Percentile(values, 0.99)},
          {"max", Percentile(values, 1)}};
}

// As the source's host measured it, part by part, in ms.
Json PhasesOf(const std::vector<Json>& moves) {
  Json phases;
  for (const char* phase :
       {"stop", "memory", "state", "decide", "start", "total"}) {
    std::vector<double> times;
    for (const Json& move : moves) {
      times.push_back(move["pause_us"][phase].get<double>() / 1e3);
    }
    phases[phase] = Percentiles(times);
  }
  return phases;
}

class MigrateDemo {
 public:
  MigrateDemo(const MigrateDemoOptions& options, std::string folder)
      : options_(options), folder_(std::move(folder)) {}

  absl::Status Run();

 private:
  void Say(const std::string& text) {
    std::printf("%s%s\n", is_terminal_ ? "\r\033[K" : "", text.c_str());
    std::fflush(stdout);
  }
  absl::Status StartHosts();
  absl::Status StartDaemons();
  absl::Status StartClient();
  absl::Status MoveAll();
  absl::Status Finish();
  Json Summary(const Json& result, const absl::Status& image) const;
  absl::StatusOr<Json> Expect(const char* event);

  const MigrateDemoOptions& options_;
  const std::string folder_;
  const bool is_terminal_ = isatty(STDOUT_FILENO) != 0;
  DiskImage image_;
  std::unique_ptr<TwoHosts> hosts_;
  Child client_;
  double link_bytes_per_second_ = 0;
  std::vector<Json> moves_;
};

absl::StatusOr<Json> MigrateDemo::Expect(const char* event) {
  absl::StatusOr<Json> message = client_.control().Receive(kPatience);
  if (!message.ok()) {
    return absl::Status(
        message.status().code(),
        absl::StrCat("waiting for \"", event,
                     "\" of the client: ", message.status().message()));
  }
  if ((*message)["event"] == event) return message;
  return absl::InternalError(
      absl::StrCat("instead of \"", event, "\" came ", message->dump()));
}

absl::Status MigrateDemo::StartHosts() {
  absl::StatusOr<std::unique_ptr<TwoHosts>> hosts =
      TwoHosts::Make({.folder = folder_,
                      .daemon_program = options_.daemon_program,
                      .command_program = options_.command_program,
                      .link_mbit = options_.link_mbit,
                      .one_host = options_.one_host});
  if (!hosts.ok()) return hosts.status();
  hosts_ = *std::move(hosts);
  if (options_.one_host) {
    Say("one host: two daemons, which hand over memory by descriptor");
    return StartDaemons();
  }
  Say(hosts_->has_namespaces()
          ? absl::StrFormat(
                "two hosts: network namespaces, a link of %d Mbit/s",
                options_.link_mbit)
          : absl::StrCat("two hosts: two daemons on loopback: ",
                         hosts_->without_namespaces()));
  absl::StatusOr<double> link = hosts_->MeasureLink();
  if (link.ok()) {
    link_bytes_per_second_ = *link;
    Say(absl::StrFormat("iperf3: %.1f MB/s", *link / 1e6));
  } else {
    Say(std::string(link.status().message()));
  }
  return StartDaemons();
}

absl::Status MigrateDemo::StartDaemons() {
  absl::Status status = hosts_->StartDaemon(
      0,
      absl::StrCat("name=", kMachine, ",kind=vmbus,image=disk.img,ram=32MiB",
                   ",vram=", options_.vram_mib, "MiB,steps=", options_.steps));
  if (status.ok()) status = hosts_->StartDaemon(1, "");
  return status;
}

absl::Status MigrateDemo::StartClient() {
  const std::string manifest = folder_ + "/manifest.json";
  std::ofstream(manifest) << ManifestOf(image_).dump();
  absl::StatusOr<Child> client = Child::Start(
      {"--role=roaming-client", absl::StrCat("--manifest=", manifest),
       absl::StrCat("--seed=", options_.seed),
       absl::StrCat("--vram-mib=", options_.vram_mib),
       absl::StrCat("--socket=", hosts_->GuestSocket(0, kMachine)),
       absl::StrCat("--socket=", hosts_->GuestSocket(1, kMachine))});
  if (!client.ok()) return client.status();
  client_ = *std::move(client);
  return Expect("running").status();
}

absl::Status MigrateDemo::MoveAll() {
  for (uint64_t move = 0; move < options_.moves; ++move) {
    usleep(static_cast<useconds_t>(options_.interval_ms * 1000));
    const int from = static_cast<int>(move % 2);
    absl::StatusOr<Json> result = hosts_->Migrate(
        kMachine, from, 1 - from, absl::StrCat("--streams ", options_.streams));
    if (!result.ok()) {
      return absl::Status(
          result.status().code(),
          absl::StrCat("move ", move + 1, ": ", result.status().message()));
    }
    moves_.push_back(*std::move(result));
    if (!is_terminal_) continue;
    std::printf("\r\033[Kmove %d of %d", static_cast<int>(moves_.size()),
                static_cast<int>(options_.moves));
    std::fflush(stdout);
  }
  return absl::OkStatus();
}

Json MigrateDemo::Summary(const Json& result, const absl::Status& image) const {
  std::vector<double> pauses;
  for (const Json& pause : result["pauses_ns"]) {
    pauses.push_back(pause.get<double>() / 1e6);
  }
  Json json = {
      {"seed", options_.seed},
      {"one_host", options_.one_host},
      {"namespaces", hosts_->has_namespaces()},
      {"link_mbit", options_.link_mbit},
      {"iperf3_bytes_per_second", link_bytes_per_second_},
      {"vram_mib", options_.vram_mib},
      {"moves", result["moves"]},
      {"disk_requests", result["requests"]},
      {"accelerator_commands", result["commands"]},
      {"lost", result["lost"].get<uint64_t>() +
                   result["commands_lost"].get<uint64_t>()},
      {"duplicated", result["duplicated"].get<uint64_t>() +
                         result["commands_duplicated"].get<uint64_t>()},
      {"differing", result["differing"].get<uint64_t>() +
                        result["commands_wrong"].get<uint64_t>()},
      {"failed", result["failed"]},
      {"verified_bytes", result["verified_bytes"]},
      {"image", image.ok() ? "ok" : image.ToString()},
      {"client_pause_ms", Percentiles(pauses)},
      {"phase_ms", PhasesOf(moves_)},
      {"each_move", moves_}};
  json["verified"] = json["lost"] == 0 && json["duplicated"] == 0 &&
                     json["differing"] == 0 && json["failed"] == 0 &&
                     result["moves"] == options_.moves && image.ok();
  return json;
}

absl::Status MigrateDemo::Finish() {
  Say("the client finishes, and reads everything once more");
  client_.control().Send({{"command", "finish"}});
  const absl::StatusOr<Json> result = Expect("result");
  if (!result.ok()) return result.status();
  client_.Wait();
  for (int host : {0, 1}) {
    const int code = hosts_->StopDaemon(host);
    if (code != 0) {
      return absl::InternalError(
          absl::StrCat("the daemon of host ", host, " ended with ", code));
    }
  }
  for (const Json& note : (*result)["notes"]) {
    std::fprintf(stderr, "client: %s\n", note.get<std::string>().c_str());
  }
  const std::string difference = (*result)["first_difference"];
  if (!difference.empty()) {
    std::fprintf(stderr, "accelerator: %s\n", difference.c_str());
  }
  image_.scratch.sha256 = (*result)["scratch_sha256"];
  absl::Status image = CheckFileSystem(image_);
  image.Update(CheckDigests(image_));
  const Json summary = Summary(*result, image);
  if (!options_.json_path.empty()) {
    std::ofstream out(options_.json_path);
    out << summary.dump(2) << "\n";
    if (!out) {
      return absl::InternalError(
          absl::StrCat("cannot write ", options_.json_path));
    }
  }
  Json brief = summary;
  brief.erase("each_move");
  Say(brief.dump(2));
  return summary["verified"] == true
             ? absl::OkStatus()
             : absl::DataLossError("the machine did not survive");
}

absl::Status MigrateDemo::Run() {
  ImageOptions image_options;
  image_options.image_bytes = options_.image_mib << 20;
  absl::StatusOr<DiskImage> image = MakeImage(folder_, image_options);
  if (!image.ok()) return image.status();
  image_ = *std::move(image);
  absl::Status status = StartHosts();
  if (status.ok()) status = StartClient();
  if (!status.ok()) return status;
  Say(absl::StrFormat(
      "%d files on the disk, %d MiB of accelerator memory; seed %d",
      image_.files.size(), options_.vram_mib, options_.seed));
  status = MoveAll();
  return status.ok() ? Finish() : status;
}

}  // namespace

absl::Status RunMigrateDemo(const MigrateDemoOptions& options) {
  const absl::StatusOr<std::string> folder = MakeFolder(options.folder);
  if (!folder.ok()) return folder.status();
  absl::Status status;
  {
    MigrateDemo demo(options, *folder);
    status = demo.Run();
  }
  if (options.folder.empty()) {
    std::error_code ignored;
    std::filesystem::remove_all(*folder, ignored);
  }
  return status;
}

}  // namespace ferrybus::demo
