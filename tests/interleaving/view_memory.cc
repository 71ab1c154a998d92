// SPDX-License-Identifier: MIT
//
// A view says how far a thread's knowledge goes: for each control word the
// oldest store that it may still read, for each thread the part of that
// thread's packet accesses that are known to be over.  A release store carries
// its thread's view, an acquire load takes it over.  A full fence goes through
// one view that all full fences share: of two, the later one knows what the
// earlier one knew.

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "ferrybus/tests/interleaving/fingerprint.h"
#include "ferrybus/tests/interleaving/memory.h"

namespace ferrybus::interleaving {
namespace {

constexpr int kWords = 5;

// The control words that the ring uses, packed.
int WordIndex(Location location) {
  return location < kWords - 1 ? location : kWords - 1;
}

struct View {
  std::array<uint8_t, kWords> store = {};
  std::array<uint8_t, kActors> clock = {};

  void Join(const View& other) {
    for (int i = 0; i < kWords; ++i) {
      store[i] = std::max(store[i], other.store[i]);
    }
    for (int i = 0; i < kActors; ++i) {
      clock[i] = std::max(clock[i], other.clock[i]);
    }
  }
  void AddTo(Fingerprint* fingerprint) const {
    uint64_t packed = 0;
    for (uint8_t value : store) packed = packed << 8 | value;
    for (uint8_t value : clock) packed = packed << 8 | value;
    fingerprint->Add(packed);
  }
};

struct Message {
  uint64_t value = 0;
  View view;
};

struct Thread {
  View now;
  // What relaxed loads have seen: a fence makes it known.
  View seen;
  // What was known at the last fence: relaxed stores carry it.
  View fenced;
};

struct Datum {
  Location location = 0;
  uint64_t value = 0;
  // The thread's clock at its last access; 0: none.
  std::array<uint8_t, kActors> written = {};
  std::array<uint8_t, kActors> read = {};
};

class ViewMemory final : public Memory {
 public:
  explicit ViewMemory(const ViewOptions& options) : options_(options) {
    for (int actor = 0; actor < kActors; ++actor) {
      threads_[actor].now.clock[actor] = 1;
    }
    for (std::vector<Message>& stores : words_) stores.resize(1);
  }

  std::unique_ptr<Memory> Clone() const override {
    return std::make_unique<ViewMemory>(*this);
  }

  void Initialize(Location location, uint64_t value) override {
    words_[WordIndex(location)][0].value = value;
  }

  int Choices(int actor, const Step& step) const override {
    switch (step.kind) {
      case StepKind::kLoad: {
        if (step.location >= kDataLocation) return 1;
        const int word = WordIndex(step.location);
        return static_cast<int>(words_[word].size()) -
               threads_[actor].now.store[word];
      }
      case StepKind::kSleep:
        return rung_[actor] ? 1 : 0;
      case StepKind::kChoose:
        return static_cast<int>(step.value);
      case StepKind::kDone:
        return 0;
      default:
        return 1;
    }
  }

  Outcome Apply(int actor, const Step& step, int choice) override {
    Thread& thread = threads_[actor];
    switch (step.kind) {
      case StepKind::kLoad:
        return step.location >= kDataLocation ? LoadData(actor, step.location)
                                              : Load(thread, step, choice);
      case StepKind::kStore:
        if (step.location >= kDataLocation) return StoreData(actor, step);
        Store(actor, step, step.value, {});
        break;
      case StepKind::kUpdate:
        return Update(actor, step);
      case StepKind::kChoose:
        return {static_cast<uint64_t>(choice)};
      case StepKind::kFence:
        Fence(actor);
        break;
      case StepKind::kHeavyFence:
        // The other one's barrier is somewhere between start and end.
        Fence(actor);
        Fence(1 - actor);
        Fence(actor);
        break;
      case StepKind::kRing:
        rung_[1 - actor] = true;
        if (options_.bell_orders) {
          bell_[1 - actor].Join(thread.now);
          ++thread.now.clock[actor];
        }
        break;
      case StepKind::kSleep:
        rung_[actor] = false;
        if (options_.bell_orders) thread.now.Join(bell_[actor]);
        break;
      case StepKind::kDone:
        break;
    }
    return {};
  }

  // Packet bytes: either there is a race, whenever the access is made, or the
  // order is given.
  bool IsLocal(int /*actor*/, const Step& step) const override {
    return step.location >= kDataLocation;
  }

