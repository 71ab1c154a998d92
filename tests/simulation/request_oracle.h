// SPDX-License-Identifier: MIT
//
// What must be true of one channel's requests, of both sides, over all its
// openings and owners: each is delivered once and in order, answered once, and
// the bytes are those that were sent.
//
// A guest's opening ends when its driver hears of it; the host's when its
// device does.  Neither side's requests outlive its opening; a move is none.
//
// Payloads begin with opening and number; the rest follows from both.
//
// Thread safety: none.

#ifndef FERRYBUS_TESTS_SIMULATION_REQUEST_ORACLE_H_
#define FERRYBUS_TESTS_SIMULATION_REQUEST_ORACLE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "ferrybus/tests/simulation/context.h"

namespace ferrybus::simulation {

// What a packet of the simulation says of itself.
struct RequestName {
  uint32_t opening = 0;
  uint32_t number = 0;

  uint64_t tag() const { return uint64_t{opening} << 32 | number; }
  static RequestName FromTag(uint64_t tag) {
    return {static_cast<uint32_t>(tag >> 32), static_cast<uint32_t>(tag)};
  }
};

// One direction: `asker` sends, the other side answers.
class RequestOracle {
 public:
  // `may_repeat`: a packet in flight may be delivered again by a new owner.
  RequestOracle(Context* context, std::string name, bool may_repeat)
      : context_(context), name_(std::move(name)), may_repeat_(may_repeat) {}

  // -- The asker.
  void Opened();
  void Closed();
  bool is_open() const { return is_open_; }
  // The guest breaks the rules: nothing is promised until the next Opened().
  void Mute() { is_muted_ = true; }
  bool is_muted() const { return is_muted_; }
  // What to send next; Sent() if it was.
  RequestName NextName() const {
    return {opening_, static_cast<uint32_t>(requests_.size())};
  }
  std::string Payload(RequestName name) const { return Bytes(name, 'q'); }
  void Sent(bool wants_answer);
  void Answered(uint64_t tag, absl::Span<const std::byte> reply);

  // -- The other side.
  RequestName Delivered(absl::Span<const std::byte> payload);
  // In flight at a new owner that starts, without being delivered again.
  void Restored(RequestName name);
  // It was given back, and will come again.
  void Deferred(RequestName name);
  // The device stands on another owner's state.
  void OwnerChanged();
  std::string Reply(RequestName name) const { return Bytes(name, 'a'); }

  // Empty: nothing is owed.
  std::string Owed() const;

 private:
  struct Request {
    bool wants_answer = true;
    bool may_come_again = false;
    bool is_delivered = false;
    uint32_t answers = 0;
  };

  std::string Bytes(RequestName name, char what) const;
  void Fail(absl::string_view kind, absl::string_view text,
            RequestName name) const;
  // Reads and checks a payload; null: it is of an earlier opening, or wrong.
  Request* Find(absl::Span<const std::byte> payload, RequestName* name);

  Context* const context_;
  const std::string name_;
  const bool may_repeat_;
  bool is_open_ = false;
  bool is_muted_ = false;
  uint32_t opening_ = 0;
  uint32_t next_delivery_ = 0;
  std::vector<Request> requests_;
};

}  // namespace ferrybus::simulation

#endif  // FERRYBUS_TESTS_SIMULATION_REQUEST_ORACLE_H_
