// SPDX-License-Identifier: MIT
//
// ferrybus_hypervisor: boots a stock Linux kernel whose disk and integration
// services are Ferrybus's.

#include <signal.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <system_error>

#include "ferrybus/examples/hypervisor/device_process.h"
#include "ferrybus/examples/hypervisor/session.h"
#include "ferrybus/tools/migrate/tls_arguments.h"

namespace {

using ferrybus::hypervisor::DeviceProcessOptions;
using ferrybus::hypervisor::HypervChoice;
using ferrybus::hypervisor::SessionOptions;
using ferrybus::migrate_tool::TlsArguments;

// A terminal's keys go to the guest as they are typed.
class RawTerminal {
 public:
  RawTerminal() : is_terminal_(tcgetattr(STDIN_FILENO, &before_) == 0) {
    if (!is_terminal_) return;
    termios raw = before_;
    cfmakeraw(&raw);
    raw.c_oflag |= OPOST;
    tcsetattr(STDIN_FILENO, TCSANOW, &raw);
  }
  ~RawTerminal() {
    if (is_terminal_) tcsetattr(STDIN_FILENO, TCSANOW, &before_);
  }

 private:
  termios before_ = {};
  bool is_terminal_;
};

// In $TMPDIR, gone at the end.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::error_code error;
    path_ = std::filesystem::temp_directory_path(error) / "ferrybus.XXXXXX";
    if (mkdtemp(path_.data()) == nullptr) path_.clear();
  }
  ~TemporaryFolder() {
    std::error_code error;
    if (!path_.empty()) std::filesystem::remove_all(path_, error);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

void AddOptions(CLI::App& app, SessionOptions& session, uint64_t& ram_mib) {
  auto& machine = session.machine;
  app.add_option("--kernel", machine.linux.kernel_path,
                 "a bzImage, such as /boot/vmlinuz-*");
  app.add_option("--initrd", machine.linux.initrd_path);
  app.add_option("--append", machine.linux.command_line,
                 "the kernel's command line")
      ->capture_default_str();
  app.add_option("--disk", session.disk_path,
                 "image of the guest's disk, a file or block device");
  app.add_option("--memory-mib", ram_mib, "the guest's RAM")
      ->capture_default_str();
  app.add_option("--cpus", machine.vp_count)->capture_default_str();
  app.add_option("--disk-channels", session.disk_channels,
                 "channels to the disk, no more than processors; 0: one for "
                 "each four of them")
      ->capture_default_str();
  app.add_option("--hyperv", machine.hyperv,
                 "who plays Hyper-V: kvm, userspace, or auto")
      ->transform(CLI::CheckedTransformer(std::map<std::string, HypervChoice>{
          {"auto", HypervChoice::kAuto},
          {"kvm", HypervChoice::kKvm},
          {"userspace", HypervChoice::kUserspace}}));
  app.add_option("--state", session.state_folder,
                 "folder for the devices' checkpoints");
  app.add_option("--replacements", session.replacements,
                 "replace the devices' process so often once the guest is "
                 "ready, then have it power off");
  app.add_option("--interval", session.interval_ms,
                 "milliseconds between replacements")
      ->capture_default_str();
  app.add_flag("--kill", session.kill,
               "end the devices' process by SIGKILL after its checkpoint");
  app.add_flag("--connect", session.connect,
               "open a socket to the guest once it is ready");
  app.add_option("--moves", session.moves,
                 "move the running guest to another process so often");
  app.add_option("--snapshots", session.snapshots,
                 "the same by way of a folder, after the moves");
  app.add_option("--save-to", session.save_to,
                 "save the guest in this folder instead of powering it off");
  app.add_option("--restore-from", session.restore_from,
                 "continue a guest that was saved; its disk is as it was then");
  auto* listen =
      app.add_option("--listen", session.network.listen,
                     "HOST:PORT, for guests that move to or from other hosts");
  app.add_option("--advertise", session.network.advertise,
                 "HOST:PORT by which the others reach it, if not by --listen")
      ->needs(listen);
  app.add_flag("--receive", session.receive,
               "wait for a guest that another host sends, instead of booting")
      ->needs(listen);
  app.add_option("--move-to", session.move_to,
                 "send the guest to HOST:PORT, which waits with --receive, "
                 "instead of powering it off")
      ->needs(listen)
      ->excludes("--moves")
      ->excludes("--snapshots");
  app.add_option("--timeout", session.timeout_seconds,
                 "give the guest up after so many seconds");
  app.add_option("--json", session.json_path, "write the report here");
}

int Fail(const std::string& text) {
  std::fprintf(stderr, "ferrybus_hypervisor: %s\n", text.c_str());
  return 1;
}

int Run(SessionOptions& session, const TlsArguments& tls) {
  if (session.machine.linux.kernel_path.empty() &&
      session.restore_from.empty() && !session.incoming && !session.receive) {
    return Fail("--kernel is missing");
  }
  if (session.disk_path.empty()) return Fail("--disk is missing");
  if (!session.network.listen.empty()) {
    const auto credentials = ferrybus::migrate_tool::LoadCredentials(tls);
    if (!credentials.ok()) return Fail(credentials.status().ToString());
    session.network.channel_credentials = credentials->channel;
    session.network.server_credentials = credentials->server;
  }
  std::optional<TemporaryFolder> folder;
  if (session.state_folder.empty()) {
    folder.emplace();
    if (folder->path().empty()) return Fail("no folder for temporary files");
    session.state_folder = folder->path() + "/devices";
  }
  const RawTerminal terminal;
  const absl::Status status = ferrybus::hypervisor::RunSession(session);
  return status.ok() ? 0 : Fail(status.ToString());
}

}  // namespace

int main(int argc, char** argv) {
  SessionOptions session;
  session.machine.linux.command_line = "console=ttyS0";
  DeviceProcessOptions devices;
  uint64_t ram_mib = session.machine.ram_bytes >> 20;
  std::string role = "machine";
  CLI::App app(
      "Boots a stock Linux kernel on KVM.  Its root disk, shutdown, heartbeat, "
      "time and key-value exchange are served over VMBus, by a process that "
      "can "
      "be replaced while the guest runs.  Ctrl-A x ends it.");
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  AddOptions(app, session, ram_mib);
  TlsArguments tls;
  tls.AddTo(&app);
  // How it starts its own processes.
  app.add_option("--role", role)->group("");
  app.add_flag("--incoming", session.incoming)->group("");
  app.add_flag("--continued", session.is_continued)->group("");
  CLI11_PARSE(app, argc, argv);

  signal(SIGPIPE, SIG_IGN);
  if (role == "devices") {
    devices.image_path = session.disk_path;
    devices.checkpoint_folder = session.state_folder;
    devices.disk_channels = session.disk_channels;
    return ferrybus::hypervisor::RunDeviceProcess(devices);
  }
  session.machine.ram_bytes = ram_mib << 20;
  return Run(session, tls);
}
