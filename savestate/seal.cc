// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/seal.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>

#include <algorithm>
#include <array>
#include <initializer_list>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "ferrybus/savestate/frame_layout.h"

namespace ferrybus::savestate {
namespace {

using Tag = std::array<unsigned char, kSealTagBytes>;

// What the tag is over begins with this, so that it is never mistaken for a
// tag that the same key made of something else.  16 bytes, the NUL included.
constexpr std::string_view kDomain("ferrybus-seal-1\0", 16);

template <auto Free>
struct Deleter {
  template <typename T>
  void operator()(T* object) const {
    Free(object);
  }
};
using Mac = std::unique_ptr<EVP_MAC, Deleter<EVP_MAC_free>>;
using MacContext = std::unique_ptr<EVP_MAC_CTX, Deleter<EVP_MAC_CTX_free>>;

const unsigned char* Bytes(const void* data) {
  return static_cast<const unsigned char*>(data);
}

// HMAC-SHA-256 of all parts, one after the other.
absl::StatusOr<Tag> Hmac(absl::Span<const std::byte> secret,
                         std::initializer_list<std::string_view> parts) {
  const Mac mac(EVP_MAC_fetch(nullptr, "HMAC", nullptr));
  const MacContext context(mac == nullptr ? nullptr
                                          : EVP_MAC_CTX_new(mac.get()));
  char digest[] = "SHA256";
  const OSSL_PARAM parameters[] = {
      OSSL_PARAM_construct_utf8_string("digest", digest, 0),
      OSSL_PARAM_construct_end()};
  bool ok =
      context != nullptr && EVP_MAC_init(context.get(), Bytes(secret.data()),
                                         secret.size(), parameters) == 1;
  for (std::string_view part : parts) {
    ok = ok &&
         EVP_MAC_update(context.get(), Bytes(part.data()), part.size()) == 1;
  }
  Tag tag{};
  size_t size_bytes = 0;
  ok = ok &&
       EVP_MAC_final(context.get(), tag.data(), &size_bytes, tag.size()) == 1;
  if (!ok || size_bytes != tag.size()) {
    return absl::InternalError(
        "libcrypto cannot compute an HMAC-SHA-256; see its configuration");
  }
  return tag;
}

absl::Status CheckKey(const SealKey& key) {
  if (IsSectionName(key.id) && key.secret.size() >= kSealSecretBytesMin) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrFormat(
      "a key's id must be 1 to %u of [A-Za-z0-9._-], its secret %u bytes or "
      "more; this one has an id of %u and a secret of %u bytes",
      kFrameNameBytes, kSealSecretBytesMin, key.id.size(), key.secret.size()));
}

// The body of the section, its tag still zero.
std::string MakeBody(std::string_view key_id, uint64_t counter) {
  std::string body(kSealBodyBytes, '\0');
  StoreU32(body.data() + kSealAlgorithmOffset, kSealHmacSha256);
  StoreU64(body.data() + kSealCounterOffset, counter);
  key_id.copy(body.data() + kSealKeyIdOffset, kFrameNameBytes);
  return body;
}

// The tag of `frame` sealed as `body` says.  Unambiguous: what comes before
// the frame has one length.
absl::StatusOr<Tag> TagOf(const SealKey& key, std::string_view body,
                          std::string_view frame) {
  return Hmac(key.secret, {kDomain, body.substr(0, kSealTagOffset), frame});
}

// A writer that makes `frame` again, up to `section_count` of its sections:
// there is one spelling of them.
FrameWriter Rewriter(const Frame& frame, size_t section_count,
                     const FrameLimits& limits) {
  FrameWriter writer(std::string(frame.producer()), limits);
  for (const Section& section : frame.sections().subspan(0, section_count)) {
    writer.AddSection(
        std::string(section.name), section.instance, section.version,
        section.kind,
        std::string(reinterpret_cast<const char*>(section.body.data()),
                    section.body.size()));
  }
  return writer;
}

// Where the section must be, and that its body is one that we understand.
absl::Status CheckSealForm(const Frame& frame, const Section& section) {
  if (section.version > kSealVersion) {
    return absl::UnimplementedError(absl::StrFormat(
        "the seal has version %u, this reader knows up to %u; use a build "
        "that matches the writer",
        section.version, kSealVersion));
  }
  if (&section != &frame.sections().back() ||
      section.kind != SectionKind::kRequired ||
      section.body.size() != kSealBodyBytes) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "the section \"%s\" must be the last one, required, and of %u bytes; "
        "found %u",
        kSealSection, kSealBodyBytes, section.body.size()));
  }
  const std::byte* body = section.body.data();
  const uint32_t algorithm = LoadU32(body + kSealAlgorithmOffset);
  const uint32_t reserved = LoadU32(body + kSealReservedOffset);
  if (algorithm != kSealHmacSha256 || reserved != 0) {
    return absl::UnimplementedError(absl::StrFormat(
        "the seal has algorithm %u and reserved field %u; this reader knows "
        "algorithm %u (HMAC-SHA-256) and 0",
        algorithm, reserved, kSealHmacSha256));
  }
  return absl::OkStatus();
}

