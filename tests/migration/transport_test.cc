// SPDX-License-Identifier: MIT
//
// Migrations over real sockets and TLS: what goes well, who is let in, and what
// peers may not do.

#include <grpcpp/client_context.h>
#include <openssl/ssl.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "ferrybus/savestate/migration/grpc/channel.h"
#include "ferrybus/savestate/migration/grpc/transport.grpc.pb.h"
#include "ferrybus/savestate/migration/host/random_id.h"
#include "ferrybus/savestate/migration/migration_messages.h"
#include "ferrybus/tests/migration/tcp_relay.h"
#include "ferrybus/tests/migration/test_certificates.h"
#include "ferrybus/tests/migration/transport_world.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ferrybus::migration {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;

std::string Text(const absl::Status& status) {
  return std::string(status.message());
}

v1::MigrationReport Query(const HostAddress& host, const std::string& id) {
  grpc::ClientContext context;
  v1::MigrationName name;
  name.set_migration_id(id);
  v1::MigrationReport report;
  const grpc::Status status =
      v1::MigrationTransport::NewStub(MakeChannel(host, {}))
          ->Query(&context, name, &report);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return report;
}

TEST(TransportTest, MovesAMachineThatIsWrittenAllTheTime) {
  TransportWorld world({.pages = 1024});
  const OutgoingOptions options = world.Outgoing(world.target().address());
  const MigrationProgress result = world.Move(options);
  EXPECT_EQ(result.phase, SourcePhase::kDone);
  EXPECT_TRUE(result.status.ok()) << result.status;
  EXPECT_EQ(world.CheckEnd(), "");
  EXPECT_TRUE(world.is_moved());

  // Both hosts tell of it afterwards.
  const auto at_source = Query(world.source().Reach(world.source().address()),
                               options.source.migration_id);
  EXPECT_EQ(at_source.phase(), "done");
  EXPECT_TRUE(at_source.is_handed_over());
  EXPECT_GE(at_source.pages_sent(), 1024u);
  const auto at_target = Query(world.source().Reach(world.target().address()),
                               options.source.migration_id);
  EXPECT_EQ(at_target.phase(), "running");
  EXPECT_TRUE(at_target.is_finished());
}

TEST(TransportTest, AnyNumberOfStreams) {
  for (int streams : {1, 2, kStreamsMax}) {
    TransportWorld world;
    OutgoingOptions options = world.Outgoing(world.target().address());
    options.streams = streams;
    EXPECT_EQ(world.Move(options).phase, SourcePhase::kDone);
    EXPECT_EQ(world.CheckEnd(), "") << streams;
  }
  TransportWorld world;
  OutgoingOptions options = world.Outgoing(world.target().address());
  options.streams = kStreamsMax + 1;
  EXPECT_THAT(Text(world.Move(options).status), HasSubstr("17 streams"));
  EXPECT_EQ(world.CheckEnd(), "");
}

TEST(TransportTest, QuickMove) {
  TransportWorld world;
  OutgoingOptions options = world.Outgoing(world.target().address());
  options.source.quick = true;
  EXPECT_EQ(world.Move(options).phase, SourcePhase::kDone);
  EXPECT_EQ(world.CheckEnd(), "");
}

// ---- Who is let in.

// The move fails, and the source's user reads why.
void ExpectRefused(const WorldOptions& options,
                   const ::testing::Matcher<std::string>& reason) {
  TransportWorld world(options);
  const MigrationProgress result =
      world.Move(world.Outgoing(world.target().address()));
  EXPECT_EQ(result.phase, SourcePhase::kFailed);
  EXPECT_THAT(Text(result.status), reason);
  EXPECT_EQ(world.CheckEnd(), "");
  EXPECT_FALSE(world.is_moved());
}

// bad:T9
TEST(TransportTest, CertificateOfAnotherAuthorityIsRefused) {
  const TestAuthority other("other");
  ExpectRefused({.target_identity = other.Issue()},
                HasSubstr("certificate verify failed"));
}

