// SPDX-License-Identifier: MIT
//
// Requests of both sides of a channel, numbered and counted: each must be
// answered exactly once, over all owners that the channel has.
//
// Ownership: the traffic outlives its devices and drivers.
// Thread safety: one thread; PiledDevice::AnswerOne() any.
//
//   CountedTraffic traffic;
//   PiledDevice device(vsp::IncomingPolicy::kResume, &traffic);
//   EchoDriver driver(&traffic);
//   ... traffic.IsEven(): all is answered.  traffic.doubled(): of both sides.

#ifndef FERRYBUS_TESTS_TESTING_COUNTED_TRAFFIC_H_
#define FERRYBUS_TESTS_TESTING_COUNTED_TRAFFIC_H_

#include <cstdint>
#include <mutex>
#include <random>
#include <vector>

#include "ferrybus/vsc/bus.h"
#include "ferrybus/vsp/device.h"
#include "ferrybus/vsp/server_channel.h"

namespace ferrybus::testing {

// One side's requests by number, and how often each was answered.
class AnswerLedger {
 public:
  uint64_t asked() const { return answers_.size(); }
  uint64_t answered() const { return answered_; }
  // Of answers: a second one, or one to nothing.
  uint64_t doubled() const { return doubled_; }
  bool IsEven() const { return answered_ == asked(); }

  void Ask() { answers_.push_back(0); }
  void Answer(uint64_t number);

 private:
  std::vector<uint8_t> answers_;
  uint64_t answered_ = 0;
  uint64_t doubled_ = 0;
};

struct CountedTraffic {
  bool IsEven() const { return guest.IsEven() && host.IsEven(); }
  uint64_t doubled() const { return guest.doubled() + host.doubled(); }
  AnswerLedger guest;
  AnswerLedger host;
};

// Keeps its packets until somebody has it answer them.
class PiledDevice final : public vsp::Device {
 public:
  PiledDevice(vsp::IncomingPolicy policy, CountedTraffic* traffic)
      : policy_(policy), ledger_(&traffic->host) {}

  // vsp::Device.
  absl::Status OnOpened(vsp::ServerChannel& channel,
                        absl::Span<const std::byte> user_data) override;
  absl::Status OnRestored(vsp::ServerChannel& channel,
                          absl::Span<const std::byte> state) override;
  void OnClosed() override { channel_ = nullptr; }
  void ProcessPacket(IncomingPacket packet) override;
  void OnCompletion(uint64_t tag, absl::Span<const std::byte> reply) override;
  vsp::IncomingPolicy incoming_policy() const override { return policy_; }
  savestate::SizeAnswer SavePacket(const PacketInfo& packet,
                                   absl::Span<std::byte> out) override;
  absl::Status RestorePacket(IncomingPacket packet,
                             absl::Span<const std::byte> blob) override;

  // False: there is no channel, or no room in it.
  bool SendRequest(size_t more_bytes);
  void Flush();
  // Any thread.  False: nothing is held.
  bool AnswerOne(std::mt19937_64& random);

 private:
  const vsp::IncomingPolicy policy_;
  AnswerLedger* const ledger_;
  vsp::ServerChannel* channel_ = nullptr;
  std::mutex mutex_;
  std::vector<IncomingPacket> held_;
};

// Answers at once.
class EchoDriver final : public vsc::Driver {
 public:
  explicit EchoDriver(CountedTraffic* traffic) : ledger_(&traffic->guest) {}

  // vsc::Driver.
  void OnOpened(vsc::ClientChannel& channel) override { channel_ = &channel; }
  void OnClosed() override { channel_ = nullptr; }
  void OnCompletion(uint64_t tag, absl::Span<const std::byte> reply) override;
  void OnPacket(IncomingPacket packet) override;

  bool SendRequest(size_t more_bytes);
  void Flush();

 private:
  AnswerLedger* const ledger_;
  vsc::ClientChannel* channel_ = nullptr;
};

}  // namespace ferrybus::testing

#endif  // FERRYBUS_TESTS_TESTING_COUNTED_TRAFFIC_H_
