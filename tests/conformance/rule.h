// SPDX-License-Identifier: MIT
//
// A rule: a sentence of the documents, in our words, and a body that tries it
// on an endpoint.
//
//   RULE(OpenResultHasItsSize, "vector:M16 quirk:D11",
//        "OPENCHANNEL_RESULT has exactly 20 bytes.") {
//     t.guest().Connect();
//     ...
//     t.Expect(size == 20, "the answer has its size");
//   }
//
// A body is written as if nothing could fail: after the first failure every
// call to the guest does nothing, and the first failure is what is reported.
//
// The rows are those of docs/specification_rows.tsv; tools/specification.py
// reads them from here.
//
// Thread safety: none; rules list themselves before main().

#ifndef FERRYBUS_TESTS_CONFORMANCE_RULE_H_
#define FERRYBUS_TESTS_CONFORMANCE_RULE_H_

#include <memory>
#include <string>
#include <vector>

#include "ferrybus/channel/guest_memory.h"
#include "ferrybus/tests/conformance/endpoint.h"

namespace ferrybus::conformance {

class Guest;
class Trial;

struct Rule {
  const char* name;
  const char* rows;
  const char* sentence;
  void (*body)(Trial& t);
  const char* file;
  int line;

  // The file's subject: "open" for open_rules.cc.
  std::string group() const;
};

// All rules that are linked in, by file and line.
std::vector<const Rule*> AllRules();

bool ListRule(const Rule& rule);

enum class Outcome { kPassed, kFailed, kSkipped };

// One run of one rule: its endpoint, its guest, its result.
class Trial {
 public:
  explicit Trial(const EndpointFactory& make_endpoint);
  Trial(const Trial&) = delete;
  Trial& operator=(const Trial&) = delete;
  ~Trial();

  Endpoint& endpoint() { return *endpoint_; }
  Guest& guest() { return *guest_; }

  // Decided: what follows does nothing.
  bool over() const { return outcome_ != Outcome::kPassed; }
  // `holds`, or the rule failed with `what` was to hold.  Returns `holds`.
  bool Expect(bool holds, const std::string& what);
  void Fail(const std::string& what);
  // An error fails the rule; Unimplemented skips it.  True: go on.
  bool Succeeds(const absl::Status& status, const std::string& what);

  // The endpoint's state; it stands still.
  std::string Save();
  // Ends the endpoint, and has a new one go on from `saved`.
  void Restore(const std::string& saved);
  // Both.
  void Move() { Restore(Save()); }

  Outcome outcome() const { return outcome_; }
  const std::string& message() const { return message_; }

 private:
  std::unique_ptr<MemfdGuestMemory> memory_;
  std::unique_ptr<Endpoint> endpoint_;
  std::unique_ptr<Guest> guest_;
  Outcome outcome_ = Outcome::kPassed;
  std::string message_;
};

#define RULE(name, rows, sentence)                                  \
  static void name(Trial& t);                                       \
  static const bool is_listed_##name =                              \
      ListRule({#name, rows, sentence, &name, __FILE__, __LINE__}); \
  static void name(Trial& t)

}  // namespace ferrybus::conformance

#endif  // FERRYBUS_TESTS_CONFORMANCE_RULE_H_
