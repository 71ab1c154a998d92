// SPDX-License-Identifier: MIT
//
// Random lives of two endpoints: sends, answers, freezes, thaws, moves, in
// both directions over rings of one page.  An oracle on either side counts
// each packet and checks its place in the order.

#include <deque>
#include <map>
#include <random>

#include "ferrybus/channel/endpoint_persist.h"
#include "ferrybus/channel/endpoint_test_util.h"
#include "ferrybus/channel/packet_endpoint.h"
#include "gtest/gtest.h"

namespace ferrybus {
namespace {

using testing::AnnouncedSeed;
using testing::EndpointPair;
using testing::EndpointPairOptions;
using testing::Numbered;
using testing::NumberIn;
using testing::ToBytes;
using testing::ToString;

// Every payload starts with {stream position, number of what it answers}.
std::string Tagged(uint64_t position, uint64_t number, size_t more) {
  return Numbered(position) + Numbered(number) + std::string(more, 'x');
}

class Life {
 public:
  explicit Life(uint64_t seed) : random_(seed), pair_(Options()) {
    for (const bool host : {false, true}) {
      End(host).events.on_packet = [this, host](IncomingPacket packet) {
        Arrive(host, packet.payload());
        End(host).events.held.push_back(std::move(packet));
      };
      End(host).events.on_completion = [this, host] {
        const auto& [tag, reply] = End(host).events.completions.back();
        Arrive(host, ToBytes(reply));
        EXPECT_EQ(NumberIn(ToBytes(reply).subspan(8)), tag);
        ++answers_[host][tag];
      };
    }
  }

  void Run(int moves) {
    while (moves_ < moves && !::testing::Test::HasFailure()) Step();
    // Safety was checked on the way; now everything must come to rest.
    if (frozen_) ThawHost();
    for (int i = 0; i < 10000 && !Settled(); ++i) {
      pair_.Settle();
      for (const bool host : {false, true}) {
        while (!End(host).events.held.empty()) Answer(host);
        End(host).endpoint->Flush();
      }
    }
    for (const bool host : {false, true}) {
      EXPECT_EQ(answers_[host].size(), requests_[host]);
      for (const auto& [tag, count] : answers_[host]) EXPECT_EQ(count, 1);
      EXPECT_EQ(received_[host], sent_[!host]);
      EXPECT_EQ(End(host).endpoint->fault_reason(), "");
    }
    EXPECT_GT(requests_[0], 100u);
    EXPECT_GT(requests_[1], 100u);
  }

 private:
  static EndpointPairOptions Options() {
    EndpointPairOptions options;
    options.host.max_in_flight = 12;
    options.host.max_awaiting = 20;
    options.host.max_queued = 30;
    options.guest.max_awaiting = 20;
    options.guest.max_in_flight = 12;
    return options;
  }

  testing::EndpointEnd& End(bool host) {
    return host ? pair_.host : pair_.guest;
  }

  bool Settled() {
    return answers_[0].size() == requests_[0] &&
           answers_[1].size() == requests_[1];
  }

  void Arrive(bool host, absl::Span<const std::byte> payload) {
    EXPECT_EQ(NumberIn(payload), received_[host]) << "lost, twice or overtaken";
    ++received_[host];
  }

  void Request(bool host) {
    const uint64_t number = requests_[host];
    const std::string payload = Tagged(sent_[host], number, random_() % 900);
    if (End(host).Request(payload, number) != SendStatus::kOk) return;
    ++requests_[host];
    ++sent_[host];
  }

  void Answer(bool host) {
    auto& held = End(host).events.held;
    if (held.empty()) return;
    const size_t index = random_() % held.size();
    IncomingPacket packet = std::move(held[index]);
    held.erase(held.begin() + static_cast<ptrdiff_t>(index));
    const uint64_t number = NumberIn(packet.payload().subspan(8));
    const std::string reply = Tagged(sent_[host], number, random_() % 900);
    EXPECT_EQ(packet.Complete(ToBytes(reply)), CompleteResult::kOk);
    ++sent_[host];
  }

  void Step() {
    const bool host = random_() % 2 == 0;
    switch (random_() % 8) {
      case 0:
      case 1:
        Request(host);
        break;
      case 2:
      case 3:
        Answer(host);
        break;
      case 4:
        End(host).endpoint->Flush();
        break;
      case 5:
      case 6:
        (void)End(host).endpoint->Poll(static_cast<uint32_t>(random_() % 6) +
                                       1);
        break;
      case 7:
        if (frozen_) {
          if (random_() % 2 == 0) MoveHost();
          ThawHost();
        } else if (random_() % 4 == 0) {
          if (random_() % 2 == 0) pair_.host.endpoint->Suspend();
          pair_.host.endpoint->Freeze();
          frozen_ = true;
        }
        break;
    }
  }

  void ThawHost() {
    pair_.host.endpoint->Thaw();
    frozen_ = false;
  }

  // Through the bytes that a save file has.
  void MoveHost() {
    const absl::StatusOr<EndpointState> state = pair_.host.endpoint->Save(
        [](const PacketInfo* packet,
           uint64_t tag) -> absl::StatusOr<std::string> {
          return Numbered(packet != nullptr ? NumberIn(packet->payload) : tag);
        });
    ASSERT_TRUE(state.ok());
    const std::string saved = SaveChannelSnapshot({*state, "device"});
    const absl::StatusOr<ChannelSnapshot> parsed =
        ParseChannelSnapshot(ToBytes(saved), pair_.options.host, "channel");
    ASSERT_TRUE(parsed.ok()) << parsed.status().ToString();
    EXPECT_EQ(SaveChannelSnapshot(*parsed), saved);
    // What the old owner still does is seen by nobody.
    while (!pair_.host.events.held.empty() && random_() % 4 != 0) {
      pair_.host.events.held.back().Complete();
      pair_.host.events.held.pop_back();
    }
    pair_.ReplaceHost();
    const absl::Status status = pair_.host.endpoint->Restore(
        parsed->endpoint, pair_.MapRings(), EndpointPair::kChannel,
        [this](IncomingPacket packet, absl::Span<const std::byte> blob) {
          EXPECT_EQ(NumberIn(blob), NumberIn(packet.payload()));
          pair_.host.events.held.push_back(std::move(packet));
          return absl::OkStatus();
        });
    ASSERT_TRUE(status.ok()) << status.ToString();
    ASSERT_EQ(pair_.host.endpoint->fault_reason(), "");
    ++moves_;
  }

  std::mt19937_64 random_;
  bool frozen_ = false;
  int moves_ = 0;
  // By side, false the guest's.
  std::map<bool, uint64_t> requests_;
  std::map<bool, uint64_t> sent_;      // packets, completions included
  std::map<bool, uint64_t> received_;  // the same
  std::map<bool, std::map<uint64_t, int>> answers_;
  EndpointPair pair_;
};

// promise:P1 promise:P2 promise:P3 doc:SR8 doc:SR9 doc:SR17
TEST(PacketEndpointMoveTest, RandomLivesLoseRepeatAndReorderNothing) {
  const uint64_t seed = AnnouncedSeed("//channel:packet_endpoint_move_test");
  for (uint64_t i = 0; i < 20 && !HasFailure(); ++i) {
    SCOPED_TRACE(i);
    Life(seed + i).Run(60);
  }
}

}  // namespace
}  // namespace ferrybus