// bad:T9
TEST(TransportTest, ClientOfAnotherAuthorityIsRefused) {
  const TestAuthority other("other");
  TlsIdentity stranger = other.Issue();
  // It trusts the target, the target does not trust it.
  stranger.authority = TestIdentity().authority;
  ExpectRefused({.source_identity = stranger}, HasSubstr("certificate"));
}

// bad:T9
TEST(TransportTest, ClientWithoutCertificateIsRefused) {
  TransportWorld world;
  const OutgoingOptions options = world.Outgoing(world.target().address());
  grpc::SslCredentialsOptions nameless;
  nameless.pem_root_certs = TestIdentity().authority;
  const MigrationProgress result =
      world.Move(options, grpc::SslCredentials(nameless));
  EXPECT_EQ(result.phase, SourcePhase::kFailed);
  EXPECT_THAT(Text(result.status), HasSubstr("certificate"));
  EXPECT_EQ(world.CheckEnd(), "");
  EXPECT_FALSE(world.is_moved());
}

// bad:T9
TEST(TransportTest, PlainTextIsRefusedByEitherSide) {
  ExpectRefused({.source_identity = std::nullopt}, HasSubstr("certificate"));
  ExpectRefused({.target_identity = std::nullopt}, HasSubstr("certificate"));
}

TEST(TransportTest, PlainTextOnBothSidesIsPossible) {
  TransportWorld world(
      {.source_identity = std::nullopt, .target_identity = std::nullopt});
  EXPECT_EQ(world.Move(world.Outgoing(world.target().address())).phase,
            SourcePhase::kDone);
  EXPECT_EQ(world.CheckEnd(), "");
}

// bad:T9
TEST(TransportTest, CertificateForAnotherNameIsRefused) {
  const TestAuthority authority("named");
  ExpectRefused({.source_identity = authority.Issue(),
                 .target_identity = authority.Issue(
                     {.alternative_names = "DNS:elsewhere.example"})},
                HasSubstr("Peer name"));
}

// bad:T9
TEST(TransportTest, CertificateThatIsOverIsRefused) {
  const TestAuthority authority("late");
  const TestAuthority::Wanted over = {.from = -absl::Hours(3),
                                      .until = -absl::Hours(1)};
  ExpectRefused({.source_identity = authority.Issue(),
                 .target_identity = authority.Issue(over)},
                HasSubstr("certificate verify failed"));
  ExpectRefused({.source_identity = authority.Issue(over),
                 .target_identity = authority.Issue()},
                HasSubstr("certificate"));
}

// bad:T9
TEST(TransportTest, OldTlsIsRefused) {
  TransportWorld world;
  for (int version : {TLS1_VERSION, TLS1_1_VERSION, TLS1_2_VERSION}) {
    SSL_CTX* context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_security_level(context, 0);
    SSL_CTX_set_min_proto_version(context, version);
    SSL_CTX_set_max_proto_version(context, version);
    SSL_CTX_set_cipher_list(context, "ALL:@SECLEVEL=0");
    const TlsFiles files = WriteTlsFiles(TestIdentity(), ::testing::TempDir());
    SSL_CTX_use_certificate_chain_file(context, files.certificate.c_str());
    SSL_CTX_use_PrivateKey_file(context, files.key.c_str(), SSL_FILETYPE_PEM);
    BIO* bio = BIO_new_ssl_connect(context);
    BIO_set_conn_hostname(bio, world.target().address().c_str());
    SSL* ssl = nullptr;
    BIO_get_ssl(bio, &ssl);
    static const unsigned char kProtocols[] = "\x02h2";
    SSL_set_alpn_protos(ssl, kProtocols, 3);
    EXPECT_EQ(BIO_do_connect(bio) == 1, version == TLS1_2_VERSION)
        << "TLS version " << version;
    BIO_free_all(bio);
    SSL_CTX_free(context);
  }
}

// ---- Files of certificates: named before anything is tried.

