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
#include "ferrybus/examples/demo/serve.h"
#include "ferrybus/examples/demo/supervisor.h"

int main(int argc, char** argv) {
  using ferrybus::demo::ClientOptions;
  using ferrybus::demo::DemoOptions;
  using ferrybus::demo::ServeOptions;

  DemoOptions demo;
  ServeOptions serve;
  ClientOptions client;
  std::string role = "demo";
  CLI::App app(
      "A client works on a virtual disk while the process that serves the "
      "disk is replaced over and over, with requests in flight.  Nothing may "
      "be lost, doubled or changed.");
  app.add_option("--moves", demo.moves, "replacements of the serving process")
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
  // How the demo starts its own processes.
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
  if (seed->empty()) demo.seed = std::random_device()();
  const absl::Status status = ferrybus::demo::RunDemo(demo);
  if (status.ok()) return 0;
  std::fprintf(stderr, "demo: %s\n  repeat with --seed %llu\n",
               status.ToString().c_str(),
               static_cast<unsigned long long>(demo.seed));
  return 1;
}
