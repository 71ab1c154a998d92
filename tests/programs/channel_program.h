// SPDX-License-Identifier: MIT
//
// What can happen to a channel, as instructions: requests of both sides, moves
// of the host, restores that fail, a guest that writes where it likes.  A fuzz
// target makes programs of bytes; a program that goes wrong is printed as the
// test that repeats it.
//
// Thread safety: one thread.
//
//   ChannelProgram program(vsp::IncomingPolicy::kResume);
//   program.GuestSends(5, 100);
//   program.HostRuns(1);
//   program.Moves();
//   EXPECT_EQ(program.Finish(), "");

#ifndef FERRYBUS_TESTS_PROGRAMS_CHANNEL_PROGRAM_H_
#define FERRYBUS_TESTS_PROGRAMS_CHANNEL_PROGRAM_H_

#include <cstdint>
#include <memory>
#include <random>
#include <string>

#include "ferrybus/tests/testing/counted_traffic.h"
#include "ferrybus/tests/testing/move_harness.h"

namespace ferrybus::testing {

class ChannelProgram {
 public:
  explicit ChannelProgram(vsp::IncomingPolicy policy);

  // -- Instructions.  What does not fit is not sent.
  void GuestSends(uint32_t packets, uint32_t bytes);
  void HostSends(uint32_t packets, uint32_t bytes);
  void GuestFlushes() { driver_.Flush(); }
  void HostFlushes() { device_->Flush(); }
  void GuestRuns(uint32_t rounds);
  void HostRuns(uint32_t rounds);
  // Requests that the device holds, in an order that `seed` gives.
  void HostAnswers(uint32_t packets, uint32_t seed);
  // Saves; another host goes on from there.
  void Moves();
  // Saves, and goes on itself.
  void SavesAndThaws();
  // As Moves(), but the restore fails first when it passes its `step`-th fault
  // point, if it has so many.
  void MovesAtSecondTry(uint32_t step);
  // A word of its memory, whatever that is used for.  From here on the channel
  // may be at fault; nothing is promised but that the host lives.
  void GuestWrites(uint32_t word, uint32_t value);

  // Lets both run.  Empty, or what is wrong: each request was answered exactly
  // once.
  std::string Finish();

 private:
  absl::Status Restore(const std::string& saved);
  absl::StatusOr<std::string> Save();

  const vsp::IncomingPolicy policy_;
  CountedTraffic traffic_;
  MoveHarness harness_;
  EchoDriver driver_;
  std::unique_ptr<PiledDevice> device_;
  bool is_hostile_ = false;
  std::string wrong_;
};

}  // namespace ferrybus::testing

#endif  // FERRYBUS_TESTS_PROGRAMS_CHANNEL_PROGRAM_H_
