// SPDX-License-Identifier: MIT

// A hot update of two blocks beside a model of it, for all short sequences of
// what a caller, the drivers and an operator can do.

#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "ferrybus/vsp/virtual_function/hot_update.h"
#include "ferrybus/vsp/virtual_function/hot_update_test_util.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

using absl::StatusCode;
using Phase = HotUpdate::Phase;

enum Op {
  kSave,
  kRestore0,
  kRestore1,
  kRestore2,
  kStart,
  kCancel,
  kRequest,
  // For the next call of a driver that may fail:
  kFailNext,
  kCancelNext,   // the driver cancels
  kReenterNext,  // the driver takes steps
  kOps,
};

enum class Next { kNone, kFail, kCancel, kReenter };

// What both sides tell: o or n for the driver, a letter for the call.
struct Shared {
  std::string calls;
  Next next = Next::kNone;
  HotUpdate* update = nullptr;
};

class LetterDriver final : public HotUpdateDriver {
 public:
  LetterDriver(Shared* shared, char name) : shared_(shared), name_(name) {}
  ~LetterDriver() override { Note('d'); }

  absl::Status Save(HotUpdateBlocks& blocks) override {
    const std::byte byte{};
    for (int i = 0; i < 2; ++i) {
      if (!blocks.SaveBuffer({&byte, 1}).ok()) Note('!');
    }
    return Call('s');
  }
  void CancelUpdate() override { Note('c'); }
  absl::Status Restore(HotUpdateBlock block) override {
    if (block.size_bytes != 1) Note('!');
    return Call('r');
  }
  absl::Status Start() override { return Call('b'); }
  void RestoreComplete() override { Note('e'); }

 private:
  void Note(char call) { shared_->calls += {name_, call, ' '}; }
  absl::Status Call(char call) {
    Note(call);
    switch (std::exchange(shared_->next, Next::kNone)) {
      case Next::kFail:
        return absl::InternalError("");
      case Next::kCancel:
        shared_->update->Cancel();
        break;
      case Next::kReenter:
        for (StatusCode code : {shared_->update->Save().code(),
                                shared_->update->Restore(0).code(),
                                shared_->update->Start().code()}) {
          if (code != StatusCode::kFailedPrecondition) Note('!');
        }
        break;
      case Next::kNone:
        break;
    }
    return absl::OkStatus();
  }

  Shared* shared_;
  char name_;
};

// The rules, written down once more.
class Model {
 public:
  StatusCode Do(Op op) {
    switch (op) {
      case kSave:
        if (phase != Phase::kNew) return StatusCode::kFailedPrecondition;
        if (is_cancelled) return RollBack(StatusCode::kCancelled);
        return Finish(Call("os "), [this] { phase = Phase::kSaved; });
      case kRestore0:
      case kRestore1:
      case kRestore2:
        if (phase != Phase::kSaved) return StatusCode::kFailedPrecondition;
        if (is_cancelled) return RollBack(StatusCode::kCancelled);
        if (op - kRestore0 != restored || restored == 2) {
          return RollBack(StatusCode::kInvalidArgument);
        }
        return Finish(Call("nr "), [this] { ++restored; });
      case kStart:
        if (phase != Phase::kSaved) return StatusCode::kFailedPrecondition;
        if (is_cancelled) return RollBack(StatusCode::kCancelled);
        if (restored != 2) return RollBack(StatusCode::kFailedPrecondition);
        if (StatusCode code = Call("nb "); code == StatusCode::kInternal) {
          return RollBack(code);
        }
        calls += "ne od ";
        phase = Phase::kDone;
        return StatusCode::kOk;
      case kCancel:
        if (IsOver()) return StatusCode::kOk;
        RollBack(StatusCode::kCancelled);
        return StatusCode::kOk;
      case kRequest:
        is_cancelled = true;
        return StatusCode::kOk;
      default:
        next = static_cast<Next>(op - kFailNext + 1);
        return StatusCode::kOk;
    }
  }
  bool IsOver() const {
    return phase == Phase::kDone || phase == Phase::kRolledBack;
  }

  Phase phase = Phase::kNew;
  int restored = 0;
  bool is_cancelled = false;
  Next next = Next::kNone;
  std::string calls;

