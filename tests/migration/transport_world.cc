// SPDX-License-Identifier: MIT

#include "ferrybus/tests/migration/transport_world.h"

#include <grpcpp/server_builder.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "ferrybus/savestate/migration/fake_machine.h"
#include "ferrybus/savestate/migration/grpc/random_id.h"
#include "ferrybus/tests/migration/test_certificates.h"
#include "gtest/gtest.h"

namespace ferrybus::migration {
namespace {

constexpr char kDevice[] = "memory";
constexpr absl::Duration kSettleTime = absl::Seconds(60);

}  // namespace

const TlsIdentity& TestIdentity() {
  static const TestAuthority* const authority = new TestAuthority("test");
  static const auto* const identity = new TlsIdentity(authority->Issue());
  return *identity;
}

// ---- TestHost

TestHost::TestHost(const std::optional<TlsIdentity>& identity,
                   const WorldOptions& options)
    : identity_(identity),
      capabilities_(options.capabilities),
      words_(options.pages * migrate_tool::kPatternPageBytes /
             sizeof(uint64_t)),
      ledger_(std::make_unique<LockedLedger>(std::make_unique<FakeLedger>())) {
  server_ = std::make_unique<MigrationServer>(
      ServerOptions{.credentials = credentials(),
                    .silence_max = options.silence_max,
                    .limits = {}},
      this, &book_);
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0",
                           identity_.has_value()
                               ? TlsServerCredentials(*identity_)
                               : PlaintextServerCredentials(),
                           &port_);
  server_->AddTo(&builder);
  grpc_ = builder.BuildAndStart();
  EXPECT_NE(port_, 0);
}

TestHost::~TestHost() {
  server_->Stop();
  grpc_->Shutdown(absl::ToChronoTime(absl::Now() + absl::Seconds(1)));
  grpc_->Wait();
}

std::string TestHost::address() const {
  return absl::StrCat("127.0.0.1:", port_);
}

std::shared_ptr<grpc::ChannelCredentials> TestHost::credentials() const {
  return identity_.has_value() ? TlsChannelCredentials(*identity_)
                               : PlaintextChannelCredentials();
}

HostAddress TestHost::Reach(const std::string& address) const {
  return {address, credentials()};
}

absl::Span<std::byte> TestHost::memory() const {
  return {reinterpret_cast<std::byte*>(words_.data()),
          words_.size() * sizeof(uint64_t)};
}

void TestHost::MakeDevice() {
  device_ = std::make_unique<migrate_tool::MemoryDevice>(kDevice, "", memory(),
                                                         capabilities_);
  pages_ = *PendingPages::Create(device_.get(), MemoryOrigin::kZeros);
}

void TestHost::Own() {
  ASSERT_TRUE(ledger_
                  ->Store({.state = Ownership::kOwner,
                           .epoch = 1,
                           .migration_id = {},
                           .peer = {},
                           .messages = {}})
                  .ok());
  absl::MutexLock lock(&mutex_);
  MakeDevice();
  device_->Run();
}

bool TestHost::is_running() const {
  absl::MutexLock lock(&mutex_);
  return device_ != nullptr && device_->is_running();
}

bool TestHost::Write() {
  absl::MutexLock lock(&mutex_);
  if (device_ == nullptr || !device_->BeginWrite()) return false;
  migrate_tool::PatternMemory pattern(memory());
  device_->MarkWritten(pattern.WriteNext().offset_bytes,
                       migrate_tool::kPatternPageBytes);
  device_->MarkWritten(0, migrate_tool::kPatternPageBytes);
  device_->EndWrite();
  return true;
}

absl::Status TestHost::CheckMemory() const {
  return migrate_tool::PatternMemory(memory()).Check();
}

uint64_t TestHost::writes() const {
  return migrate_tool::PatternMemory(memory()).writes();
}

absl::StatusOr<MachineRegistry::Arrival> TestHost::BeginArrival(
    const std::string& /*machine*/) {
  return Arrival{.host = this, .ledger = ledger_.get()};
}

absl::StatusOr<OwnershipLedger*> TestHost::FindLedger(
    const std::string& machine) {
  if (machine == kMachine) return ledger_.get();
  return absl::NotFoundError(absl::StrCat("no machine ", machine));
}

absl::StatusOr<std::vector<Migratable*>> TestHost::CreateDevices(
    const Hello& /*hello*/, std::vector<int> /*descriptors*/,
    bool is_recovery) {
  absl::MutexLock lock(&mutex_);
  if (!is_recovery) std::fill(words_.begin(), words_.end(), 0);
  MakeDevice();
  return std::vector<Migratable*>{device_.get()};
}

void TestHost::DestroyDevices() {
  absl::MutexLock lock(&mutex_);
  pages_.reset();
  device_.reset();
}

// ---- TransportWorld

TransportWorld::TransportWorld(const WorldOptions& options)
    // What goes wrong on purpose would fill the log.
    : options_((setenv("GRPC_VERBOSITY", "NONE", 0), options)),
      source_(options.source_identity, options),
      target_(options.target_identity, options) {
  source_.Own();
  client_ = std::thread([this] { RunClient(); });
}

TransportWorld::~TransportWorld() { StopClient(); }

void TransportWorld::RunClient() {
  while (!is_ending_) {
    const bool is_at_source = source_.Write();
    const bool is_at_target = target_.Write();
    written_ += (is_at_source ? 1 : 0) + (is_at_target ? 1 : 0);
    // Seen one after the other: twice is once too often all the same, as a
    // machine goes one way here.
    if (is_at_target && source_.is_running()) was_at_both_ = true;
    absl::SleepFor(absl::Milliseconds(1));
  }
}

void TransportWorld::StopClient() {
  is_ending_ = true;
  if (client_.joinable()) client_.join();
}

OutgoingOptions TransportWorld::Outgoing(const std::string& address) const {
  OutgoingOptions options;
  options.source.machine = kMachine;
  options.source.migration_id = NewRandomId();
  options.source.peer = address;
  options.source.silence_max = options_.silence_max;
  // Several blocks, of a few pages each.
  options.source.block_bytes = 16 << 10;
  options.target = source_.Reach(address);
  options.own_address = source_.address();
  options.streams = 3;
  return options;
}

MigrationProgress TransportWorld::Move(const OutgoingOptions& options) {
  OutgoingMigration migration(options, {source_.pages()}, source_.ledger(),
                              &source_.book());
  return migration.Run();
}

std::string TransportWorld::CheckEnd() {
  const absl::Time until = absl::Now() + kSettleTime;
  while (!target_.book().Running().empty() ||
         !source_.book().Running().empty()) {
    if (absl::Now() > until) {
      return absl::StrCat("still undecided: ",
                          target_.book().Running().front().ShortDebugString());
    }
    absl::SleepFor(absl::Milliseconds(5));
  }
  StopClient();
  if (was_at_both_) return "it ran at both hosts";
  if (source_.is_running() == target_.is_running()) {
    return source_.is_running() ? "two run it" : "nobody runs it";
  }
  TestHost& owner = target_.is_running() ? target_ : source_;
  TestHost& other = target_.is_running() ? source_ : target_;
  if (owner.record().state != Ownership::kOwner) return "its ledger says no";
  if (other.record().state == Ownership::kOwner ||
      other.record().state == Ownership::kPrepared) {
    return "the other's ledger says yes";
  }
  if (owner.writes() != written_) {
    return absl::StrCat(owner.writes(), " writes in memory, the client's were ",
                        written_.load());
  }
  return std::string(owner.CheckMemory().message());
}

}  // namespace ferrybus::migration
