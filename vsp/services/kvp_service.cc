// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/services/kvp_service.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/protocols/device_classes.h"

namespace ferrybus::vsp {
namespace {

constexpr ic::Version kVersions[] = {{1, 0}, {3, 0}, {4, 0}};

using ic::KvpOperation;

// Into a field of `units` units that is zeroes; false: too long.
bool PutText(std::u16string_view text, char16_t* field, size_t units,
             uint32_t* bytes) {
  if (text.size() >= units) return false;
  std::copy(text.begin(), text.end(), field);
  *bytes = static_cast<uint32_t>((text.size() + 1) * sizeof(char16_t));
  return true;
}

// Out of a field; false: a length that cannot be.
bool TakeText(const char16_t* field, size_t units, uint32_t bytes,
              std::u16string* text) {
  if (bytes % sizeof(char16_t) != 0 || bytes / sizeof(char16_t) > units) {
    return false;
  }
  text->assign(field, bytes / sizeof(char16_t));
  if (!text->empty() && text->back() == 0) text->pop_back();
  return true;
}

template <typename Number>
bool TakeNumber(const ic::KvpPair& pair, KvpValue* value) {
  if (pair.value_bytes != sizeof(Number)) return false;
  Number number;
  std::memcpy(&number, pair.value, sizeof(number));
  *value = number;
  return true;
}

bool TakeValue(const ic::KvpPair& pair, KvpValue* value) {
  std::u16string text;
  switch (pair.value_type) {
    case ic::kKvpString:
      if (!TakeText(pair.value, ic::kKvpValueUnitsMax, pair.value_bytes,
                    &text)) {
        return false;
      }
      *value = std::move(text);
      return true;
    case ic::kKvpUint32:
      return TakeNumber<uint32_t>(pair, value);
    case ic::kKvpUint64:
    case ic::kKvpUint64Linux:
      return TakeNumber<uint64_t>(pair, value);
    default:
      return false;
  }
}

absl::Status TextTooLong() {
  return absl::InvalidArgumentError(
      absl::StrCat("key-value exchange: a text is too long; a key has at most ",
                   ic::kKvpKeyUnitsMax - 1, " UTF-16 units, a value ",
                   ic::kKvpValueUnitsMax - 1));
}

KvpOperation OperationOf(const IntegrationRequest& request) {
  return KvpOperation{static_cast<uint8_t>(request.body[0])};
}

size_t BodyBytes(KvpOperation operation) {
  switch (operation) {
    case KvpOperation::kGet:
    case KvpOperation::kSet:
      return sizeof(ic::KvpPairBody);
    case KvpOperation::kDelete:
      return sizeof(ic::KvpDeleteBody);
    case KvpOperation::kEnumerate:
      return sizeof(ic::KvpEnumerateBody);
  }
  return 0;
}

// False: an answer that cannot be.
bool TakeAnswer(KvpOperation operation, absl::Span<const std::byte> answer,
                KvpResult* result) {
  ic::KvpPair pair;
  if (operation == KvpOperation::kGet) {
    ic::KvpPairBody body;
    if (!ic::ReadBody(answer, &body)) return false;
    pair = body.pair;
  } else if (operation == KvpOperation::kEnumerate) {
    ic::KvpEnumerateBody body;
    if (!ic::ReadBody(answer, &body)) return false;
    pair = body.pair;
  } else {
    return true;
  }
  return TakeText(pair.key, ic::kKvpKeyUnitsMax, pair.key_bytes,
                  &result->key) &&
         TakeValue(pair, &result->value);
}

}  // namespace

KvpService::KvpService(Events* events, IntegrationLimits limits)
    : IntegrationService(
          {ic::MessageType::kKeyValue, kKeyValueInterface, kVersions}, limits),
      events_(events) {}

absl::Status KvpService::Get(ic::KvpPool pool, std::u16string_view key,
                             uint64_t cookie) {
  ic::KvpPairBody body;
  body.head = {KvpOperation::kGet, pool};
  if (!PutText(key, body.pair.key, ic::kKvpKeyUnitsMax, &body.pair.key_bytes)) {
    return TextTooLong();
  }
  return Enqueue(cookie, ic::BytesOf(body));
}

absl::Status KvpService::Set(ic::KvpPool pool, std::u16string_view key,
                             std::u16string_view value, uint64_t cookie) {
  ic::KvpPairBody body;
  body.head = {KvpOperation::kSet, pool};
  body.pair.value_type = ic::kKvpString;
  if (!PutText(key, body.pair.key, ic::kKvpKeyUnitsMax, &body.pair.key_bytes) ||
      !PutText(value, body.pair.value, ic::kKvpValueUnitsMax,
               &body.pair.value_bytes)) {
    return TextTooLong();
  }
  return Enqueue(cookie, ic::BytesOf(body));
}

absl::Status KvpService::SetNumber(ic::KvpPool pool, std::u16string_view key,
                                   uint64_t value, uint64_t cookie) {
  const std::string digits = absl::StrCat(value);
  return Set(pool, key, std::u16string(digits.begin(), digits.end()), cookie);
}

absl::Status KvpService::Delete(ic::KvpPool pool, std::u16string_view key,
                                uint64_t cookie) {
  ic::KvpDeleteBody body;
  body.head = {KvpOperation::kDelete, pool};
  if (!PutText(key, body.key, ic::kKvpKeyUnitsMax, &body.key_bytes)) {
    return TextTooLong();
  }
  return Enqueue(cookie, ic::BytesOf(body));
}

absl::Status KvpService::Enumerate(ic::KvpPool pool, uint32_t index,
                                   uint64_t cookie) {
  ic::KvpEnumerateBody body;
  body.head = {KvpOperation::kEnumerate, pool};
  body.index = index;
  return Enqueue(cookie, ic::BytesOf(body));
}

void KvpService::OnAnswer(const IntegrationRequest& request, uint32_t status,
                          absl::Span<const std::byte> answer) {
  KvpResult result;
  result.status = status;
  if (status != ic::kStatusOk) {
    result.outcome = IntegrationOutcome::kRefused;
  } else if (!TakeAnswer(OperationOf(request), answer, &result)) {
    CountBadMessage();
    result = {};
    result.outcome = IntegrationOutcome::kBadAnswer;
  }
  events_->OnKvpDone(request.cookie, result);
}

void KvpService::OnLost(const IntegrationRequest& request,
                        IntegrationOutcome outcome) {
  KvpResult result;
  result.outcome = outcome;
  events_->OnKvpDone(request.cookie, result);
}

bool KvpService::IsSound(const IntegrationRequest& request, ic::Version) const {
  return !request.body.empty() &&
         request.body.size() == BodyBytes(OperationOf(request));
}

}  // namespace ferrybus::vsp