 private:
  StatusCode Call(const char* what) {
    calls += what;
    const Next now = std::exchange(next, Next::kNone);
    if (now == Next::kFail) return StatusCode::kInternal;
    return is_cancelled || now == Next::kCancel ? StatusCode::kCancelled
                                                : StatusCode::kOk;
  }
  template <typename Effect>
  StatusCode Finish(StatusCode code, Effect effect) {
    if (code != StatusCode::kOk) return RollBack(code);
    effect();
    return code;
  }
  StatusCode RollBack(StatusCode why) {
    phase = Phase::kRolledBack;
    const bool was_asked = calls.find("os ") != std::string::npos;
    calls += was_asked ? "nd oc " : "nd ";
    return why;
  }
};

class Real {
 public:
  Real()
      : driver_(std::make_unique<LetterDriver>(&shared_, 'o')),
        update_(std::in_place, absl::Span<std::byte>(), &driver_,
                std::make_unique<LetterDriver>(&shared_, 'n')) {
    shared_.update = &*update_;
    old_ = driver_.get();
  }

  StatusCode Do(Op op) {
    switch (op) {
      case kSave:
        return update_->Save().code();
      case kRestore0:
      case kRestore1:
      case kRestore2:
        return update_->Restore(op - kRestore0).code();
      case kStart:
        return update_->Start().code();
      case kCancel:
        update_->Cancel();
        return StatusCode::kOk;
      case kRequest:
        update_->RequestCancel();
        return StatusCode::kOk;
      default:
        shared_.next = static_cast<Next>(op - kFailNext + 1);
        return StatusCode::kOk;
    }
  }
  void Destroy() { update_.reset(); }
  const HotUpdate& update() const { return *update_; }
  const std::string& calls() const { return shared_.calls; }
  bool has_old() const { return driver_.get() == old_; }

 private:
  Shared shared_;
  std::unique_ptr<HotUpdateDriver> driver_;
  HotUpdateDriver* old_ = nullptr;
  std::optional<HotUpdate> update_;
};

// Returns what differs.
std::string RunBoth(const std::vector<Op>& ops) {
  Real real;
  Model model;
  for (size_t i = 0; i < ops.size(); ++i) {
    const StatusCode found = real.Do(ops[i]);
    const StatusCode wanted = model.Do(ops[i]);
    const bool is_kept = real.update().blocks().size() != 0;
    if (found != wanted || real.update().phase() != model.phase ||
        real.calls() != model.calls ||
        real.has_old() != (model.phase != Phase::kDone) ||
        is_kept != (model.phase == Phase::kSaved)) {
      return absl::StrCat("step ", i, ": code ", static_cast<int>(found),
                          ", not ", static_cast<int>(wanted), "; ",
                          real.calls(), ", not ", model.calls);
    }
  }
  real.Destroy();
  if (!model.IsOver()) model.Do(kCancel);
  return real.calls() == model.calls
             ? ""
             : absl::StrCat("at the end: ", real.calls());
}

// Returns how many sequences.
size_t RunAllOf(const std::vector<Op>& start, int length) {
  size_t total = 1;
  for (int i = 0; i < length; ++i) total *= kOps;
  for (size_t number = 0; number < total; ++number) {
    std::vector<Op> ops = start;
    for (size_t rest = number, i = 0; i < static_cast<size_t>(length); ++i) {
      ops.push_back(static_cast<Op>(rest % kOps));
      rest /= kOps;
    }
    if (const std::string wrong = RunBoth(ops); !wrong.empty()) {
      ADD_FAILURE() << absl::StrJoin(ops, " ") << ": " << wrong;
      break;
    }
  }
  return total;
}

// bad:H4 bad:H5 bad:H7 doc:HU8 doc:HU16 doc:HU20
TEST(HotUpdateModelTest, AllShortSequencesFromEveryState) {
  size_t sequences = RunAllOf({}, 5);
  sequences += RunAllOf({kSave}, 5);
  sequences += RunAllOf({kSave, kRestore0}, 4);
  sequences += RunAllOf({kSave, kRestore0, kRestore1}, 4);
  sequences += RunAllOf({kSave, kRestore0, kRestore1, kStart}, 3);
  std::printf("%zu sequences\n", sequences);
  EXPECT_EQ(sequences, 221000u);
}

}  // namespace
}  // namespace ferrybus::vsp
