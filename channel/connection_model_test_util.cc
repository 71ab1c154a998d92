// SPDX-License-Identifier: MIT
#include "ferrybus/channel/connection_model_test_util.h"

#include <algorithm>
#include <utility>

namespace ferrybus {
namespace {

class Stepper {
 public:
  explicit Stepper(ModelState& state) : s(state) {}

  ModelAnswer Run(Letter letter) {
    answer_.ok = Any(letter);
    return answer_;
  }
  ModelAnswer Run(Act act);

 private:
  using S = ModelState;

  bool active() const {
    return s.channel != S::kGone && s.channel != S::kClosed &&
           s.channel != S::kRescinded;
  }
  bool deaf() const { return s.channel == S::kRescinded || s.rescinding; }
  bool opening() const {
    return s.channel == S::kOpening || s.channel == S::kOpeningThenClose;
  }
  bool closing() const {
    return s.channel == S::kClosing || s.channel == S::kClosingThenOpen;
  }

  void Out(uint32_t message) {
    (s.paused ? s.held : answer_.out).push_back(message);
  }
  void Event(char event) { answer_.events.push_back(event); }
  bool Fail(uint32_t message) {
    Out(message | kFailed);
    return false;
  }

  // Each returns whether the message is in order.
  bool Any(Letter letter);
  bool Connected(Letter letter);
  bool OfChannel(Letter letter);
  bool Gpadl(S::Gpadl& gpadl, S::Gpadl next);
  bool Open(bool good);
  bool Close();
  bool Modify(bool good);
  bool OpenReserved();
  bool CloseReserved(bool good);

  bool Reset(S::After after, int contact, bool with_reserved);
  void FinishReset();
  void BeginOpen(int vp);
  void StartClose();
  void FinishClose();
  void FinishRescind();

