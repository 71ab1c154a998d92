// SPDX-License-Identifier: MIT

#include "ferrybus/tests/migration/test_certificates.h"

#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <fstream>
#include <random>

#include "absl/time/clock.h"

namespace ferrybus::migration {
namespace {

template <typename Write>
std::string Pem(Write write) {
  BIO* bio = BIO_new(BIO_s_mem());
  write(bio);
  char* text = nullptr;
  const long size = BIO_get_mem_data(bio, &text);
  std::string pem(text, static_cast<size_t>(size));
  BIO_free(bio);
  return pem;
}

std::string CertificatePem(X509* certificate) {
  return Pem([&](BIO* bio) { PEM_write_bio_X509(bio, certificate); });
}

void AddExtension(int nid, const std::string& value, X509* certificate) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, certificate, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension =
      X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str());
  X509_add_ext(certificate, extension, -1);
  X509_EXTENSION_free(extension);
}

X509* NewCertificate(const std::string& name, absl::Duration from,
                     absl::Duration until, EVP_PKEY* key) {
  X509* certificate = X509_new();
  X509_set_version(certificate, 2);
  ASN1_INTEGER_set_uint64(X509_get_serialNumber(certificate),
                          std::random_device()());
  X509_gmtime_adj(X509_getm_notBefore(certificate),
                  static_cast<long>(absl::ToInt64Seconds(from)));
  X509_gmtime_adj(X509_getm_notAfter(certificate),
                  static_cast<long>(absl::ToInt64Seconds(until)));
  X509_set_pubkey(certificate, key);
  X509_NAME_add_entry_by_txt(
      X509_get_subject_name(certificate), "CN", MBSTRING_ASC,
      reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  return certificate;
}

}  // namespace

TestAuthority::TestAuthority(const std::string& name)
    : key_(EVP_EC_gen("P-256")),
      certificate_(
          NewCertificate(name, -absl::Hours(48), absl::Hours(48), key_)) {
  X509_set_issuer_name(certificate_, X509_get_subject_name(certificate_));
  AddExtension(NID_basic_constraints, "critical,CA:TRUE", certificate_);
  AddExtension(NID_key_usage, "critical,keyCertSign,cRLSign", certificate_);
  X509_sign(certificate_, key_, EVP_sha256());
}

TestAuthority::~TestAuthority() {
  X509_free(certificate_);
  EVP_PKEY_free(key_);
}

TlsIdentity TestAuthority::Issue(const Wanted& wanted) const {
  EVP_PKEY* key = EVP_EC_gen("P-256");
  X509* certificate = NewCertificate("host", wanted.from, wanted.until, key);
  X509_set_issuer_name(certificate, X509_get_subject_name(certificate_));
  AddExtension(NID_subject_alt_name, wanted.alternative_names, certificate);
  X509_sign(certificate, key_, EVP_sha256());
  TlsIdentity identity = {.authority = CertificatePem(certificate_),
                          .certificate = CertificatePem(certificate),
                          .key = Pem([&](BIO* bio) {
                            PEM_write_bio_PrivateKey(bio, key, nullptr, nullptr,
                                                     0, nullptr, nullptr);
                          })};
  X509_free(certificate);
  EVP_PKEY_free(key);
  return identity;
}

TlsFiles WriteTlsFiles(const TlsIdentity& identity, const std::string& folder) {
  TlsFiles files = {.authority = folder + "/authority.pem",
                    .certificate = folder + "/certificate.pem",
                    .key = folder + "/key.pem"};
  std::ofstream(files.authority) << identity.authority;
  std::ofstream(files.certificate) << identity.certificate;
  std::ofstream(files.key) << identity.key;
  return files;
}

}  // namespace ferrybus::migration
