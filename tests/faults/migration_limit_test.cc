// SPDX-License-Identifier: MIT
//
// A machine that moves to another process of this host, both without
// descriptors to spare: it fails with an error, or gets there; either way one
// of them runs it, and it moves once there are descriptors.
//
// Over gRPC it is not tried: that library opens descriptors of its own.

#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "ferrybus/channel/guest_memory.h"
#include "ferrybus/channel/transport/unique_fd.h"
#include "ferrybus/savestate/migration/fake_machine.h"
#include "ferrybus/savestate/migration/host/locked_ledger.h"
#include "ferrybus/savestate/migration/host/migration_book.h"
#include "ferrybus/savestate/migration/host/outgoing_migration.h"
#include "ferrybus/savestate/migration/host/random_id.h"
#include "ferrybus/savestate/migration/migration_messages.h"
#include "ferrybus/savestate/migration/ownership.h"
#include "ferrybus/savestate/migration/unix/socket_frame.h"
#include "ferrybus/savestate/migration/unix/unix_connection.h"
#include "ferrybus/savestate/migration/unix/unix_server.h"
#include "ferrybus/savestate/migration/unix/unix_socket.h"
#include "ferrybus/savestate/steady_clock.h"
#include "ferrybus/tests/faults/resource_limit.h"
#include "ferrybus/tools/migrate/memory_device.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ferrybus::testing {
namespace {

using migration::FakeLedger;
using migration::FileLedger;
using migration::FrameKind;
using migration::LockedLedger;
using migration::MigrationBook;
using migration::MigrationProgress;
using migration::OutgoingMigration;
using migration::Ownership;
using migration::OwnershipRecord;
using migration::PendingPages;
using migration::SourcePhase;
using migration::UnixServer;
using migration::UnixSocket;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kMachine[] = "vm1";
constexpr uint64_t kMemoryBytes = 16 * 4096;
constexpr absl::Duration kSilenceMax = absl::Seconds(2);
// Beyond, what waits for descriptors gets them.
constexpr absl::Duration kPatience = absl::Seconds(8);
constexpr char kContent[] = "the machine's memory";

bool Await(const std::function<bool()>& is_so) {
  const absl::Time until = savestate::SteadyNow() + absl::Seconds(20);
  while (!is_so()) {
    if (savestate::SteadyNow() > until) return false;
    absl::SleepFor(absl::Milliseconds(2));
  }
  return true;
}

struct MoveOptions {
  bool is_ledger_on_disk = false;
  bool share_memory = true;
};

std::unique_ptr<migration::OwnershipLedger> MakeLedger(const std::string& path,
                                                       bool is_on_disk) {
  if (is_on_disk) return *FileLedger::Open(path);
  return std::make_unique<FakeLedger>();
}

// A server, a ledger, and a machine that may be here.
class Host final : public migration::MachineRegistry,
                   public migration::TargetHost {
 public:
  Host(const std::string& path, const MoveOptions& options)
      : address_(migration::kUnixPrefix + path + ".sock"),
        share_memory_(options.share_memory),
        ledger_(MakeLedger(path, options.is_ledger_on_disk)),
        server_({.address = address_, .silence_max = kSilenceMax}, this,
                &book_) {
    EXPECT_TRUE(server_.Start().ok());
  }
  ~Host() override { server_.Stop(); }

  // The machine begins here.
  void Own() {
    OwnershipRecord record;
    record.state = Ownership::kOwner;
    record.epoch = 1;
    ASSERT_TRUE(ledger_.Store(record).ok());
    memory_ = *MemfdGuestMemory::Create(kMemoryBytes);
    std::memcpy(memory_->Translate(0, kMemoryBytes).data(), kContent,
                sizeof(kContent));
    MakeDevice();
    device_->Run();
  }
  bool is_running() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return device_ != nullptr && device_->is_running();
  }
  bool is_whole() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return std::memcmp(memory_->Translate(0, kMemoryBytes).data(), kContent,
                       sizeof(kContent)) == 0;
  }
  bool is_idle() const { return book_.Running().empty(); }
  Ownership ownership() { return ledger_.Load()->state; }
  const std::string& address() const { return address_; }

  MigrationProgress MoveTo(const Host& target) {
    migration::OutgoingOptions options;
    options.source.machine = kMachine;
    options.source.migration_id = migration::NewRandomId();
    options.source.peer = target.address();
    options.source.silence_max = kSilenceMax;
    options.source.share_memory = share_memory_;
    options.streams = 1;
    return OutgoingMigration(
               options,
               migration::MakeUnixConnection(target.address(), address_, {}),
               std::vector<PendingPages*>{pages_.get()}, &ledger_, &book_)
        .Run();
  }

  // MachineRegistry.
  absl::StatusOr<Arrival> BeginArrival(const std::string&) override {
    return Arrival{.host = this, .ledger = &ledger_};
  }
  void EndArrival(const std::string&, bool) override {}
  absl::StatusOr<migration::OwnershipLedger*> FindLedger(
      const std::string&) override {
    return &ledger_;
  }
  // TargetHost.
  absl::StatusOr<std::vector<migration::Migratable*>> CreateDevices(
      const migration::Hello&, std::vector<int> descriptors, bool) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    absl::StatusOr<std::unique_ptr<MemfdGuestMemory>> memory =
        descriptors.empty() ? MemfdGuestMemory::Create(kMemoryBytes)
                            : MemfdGuestMemory::Map(UniqueFd(descriptors[0]));
    if (!memory.ok()) return memory.status();
    memory_ = *std::move(memory);
    MakeDevice();
    return std::vector<migration::Migratable*>{device_.get()};
  }
  void DestroyDevices() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    pages_.reset();
    device_.reset();
    memory_.reset();
  }

 private:
  void MakeDevice() {
    device_ = std::make_unique<migrate_tool::MemoryDevice>(
        "memory", "", memory_->Translate(0, kMemoryBytes),
        migration::Capabilities{.live_migration = true}, memory_->file());
    pages_ =
        *PendingPages::Create(device_.get(), migration::MemoryOrigin::kUnknown);
  }

  const std::string address_;
  const bool share_memory_;
  LockedLedger ledger_;
  MigrationBook book_;
  mutable std::mutex mutex_;
  std::unique_ptr<MemfdGuestMemory> memory_;
  std::unique_ptr<migrate_tool::MemoryDevice> device_;
  std::unique_ptr<PendingPages> pages_;
  UnixServer server_;
};

