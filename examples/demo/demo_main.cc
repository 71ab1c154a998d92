// SPDX-License-Identifier: MIT
//
// ferrybus_demo: a disk under load whose serving process is replaced again
// and again.  The client never reopens; it only sees a pause.

#include <signal.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <random>
#include <string>

#include "ferrybus/examples/demo/client.h"
#include "ferrybus/examples/demo/link_demo.h"
#include "ferrybus/examples/demo/migrate_demo.h"
#include "ferrybus/examples/demo/roaming_client.h"
#include "ferrybus/examples/demo/serve.h"
#include "ferrybus/examples/demo/supervisor.h"

namespace {

void AddHostOptions(CLI::App* app, bool* is_migrate,
                    ferrybus::demo::MigrateDemoOptions* migrate) {
  CLI::Option_group* const hosts = app->add_option_group(
      "between hosts",
      "A machine with a disk and an accelerator moves between two hosts: "
      "network namespaces with a link of a given rate (as root)");
  hosts->add_flag("--migrate", *is_migrate, "this, instead");
  hosts->add_flag("--one-host", migrate->one_host,
                  "with --migrate: between two processes of this host, which "
                  "hand over memory by descriptor; 50 moves, if not told");
  hosts->add_flag("--throughput", migrate->throughput,
                  "with --migrate: memory that nobody writes, in turn with "
                  "iperf3, and what part of the link it gets");
  hosts->add_option("--link-mbit", migrate->link_mbit, "rate of the link")
      ->capture_default_str();
  hosts
      ->add_option("--vram-mib", migrate->vram_mib, "memory of the accelerator")
      ->capture_default_str()
      ->check(CLI::Range(1, 16384));
  hosts
      ->add_option("--steps", migrate->steps,
                   "pages that the accelerator works on in a second")
      ->capture_default_str();
  hosts->add_option("--streams", migrate->streams, "connections for memory")
      ->capture_default_str();
  hosts->add_option("--daemon", migrate->daemon_program, "ferrybus-migrated")
      ->envname("FERRYBUS_MIGRATED");
  hosts
      ->add_option("--command", migrate->command_program,
                   "the program of `ferrybus migrate`")
      ->envname("FERRYBUS_MIGRATE");
}

int Report(const absl::Status& status, uint64_t seed) {
  if (status.ok()) return 0;
  std::fprintf(stderr, "demo: %s\n  repeat with --seed %llu\n",
               status.ToString().c_str(),
               static_cast<unsigned long long>(seed));
  return 1;
}

int RunBetweenHosts(const ferrybus::demo::DemoOptions& demo,
                    ferrybus::demo::MigrateDemoOptions migrate) {
  migrate.seed = demo.seed;
  migrate.image_mib = demo.image_mib;
  migrate.json_path = demo.json_path;
  migrate.folder = demo.folder;
  return Report(migrate.throughput ? ferrybus::demo::RunLinkDemo(migrate)
                                   : ferrybus::demo::RunMigrateDemo(migrate),
                demo.seed);
}

}  // namespace

int main(int argc, char** argv) {
  using ferrybus::demo::ClientOptions;
  using ferrybus::demo::DemoOptions;
  using ferrybus::demo::MigrateDemoOptions;
  using ferrybus::demo::RoamingClientOptions;
  using ferrybus::demo::ServeOptions;

  DemoOptions demo;
  ServeOptions serve;
  ClientOptions client;
  MigrateDemoOptions migrate;
  RoamingClientOptions roaming;
  std::string role = "demo";
  CLI::App app(
      "A client works on a virtual disk while the process that serves the "
      "disk is replaced over and over, with requests in flight.  Nothing may "
      "be lost, doubled or changed.");
  CLI::Option* const moves =
      app.add_option("--moves", demo.moves,
                     "replacements of the serving process, or moves")
          ->capture_default_str();
  app.add_option("--seconds", demo.seconds,
                 "run this long instead, however many moves that makes");
  CLI::Option* const seed =
      app.add_option("--seed", demo.seed, "repeats a run's requests");
  app.add_flag("--kill", demo.kill,
               "end each serving process by SIGKILL, right after its "
               "checkpoint is durable");
  app.add_option("--interval", demo.interval_ms, "milliseconds between moves")
      ->capture_default_str();
  app.add_option("--image-mib", demo.image_mib, "size of the disk")
      ->capture_default_str()
      ->check(CLI::Range(256, 65536));
  app.add_option("--json", demo.json_path, "write the result here");
  app.add_option("--dir", demo.folder,
                 "work in this folder and keep it (default: a temporary one)");
  bool is_migrate = false;
  AddHostOptions(&app, &is_migrate, &migrate);
  // How the demo starts its own processes.
  app.add_option("--socket", roaming.sockets)->group("");
  app.add_option("--role", role)->group("");
  app.add_option("--image", serve.image_path)->group("");
  app.add_option("--checkpoints", serve.checkpoint_folder)->group("");
  app.add_option("--manifest", client.manifest_path)->group("");
  CLI11_PARSE(app, argc, argv);

  signal(SIGPIPE, SIG_IGN);
  if (role == "serve") return ferrybus::demo::Serve(serve);
  if (role == "client") {
    client.seed = demo.seed;
    return ferrybus::demo::RunClient(client);
  }
  if (role == "roaming-client") {
    roaming.manifest_path = client.manifest_path;
    roaming.seed = demo.seed;
    roaming.vram_bytes = migrate.vram_mib << 20;
    return ferrybus::demo::RunRoamingClient(roaming);
  }
  if (seed->empty()) demo.seed = std::random_device()();
  if (migrate.one_host) migrate.moves = 50;
  if (!moves->empty()) migrate.moves = demo.moves;
  return is_migrate ? RunBetweenHosts(demo, migrate)
                    : Report(ferrybus::demo::RunDemo(demo), demo.seed);
}
