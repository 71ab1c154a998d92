// SPDX-License-Identifier: MIT

#include "ferrybus/tools/state/state_diff.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "ferrybus/savestate/frame.h"
#include "ferrybus/savestate/proto_limits.h"
#include "ferrybus/savestate/seal.h"
#include "ferrybus/tools/state/state_sections.h"
#include "ferrybus/tools/state/state_text.h"

namespace ferrybus::state_tool {
namespace {

using savestate::Frame;
using savestate::Section;
using savestate::v1::ChannelState;
using savestate::v1::ConnectionState;

// Longer values are shown around the first character that differs.
constexpr size_t kValueCharactersMax = 64;
constexpr size_t kCharactersBefore = 8;

// By which keys the elements of a list are the same one; lists that are not
// here go by position.
const std::map<std::string, std::vector<const char*>>& Identities() {
  static const auto* const identities =
      new std::map<std::string, std::vector<const char*>>{
          {"offers", {"offer"}},
          {"gpadls", {"gpadl", "channel"}},
          {"incoming", {"transaction_id"}},
          {"queued", {"transaction_id"}},
          {"awaiting", {"transaction_id"}},
          {"requests", {"cookie"}}};
  return *identities;
}

std::string Cut(const std::string& text, size_t from) {
  if (text.size() <= kValueCharactersMax) return text;
  const size_t start = from > kCharactersBefore ? from - kCharactersBefore : 0;
  if (start >= text.size()) return absl::StrCat(text.size(), " characters");
  const std::string part = text.substr(start, kValueCharactersMax);
  return absl::StrCat(start > 0 ? "..." : "", part,
                      start + part.size() < text.size() ? "..." : "");
}

class Differ {
 public:
  Differ(const Frame& before, const Frame& after)
      : before_(before), after_(after) {}

  void Run();
  Json ToJson(size_t list_max) const;

 private:
  void Add(const char* change, std::string where, std::string before,
           std::string after);
  void Changed(const std::string& where, const std::string& before,
               const std::string& after);
  void CompareBytes(const std::string& where, const Section& before,
                    const Section& after);
  void CompareSections(const Section& before, const Section& after);
  void CompareSeals(const std::string& where);
  template <typename Message, typename Describe>
  bool CompareMessages(const std::string& where, const Section& before,
                       const Section& after, Describe describe);
  void CompareValues(const std::string& where, const Json& before,
                     const Json& after);
  void CompareLists(const std::string& where, const std::string& name,
                    const Json& before, const Json& after);