class TlsFilesTest : public ::testing::Test {
 protected:
  TlsFilesTest() {
    std::string pattern = ::testing::TempDir() + "/tlsXXXXXX";
    folder_ = mkdtemp(pattern.data());
  }
  ~TlsFilesTest() override { std::filesystem::remove_all(folder_); }

  std::string Load(const TlsIdentity& identity,
                   absl::Time now = absl::Now()) const {
    return Text(
        LoadTlsIdentity(WriteTlsFiles(identity, folder_), now).status());
  }

  std::string folder_;
};

// bad:T9
TEST_F(TlsFilesTest, SaysWhichFileIsWrong) {
  const TestAuthority authority("good");
  const TestAuthority other("other");
  const TlsIdentity good = authority.Issue();
  EXPECT_EQ(Load(good), "");
  EXPECT_THAT(Load({good.authority, good.certificate, authority.Issue().key}),
              HasSubstr("does not belong"));
  EXPECT_THAT(Load({good.authority, good.certificate, "no key"}),
              HasSubstr("key: no private key"));
  EXPECT_THAT(Load({good.authority, "", good.key}),
              HasSubstr("certificate: no certificate"));
  EXPECT_THAT(Load({"", good.certificate, good.key}),
              HasSubstr("authority: no certificate"));
  const TlsIdentity stranger = other.Issue();
  EXPECT_THAT(Load({good.authority, stranger.certificate, stranger.key}),
              HasSubstr("is not good for"));
  EXPECT_THAT(Load(good, absl::Now() + absl::Hours(30)), HasSubstr("expired"));
  EXPECT_THAT(Load(good, absl::Now() - absl::Hours(30)),
              HasSubstr("not yet valid"));
  EXPECT_THAT(
      Load({good.authority, good.certificate, std::string((1 << 20) + 1, 'x')}),
      HasSubstr("more than"));
  EXPECT_THAT(
      Text(LoadTlsIdentity(TlsFiles{folder_ + "/none", "", ""}, absl::Now())
               .status()),
      HasSubstr("cannot read"));
}

// ---- Peers that misbehave.

// A source that sends what a test wants.
class RawSource {
 public:
  explicit RawSource(TransportWorld& world)
      : stub_(v1::MigrationTransport::NewStub(
            MakeChannel(world.source().Reach(world.target().address()), {}))) {
    context_.AddMetadata(kSourceAddressKey, world.source().address());
    stream_ = stub_->Control(&context_);
  }

  bool Send(const std::string& bytes) {
    v1::Envelope envelope;
    envelope.set_message(bytes);
    return stream_->Write(envelope);
  }
  bool Send(const Message& message) { return Send(SerializeMessage(message)); }
  // Abort, or whatever: its name; empty: the stream has ended.
  absl::StatusOr<Message> Receive() {
    v1::Envelope envelope;
    if (!stream_->Read(&envelope)) return absl::UnavailableError("ended");
    const std::string& bytes = envelope.message();
    return ParseMessage(
        {reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()}, {});
  }
  // Why the target aborts it.
  std::string Reason() {
    while (true) {
      absl::StatusOr<Message> message = Receive();
      if (!message.ok()) return absl::StrCat("none: ", Text(message.status()));
      if (const auto* abort = std::get_if<Abort>(&*message)) {
        return Text(abort->reason);
      }
    }
  }
  std::string Ticket() {
    auto found = context_.GetServerInitialMetadata().find(kTicketKey);
    return {found->second.data(), found->second.size()};
  }
  grpc::Status Finish() {
    stream_->WritesDone();
    return stream_->Finish();
  }
  v1::MigrationTransport::Stub& stub() { return *stub_; }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<v1::MigrationTransport::Stub> stub_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::Envelope, v1::Envelope>> stream_;
};

Hello GoodHello(uint64_t pages = 128) {
  return {.migration_id = NewRandomId(),
          .machine = kMachine,
          .epoch = 1,
          .devices = {{.name = "memory",
                       .creation_parameters = {},
                       .segments = {{.id = 1,
                                     .page_size_bytes = 4096,
                                     .size_bytes = pages * 4096}}}}};
}

