// SPDX-License-Identifier: MIT

#include "ferrybus/tests/simulation/request_oracle.h"

#include <cstring>

#include "absl/strings/str_cat.h"

namespace ferrybus::simulation {
namespace {

constexpr size_t kMoreWordsMax = 75;
constexpr size_t kFewWordsMax = 5;

absl::string_view AsText(absl::Span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

std::string RequestOracle::Bytes(RequestName name, char what) const {
  const uint64_t tag = name.tag();
  const uint64_t salt = Mix(tag, static_cast<uint64_t>(what));
  // Mostly short, now and then long.
  // In words: packets have no other lengths.
  const size_t more =
      8 * (salt / 4 % (salt % 4 == 0 ? kMoreWordsMax : kFewWordsMax));
  std::string bytes(sizeof(tag) + more, '\0');
  std::memcpy(bytes.data(), &tag, sizeof(tag));
  for (size_t i = sizeof(tag); i < bytes.size(); ++i) {
    bytes[i] = static_cast<char>(salt >> (i % 8 * 8) ^ i);
  }
  return bytes;
}

void RequestOracle::Fail(absl::string_view kind, absl::string_view text,
                         RequestName name) const {
  if (is_muted_) return;
  context_->Fail(
      kind, absl::StrCat(name_, ": ", text, ", request ", name.number,
                         " of opening ", name.opening, "; ", requests_.size(),
                         " were sent in opening ", opening_, ", ",
                         next_delivery_, " delivered"));
}

void RequestOracle::Opened() {
  if (is_open_ && !is_muted_) {
    context_->Fail("life", absl::StrCat(name_, ": opened twice"));
  }
  is_open_ = true;
  is_muted_ = false;
  ++opening_;
  ++context_->totals.openings;
  next_delivery_ = 0;
  requests_.clear();
}

void RequestOracle::Closed() { is_open_ = false; }

void RequestOracle::Sent(bool wants_answer) {
  Request request;
  request.wants_answer = wants_answer;
  requests_.push_back(request);
}

void RequestOracle::Answered(uint64_t tag, absl::Span<const std::byte> reply) {
  const RequestName name = RequestName::FromTag(tag);
  context_->trace.Add(tag);
  if (!is_open_ || name.opening != opening_) {
    return Fail("stray-answer", "an answer after the end", name);
  }
  if (name.number >= requests_.size() || !requests_[name.number].wants_answer) {
    return Fail("stray-answer", "an answer to nothing", name);
  }
  if (requests_[name.number].answers++ != 0) {
    return Fail("doubled-answer", "answered twice", name);
  }
  if (!requests_[name.number].is_delivered) {
    Fail("stray-answer", "answered before it was delivered", name);
  }
  if (AsText(reply) != Reply(name)) {
    Fail("wrong-bytes", "another answer", name);
  }
  ++context_->totals.requests;
}

RequestOracle::Request* RequestOracle::Find(absl::Span<const std::byte> payload,
                                            RequestName* name) {
  uint64_t tag = 0;
  if (payload.size() >= sizeof(tag)) {
    std::memcpy(&tag, payload.data(), sizeof(tag));
  }
  *name = RequestName::FromTag(tag);
  context_->trace.Add(tag);
  if (AsText(payload) != Payload(*name)) {
    Fail("wrong-bytes", "another payload", *name);
    return nullptr;
  }
  if (name->opening < opening_) return nullptr;
  if (name->opening > opening_ || name->number >= requests_.size()) {
    Fail("stray-packet", "delivered, and never sent", *name);
    return nullptr;
  }
  return &requests_[name->number];
}

RequestName RequestOracle::Delivered(absl::Span<const std::byte> payload) {
  RequestName name;
  Request* const request = Find(payload, &name);
  if (request == nullptr) return name;
  if (name.number > next_delivery_) {
    Fail("lost-packet", "delivered before those in front of it", name);
  } else if (name.number == next_delivery_) {
    ++next_delivery_;
  } else if (!request->may_come_again) {
    Fail("doubled-packet", "delivered twice", name);
  }
  if (request->answers != 0) {
    Fail("doubled-packet", "delivered after it was answered", name);
  }
  request->is_delivered = true;
  request->may_come_again = false;
  return name;
}

void RequestOracle::Restored(RequestName name) {
  if (name.opening < opening_) return;
  if (name.opening > opening_ || name.number >= requests_.size() ||
      !requests_[name.number].is_delivered) {
    return Fail("stray-packet", "restored, and never delivered", name);
  }
  if (requests_[name.number].answers != 0) {
    Fail("doubled-packet", "restored after it was answered", name);
  }
}

void RequestOracle::Deferred(RequestName name) {
  if (name.opening != opening_ || name.number >= requests_.size()) return;
  requests_[name.number].may_come_again = true;
}

void RequestOracle::OwnerChanged() {
  if (!may_repeat_) return;
  for (Request& request : requests_) {
    if (request.is_delivered && request.answers == 0) {
      request.may_come_again = true;
    }
  }
}

std::string RequestOracle::Owed() const {
  if (!is_open_ || is_muted_) return {};
  uint64_t unanswered = 0;
  for (const Request& request : requests_) {
    if (request.wants_answer && request.answers == 0) ++unanswered;
  }
  if (unanswered == 0 && next_delivery_ == requests_.size()) return {};
  return absl::StrCat(name_, ": of ", requests_.size(), " requests ",
                      next_delivery_, " were delivered, ", unanswered,
                      " not answered");
}

}  // namespace ferrybus::simulation
