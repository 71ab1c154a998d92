// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/migration/grpc/credentials.h"

#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/x509_vfy.h>

#include <fstream>
#include <iterator>
#include <vector>

#include "absl/strings/str_cat.h"

namespace ferrybus::migration {
namespace {

constexpr std::streamsize kFileBytesMax = 1 << 20;

template <typename T, void (*kFree)(T*)>
struct Deleter {
  void operator()(T* object) const { kFree(object); }
};
using Certificate = std::unique_ptr<X509, Deleter<X509, X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Deleter<EVP_PKEY, EVP_PKEY_free>>;
using Store = std::unique_ptr<X509_STORE, Deleter<X509_STORE, X509_STORE_free>>;
using Context = std::unique_ptr<X509_STORE_CTX,
                                Deleter<X509_STORE_CTX, X509_STORE_CTX_free>>;

struct BioDeleter {
  void operator()(BIO* bio) const { BIO_free(bio); }
};
using Bio = std::unique_ptr<BIO, BioDeleter>;

// What sk_X509_pop_free would own.
struct Chain {
  std::vector<Certificate> certificates;
  STACK_OF(X509) * stack = sk_X509_new_null();

  Chain() = default;
  Chain(const Chain&) = delete;
  Chain& operator=(const Chain&) = delete;
  ~Chain() { sk_X509_free(stack); }
};

absl::StatusOr<std::string> ReadFile(const char* what,
                                     const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    return absl::NotFoundError(
        absl::StrCat(what, ": cannot read '", path, "'"));
  }
  std::string text(static_cast<size_t>(kFileBytesMax) + 1, '\0');
  file.read(text.data(), kFileBytesMax + 1);
  if (file.gcount() > kFileBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        what, ": '", path, "' has more than ", kFileBytesMax, " bytes"));
  }
  text.resize(static_cast<size_t>(file.gcount()));
  return text;
}

Bio Open(const std::string& text) {
  return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

std::vector<Certificate> ReadCertificates(const std::string& text) {
  std::vector<Certificate> certificates;
  const Bio bio = Open(text);
  while (X509* next = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)) {
    certificates.emplace_back(next);
  }
  return certificates;
}

absl::Status Check(const TlsIdentity& identity, const TlsFiles& files,
                   absl::Time now) {
  const std::vector<Certificate> authority =
      ReadCertificates(identity.authority);
  if (authority.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("authority: no certificate in '", files.authority, "'"));
  }
  Chain chain;
  chain.certificates = ReadCertificates(identity.certificate);
  if (chain.certificates.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "certificate: no certificate in '", files.certificate, "'"));
  }
  X509* const own = chain.certificates.front().get();
  const Bio key_text = Open(identity.key);
  // An empty password, so that nobody is asked for one.
  std::string none;
  const Key key(
      PEM_read_bio_PrivateKey(key_text.get(), nullptr, nullptr, none.data()));
  if (key == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(
        "key: no private key without a password in '", files.key, "'"));
  }
  if (X509_check_private_key(own, key.get()) != 1) {
    return absl::FailedPreconditionError(absl::StrCat("the key '", files.key,
                                                      "' does not belong to '",
                                                      files.certificate, "'"));
  }
  const Store store(X509_STORE_new());
  for (const Certificate& each : authority) {
    X509_STORE_add_cert(store.get(), each.get());
  }
  for (const Certificate& each : chain.certificates) {
    sk_X509_push(chain.stack, each.get());
  }
  const Context context(X509_STORE_CTX_new());
  X509_STORE_CTX_init(context.get(), store.get(), own, chain.stack);
  X509_VERIFY_PARAM_set_time(X509_STORE_CTX_get0_param(context.get()),
                             absl::ToTimeT(now));
  if (X509_verify_cert(context.get()) != 1) {
    return absl::FailedPreconditionError(
        absl::StrCat("the certificate '", files.certificate,
                     "' is not good for '", files.authority, "': ",
                     X509_verify_cert_error_string(
                         X509_STORE_CTX_get_error(context.get()))));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TlsIdentity> LoadTlsIdentity(const TlsFiles& files,
                                            absl::Time now) {
  absl::StatusOr<std::string> authority =
      ReadFile("authority", files.authority);
  if (!authority.ok()) return authority.status();
  absl::StatusOr<std::string> certificate =
      ReadFile("certificate", files.certificate);
  if (!certificate.ok()) return certificate.status();
  absl::StatusOr<std::string> key = ReadFile("key", files.key);
  if (!key.ok()) return key.status();
  TlsIdentity identity = {.authority = *std::move(authority),
                          .certificate = *std::move(certificate),
                          .key = *std::move(key)};
  absl::Status status = Check(identity, files, now);
  if (!status.ok()) return status;
  return identity;
}

std::shared_ptr<grpc::ChannelCredentials> TlsChannelCredentials(
    const TlsIdentity& identity) {
  return grpc::SslCredentials({.pem_root_certs = identity.authority,
                               .pem_private_key = identity.key,
                               .pem_cert_chain = identity.certificate});
}

std::shared_ptr<grpc::ServerCredentials> TlsServerCredentials(
    const TlsIdentity& identity) {
  grpc::SslServerCredentialsOptions options(
      GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  options.pem_root_certs = identity.authority;
  options.pem_key_cert_pairs.push_back(
      {.private_key = identity.key, .cert_chain = identity.certificate});
  return grpc::SslServerCredentials(options);
}

std::shared_ptr<grpc::ChannelCredentials> PlaintextChannelCredentials() {
  return grpc::InsecureChannelCredentials();
}

std::shared_ptr<grpc::ServerCredentials> PlaintextServerCredentials() {
  return grpc::InsecureServerCredentials();
}

}  // namespace ferrybus::migration