  int InternalChoices(int /*actor*/) const override { return 0; }
  Step ApplyInternal(int /*actor*/, int /*choice*/) override { return {}; }

  void AddTo(Fingerprint* fingerprint) const override {
    for (const Thread& thread : threads_) {
      thread.now.AddTo(fingerprint);
      thread.seen.AddTo(fingerprint);
      thread.fenced.AddTo(fingerprint);
    }
    fence_.AddTo(fingerprint);
    for (int actor = 0; actor < kActors; ++actor) {
      bell_[actor].AddTo(fingerprint);
      fingerprint->Add(rung_[actor] ? 1 : 0);
    }
    for (const std::vector<Message>& stores : words_) {
      fingerprint->Add(stores.size());
      for (const Message& message : stores) {
        fingerprint->Add(message.value);
        message.view.AddTo(fingerprint);
      }
    }
    uint64_t sum = 0;
    for (const Datum& datum : data_) {
      Fingerprint one;
      one.Add(uint64_t{datum.location} << 32 | datum.written[0] << 24 |
              datum.written[1] << 16 | datum.read[0] << 8 | datum.read[1]);
      one.Add(datum.value);
      sum += one.low();
    }
    fingerprint->Add(sum);
  }

 private:
  // Choice 0 is the newest store.
  Outcome Load(Thread& thread, const Step& step, int choice) {
    const int word = WordIndex(step.location);
    const size_t at = words_[word].size() - 1 - static_cast<size_t>(choice);
    const Message& message = words_[word][at];
    thread.now.store[word] = static_cast<uint8_t>(at);
    thread.seen.Join(message.view);
    if (Acquires(step.order)) thread.now.Join(message.view);
    return {message.value, choice != 0};
  }

  // Reads the newest store, and follows it at once: who reads the update knows
  // what the store carried (release sequence).
  Outcome Update(int actor, const Step& step) {
    const Outcome old = Load(threads_[actor], step, 0);
    const View carried = words_[WordIndex(step.location)].back().view;
    Store(actor, step, (old.value & step.keep) ^ step.value, carried);
    return old;
  }

  void Store(int actor, const Step& step, uint64_t value, const View& carried) {
    Thread& thread = threads_[actor];
    const int word = WordIndex(step.location);
    const uint8_t at = static_cast<uint8_t>(words_[word].size());
    thread.now.store[word] = at;
    Message message = {value, thread.fenced};
    if (Releases(step.order)) {
      message.view = thread.now;
      ++thread.now.clock[actor];
    }
    message.view.Join(carried);
    message.view.store[word] = at;
    words_[word].push_back(message);
  }

  void Fence(int actor) {
    Thread& thread = threads_[actor];
    thread.now.Join(thread.seen);
    thread.now.Join(fence_);
    fence_ = thread.now;
    thread.fenced = thread.now;
    ++thread.now.clock[actor];
  }

  Outcome LoadData(int actor, Location location) {
    Datum& datum = Find(location);
    const int other = 1 - actor;
    if (datum.written[other] > threads_[actor].now.clock[other]) {
      return {0, false,
              "data race: reads packet bytes that the other side wrote, and "
              "nothing orders the two"};
    }
    datum.read[actor] = threads_[actor].now.clock[actor];
    return {datum.value};
  }

  Outcome StoreData(int actor, const Step& step) {
    Datum& datum = Find(step.location);
    const int other = 1 - actor;
    const uint8_t known = threads_[actor].now.clock[other];
    if (datum.read[other] > known || datum.written[other] > known) {
      return {0, false,
              "data race: overwrites packet bytes that the other side may "
              "still be reading"};
    }
    datum.written[actor] = threads_[actor].now.clock[actor];
    datum.value = step.value;
    return {};
  }

  Datum& Find(Location location) {
    for (Datum& datum : data_) {
      if (datum.location == location) return datum;
    }
    return data_.emplace_back(Datum{location});
  }

  ViewOptions options_;
  Thread threads_[kActors];
  View fence_;
  View bell_[kActors];
  bool rung_[kActors] = {false, false};
  std::array<std::vector<Message>, kWords> words_;
  std::vector<Datum> data_;
};

}  // namespace

std::unique_ptr<Memory> MakeViewMemory(const ViewOptions& options) {
  return std::make_unique<ViewMemory>(options);
}

}  // namespace ferrybus::interleaving