absl::StatusOr<const Section*> FindSeal(const Frame& frame) {
  const Section* const section = frame.Find(kSealSection);
  if (section == nullptr) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "the file is not sealed (no section \"%s\"), and a seal is asked for",
        kSealSection));
  }
  if (auto status = CheckSealForm(frame, *section); !status.ok()) {
    return status;
  }
  return section;
}

absl::StatusOr<SealInfo> ReadSeal(const Section& section) {
  std::string_view key_id;
  if (!ReadPaddedName(section.body.data() + kSealKeyIdOffset, &key_id) ||
      !IsSectionName(key_id)) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "the key id in the section \"%s\" is not 1 to %u of [A-Za-z0-9._-] "
        "padded with NUL",
        kSealSection, kFrameNameBytes));
  }
  return SealInfo{std::string(key_id),
                  LoadU64(section.body.data() + kSealCounterOffset)};
}

}  // namespace

absl::StatusOr<std::string> Seal(absl::Span<const std::byte> frame,
                                 const SealKey& key, uint64_t counter,
                                 const FrameLimits& limits) {
  if (auto status = CheckKey(key); !status.ok()) return status;
  const absl::StatusOr<Frame> parsed = Frame::Parse(frame, limits);
  if (!parsed.ok()) return parsed.status();
  if (parsed->HasSeal()) {
    return absl::AlreadyExistsError(
        "the frame is sealed already; OpenSeal gives what is in it");
  }
  std::string body = MakeBody(key.id, counter);
  const absl::StatusOr<Tag> tag = TagOf(
      key, body, {reinterpret_cast<const char*>(frame.data()), frame.size()});
  if (!tag.ok()) return tag.status();
  std::copy(tag->begin(), tag->end(), body.begin() + kSealTagOffset);
  FrameWriter writer = Rewriter(*parsed, parsed->sections().size(), limits);
  writer.AddSection(std::string(kSealSection), 0, kSealVersion,
                    SectionKind::kRequired, std::move(body));
  return writer.Finish();
}

absl::StatusOr<OpenedSeal> OpenSeal(absl::Span<const std::byte> file,
                                    absl::Span<const SealKey> keys,
                                    uint64_t minimum_counter,
                                    const FrameLimits& limits) {
  const absl::StatusOr<Frame> parsed = Frame::Parse(file, limits);
  if (!parsed.ok()) return parsed.status();
  const absl::StatusOr<const Section*> section = FindSeal(*parsed);
  if (!section.ok()) return section.status();
  absl::StatusOr<SealInfo> seal = ReadSeal(**section);
  if (!seal.ok()) return seal.status();
  for (const SealKey& key : keys) {
    if (auto status = CheckKey(key); !status.ok()) return status;
  }
  const auto key = std::find_if(
      keys.begin(), keys.end(),
      [&](const SealKey& each) { return each.id == seal->key_id; });
  if (key == keys.end()) {
    return absl::NotFoundError(absl::StrFormat(
        "the file is sealed with the key \"%s\", which is not among the %u "
        "keys given",
        seal->key_id, keys.size()));
  }
  absl::StatusOr<std::string> frame =
      Rewriter(*parsed, parsed->sections().size() - 1, limits).Finish();
  if (!frame.ok()) return frame.status();
  const absl::Span<const std::byte> body = (*section)->body;
  const absl::StatusOr<Tag> tag = TagOf(
      *key, {reinterpret_cast<const char*>(body.data()), body.size()}, *frame);
  if (!tag.ok()) return tag.status();
  if (CRYPTO_memcmp(tag->data(), body.data() + kSealTagOffset, tag->size()) !=
      0) {
    return absl::UnauthenticatedError(absl::StrFormat(
        "the seal does not fit: the file was changed, or sealed with another "
        "secret than the one known as \"%s\"",
        seal->key_id));
  }
  if (seal->counter < minimum_counter) {
    return absl::OutOfRangeError(absl::StrFormat(
        "the file is authentic but old: its counter is %u, at least %u is "
        "asked for",
        seal->counter, minimum_counter));
  }
  return OpenedSeal{*std::move(frame), *std::move(seal)};
}

absl::StatusOr<SealInfo> DescribeSeal(const Frame& frame) {
  const absl::StatusOr<const Section*> section = FindSeal(frame);
  if (!section.ok()) return section.status();
  return ReadSeal(**section);
}

}  // namespace ferrybus::savestate