  ModelState& s;
  ModelAnswer answer_;
};

// --- Messages ---------------------------------------------------------------

bool Stepper::Any(Letter letter) {
  switch (letter) {
    case Letter::kContact:
      return Reset(S::kVersionResponse, 1, false);
    case Letter::kBadContactVersion:
      Reset(S::kVersionResponse, 2, false);
      return false;
    case Letter::kBadContactVp:
      Reset(S::kVersionResponse, 3, false);
      return false;
    case Letter::kUnload:
      if (s.phase == S::kOff) return false;
      if (s.phase == S::kResetting && s.after != S::kVersionResponse) {
        return false;
      }
      return Reset(S::kUnloadResponse, 0, false);
    case Letter::kHostMessage:
    case Letter::kUnknown:
    case Letter::kShort:
      return false;
    default:
      break;
  }
  if (s.paused && letter != Letter::kResume) return false;
  if (letter == Letter::kCloseReserved) return CloseReserved(true);
  if (letter == Letter::kBadCloseReserved) return CloseReserved(false);
  return s.phase == S::kOn && Connected(letter);
}

bool Stepper::Connected(Letter letter) {
  switch (letter) {
    case Letter::kRequestOffers:
      if (std::exchange(s.asked, true)) return false;
      if (s.channel != S::kGone && !active()) {
        s.offered = true;
        Out(1);
      }
      Out(4);
      return true;
    case Letter::kConnect:
      if (std::exchange(s.connecting, true)) return false;
      Event('T');
      return true;
    case Letter::kModifyConnection:
    case Letter::kBadModifyConnection:
      if (s.modifying) return false;
      if (letter == Letter::kBadModifyConnection || opening()) return Fail(26);
      s.modifying = true;
      Event('P');
      return true;
    case Letter::kPause:
      Out(28);
      s.paused = true;
      Event('p');
      return true;
    case Letter::kResume:
      if (!std::exchange(s.paused, false)) return false;
      answer_.out = std::exchange(s.held, {});
      Event('r');
      return true;
    default:
      return OfChannel(letter);
  }
}

bool Stepper::OfChannel(Letter letter) {
  switch (letter) {
    case Letter::kGpadlA:
      return Gpadl(s.a, S::kCreated);
    case Letter::kBadGpadlA:
      return s.offered ? Fail(10) : false;
    case Letter::kGpadlBHeader:
      return Gpadl(s.b, S::kInProgress);
    case Letter::kGpadlBBody:
      if (s.b != S::kInProgress) return false;
      s.b = S::kCreated;
      Out(10);
      return true;
    case Letter::kOpen:
      return Open(true);
    case Letter::kBadOpenGpadl:
      return Open(false);
    case Letter::kBadOpenChannel:
      return Fail(6);
    case Letter::kClose:
      return Close();
    case Letter::kTeardownA:
      if (s.a != S::kCreated || !s.offered) return false;
      s.a = active() ? S::kTearingDown : S::kNone;
      if (s.a == S::kNone) Out(12);
      return true;
    case Letter::kRelease:
      if (s.channel != S::kRescinded) return false;
      s.channel = S::kGone;
      s.offered = false;
      s.a = s.b = S::kNone;
      return true;
    case Letter::kModify:
      return Modify(true);
    case Letter::kBadModify:
      return Modify(false);
    case Letter::kOpenReserved:
      return OpenReserved();
    default:
      return false;
  }
}

bool Stepper::Gpadl(S::Gpadl& gpadl, S::Gpadl next) {
  if (!s.offered) return false;
  if (s.reserved || gpadl != S::kNone) return Fail(10);
  gpadl = next;
  if (next == S::kCreated) Out(10);
  return true;
}

bool Stepper::Open(bool good) {
  if (!s.offered) return Fail(6);
  if (deaf()) return true;
  if (s.channel == S::kClosing && !s.reserved) {
    s.channel = S::kClosingThenOpen;
    s.good_reopen = good;
    return true;
  }
  if (s.channel != S::kClosed || !good || s.a != S::kCreated) return Fail(6);
  BeginOpen(0);
  return true;
}

bool Stepper::Close() {
  if (!s.offered) return false;
  if (deaf()) return true;
  if (s.reserved) return false;
  if (s.channel == S::kClosingThenOpen) {
    Out(6 | kFailed);
  } else if (s.channel != S::kOpening && s.channel != S::kOpen) {
    return false;
  }
  StartClose();
  return true;
}

bool Stepper::Modify(bool good) {
  if (s.offered && deaf()) return true;
  if (!s.offered || s.channel != S::kOpen || s.reserved || !good) {
    return Fail(24);
  }
  s.vp = 3;
  Event('M');
  Out(24);
  return true;
}

bool Stepper::OpenReserved() {
  if (!s.offered || s.channel != S::kClosed || s.a != S::kCreated) {
    return Fail(6 | kTargeted);
  }
  s.reserved = true;
  BeginOpen(1);
  return true;
}

bool Stepper::CloseReserved(bool good) {
  if (!s.reserved || s.close_answer) return false;
  s.close_answer = good;
  StartClose();
  return good;
}

// --- What the device and the owner do ---------------------------------------

ModelAnswer Stepper::Run(Act act) {
  const uint32_t opened = s.reserved ? 6 | kTargeted : 6;
  const bool is_told = s.reserved || s.phase == S::kOn;
  switch (act) {
    case Act::kOpened:
      if (!opening()) break;
      if (is_told) Out(opened);
      if (s.channel == S::kOpeningThenClose) Event('C');
      s.channel = s.channel == S::kOpening ? S::kOpen : S::kClosing;
      break;
    case Act::kOpenFailed:
      if (!opening()) break;
      if (is_told) Out(opened | kFailed);
      s.channel = S::kClosing;
      FinishClose();
      break;
    case Act::kClosed:
      if (closing()) FinishClose();
      break;
    case Act::kRescind:
      if (s.channel == S::kGone || deaf()) break;
      if (!active()) {
        FinishRescind();
        break;
      }
      s.rescinding = true;
      StartClose();
      break;
    case Act::kRefuseConnect:
      if (std::exchange(s.connecting, false)) Out(23 | kFailed);
      break;
    case Act::kModified:
      if (!std::exchange(s.modifying, false)) break;
      s.moved_pages = true;
      Out(26);
      break;
    case Act::kDisconnect:
      Reset(S::kNothing, 0, true);
      break;
  }
  return answer_;
}

// --- The life of a channel, and the end of a connection ---------------------

void Stepper::BeginOpen(int vp) {
  s.channel = S::kOpening;
  s.vp = vp;
  Event('O');
}

void Stepper::StartClose() {
  if (s.channel == S::kOpening) {
    s.channel = S::kOpeningThenClose;
  } else if (s.channel == S::kOpen) {
    s.channel = S::kClosing;
    Event('C');
  } else if (s.channel == S::kClosingThenOpen) {
    s.channel = S::kClosing;
    s.good_reopen = false;
  }
}

void Stepper::FinishClose() {
  const bool survived = !s.offered;
  const bool reopen = s.channel == S::kClosingThenOpen;
  s.channel = S::kClosed;
  s.vp = 0;
  if (survived) s.a = s.b = S::kNone;
  if (s.a == S::kTearingDown) {
    s.a = S::kNone;
    if (s.phase == S::kOn) Out(12);
  }
  s.reserved = false;
  if (std::exchange(s.close_answer, false)) Out(20 | kTargeted);
  const bool good = std::exchange(s.good_reopen, false);
  if (s.rescinding) {
    FinishRescind();
  } else if (reopen) {
    Open(good);
  } else if (survived && s.phase == S::kOn && s.asked) {
    s.offered = true;
    Out(1);
  }
  FinishReset();
}

void Stepper::FinishRescind() {
  s.rescinding = false;
  s.channel = s.phase == S::kOn && s.offered ? S::kRescinded : S::kGone;
  if (s.channel == S::kRescinded) {
    Out(2);
    return;
  }
  s.offered = false;
  s.a = s.b = S::kNone;
}

bool Stepper::Reset(S::After after, int contact, bool with_reserved) {
  // What is about reserved channels outlives the connection.
  s.paused = false;
  for (uint32_t message : std::exchange(s.held, {})) {
    if ((message & kTargeted) != 0 && !with_reserved) Out(message);
  }
  s.modifying = s.connecting = false;
  s.was_on = s.phase == S::kOn || (s.phase == S::kResetting && s.was_on);
  s.phase = S::kResetting;
  s.after = after;
  s.next_contact = contact;
  if (with_reserved) s.reserved = s.close_answer = false;
  if (!s.reserved) StartClose();
  FinishReset();
  return true;
}

void Stepper::FinishReset() {
  if (s.phase != S::kResetting || (active() && !s.reserved)) return;
  if (s.channel == S::kRescinded) s.channel = S::kGone;
  s.offered = s.asked = false;
  if (!active()) s.a = S::kNone;
  if (!active() || s.b == S::kInProgress) s.b = S::kNone;
  s.phase = S::kOff;
  const S::After after = std::exchange(s.after, S::kNothing);
  const bool was_on = std::exchange(s.was_on, false);
  const int contact = std::exchange(s.next_contact, 0);
  if (after == S::kVersionResponse) {
    s.contact = contact;
    s.moved_pages = false;
    if (contact == 1) s.phase = S::kOn;
    Out(contact == 1 ? 15 : 15 | kFailed);
  } else if (after == S::kUnloadResponse) {
    Out(17);
  }
  if (was_on) Event('D');
  if (s.phase == S::kOn) Event('N');
}

}  // namespace

ModelAnswer Step(Letter letter, ModelState& state) {
  return Stepper(state).Run(letter);
}

ModelAnswer Step(Act act, ModelState& state) { return Stepper(state).Run(act); }

}  // namespace ferrybus
