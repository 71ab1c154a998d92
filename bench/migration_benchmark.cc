// SPDX-License-Identifier: MIT
//
// Memory on its way to another host, over TLS on the loopback interface.
//
//   migration_transfer/streams:<n>
//       a machine of 512 MiB, all of it written, not compressed: the bytes of
//       its memory for the time from hello to running
//   migration_tls_copy
//       the same bytes as bare as can be: a thread that copies and SSL_writes
//       1 MiB at a time, one that SSL_reads and copies into memory that is as
//       new as a target's
//   migration_grpc_copy/streams:<n>
//       the same bytes through gRPC alone, with the same settings: what the
//       transport leaves of that, whoever uses it
//   migration_of_dirty/mib:<n>
//       a machine of 512 MiB that tracks what was ever written, and of which so
//       much was

#include <arpa/inet.h>
#include <grpcpp/client_context.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <netinet/in.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "benchmark/benchmark.h"
#include "ferrybus/savestate/migration/grpc/channel.h"
#include "ferrybus/savestate/migration/grpc/credentials.h"
#include "ferrybus/savestate/migration/grpc/transport.grpc.pb.h"
#include "ferrybus/tests/migration/transport_world.h"

namespace ferrybus::bench {
namespace {

using migration::MigrationProgress;
using migration::OutgoingOptions;
using migration::SourcePhase;
using migration::TransportWorld;

constexpr uint64_t kPagesOfMib = (1 << 20) / migrate_tool::kPatternPageBytes;
constexpr uint64_t kTransferMib = 512;
constexpr size_t kPieceBytes = 1 << 20;

void Need(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "migration_benchmark: %s\n", what);
  std::abort();
}

// Moves a machine, of which `written_mib` were written, once.
void MoveOnce(const migration::WorldOptions& world_options,
              uint64_t written_mib, int streams, benchmark::State& state) {
  TransportWorld world(world_options);
  while (world.source().writes() < written_mib * kPagesOfMib - 1) {
    Need(world.source().Write(), "it does not run");
  }
  OutgoingOptions options = world.Outgoing(world.target().address());
  options.streams = streams;
  options.source.compress = false;
  options.source.block_bytes = kPieceBytes;
  const absl::Time began = absl::Now();
  const MigrationProgress result = world.Move(options);
  state.SetIterationTime(absl::ToDoubleSeconds(absl::Now() - began));
  Need(result.phase == SourcePhase::kDone, "it did not move");
}

void Transfer(benchmark::State& state) {
  const migration::WorldOptions options = {.pages = kTransferMib * kPagesOfMib};
  for (auto unused : state) {
    (void)unused;
    MoveOnce(options, kTransferMib, static_cast<int>(state.range(0)), state);
  }
  state.SetBytesProcessed(state.iterations() * kTransferMib << 20);
}
BENCHMARK(Transfer)
    ->Name("migration_transfer")
    ->ArgName("streams")
    ->Arg(1)
    ->Arg(2)
    ->Arg(4)
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

void OfDirty(benchmark::State& state) {
  migration::WorldOptions options;
  options.pages = 512 * kPagesOfMib;
  options.capabilities = {.live_migration = true, .performant_tracking = true};
  for (auto unused : state) {
    (void)unused;
    MoveOnce(options, static_cast<uint64_t>(state.range(0)), 2, state);
  }
}
BENCHMARK(OfDirty)
    ->Name("migration_of_dirty")
    ->ArgName("mib")
    ->Arg(1)
    ->Arg(32)
    ->Arg(64)
    ->Arg(128)
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

// ---- The bare copy

class TlsPair {
 public:
  TlsPair() {
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    auto* const generic = reinterpret_cast<sockaddr*>(&address);
    Need(bind(listener, generic, size) == 0 && listen(listener, 1) == 0,
         "cannot listen");
    getsockname(listener, generic, &size);
    sockets_[0] = socket(AF_INET, SOCK_STREAM, 0);
    Need(connect(sockets_[0], generic, size) == 0, "cannot connect");
    sockets_[1] = accept(listener, nullptr, nullptr);
    close(listener);
    for (int side : {0, 1}) {
      contexts_[side] = SSL_CTX_new(TLS_method());
      Identify(contexts_[side]);
      connections_[side] = SSL_new(contexts_[side]);
      SSL_set_fd(connections_[side], sockets_[side]);
    }
    std::thread server(
        [this] { Need(SSL_accept(connections_[1]) == 1, "accept"); });
    Need(SSL_connect(connections_[0]) == 1, "connect");
    server.join();
  }
  ~TlsPair() {
    for (int side : {0, 1}) {
      SSL_free(connections_[side]);
      SSL_CTX_free(contexts_[side]);
      close(sockets_[side]);
    }
  }

