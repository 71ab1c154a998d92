// SPDX-License-Identifier: MIT

#include "ferrybus/ringbuffer/testing/scripted_access.h"

#include <thread>
#include <utility>

namespace ferrybus::ringbuffer::testing {

void Interleaver::Run(std::vector<int> script,
                      const std::function<void()>& actor0,
                      const std::function<void()>& actor1) {
  script_ = std::move(script);
  next_ = 0;
  done_[0] = done_[1] = false;
  std::thread other([&] {
    actor1();
    Done(1);
  });
  actor0();
  Done(0);
  other.join();
}

std::vector<std::vector<int>> Interleaver::AllScripts(int steps0, int steps1) {
  if (steps0 == 0) return {std::vector<int>(steps1, 1)};
  if (steps1 == 0) return {std::vector<int>(steps0, 0)};
  std::vector<std::vector<int>> all;
  for (std::vector<int> tail : AllScripts(steps0 - 1, steps1)) {
    tail.insert(tail.begin(), 0);
    all.push_back(std::move(tail));
  }
  for (std::vector<int> tail : AllScripts(steps0, steps1 - 1)) {
    tail.insert(tail.begin(), 1);
    all.push_back(std::move(tail));
  }
  return all;
}

void Interleaver::Step(int actor) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (done_[actor]) return;
  EndTurn(actor);
  moved_.wait(lock, [&] {
    while (next_ < script_.size() && done_[script_[next_]]) ++next_;
    return next_ >= script_.size() || script_[next_] == actor;
  });
  holds_turn_[actor] = next_ < script_.size();
}

void Interleaver::Done(int actor) {
  const std::lock_guard<std::mutex> lock(mutex_);
  EndTurn(actor);
  done_[actor] = true;
  moved_.notify_all();
}

void Interleaver::EndTurn(int actor) {
  if (!holds_turn_[actor]) return;
  holds_turn_[actor] = false;
  ++next_;
  moved_.notify_all();
}

}  // namespace ferrybus::ringbuffer::testing
