// SPDX-License-Identifier: MIT

#include "ferrybus/examples/demo/supervisor.h"

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "ferrybus/channel/transport/port.h"
#include "ferrybus/examples/demo/client.h"
#include "ferrybus/examples/demo/control.h"
#include "ferrybus/examples/demo/disk_image.h"
#include "ferrybus/examples/demo/report.h"

namespace ferrybus::demo {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(30);

class Supervisor {
 public:
  Supervisor(const DemoOptions& options, std::string folder)
      : options_(options), folder_(std::move(folder)) {}

  absl::Status Run();

 private:
  void Say(const std::string& text);
  void Progress(int64_t end_ns);
  absl::Status StartClient();
  absl::StatusOr<Child> StartStandby();
  // Tells a standby to serve.
  absl::Status Go(Child& server, bool restore, MoveRecord* move);
  absl::Status Move();
  absl::Status MoveUntilDone();
  absl::Status FinishClient();
  absl::Status JudgeImage();
  absl::StatusOr<Json> Expect(Child& from, const char* event);

  const DemoOptions& options_;
  const std::string folder_;
  const bool terminal_ = isatty(STDOUT_FILENO) != 0;
  DiskImage image_;
  Child client_;
  Child server_;
  Child standby_;
  Port port_;
  DemoReport report_;
};

void Supervisor::Say(const std::string& text) {
  std::printf("%s%s\n", terminal_ ? "\r\033[K" : "", text.c_str());
  std::fflush(stdout);
}

void Supervisor::Progress(int64_t end_ns) {
  if (!terminal_ || report_.moves.empty()) return;
  const MoveRecord& last = report_.moves.back();
  const std::string target =
      options_.seconds > 0
          ? absl::StrFormat(
                "%.0f s left",
                std::max(0.0, static_cast<double>(end_ns - NowNs()) / 1e9))
          : absl::StrCat("of ", options_.moves);
  std::printf("\r\033[Kmove %d %s: %d requests in flight went along",
              static_cast<int>(report_.moves.size()), target.c_str(),
              static_cast<int>(last.in_flight));
  std::fflush(stdout);
}

absl::StatusOr<Json> Supervisor::Expect(Child& from, const char* event) {
  absl::StatusOr<Json> message = from.control().Receive(kPatience);
  if (absl::IsAborted(message.status())) {
    return absl::AbortedError(absl::StrCat(
        "waiting for \"", event, "\": the process ended with ", from.Wait()));
  }
  if (!message.ok()) {
    return absl::Status(message.status().code(),
                        absl::StrCat("waiting for \"", event,
                                     "\": ", message.status().message()));
  }
  if ((*message)["event"] == event) return message;
  return absl::InternalError(
      absl::StrCat("instead of \"", event, "\" came ", message->dump()));
}

absl::Status Supervisor::Run() {
  Say(
      absl::StrFormat("making an ext4 image of %d MiB from files of this "
                      "machine",
                      options_.image_mib));
  ImageOptions image_options;
  image_options.image_bytes = options_.image_mib << 20;
  absl::StatusOr<DiskImage> image = MakeImage(folder_, image_options);
  if (!image.ok()) return image.status();
  image_ = *std::move(image);
  report_.files = image_.files.size();
  report_.seed = options_.seed;
  report_.killed = options_.kill;

  absl::Status status = StartClient();
  if (!status.ok()) return status;
  absl::StatusOr<Child> server = StartStandby();
  if (!server.ok()) return server.status();
  server_ = *std::move(server);
  MoveRecord first;
  status = Go(server_, /*restore=*/false, &first);
  if (!status.ok()) return status;
  client_.control().Send({{"command", "run"}});
  status = Expect(client_, "running").status();
  if (!status.ok()) return status;
  Say(absl::StrFormat("%d files and a scratch area on the disk; %s; seed %d",
                      static_cast<int>(report_.files), report_.engine,
                      static_cast<int64_t>(options_.seed)));
  status = MoveUntilDone();
  if (status.ok()) status = FinishClient();
  if (status.ok()) status = JudgeImage();
  if (!status.ok()) return status;

  Say(ToText(report_));
  if (!options_.json_path.empty()) {
    std::ofstream out(options_.json_path);
    out << ToJson(report_).dump(2) << "\n";
    if (!out) {
      return absl::InternalError(
          absl::StrCat("cannot write ", options_.json_path));
    }
  }
  return report_.verified()
             ? absl::OkStatus()
             : absl::DataLossError("the disk or the requests did not survive");
}

absl::Status Supervisor::StartClient() {
  const std::string manifest = folder_ + "/manifest.json";
  std::ofstream(manifest) << ManifestOf(image_).dump();
  absl::StatusOr<Child> client =
      Child::Start({"--role=client", absl::StrCat("--manifest=", manifest),
                    absl::StrCat("--seed=", options_.seed)});
  if (!client.ok()) return client.status();
  client_ = *std::move(client);
  // The client owns guest RAM and makes the port; the host's ends come here
  // and are passed on to each serving process in turn.
  const absl::Status status = Expect(client_, "port").status();
  if (!status.ok()) return status;
  absl::StatusOr<Port> port = ReceivePort(client_.control().fd());
  if (!port.ok()) return port.status();
  port_ = *std::move(port);
  return absl::OkStatus();
}

absl::StatusOr<Child> Supervisor::StartStandby() {
  return Child::Start(
      {"--role=serve", absl::StrCat("--image=", image_.path),
       absl::StrCat("--checkpoints=", folder_, "/checkpoints")});
}

absl::Status Supervisor::Go(Child& server, bool restore, MoveRecord* move) {
  server.control().Send({{"command", "go"}, {"restore", restore}});
  const absl::Status sent = SendPort(server.control().fd(), port_);
  if (!sent.ok()) return sent;
  const absl::StatusOr<Json> serving = Expect(server, "serving");
  if (!serving.ok()) return serving.status();
  move->start_ns = (*serving)["begin_ns"];
  move->serving_ns = (*serving)["serving_ns"];
  report_.engine = (*serving)["engine"];
  return absl::OkStatus();
}

// Replaces the serving process: the old one is gone before the new one begins.
absl::Status Supervisor::Move() {
  server_.control().Send(
      {{"command", "move"}, {"wait_for_kill", options_.kill}});
  const absl::StatusOr<Json> saved = Expect(server_, "saved");
  if (!saved.ok()) return saved.status();
  if (options_.kill) server_.Kill();
  MoveRecord move;
  move.in_flight = (*saved)["in_flight"];
  move.state_bytes = (*saved)["bytes"];
  move.begin_ns = (*saved)["begin_ns"];
  move.saved_ns = (*saved)["saved_ns"];
  move.written_ns = (*saved)["written_ns"];
  const int code = server_.Wait();
  if (code != (options_.kill ? 128 + SIGKILL : 0)) {
    return absl::InternalError(
        absl::StrCat("the serving process ended with ", code));
  }
  server_ = std::move(standby_);
  const absl::Status status = Go(server_, /*restore=*/true, &move);
  if (status.ok()) report_.moves.push_back(move);
  return status;
}

absl::Status Supervisor::MoveUntilDone() {
  const int64_t begin = NowNs();
  const int64_t end =
      begin + static_cast<int64_t>(options_.seconds * 1'000'000'000);
  const auto done = [&] {
    return options_.seconds > 0 ? NowNs() >= end
                                : report_.moves.size() >= options_.moves;
  };
  while (!done()) {
    // Ready before it is needed, so that starting it is no part of the pause.
    absl::StatusOr<Child> standby = StartStandby();
    if (!standby.ok()) return standby.status();
    standby_ = *std::move(standby);
    usleep(static_cast<useconds_t>(options_.interval_ms * 1000));
    const absl::Status status = Move();
    if (!status.ok()) {
      return absl::Status(status.code(),
                          absl::StrCat("move ", report_.moves.size() + 1, ": ",
                                       status.message()));
    }
    Progress(end);
  }
  report_.seconds = static_cast<double>(NowNs() - begin) / 1e9;
  return absl::OkStatus();
}

absl::Status Supervisor::FinishClient() {
  Say("the client finishes, and reads everything once more");
  client_.control().Send({{"command", "finish"}});
  const absl::StatusOr<Json> result = Expect(client_, "result");
  if (!result.ok()) return result.status();
  report_.requests = (*result)["requests"];
  report_.lost = (*result)["lost"];
  report_.duplicated = (*result)["duplicated"];
  report_.differing = (*result)["differing"];
  report_.failed = (*result)["failed"];
  report_.verified_bytes = (*result)["verified_bytes"];
  report_.file_passes = (*result)["file_passes"];
  image_.scratch.sha256 = (*result)["scratch_sha256"];
  for (const Json& note : (*result)["notes"]) {
    std::fprintf(stderr, "client: %s\n", note.get<std::string>().c_str());
  }
  std::vector<Gap> gaps;
  std::ifstream in((*result)["gaps_path"].get<std::string>());
  for (Gap gap; in >> gap.begin_ns >> gap.end_ns;) gaps.push_back(gap);
  AssignPauses(gaps, &report_.moves);
  client_.Wait();
  server_.control().Send({{"command", "stop"}});
  const int code = server_.Wait();
  return code == 0 ? absl::OkStatus()
                   : absl::InternalError(absl::StrCat(
                         "the last serving process ended with ", code));
}

absl::Status Supervisor::JudgeImage() {
  Say("e2fsck, and SHA-256 of every file in the image");
  const absl::Status checked = CheckFileSystem(image_);
  report_.file_system_ok = checked.ok();
  if (!checked.ok()) std::fprintf(stderr, "%s\n", checked.ToString().c_str());
  const absl::Status digests = CheckDigests(image_);
  report_.digests_ok = digests.ok();
  if (!digests.ok()) std::fprintf(stderr, "%s\n", digests.ToString().c_str());
  return absl::OkStatus();
}

}  // namespace

absl::Status RunDemo(const DemoOptions& options) {
  const absl::StatusOr<std::string> folder = MakeFolder(options.folder);
  if (!folder.ok()) return folder.status();
  absl::Status status;
  {
    Supervisor supervisor(options, *folder);
    status = supervisor.Run();
  }
  if (options.folder.empty()) {
    std::error_code ignored;
    std::filesystem::remove_all(*folder, ignored);
  }
  return status;
}

}  // namespace ferrybus::demo
