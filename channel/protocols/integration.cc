// SPDX-License-Identifier: MIT

#include "ferrybus/channel/protocols/integration.h"

#include <algorithm>
#include <cstring>

namespace ferrybus::ic {

std::vector<std::byte> BuildMessage(Header header,
                                    absl::Span<const std::byte> body) {
  header.body_bytes = static_cast<uint16_t>(body.size());
  std::vector<std::byte> message(sizeof(header) + body.size());
  std::memcpy(message.data(), &header, sizeof(header));
  std::copy(body.begin(), body.end(), message.begin() + sizeof(header));
  return message;
}

bool ParseMessage(absl::Span<const std::byte> message, Header* header,
                  absl::Span<const std::byte>* body) {
  if (!ReadBody(message, header)) return false;
  message.remove_prefix(sizeof(Header));
  if (header->body_bytes > message.size()) return false;
  *body = message.first(header->body_bytes);
  return true;
}

std::vector<std::byte> BuildNegotiateBody(
    absl::Span<const Version> framework_versions,
    absl::Span<const Version> message_versions) {
  const NegotiateHead head = {static_cast<uint16_t>(framework_versions.size()),
                              static_cast<uint16_t>(message_versions.size()),
                              0};
  const absl::Span<const std::byte> bytes = BytesOf(head);
  std::vector<std::byte> body(bytes.begin(), bytes.end());
  for (const auto versions : {framework_versions, message_versions}) {
    for (const Version& version : versions) {
      const absl::Span<const std::byte> pair = BytesOf(version);
      body.insert(body.end(), pair.begin(), pair.end());
    }
  }
  return body;
}

bool ParseNegotiateBody(absl::Span<const std::byte> body,
                        std::vector<Version>* framework_versions,
                        std::vector<Version>* message_versions) {
  NegotiateHead head;
  if (!ReadBody(body, &head)) return false;
  body.remove_prefix(sizeof(head));
  const size_t count = size_t{head.framework_count} + head.message_count;
  if (count > kMaxNegotiateVersions || count * sizeof(Version) > body.size()) {
    return false;
  }
  framework_versions->clear();
  message_versions->clear();
  for (size_t i = 0; i < count; ++i) {
    Version version;
    std::memcpy(&version, &body[i * sizeof(version)], sizeof(version));
    (i < head.framework_count ? framework_versions : message_versions)
        ->push_back(version);
  }
  return true;
}

}  // namespace ferrybus::ic
