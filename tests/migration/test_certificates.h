// SPDX-License-Identifier: MIT
//
// Certificates for tests, made when they are needed.

#ifndef FERRYBUS_TESTS_MIGRATION_TEST_CERTIFICATES_H_
#define FERRYBUS_TESTS_MIGRATION_TEST_CERTIFICATES_H_

#include <openssl/evp.h>
#include <openssl/x509.h>

#include <string>

#include "absl/time/time.h"
#include "ferrybus/savestate/migration/grpc/credentials.h"

namespace ferrybus::migration {

class TestAuthority {
 public:
  explicit TestAuthority(const std::string& name);
  ~TestAuthority();
  TestAuthority(const TestAuthority&) = delete;
  TestAuthority& operator=(const TestAuthority&) = delete;

  struct Wanted {
    std::string alternative_names = "IP:127.0.0.1,DNS:localhost";
    absl::Duration from = -absl::Hours(1);
    absl::Duration until = absl::Hours(24);
  };
  TlsIdentity Issue() const { return Issue(Wanted()); }
  TlsIdentity Issue(const Wanted& wanted) const;

 private:
  EVP_PKEY* key_;
  X509* certificate_;
};

// Writes the identity as files of a folder.
TlsFiles WriteTlsFiles(const TlsIdentity& identity, const std::string& folder);

}  // namespace ferrybus::migration

#endif  // FERRYBUS_TESTS_MIGRATION_TEST_CERTIFICATES_H_
