// SPDX-License-Identifier: MIT
//
// SHA-256, by OpenSSL, as hex.

#ifndef FERRYBUS_EXAMPLES_DEMO_DIGEST_H_
#define FERRYBUS_EXAMPLES_DEMO_DIGEST_H_

#include <openssl/evp.h>

#include <cstddef>
#include <memory>
#include <string>

namespace ferrybus::demo {

class Digest {
 public:
  Digest() : context_(EVP_MD_CTX_new()) {
    EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr);
  }
  void Add(const void* data, size_t bytes) {
    EVP_DigestUpdate(context_.get(), data, bytes);
  }
  std::string Hex() {
    unsigned char sum[EVP_MAX_MD_SIZE];
    unsigned int bytes = 0;
    EVP_DigestFinal_ex(context_.get(), sum, &bytes);
    std::string hex;
    for (unsigned int i = 0; i < bytes; ++i) {
      constexpr char kDigits[] = "0123456789abcdef";
      hex += kDigits[sum[i] / 16];
      hex += kDigits[sum[i] % 16];
    }
    return hex;
  }

 private:
  struct Free {
    void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  };
  std::unique_ptr<EVP_MD_CTX, Free> context_;
};

}  // namespace ferrybus::demo

#endif  // FERRYBUS_EXAMPLES_DEMO_DIGEST_H_
