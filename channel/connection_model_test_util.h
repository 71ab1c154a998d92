// SPDX-License-Identifier: MIT
#ifndef FERRYBUS_CHANNEL_CONNECTION_MODEL_TEST_UTIL_H_
#define FERRYBUS_CHANNEL_CONNECTION_MODEL_TEST_UTIL_H_

// A second, naive host: what ServerConnection must answer, in as few words as
// possible.  It knows one channel (number 1), two GPADLs (A of one message, B
// of two), one socket endpoint, version 6.0, and no bytes.
//
// It shares nothing with the code under test: where that has queues, tables
// and keys, this has a few small numbers, so that states can be compared and
// counted.
//
// Thread safety: none.

#include <compare>
#include <cstdint>
#include <string>
#include <vector>

namespace ferrybus {

// Messages of the guest; kBad... breaks a rule of its own.
enum class Letter {
  kContact,
  kBadContactVersion,
  kBadContactVp,
  kRequestOffers,
  kUnload,
  kGpadlA,
  kBadGpadlA,
  kGpadlBHeader,
  kGpadlBBody,
  kBadGpadlBody,
  kOpen,
  kBadOpenGpadl,
  kBadOpenChannel,
  kClose,
  kBadClose,
  kTeardownA,
  kBadTeardown,
  kRelease,
  kBadRelease,
  kModify,
  kBadModify,
  kOpenReserved,
  kBadOpenReserved,
  kCloseReserved,
  kBadCloseReserved,
  kConnect,
  kModifyConnection,
  kBadModifyConnection,
  kPause,
  kResume,
  kHostMessage,
  kUnknown,
  kShort,
};
inline constexpr int kLetterCount = static_cast<int>(Letter::kShort) + 1;

// What the device and the owner do.
enum class Act {
  kOpened,
  kOpenFailed,
  kClosed,
  kRescind,
  kRefuseConnect,
  kModified,
  kDisconnect,
};
inline constexpr int kActCount = static_cast<int>(Act::kDisconnect) + 1;

// An outgoing message: its type, whether it says failure, whether it goes to
// a target of its own.
inline constexpr uint32_t kFailed = 0x100;
inline constexpr uint32_t kTargeted = 0x200;

struct ModelAnswer {
  bool ok = true;             // of a letter: not refused
  std::vector<uint32_t> out;  // in order
  // One character for each event: N connected, D disconnected, O open, C
  // close, M modify, T connect, P monitor pages, p paused, r resumed.
  std::string events;

  friend bool operator==(const ModelAnswer&, const ModelAnswer&) = default;
};

struct ModelState {
  enum Phase { kOff, kOn, kResetting };
  enum Channel {
    kGone,
    kClosed,
    kOpening,
    kOpeningThenClose,
    kOpen,
    kClosing,
    kClosingThenOpen,
    kRescinded,
  };
  enum Gpadl { kNone, kInProgress, kCreated, kTearingDown };
  enum After { kNothing, kUnloadResponse, kVersionResponse };

  Phase phase = kOff;
  int contact = 0;  // the last: 0 none, 1 good, 2 bad version, 3 bad VP
  int next_contact = 0;
  After after = kNothing;
  bool was_on = false;  // when the reset began
  bool moved_pages = false;
  bool asked = false;  // for offers
  bool paused = false;
  bool modifying = false;
  bool connecting = false;

  Channel channel = kClosed;
  bool offered = false;
  bool rescinding = false;
  bool reserved = false;
  bool close_answer = false;  // CLOSE_RESERVED is to be answered
  bool good_reopen = false;
  int vp = 0;
  Gpadl a = kNone;
  Gpadl b = kNone;
  std::vector<uint32_t> held;  // while paused

  friend auto operator<=>(const ModelState&, const ModelState&) = default;
};

// What happens, and what it makes of the state.
ModelAnswer Step(Letter letter, ModelState& state);
ModelAnswer Step(Act act, ModelState& state);

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_CONNECTION_MODEL_TEST_UTIL_H_