  const Frame& before_;
  const Frame& after_;
  ConnectionState connection_before_;
  ConnectionState connection_after_;
  OffersByChannel offers_before_;
  OffersByChannel offers_after_;
  std::vector<Json> listed_;
  size_t count_ = 0;
};

void Differ::Add(const char* change, std::string where, std::string before,
                 std::string after) {
  ++count_;
  if (listed_.size() >= kDifferencesMax) return;
  Json difference = {{"change", change}, {"where", std::move(where)}};
  difference["before"] = std::move(before);
  difference["after"] = std::move(after);
  listed_.push_back(std::move(difference));
}

void Differ::Changed(const std::string& where, const std::string& before,
                     const std::string& after) {
  const auto [at, unused] =
      std::mismatch(before.begin(), before.end(), after.begin(), after.end());
  const auto from = static_cast<size_t>(at - before.begin());
  Add("changed", where, Cut(before, from), Cut(after, from));
}

// -- JSON --------------------------------------------------------------------

void Differ::CompareValues(const std::string& where, const Json& before,
                           const Json& after) {
  if (before == after) return;
  if (!before.is_object() || !after.is_object()) {
    Changed(where, ValueText(before), ValueText(after));
    return;
  }
  const auto path = [&where](const std::string& key) {
    return where.empty() ? key : absl::StrCat(where, "/", key);
  };
  for (const auto& [key, value] : before.items()) {
    const auto other = after.find(key);
    if (other == after.end()) {
      Add("removed", path(key), Cut(ValueText(value), 0), "");
    } else if (value.is_object() && value.contains("listed") &&
               other->is_object() && other->contains("listed")) {
      CompareLists(path(key), key, value, *other);
    } else {
      CompareValues(path(key), value, *other);
    }
  }
  for (const auto& [key, value] : after.items()) {
    if (!before.contains(key)) {
      Add("added", path(key), "", Cut(ValueText(value), 0));
    }
  }
}

// What each element is called: by its identity, or its position; the second of
// one name is "... #2".
std::vector<std::string> NamesOf(const std::string& list,
                                 const Json& elements) {
  const auto identity = Identities().find(list);
  std::vector<std::string> names;
  std::map<std::string, size_t> seen;
  for (const Json& element : elements) {
    std::string name;
    if (identity == Identities().end()) {
      name = absl::StrCat(names.size());
    } else {
      for (const char* key : identity->second) {
        absl::StrAppend(&name, name.empty() ? "" : " ", key, " ",
                        ValueText(element.value(key, Json())));
      }
      const size_t number = ++seen[name];
      if (number > 1) absl::StrAppend(&name, " #", number);
    }
    names.push_back(std::move(name));
  }
  return names;
}

void Differ::CompareLists(const std::string& where, const std::string& name,
                          const Json& before, const Json& after) {
  if (before == after) return;
  const Json& elements_before = before["listed"];
  const Json& elements_after = after["listed"];
  const std::vector<std::string> names_before = NamesOf(name, elements_before);
  const std::vector<std::string> names_after = NamesOf(name, elements_after);
  std::map<std::string, size_t> in_after;
  for (size_t i = 0; i < names_after.size(); ++i) in_after[names_after[i]] = i;
  std::set<std::string> in_before;
  bool has_order = true;
  size_t last = 0;
  for (size_t i = 0; i < names_before.size(); ++i) {
    in_before.insert(names_before[i]);
    const std::string path = absl::StrCat(where, "/", names_before[i]);
    const auto found = in_after.find(names_before[i]);
    if (found == in_after.end()) {
      Add("removed", path, Cut(ValueText(elements_before[i]), 0), "");
      continue;
    }
    has_order = has_order && found->second >= last;
    last = found->second;
    CompareValues(path, elements_before[i], elements_after[found->second]);
  }
  for (size_t i = 0; i < names_after.size(); ++i) {
    if (in_before.contains(names_after[i])) continue;
    Add("added", absl::StrCat(where, "/", names_after[i]), "",
        Cut(ValueText(elements_after[i]), 0));
  }
  if (!has_order) Changed(where + "/order", "as before", "another");
  // Beyond what a model holds.
  CompareValues(where + "/rest", before["rest"], after["rest"]);
}

// -- Sections ----------------------------------------------------------------

std::string NameOf(const Section& section) {
  // Names passed Frame::Parse: they are printable.
  if (section.name == kChannelSection) {
    return absl::StrCat("channel ", section.instance);
  }
  const std::string name(section.name);
  return section.instance == 0
             ? name
             : absl::StrCat(name, " instance ", section.instance);
}

std::string_view TextOf(const Section& section) {
  return {reinterpret_cast<const char*>(section.body.data()),
          section.body.size()};
}

void Differ::CompareBytes(const std::string& where, const Section& before,
                          const Section& after) {
  const std::string_view a = TextOf(before);
  const std::string_view b = TextOf(after);
  if (a == b) return;
  const auto at = std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first;
  const auto offset = static_cast<size_t>(at - a.begin());
  const auto text = [offset](std::string_view body) {
    return absl::StrCat(body.size(), " bytes; at byte ", offset, ": ",
                        HexBytes(body.substr(offset), 16));
  };
  Add("changed", where + "/body", text(a), text(b));
}

// False if one of them cannot be parsed.
template <typename Message, typename Describe>
bool Differ::CompareMessages(const std::string& where, const Section& before,
                             const Section& after, Describe describe) {
  const auto a =
      ParseSection<Message>(before.body, before.name, before.instance);
  const auto b = ParseSection<Message>(after.body, after.name, after.instance);
  if (!a.ok() || !b.ok()) return false;
  const size_t count = count_;
  CompareValues(where, describe(*a, offers_before_),
                describe(*b, offers_after_));
  // Whatever the models do not show: they must not hide a difference.
  if (count_ == count && savestate::SerializeDeterministic(*a) !=
                             savestate::SerializeDeterministic(*b)) {
    CompareBytes(where, before, after);
  }
  return true;
}

void Differ::CompareSeals(const std::string& where) {
  const auto before = savestate::DescribeSeal(before_);
  const auto after = savestate::DescribeSeal(after_);
  if (before.ok() && after.ok()) {
    CompareValues(
        where,
        {{"key_id", Escaped(before->key_id)}, {"counter", before->counter}},
        {{"key_id", Escaped(after->key_id)}, {"counter", after->counter}});
  }
}

void Differ::CompareSections(const Section& before, const Section& after) {
  const std::string where = NameOf(before);
  CompareValues(where + "/section_version", before.version, after.version);
  CompareValues(where + "/required",
                before.kind == savestate::SectionKind::kRequired,
                after.kind == savestate::SectionKind::kRequired);
  if (TextOf(before) == TextOf(after)) return;
  const bool is_readable = IsReadable(before.name, before.version) &&
                           IsReadable(after.name, after.version);
  if (is_readable && before.name == kConnectionSection) {
    const auto describe = [](const ConnectionState& connection,
                             const OffersByChannel&) {
      Budget budget(ModelOptions::ForComparing());
      return DescribeConnection(connection, budget);
    };
    if (CompareMessages<ConnectionState>(where, before, after, describe)) {
      return;
    }
  }
  if (is_readable && before.name == kChannelSection) {
    const uint64_t channel = before.instance;
    const auto describe = [channel](const ChannelState& state,
                                    const OffersByChannel& offers) {
      Budget budget(ModelOptions::ForComparing());
      return DescribeChannel(channel, state, OfferOf(offers, channel), budget);
    };
    if (CompareMessages<ChannelState>(where, before, after, describe)) return;
  }
  if (before.name == kSealSection) CompareSeals(where);
  CompareBytes(where, before, after);
}

// Empty if there is none that can be read.
ConnectionState ConnectionOf(const Frame& frame) {
  const Section* const section = frame.Find(kConnectionSection);
  if (section == nullptr || !IsReadable(section->name, section->version)) {
    return ConnectionState();
  }
  auto parsed = ParseSection<ConnectionState>(section->body, section->name, 0);
  return parsed.ok() ? *std::move(parsed) : ConnectionState();
}

void Differ::Run() {
  connection_before_ = ConnectionOf(before_);
  connection_after_ = ConnectionOf(after_);
  offers_before_ = OffersOf(connection_before_);
  offers_after_ = OffersOf(connection_after_);
  if (before_.producer() != after_.producer()) {
    Changed("frame/producer", std::string(before_.producer()),
            std::string(after_.producer()));
  }
  for (const Section& section : before_.sections()) {
    const Section* const other = after_.Find(section.name, section.instance);
    if (other != nullptr) {
      CompareSections(section, *other);
    } else {
      Add("removed", NameOf(section),
          absl::StrCat(section.body.size(), " bytes"), "");
    }
  }
  for (const Section& section : after_.sections()) {
    if (before_.Find(section.name, section.instance) == nullptr) {
      Add("added", NameOf(section), "",
          absl::StrCat(section.body.size(), " bytes"));
    }
  }
}

Json Differ::ToJson(size_t list_max) const {
  Json listed = Json::array();
  for (const Json& difference : listed_) {
    if (listed.size() == list_max) break;
    listed.push_back(difference);
  }
  const size_t rest = count_ - listed.size();
  return {{"same", count_ == 0},
          {"differences",
           {{"count", count_}, {"listed", std::move(listed)}, {"rest", rest}}}};
}

absl::Status Named(const char* which, const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrCat(which, ": ", status.message()));
}

}  // namespace

absl::StatusOr<Json> DiffStates(absl::Span<const std::byte> before,
                                absl::Span<const std::byte> after,
                                size_t list_max) {
  const absl::StatusOr<Frame> a = Frame::Parse(before);
  if (!a.ok()) return Named("the first file", a.status());
  const absl::StatusOr<Frame> b = Frame::Parse(after);
  if (!b.ok()) return Named("the second file", b.status());
  Differ differ(*a, *b);
  differ.Run();
  return differ.ToJson(list_max);
}

}  // namespace ferrybus::state_tool