  static void Identify(SSL_CTX* context) {
    const migration::TlsIdentity& identity = migration::TestIdentity();
    BIO* text = BIO_new_mem_buf(identity.certificate.data(),
                                static_cast<int>(identity.certificate.size()));
    X509* certificate = PEM_read_bio_X509(text, nullptr, nullptr, nullptr);
    SSL_CTX_use_certificate(context, certificate);
    X509_free(certificate);
    BIO_free(text);
    text = BIO_new_mem_buf(identity.key.data(),
                           static_cast<int>(identity.key.size()));
    EVP_PKEY* key = PEM_read_bio_PrivateKey(text, nullptr, nullptr, nullptr);
    SSL_CTX_use_PrivateKey(context, key);
    EVP_PKEY_free(key);
    BIO_free(text);
  }

  void Copy(const std::string& from, char* to) {
    std::thread reader([&] {
      std::string piece(kPieceBytes, '\0');
      for (size_t at = 0; at < from.size();) {
        const int size =
            SSL_read(connections_[1], piece.data(),
                     static_cast<int>(std::min(kPieceBytes, from.size() - at)));
        Need(size > 0, "read");
        std::memcpy(to + at, piece.data(), static_cast<size_t>(size));
        at += static_cast<size_t>(size);
      }
    });
    std::string piece(kPieceBytes, '\0');
    for (size_t at = 0; at < from.size(); at += kPieceBytes) {
      std::memcpy(piece.data(), from.data() + at, kPieceBytes);
      Need(SSL_write(connections_[0], piece.data(), kPieceBytes) > 0, "write");
    }
    reader.join();
  }

 private:
  int sockets_[2];
  SSL_CTX* contexts_[2];
  SSL* connections_[2];
};

void TlsCopy(benchmark::State& state) {
  const std::string from(kTransferMib << 20, 'x');
  TlsPair pair;
  for (auto unused : state) {
    (void)unused;
    state.PauseTiming();
    void* const to = mmap(nullptr, from.size(), PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    Need(to != MAP_FAILED, "mmap");
    state.ResumeTiming();
    pair.Copy(from, static_cast<char*>(to));
    state.PauseTiming();
    Need(std::memcmp(to, from.data(), from.size()) == 0, "the copy differs");
    munmap(to, from.size());
    state.ResumeTiming();
  }
  state.SetBytesProcessed(state.iterations() * kTransferMib << 20);
}
BENCHMARK(TlsCopy)
    ->Name("migration_tls_copy")
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

// ---- gRPC alone

// Takes all that comes.
class Sink final : public migration::v1::MigrationTransport::Service {
 public:
  grpc::Status Bulk(grpc::ServerContext* /*context*/,
                    grpc::ServerReader<migration::v1::Envelope>* reader,
                    migration::v1::BulkEnd* /*end*/) override {
    migration::v1::Envelope envelope;
    while (reader->Read(&envelope)) {
      benchmark::DoNotOptimize(envelope.message().data());
    }
    return grpc::Status::OK;
  }
};

void SendByGrpc(const migration::HostAddress& target, uint64_t mib) {
  auto stub = migration::v1::MigrationTransport::NewStub(
      migration::MakeChannel(target, {}));
  grpc::ClientContext context;
  migration::v1::BulkEnd end;
  auto writer = stub->Bulk(&context, &end);
  for (uint64_t i = 0; i < mib; ++i) {
    migration::v1::Envelope envelope;
    envelope.set_message(std::string(kPieceBytes, 'x'));
    Need(writer->Write(envelope), "gRPC write");
  }
  writer->WritesDone();
  Need(writer->Finish().ok(), "gRPC end");
}

void GrpcCopy(benchmark::State& state) {
  Sink sink;
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(
      "localhost:0", migration::TlsServerCredentials(migration::TestIdentity()),
      &port);
  migration::SetServerArguments({}, &builder);
  builder.RegisterService(&sink);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  Need(server != nullptr, "gRPC server");
  const migration::HostAddress target = {
      absl::StrCat("localhost:", port),
      migration::TlsChannelCredentials(migration::TestIdentity())};
  const uint64_t streams = static_cast<uint64_t>(state.range(0));
  for (auto unused : state) {
    (void)unused;
    std::vector<std::thread> senders;
    for (uint64_t i = 0; i < streams; ++i) {
      senders.emplace_back([&] { SendByGrpc(target, kTransferMib / streams); });
    }
    for (std::thread& each : senders) each.join();
  }
  state.SetBytesProcessed(state.iterations() * kTransferMib << 20);
  server->Shutdown();
}
BENCHMARK(GrpcCopy)
    ->Name("migration_grpc_copy")
    ->ArgName("streams")
    ->Arg(1)
    ->Arg(2)
    ->Arg(4)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace ferrybus::bench
