// SPDX-License-Identifier: MIT

#include "ferrybus/tests/migration/unix_world.h"

#include <stdlib.h>

#include <filesystem>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "ferrybus/savestate/migration/host/random_id.h"
#include "ferrybus/savestate/migration/unix/unix_connection.h"
#include "gtest/gtest.h"

namespace ferrybus::migration {

int OpenDescriptors() {
  const std::filesystem::directory_iterator fds("/proc/self/fd");
  // One of them is the iterator's.
  return static_cast<int>(std::distance(begin(fds), end(fds))) - 1;
}

UnixHost::UnixHost(const std::string& path, const UnixWorldOptions& options)
    : MemoryHost(options.pages, {.live_migration = true}),
      path_(path),
      options_(options) {
  StartServer();
}

void UnixHost::StartServer() {
  server_ = std::make_unique<UnixServer>(
      UnixServerOptions{.address = address(),
                        .silence_max = options_.silence_max},
      this, &book());
  const absl::Status status = server_->Start();
  EXPECT_TRUE(status.ok()) << status;
}

std::string UnixHost::address() const {
  return absl::StrCat(kUnixPrefix, path_);
}

UnixWorld::UnixWorld(const UnixWorldOptions& options) : options_(options) {
  std::string pattern = "/tmp/unixworldXXXXXX";
  folder_ = mkdtemp(pattern.data());
  source_ = std::make_unique<UnixHost>(folder_ + "/a.sock", options);
  target_ = std::make_unique<UnixHost>(folder_ + "/b.sock", options);
  source_->Own();
  client_ = std::make_unique<WritingClient>(source_.get(), target_.get());
}

UnixWorld::~UnixWorld() {
  client_ = nullptr;
  target_ = nullptr;
  source_ = nullptr;
  std::filesystem::remove_all(folder_);
}

OutgoingOptions UnixWorld::Outgoing(const std::string& address) const {
  OutgoingOptions options;
  options.source.machine = kMachine;
  options.source.migration_id = NewRandomId();
  options.source.peer = address;
  options.source.silence_max = options_.silence_max;
  options.source.share_memory = options_.share_memory;
  // Several blocks, of a few pages each.
  options.source.block_bytes = 16 << 10;
  options.streams = 1;
  return options;
}

std::unique_ptr<OutgoingMigration> UnixWorld::Begin(
    const OutgoingOptions& options) {
  return std::make_unique<OutgoingMigration>(
      options,
      MakeUnixConnection(options.source.peer, source_->address(),
                         options.source.limits),
      std::vector<PendingPages*>{source_->pages()}, source_->ledger(),
      &source_->book());
}

}  // namespace ferrybus::migration
