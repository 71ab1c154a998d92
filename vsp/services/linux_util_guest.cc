// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/services/linux_util_guest.h"

#include <algorithm>
#include <cstring>

namespace ferrybus::vsp {
namespace {

std::vector<ic::Version> VersionsOf(ic::MessageType service) {
  switch (service) {
    case ic::MessageType::kShutdown:
      return {{3, 2}, {3, 1}, {3, 0}, {1, 0}};
    case ic::MessageType::kTimeSync:
    case ic::MessageType::kKeyValue:
      return {{4, 0}, {3, 0}, {1, 0}};
    default:
      return {{3, 0}, {1, 0}};
  }
}

std::optional<ic::Version> FirstIn(const std::vector<ic::Version>& liked,
                                   const std::vector<ic::Version>& offered) {
  for (const ic::Version& version : liked) {
    if (std::count(offered.begin(), offered.end(), version) != 0) {
      return version;
    }
  }
  return std::nullopt;
}

template <typename Body>
void Put(const Body& body, absl::Span<std::byte> bytes) {
  std::memcpy(bytes.data(), &body, sizeof(body));
}

std::u16string Text(const char16_t* field, uint32_t bytes, size_t units_max) {
  const size_t units = std::min<size_t>(bytes / 2, units_max);
  return std::u16string(field, units > 0 ? units - 1 : 0);
}

void PutPair(const std::pair<std::u16string, std::u16string>& from,
             ic::KvpPair* to) {
  to->value_type = ic::kKvpString;
  to->key_bytes = static_cast<uint32_t>(2 * (from.first.size() + 1));
  to->value_bytes = static_cast<uint32_t>(2 * (from.second.size() + 1));
  std::copy(from.first.begin(), from.first.end(), to->key);
  std::copy(from.second.begin(), from.second.end(), to->value);
}

LinuxUtilGuest::Pool::iterator Find(LinuxUtilGuest::Pool& pool,
                                    const std::u16string& key) {
  return std::find_if(pool.begin(), pool.end(),
                      [&](const auto& pair) { return pair.first == key; });
}

}  // namespace

LinuxUtilGuest::LinuxUtilGuest(ic::MessageType service)
    : framework_versions{{3, 0}, {1, 0}},
      message_versions(VersionsOf(service)),
      service_(service) {}

std::optional<std::vector<std::byte>> LinuxUtilGuest::Handle(
    absl::Span<const std::byte> bytes) {
  std::vector<std::byte> answer(bytes.begin(), bytes.end());
  ic::Header header;
  if (!ic::ReadBody(bytes, &header)) return std::nullopt;
  const absl::Span<std::byte> body =
      absl::MakeSpan(answer).subspan(sizeof(header));
  bool is_whole = true;
  if (header.type == ic::MessageType::kNegotiate) {
    is_whole = Negotiate(body, &header);
  } else if (header.type != service_) {
    header.status = ic::kStatusFail;
  } else if (service_ == ic::MessageType::kHeartbeat) {
    is_whole = Heartbeat(body);
  } else if (service_ == ic::MessageType::kShutdown) {
    is_whole = Shutdown(body, &header.status);
  } else if (service_ == ic::MessageType::kTimeSync) {
    is_whole = TimeSync(body);
  } else {
    is_whole = KeyValue(body, &header.status);
  }
  if (!is_whole) return std::nullopt;
  header.flags = ic::kFlagTransaction | ic::kFlagResponse;
  Put(header, absl::MakeSpan(answer));
  return answer;
}

bool LinuxUtilGuest::Negotiate(absl::Span<std::byte> body, ic::Header* header) {
  std::vector<ic::Version> offered_framework;
  std::vector<ic::Version> offered_message;
  if (body.size() < 16 ||
      !ic::ParseNegotiateBody(body, &offered_framework, &offered_message)) {
    return false;
  }
  const auto of_framework = FirstIn(framework_versions, offered_framework);
  const auto of_message = FirstIn(message_versions, offered_message);
  const uint16_t count = of_framework && of_message ? 1 : 0;
  framework = of_framework.value_or(ic::Version());
  message = of_message.value_or(ic::Version());
  const ic::NegotiateHead head = {count, count, 0};
  Put(head, body);
  Put(framework, body.subspan(8));
  Put(message, body.subspan(12));
  header->body_bytes = 16;
  return true;
}

bool LinuxUtilGuest::Heartbeat(absl::Span<std::byte> bytes) {
  uint64_t sequence = 0;
  if (!ic::ReadBody(bytes, &sequence)) return false;
  Put(sequence + 1, bytes);
  ++heartbeats;
  return true;
}

bool LinuxUtilGuest::Shutdown(absl::Span<const std::byte> bytes,
                              uint32_t* status) {
  ic::ShutdownBody body;
  if (!ic::ReadBody(bytes, &body)) return false;
  const uint32_t action = body.flags & ~ic::kShutdownForce;
  const bool obeys = action == 0 || action == ic::kShutdownRestart ||
                     (action == ic::kShutdownHibernate && can_hibernate);
  *status = obeys ? ic::kStatusOk : ic::kStatusFail;
  if (obeys) shutdowns.push_back(body.flags);
  return true;
}

bool LinuxUtilGuest::TimeSync(absl::Span<const std::byte> bytes) {
  if (message > ic::Version{3, 0}) {
    ic::TimeSyncReferenceBody body;
    if (!ic::ReadBody(bytes, &body)) return false;
    times.push_back({body.host_time, body.reference_time, body.flags});
    return true;
  }
  ic::TimeSyncBody body;
  if (!ic::ReadBody(bytes, &body)) return false;
  times.push_back({body.host_time, 0, body.flags});
  return true;
}

// -- Key-value exchange ------------------------------------------------------

bool LinuxUtilGuest::KeyValue(absl::Span<std::byte> body, uint32_t* status) {
  ic::KvpHead head;
  if (!ic::ReadBody(body, &head)) return false;
  switch (head.operation) {
    case ic::KvpOperation::kGet:
      *status = Get(body);
      break;
    case ic::KvpOperation::kSet:
      *status = Set(body);
      break;
    case ic::KvpOperation::kDelete:
      *status = Delete(body);
      break;
    case ic::KvpOperation::kEnumerate:
      *status = Enumerate(body);
      break;
    default:
      *status = ic::kStatusFail;
  }
  return true;
}

uint32_t LinuxUtilGuest::Get(absl::Span<std::byte> bytes) {
  ic::KvpPairBody body;
  if (!ic::ReadBody(bytes, &body)) return ic::kStatusFail;
  Pool& pool = pools[body.head.pool];
  const auto found =
      Find(pool, Text(body.pair.key, body.pair.key_bytes, ic::kKvpKeyUnitsMax));
  if (found == pool.end()) return ic::kStatusNoMoreItems;
  PutPair(*found, &body.pair);
  Put(body, bytes);
  return ic::kStatusOk;
}

uint32_t LinuxUtilGuest::Set(absl::Span<const std::byte> bytes) {
  ic::KvpPairBody body;
  if (!ic::ReadBody(bytes, &body)) return ic::kStatusFail;
  Pool& pool = pools[body.head.pool];
  const std::u16string key =
      Text(body.pair.key, body.pair.key_bytes, ic::kKvpKeyUnitsMax);
  const std::u16string value =
      Text(body.pair.value, body.pair.value_bytes, ic::kKvpValueUnitsMax);
  const auto found = Find(pool, key);
  if (found == pool.end()) {
    pool.emplace_back(key, value);
  } else {
    found->second = value;
  }
  return ic::kStatusOk;
}

uint32_t LinuxUtilGuest::Delete(absl::Span<const std::byte> bytes) {
  ic::KvpDeleteBody body;
  if (!ic::ReadBody(bytes, &body)) return ic::kStatusFail;
  Pool& pool = pools[body.head.pool];
  const auto found =
      Find(pool, Text(body.key, body.key_bytes, ic::kKvpKeyUnitsMax));
  if (found == pool.end()) return ic::kStatusNoMoreItems;
  pool.erase(found);
  return ic::kStatusOk;
}

uint32_t LinuxUtilGuest::Enumerate(absl::Span<std::byte> bytes) {
  ic::KvpEnumerateBody body;
  if (!ic::ReadBody(bytes, &body)) return ic::kStatusFail;
  const Pool& pool = pools[body.head.pool];
  if (body.index >= pool.size()) return ic::kStatusNoMoreItems;
  PutPair(pool[body.index], &body.pair);
  Put(body, bytes);
  return ic::kStatusOk;
}

}  // namespace ferrybus::vsp
