// SPDX-License-Identifier: MIT

#include "ferrybus/tests/conformance/rule.h"

#include <algorithm>
#include <cstring>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/check.h"
#include "ferrybus/tests/conformance/guest.h"

namespace ferrybus::conformance {
namespace {

constexpr uint64_t kGuestRamBytes = 8 << 20;

std::vector<Rule>& List() {
  static auto* const list = new std::vector<Rule>;
  return *list;
}

}  // namespace

std::string Rule::group() const {
  std::string name = file;
  const size_t slash = name.rfind('/');
  if (slash != std::string::npos) name.erase(0, slash + 1);
  const size_t end = name.rfind("_rules.cc");
  return end == std::string::npos ? name : name.substr(0, end);
}

bool ListRule(const Rule& rule) {
  List().push_back(rule);
  return true;
}

std::vector<const Rule*> AllRules() {
  std::vector<const Rule*> rules;
  for (const Rule& rule : List()) rules.push_back(&rule);
  std::sort(rules.begin(), rules.end(), [](const Rule* a, const Rule* b) {
    return std::make_tuple(a->group(), a->line) <
           std::make_tuple(b->group(), b->line);
  });
  return rules;
}

Trial::Trial(const EndpointFactory& make_endpoint)
    : memory_(*MemfdGuestMemory::Create(kGuestRamBytes)) {
  endpoint_ = make_endpoint(*memory_);
  guest_ = std::make_unique<Guest>(this, memory_.get());
  Succeeds(endpoint_->Start(), "the endpoint starts");
}

Trial::~Trial() = default;

bool Trial::Expect(bool holds, const std::string& what) {
  if (!holds) Fail(what);
  return holds;
}

void Trial::Fail(const std::string& what) {
  if (over()) return;
  outcome_ = Outcome::kFailed;
  message_ = what;
}

bool Trial::Succeeds(const absl::Status& status, const std::string& what) {
  if (over()) return false;
  if (status.ok()) return true;
  if (absl::IsUnimplemented(status)) {
    outcome_ = Outcome::kSkipped;
    message_ = std::string(status.message());
    return false;
  }
  Fail(absl::StrCat(what, ": ", status.ToString()));
  return false;
}

std::string Trial::Save() {
  if (over()) return "";
  absl::StatusOr<std::string> saved = endpoint_->Save();
  if (!Succeeds(saved.status(), "the endpoint is saved")) return "";
  return *std::move(saved);
}

void Trial::Restore(const std::string& saved) {
  if (over()) return;
  endpoint_->Kill();
  Succeeds(endpoint_->Restore(saved), "the saved bytes are restored");
}

}  // namespace ferrybus::conformance
