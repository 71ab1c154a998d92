// SPDX-License-Identifier: MIT
//
// The arguments about certificates that the daemon and the command share.
//
// Ownership: none.  Thread safety: pure functions.

#ifndef FERRYBUS_TOOLS_MIGRATE_TLS_ARGUMENTS_H_
#define FERRYBUS_TOOLS_MIGRATE_TLS_ARGUMENTS_H_

#include <CLI/CLI.hpp>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "ferrybus/savestate/migration/grpc/credentials.h"

namespace ferrybus::migrate_tool {

struct TlsArguments {
  migration::TlsFiles files;
  bool insecure_plaintext = false;

  void AddTo(CLI::App* app) {
    app->add_option("--ca", files.authority,
                    "certificates of who signs for both sides (PEM)")
        ->envname("FERRYBUS_CA");
    app->add_option("--cert", files.certificate, "our certificate (PEM)")
        ->envname("FERRYBUS_CERT");
    app->add_option("--key", files.key, "its private key (PEM, no password)")
        ->envname("FERRYBUS_KEY");
    app->add_flag("--insecure-plaintext", insecure_plaintext,
                  "no TLS: anybody may read, change and take over everything");
  }
};

struct TlsCredentials {
  std::shared_ptr<grpc::ChannelCredentials> channel;
  std::shared_ptr<grpc::ServerCredentials> server;
};

inline absl::StatusOr<TlsCredentials> LoadCredentials(
    const TlsArguments& arguments) {
  if (arguments.insecure_plaintext) {
    return TlsCredentials{migration::PlaintextChannelCredentials(),
                          migration::PlaintextServerCredentials()};
  }
  if (arguments.files.authority.empty() ||
      arguments.files.certificate.empty() || arguments.files.key.empty()) {
    return absl::InvalidArgumentError(
        "--ca, --cert and --key are needed (or FERRYBUS_CA, FERRYBUS_CERT, "
        "FERRYBUS_KEY in the environment)");
  }
  absl::StatusOr<migration::TlsIdentity> identity =
      migration::LoadTlsIdentity(arguments.files, absl::Now());
  if (!identity.ok()) return identity.status();
  return TlsCredentials{migration::TlsChannelCredentials(*identity),
                        migration::TlsServerCredentials(*identity)};
}

}  // namespace ferrybus::migrate_tool

#endif  // FERRYBUS_TOOLS_MIGRATE_TLS_ARGUMENTS_H_
