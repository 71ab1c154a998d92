// SPDX-License-Identifier: MIT

#include <cstdint>
#include <memory>
#include <vector>

#include "ferrybus/tests/interleaving/fingerprint.h"
#include "ferrybus/tests/interleaving/memory.h"

namespace ferrybus::interleaving {
namespace {

struct Word {
  Location location = 0;
  uint64_t value = 0;
};

struct BufferedStore {
  Location location = 0;
  bool release = false;
  uint64_t value = 0;
};

class StoreBufferMemory final : public Memory {
 public:
  explicit StoreBufferMemory(const StoreBufferOptions& options)
      : options_(options) {}

  std::unique_ptr<Memory> Clone() const override {
    return std::make_unique<StoreBufferMemory>(*this);
  }

  void Initialize(Location location, uint64_t value) override {
    Write(location, value);
  }

  int Choices(int actor, const Step& step) const override {
    switch (step.kind) {
      case StepKind::kLoad:
      case StepKind::kStore:
        return 1;
      case StepKind::kUpdate:
        return MayUpdate(buffer_[actor], step) ? 1 : 0;
      case StepKind::kChoose:
        return static_cast<int>(step.value);
      case StepKind::kFence:
        return buffer_[actor].empty() ? 1 : 0;
      case StepKind::kHeavyFence:
        return buffer_[0].empty() && buffer_[1].empty() ? 1 : 0;
      case StepKind::kRing:
        return !options_.bell_orders || buffer_[actor].empty() ? 1 : 0;
      case StepKind::kSleep:
        return rung_[actor] ? 1 : 0;
      case StepKind::kDone:
        break;
    }
    return 0;
  }

  Outcome Apply(int actor, const Step& step, int choice) override {
    switch (step.kind) {
      case StepKind::kLoad:
        return {Load(actor, step.location)};
      case StepKind::kStore:
        buffer_[actor].push_back(
            {step.location, step.order == Order::kRelease, step.value});
        break;
      case StepKind::kUpdate: {
        const uint64_t old = Load(actor, step.location);
        Write(step.location, (old & step.keep) ^ step.value);
        return {old};
      }
      case StepKind::kChoose:
        return {static_cast<uint64_t>(choice)};
      case StepKind::kRing:
        rung_[1 - actor] = true;
        break;
      case StepKind::kSleep:
        rung_[actor] = false;
        break;
      case StepKind::kFence:
      case StepKind::kHeavyFence:
      case StepKind::kDone:
        break;
    }
    return {};
  }

  // A store into the own buffer is seen by nobody else yet, and a fence that
  // has nothing to wait for does nothing.
  bool IsLocal(int actor, const Step& step) const override {
    switch (step.kind) {
      case StepKind::kStore:
        return true;
      case StepKind::kFence:
      case StepKind::kHeavyFence:
        return Choices(actor, step) != 0;
      default:
        return false;
    }
  }

  int InternalChoices(int actor) const override {
    const std::vector<BufferedStore>& buffer = buffer_[actor];
    if (options_.in_order) return buffer.empty() ? 0 : 1;
    int choices = 0;
    for (size_t at = 0; at < buffer.size(); ++at) {
      if (MayLeave(buffer, at)) ++choices;
    }
    return choices;
  }

  Step ApplyInternal(int actor, int choice) override {
    std::vector<BufferedStore>& buffer = buffer_[actor];
    size_t at = 0;
    if (!options_.in_order) {
      for (;; ++at) {
        if (MayLeave(buffer, at) && choice-- == 0) break;
      }
    }
    const BufferedStore store = buffer[at];
    buffer.erase(buffer.begin() + static_cast<ptrdiff_t>(at));
    Write(store.location, store.value);
    return {StepKind::kStore, store.release ? Order::kRelease : Order::kRelaxed,
            store.location, store.value};
  }

  void AddTo(Fingerprint* fingerprint) const override {
    // Which words memory has depends on the order of the stores: in a sum, it
    // does not matter.
    uint64_t sum = 0;
    for (const Word& word : words_) {
      Fingerprint one;
      one.Add(word.location);
      one.Add(word.value);
      sum += one.low();
    }
    fingerprint->Add(sum);
    for (int actor = 0; actor < kActors; ++actor) {
      fingerprint->Add(buffer_[actor].size() << 1 | (rung_[actor] ? 1 : 0));
      for (const BufferedStore& store : buffer_[actor]) {
        fingerprint->Add(uint64_t{store.location} << 1 |
                         (store.release ? 1 : 0));
        fingerprint->Add(store.value);
      }
    }
  }

 private:
  // Out of order: a store waits for those to the same word, a release store
  // for all.
  static bool MayLeave(const std::vector<BufferedStore>& buffer, size_t at) {
    if (buffer[at].release) return at == 0;
    for (size_t before = 0; before < at; ++before) {
      if (buffer[before].location == buffer[at].location) return false;
    }
    return true;
  }

  // It is made in memory at once.  In order: a locked instruction.
  bool MayUpdate(const std::vector<BufferedStore>& buffer,
                 const Step& step) const {
    if (options_.in_order || Releases(step.order)) return buffer.empty();
    for (const BufferedStore& store : buffer) {
      if (store.location == step.location) return false;
    }
    return true;
  }

  uint64_t Load(int actor, Location location) const {
    const std::vector<BufferedStore>& buffer = buffer_[actor];
    for (size_t at = buffer.size(); at != 0; --at) {
      if (buffer[at - 1].location == location) return buffer[at - 1].value;
    }
    for (const Word& word : words_) {
      if (word.location == location) return word.value;
    }
    return 0;
  }

  void Write(Location location, uint64_t value) {
    for (Word& word : words_) {
      if (word.location == location) {
        word.value = value;
        return;
      }
    }
    words_.push_back({location, value});
  }

  StoreBufferOptions options_;
  std::vector<Word> words_;
  std::vector<BufferedStore> buffer_[kActors];
  bool rung_[kActors] = {false, false};
};

}  // namespace

std::unique_ptr<Memory> MakeStoreBufferMemory(
    const StoreBufferOptions& options) {
  return std::make_unique<StoreBufferMemory>(options);
}

}  // namespace ferrybus::interleaving
