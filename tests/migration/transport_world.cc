// SPDX-License-Identifier: MIT

#include "ferrybus/tests/migration/transport_world.h"

#include <grpcpp/server_builder.h>

#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "ferrybus/savestate/migration/host/random_id.h"
#include "ferrybus/tests/migration/test_certificates.h"
#include "gtest/gtest.h"

namespace ferrybus::migration {

const TlsIdentity& TestIdentity() {
  static const TestAuthority* const authority = new TestAuthority("test");
  static const auto* const identity = new TlsIdentity(authority->Issue());
  return *identity;
}

// ---- TestHost

TestHost::TestHost(const std::optional<TlsIdentity>& identity,
                   const WorldOptions& options)
    : MemoryHost(options.pages, options.capabilities), identity_(identity) {
  server_ = std::make_unique<MigrationServer>(
      ServerOptions{.credentials = credentials(),
                    .silence_max = options.silence_max,
                    .limits = {}},
      this, &book());
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

// ---- TransportWorld

TransportWorld::TransportWorld(const WorldOptions& options)
    // What goes wrong on purpose would fill the log.
    : options_((setenv("GRPC_VERBOSITY", "NONE", 0), options)),
      source_(options.source_identity, options),
      target_(options.target_identity, options) {
  source_.Own();
  client_ = std::make_unique<WritingClient>(&source_, &target_);
}

OutgoingOptions TransportWorld::Outgoing(const std::string& address) const {
  OutgoingOptions options;
  options.source.machine = kMachine;
  options.source.migration_id = NewRandomId();
  options.source.peer = address;
  options.source.silence_max = options_.silence_max;
  // Several blocks, of a few pages each.
  options.source.block_bytes = 16 << 10;
  options.streams = 3;
  return options;
}

MigrationProgress TransportWorld::Move(const OutgoingOptions& options) {
  return Move(options, source_.credentials());
}

MigrationProgress TransportWorld::Move(
    const OutgoingOptions& options,
    std::shared_ptr<grpc::ChannelCredentials> credentials) {
  OutgoingMigration migration(
      options,
      MakeGrpcConnection({options.source.peer, std::move(credentials)},
                         source_.address(), options.source.limits),
      {source_.pages()}, source_.ledger(), &source_.book());
  return migration.Run();
}

}  // namespace ferrybus::migration
