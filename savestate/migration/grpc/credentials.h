// SPDX-License-Identifier: MIT
//
// Who may be at the other end: mutual TLS.  Both sides show a certificate that
// is signed by the authority that both are given; there is nothing below TLS
// 1.2, and no fallback to plain text.  Whoever has such a certificate may do
// everything: give the authority to these hosts and their operators only.
//
// Ownership: files are read once.
// Thread safety: pure functions.
// Trust: the files are the embedder's, and looked at before they are used: a
// wrong one is named here, where a handshake only fails.

#ifndef FERRYBUS_SAVESTATE_MIGRATION_GRPC_CREDENTIALS_H_
#define FERRYBUS_SAVESTATE_MIGRATION_GRPC_CREDENTIALS_H_

#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace ferrybus::migration {

// Paths of PEM files.
struct TlsFiles {
  std::string authority;    // who signs the certificates of both sides
  std::string certificate;  // ours, and what leads to the authority
  std::string key;          // ours
};

// Their contents.
struct TlsIdentity {
  std::string authority;
  std::string certificate;
  std::string key;
};

// NotFound, InvalidArgument: which file, and why.  FailedPrecondition: the key
// is of another certificate; the certificate is not signed by the authority, or
// not valid at `now`.
absl::StatusOr<TlsIdentity> LoadTlsIdentity(const TlsFiles& files,
                                            absl::Time now);

std::shared_ptr<grpc::ChannelCredentials> TlsChannelCredentials(
    const TlsIdentity& identity);
std::shared_ptr<grpc::ServerCredentials> TlsServerCredentials(
    const TlsIdentity& identity);

// Anybody may read and change everything: for measurements on one host.
std::shared_ptr<grpc::ChannelCredentials> PlaintextChannelCredentials();
std::shared_ptr<grpc::ServerCredentials> PlaintextServerCredentials();

}  // namespace ferrybus::migration

#endif  // FERRYBUS_SAVESTATE_MIGRATION_GRPC_CREDENTIALS_H_