class MigrationLimitTest : public ::testing::Test {
 protected:
  // A socket's path must be short.
  MigrationLimitTest() {
    std::string pattern = "/tmp/limitXXXXXX";
    folder_ = mkdtemp(pattern.data());
  }
  ~MigrationLimitTest() override { std::filesystem::remove_all(folder_); }
  void SetUp() override {
    if (!CanLimitDescriptorsOfThreads()) {
      GTEST_SKIP() << "a sanitizer needs some, at times of its own";
    }
  }

  std::string folder_;
};

struct LimitedMove {
  MigrationProgress result;
  bool had_to_wait = false;  // it ended when the limit had
};

LimitedMove MoveWithRoomFor(size_t room, Host& source, Host& target) {
  LimitedMove move;
  std::atomic<bool> is_over{false};
  std::optional<DescriptorLimit> limit(room);
  std::thread mover([&] {
    move.result = source.MoveTo(target);
    is_over = true;
  });
  const absl::Time until = savestate::SteadyNow() + kPatience;
  while (!is_over && savestate::SteadyNow() < until) {
    absl::SleepFor(absl::Milliseconds(2));
  }
  move.had_to_wait = !is_over;
  limit.reset();
  mover.join();
  return move;
}

// A machine, and one move with room for so many; if that failed, another one
// with room for all.
LimitedMove MoveNewMachine(const std::string& path, size_t room,
                           const MoveOptions& options) {
  const std::set<int> before_hosts = OpenDescriptors();
  LimitedMove move;
  {
    Host source(path + "a", options);
    Host target(path + "b", options);
    source.Own();
    const size_t before = OpenDescriptors().size();
    move = MoveWithRoomFor(room, source, target);
    EXPECT_TRUE(Await([&] { return source.is_idle() && target.is_idle(); }));
    if (move.result.phase != SourcePhase::kDone) {
      EXPECT_TRUE(source.is_running());
      EXPECT_EQ(source.ownership(), Ownership::kOwner);
      EXPECT_TRUE(Await([&] { return OpenDescriptors().size() == before; }))
          << "room for " << room << ": " << move.result.status;
      // The target may only now hear of the first one, that it has ended.
      MigrationProgress again;
      EXPECT_TRUE(Await([&] {
        again = source.MoveTo(target);
        return again.phase == SourcePhase::kDone;
      })) << again.status;
      EXPECT_TRUE(Await([&] { return target.is_idle(); }));
    }
    EXPECT_FALSE(source.is_running());
    EXPECT_TRUE(target.is_running());
    EXPECT_TRUE(target.is_whole());
    EXPECT_EQ(target.ownership(), Ownership::kOwner);
    EXPECT_NE(source.ownership(), Ownership::kOwner);
  }
  EXPECT_EQ(OpenDescriptors(), before_hosts);
  return move;
}