// bad:T2
TEST(TransportTest, OversizedMessageEndsTheMigration) {
  TransportWorld world;
  RawSource raw(world);
  (void)raw.Send(std::string(40 << 20, 'x'));
  EXPECT_FALSE(raw.Receive().ok());
  EXPECT_EQ(raw.Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(world.CheckEnd(), "");
}

// bad:T2 bad:T3
TEST(TransportTest, WhatIsNoHelloEndsTheMigration) {
  TransportWorld world;
  for (const std::string& bytes :
       {std::string(), std::string("garbage"), SerializeMessage(Prepared()),
        SerializeMessage(Running())}) {
    RawSource raw(world);
    raw.Send(bytes);
    EXPECT_THAT(raw.Reason(), ::testing::Not(HasSubstr("none")));
  }
  EXPECT_EQ(world.CheckEnd(), "");
}

// bad:T4
TEST(TransportTest, SilentSourceIsGivenUp) {
  TransportWorld world({.silence_max = absl::Milliseconds(300)});
  RawSource says_nothing(world);
  EXPECT_THAT(says_nothing.Reason(), HasSubstr("no hello"));
  RawSource says_hello(world);
  says_hello.Send(GoodHello());
  EXPECT_THAT(says_hello.Reason(), HasSubstr("nothing heard"));
  EXPECT_EQ(world.CheckEnd(), "");
}

// A port where somebody listens and never answers.
// bad:T4
TEST(TransportTest, SilentTargetIsGivenUp) {
  TransportWorld world({.silence_max = absl::Milliseconds(300)});
  TcpRelay relay(world.target().port(), {.fault = RelayFault::kStall});
  const MigrationProgress result = world.Move(world.Outgoing(relay.address()));
  EXPECT_EQ(result.status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(world.CheckEnd(), "");
}

// bad:T6
TEST(TransportTest, SecondSenderIsRefused) {
  TransportWorld world;
  RawSource first(world);
  first.Send(GoodHello());
  ASSERT_TRUE(first.Receive().ok());
  RawSource second(world);
  second.Send(GoodHello());
  EXPECT_THAT(second.Reason(), HasSubstr("already"));
  // Nor from the host that has it.
  EXPECT_THAT(Text(world.Move(world.Outgoing(world.target().address())).status),
              HasSubstr("already"));
  first.Finish();
  EXPECT_EQ(world.CheckEnd(), "");
}

// All that a source of an earlier migration said, said again.
// bad:T6
TEST(TransportTest, ReplayedStreamIsRefused) {
  TransportWorld world;
  ASSERT_EQ(world.Move(world.Outgoing(world.target().address())).phase,
            SourcePhase::kDone);
  RawSource to_owner(world);
  to_owner.Send(GoodHello());
  EXPECT_THAT(to_owner.Reason(), HasSubstr("this host's record says: owner"));
  EXPECT_EQ(world.CheckEnd(), "");
}

// Blocks and decisions of another session than the one that is open.
// bad:T6
TEST(TransportTest, ReplayedBlocksAndDecisionsAreRefused) {
  TransportWorld world;
  RawSource raw(world);
  raw.Send(GoodHello());
  ASSERT_TRUE(raw.Receive().ok());
  raw.Send(ImmutableData{.device = 0, .data = "ferrybus memory 1"});
  ASSERT_TRUE(raw.Receive().ok());

  grpc::ClientContext stranger;
  v1::BulkEnd end;
  stranger.AddMetadata(kTicketKey, NewRandomId());
  EXPECT_EQ(raw.stub().Bulk(&stranger, &end)->Finish().error_code(),
            grpc::StatusCode::PERMISSION_DENIED);

  grpc::ClientContext context;
  context.AddMetadata(kTicketKey, raw.Ticket());
  auto bulk = raw.stub().Bulk(&context, &end);
  v1::Envelope envelope;
  PageBlock block;
  block.session = NewRandomId();
  block.pass = 1;
  block.segment = 1;
  block.zero_runs = {{0, 1}};
  envelope.set_message(SerializeBlock(block));
  bulk->Write(envelope);
  EXPECT_THAT(raw.Reason(), HasSubstr("another session"));
  bulk->WritesDone();
  (void)bulk->Finish();
  (void)raw.Finish();
  EXPECT_EQ(world.CheckEnd(), "");
}

TEST(TransportTest, DecisionOfUnknownMachineIsNotMadeUp) {
  TransportWorld world;
  const auto channel =
      MakeChannel(world.source().Reach(world.source().address()), {});
  EXPECT_EQ(AskDecision(channel, "nobody", NewRandomId(), absl::Seconds(5))
                .status()
                .code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(*AskDecision(channel, kMachine, NewRandomId(), absl::Seconds(5)),
            Decision::kAborted);
  // A host that never had it has nothing to say about it.
  const auto target =
      MakeChannel(world.source().Reach(world.target().address()), {});
  EXPECT_EQ(AskDecision(target, kMachine, NewRandomId(), absl::Seconds(5))
                .status()
                .code(),
            absl::StatusCode::kNotFound);
}

// Neither "aborted" nor "committed" while it may still become the other.
// bad:T5
TEST(TransportTest, SourceThatHasNotDecidedSaysSo) {
  TransportWorld world;
  OutgoingOptions options = world.Outgoing(world.target().address());
  const auto channel =
      MakeChannel(world.source().Reach(world.source().address()), {});
  int asked = 0;
  options.on_progress = [&](const MigrationProgress& progress) {
    if (progress.phase >= SourcePhase::kCommitted) return;
    EXPECT_EQ(*AskDecision(channel, kMachine, options.source.migration_id,
                           absl::Seconds(5)),
              Decision::kUndecided)
        << SourcePhaseName(progress.phase);
    ++asked;
  };
  EXPECT_EQ(world.Move(options).phase, SourcePhase::kDone);
  EXPECT_GT(asked, 2);
  EXPECT_EQ(*AskDecision(channel, kMachine, options.source.migration_id,
                         absl::Seconds(5)),
            Decision::kCommitted);
  EXPECT_EQ(world.CheckEnd(), "");
}

// ---- Cancel

grpc::Status Cancel(const HostAddress& host, const std::string& id) {
  grpc::ClientContext context;
  v1::MigrationName name;
  name.set_migration_id(id);
  v1::CancelReply reply;
  return v1::MigrationTransport::NewStub(MakeChannel(host, {}))
      ->Cancel(&context, name, &reply);
}

TEST(TransportTest, CancelFromEitherSideInAnyPhase) {
  int cases = 0;
  int cancelled = 0;
  for (bool at_source : {true, false}) {
    for (SourcePhase phase : {SourcePhase::kValidating, SourcePhase::kCopying,
                              SourcePhase::kBlackout, SourcePhase::kPreparing,
                              SourcePhase::kCommitted}) {
      TransportWorld world;
      OutgoingOptions options = world.Outgoing(world.target().address());
      bool was_there = false;
      options.on_progress = [&](const MigrationProgress& progress) {
        if (progress.phase != phase || was_there) return;
        was_there = true;
        (void)Cancel(world.source().Reach(at_source ? world.source().address()
                                                    : world.target().address()),
                     options.source.migration_id);
      };
      const MigrationProgress result = world.Move(options);
      EXPECT_EQ(world.CheckEnd(), "") << SourcePhaseName(phase);
      EXPECT_EQ(world.is_moved(), result.phase == SourcePhase::kDone);
      if (!world.is_moved()) {
        EXPECT_THAT(Text(result.status), HasSubstr("cancelled"));
        ++cancelled;
      }
      ++cases;
    }
  }
  EXPECT_GT(cancelled, 2);
  std::printf("cancel: %d cases, %d cancelled, each with one owner\n", cases,
              cancelled);
}

}  // namespace
}  // namespace ferrybus::migration