// Moves with more and more room, until one succeeds.  What the others said.
std::set<std::string> MoveUntilRoomSuffices(const std::string& folder,
                                            const MoveOptions& options) {
  constexpr size_t kPlenty = 40;
  std::set<std::string> said;
  for (size_t room = 0; room < kPlenty; ++room) {
    const LimitedMove move =
        MoveNewMachine(absl::StrCat(folder, "/", room), room, options);
    if (move.result.phase == SourcePhase::kDone && !move.had_to_wait) {
      std::printf("a move: %zu descriptors; with less:\n", room);
      for (const std::string& text : said) std::printf("  %s\n", text.c_str());
      return said;
    }
    if (move.result.phase != SourcePhase::kDone) {
      said.insert(move.result.status.ToString());
    }
  }
  ADD_FAILURE() << "it never succeeds";
  return said;
}

// bad:K10
TEST_F(MigrationLimitTest, MemoryHandedOver) {
  for (const std::string& text : MoveUntilRoomSuffices(folder_, {})) {
    EXPECT_THAT(text, HasSubstr(std::strerror(EMFILE)));
  }
}

// The ledgers need descriptors, too.
// bad:K10
TEST_F(MigrationLimitTest, WithLedgersOnDisk) {
  for (const std::string& text :
       MoveUntilRoomSuffices(folder_, {.is_ledger_on_disk = true})) {
    EXPECT_THAT(text, HasSubstr(std::strerror(EMFILE)));
  }
}

// A target that cannot accept the connection is not heard; one that has no room
// for memory of its own says so.
// bad:K10
TEST_F(MigrationLimitTest, MemoryCopied) {
  const std::set<std::string> said =
      MoveUntilRoomSuffices(folder_, {.share_memory = false});
  EXPECT_THAT(said, ElementsAre(HasSubstr("nothing heard"),
                                HasSubstr("guest RAM: creating a memfd"),
                                HasSubstr("socket: Too many open files")));
}

// Of descriptors that the target has no room for, it says so itself.
// bad:K10
TEST_F(MigrationLimitTest, ServerThatGetsDescriptors) {
  const Host target(folder_ + "/b", {});
  const size_t before = OpenDescriptors().size();
  auto socket = *UnixSocket::Connect(folder_ + "/b.sock", absl::Seconds(5));
  ASSERT_TRUE(Await([&] { return OpenDescriptors().size() == before + 2; }));
  ASSERT_TRUE(
      socket
          ->Send(FrameKind::kGreeting, migration::SerializeGreeting("unix:/a"))
          .ok());
  std::vector<UniqueFd> memory;
  memory.emplace_back(dup(0));
  const DescriptorLimit limit(0);
  ASSERT_TRUE(socket->Send(FrameKind::kMessage, "a hello", memory).ok());
  const auto frame =
      socket->Receive({}, savestate::SteadyNow() + absl::Seconds(10));
  ASSERT_TRUE(frame.ok()) << frame.status();
  const auto message = migration::ParseMessage(
      {reinterpret_cast<const std::byte*>(frame->bytes.data()),
       frame->bytes.size()},
      {});
  ASSERT_TRUE(message.ok()) << message.status();
  const auto* const abort = std::get_if<migration::Abort>(&*message);
  ASSERT_NE(abort, nullptr);
  EXPECT_THAT(abort->reason.ToString(), HasSubstr(std::strerror(EMFILE)));
}

UniqueFd ListenAt(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(bind(fd.get(), reinterpret_cast<const sockaddr*>(&address),
                 sizeof(address)),
            0);
  EXPECT_EQ(listen(fd.get(), 100), 0);
  return fd;
}

// A server that cannot start takes nobody's place, and can start later.
// bad:K10
TEST_F(MigrationLimitTest, ServerThatStarts) {
  Host host(folder_ + "/a", {});
  MigrationBook book;
  const std::string taken = folder_ + "/taken.sock";
  const UniqueFd other = ListenAt(taken);
  const std::string path = folder_ + "/new.sock";
  UnixServer same({.address = migration::kUnixPrefix + taken}, &host, &book);
  UnixServer fresh({.address = migration::kUnixPrefix + path}, &host, &book);
  const auto start = [&] {
    const absl::Status refused = same.Start();
    if (!absl::IsAlreadyExists(refused)) return refused;
    const absl::Status status = fresh.Start();
    EXPECT_EQ(std::filesystem::exists(path), status.ok()) << status;
    return status;
  };
  bool is_started = false;
  for (size_t room = 0; room < 10 && !is_started; ++room) {
    const DescriptorLimit limit(room);
    const absl::Status status = start();
    is_started = status.ok();
    if (!is_started) {
      EXPECT_THAT(status.ToString(), HasSubstr(std::strerror(EMFILE)));
    }
  }
  EXPECT_TRUE(is_started);
  EXPECT_TRUE(UnixSocket::Connect(path, absl::Seconds(5)).ok());
  EXPECT_TRUE(UnixSocket::Connect(taken, absl::Seconds(5)).ok());
}

}  // namespace
}  // namespace ferrybus::testing
