// SPDX-License-Identifier: MIT
//
// ServerConnection against a naive model of it, in every state that a guest
// with one channel can bring it to.
//
// Two ways.  The state graph: from each reachable state each message and each
// answer of a device, with equal answers, and equal saved bytes for equal
// states of the model; by induction that covers sequences of any length.  And
// literally: all sequences of one, two and three messages, from one state of
// each kind.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "ferrybus/channel/connection_model_test_util.h"
#include "ferrybus/channel/connection_test_util.h"
#include "ferrybus/channel/server_connection.h"
#include "ferrybus/channel/server_connection_persist.h"

namespace ferrybus {
namespace {

constexpr OfferId kOffer{0};

Bytes Truncated(Bytes bytes) {
  bytes.resize(bytes.size() - 1);
  return bytes;
}

Bytes OfType(uint32_t type) {
  Bytes bytes(64);
  std::memcpy(bytes.data(), &type, sizeof(type));
  return bytes;
}

std::array<Bytes, kLetterCount> MakeMessages() {
  const uint32_t features = kFeatureModifyConnection | kFeaturePauseResume;
  const std::vector<Bytes> b = GpadlMessages(1, 8, 40, 0x200);
  Bytes bad_gpadl = GpadlMessage(1, 7);
  bad_gpadl[18] = std::byte{2};  // two ranges
  Bytes bad_body = b[1];
  bad_body[12] = std::byte{99};
  return {
      ContactMessage(ProtocolVersion::kCopper, 0, features),
      ContactMessage(ProtocolVersion{0x70000}),
      ContactMessage(ProtocolVersion::kIron, kTestMaxVp + 1),
      RequestOffers(),
      UnloadBytes(),
      GpadlMessage(1, 7),
      bad_gpadl,
      b[0],
      b[1],
      bad_body,
      OpenMessage(1, 7),
      OpenMessage(1, 99),
      OpenMessage(99, 7),
      CloseMessage(1),
      CloseMessage(99),
      TeardownMessage(1, 7),
      TeardownMessage(1, 99),
      ReleaseMessage(1),
      ReleaseMessage(99),
      ModifyMessage(1, 3),
      ModifyMessage(1, kTestMaxVp + 1),
      OpenReservedMessage(1, 7),
      OpenReservedMessage(1, 7, 0, 16),
      CloseReservedMessage(1),
      CloseReservedMessage(1, kTestMaxVp + 1),
      TlConnectMessage(TestEndpoint(1), TestService()),
      ModifyConnectionBytes(0x4000, 0x5000),
      ModifyConnectionBytes(0x4000, 0),
      PauseBytes(),
      ResumeBytes(),
      OfType(1),   // of the other side
      OfType(99),  // of nobody
      Truncated(CloseMessage(1)),
  };
}

const std::array<Bytes, kLetterCount>& Messages() {
  static const auto& messages =
      *new std::array<Bytes, kLetterCount>(MakeMessages());
  return messages;
}

// One character for each event, as in ModelAnswer.
class Events : public ServerEvents {
 public:
  void OnConnected(const Contact&) override { told += 'N'; }
  void OnDisconnected() override { told += 'D'; }
  void OnOpenRequested(OfferId, const OpenRequest&, const GpadlView&) override {
    told += 'O';
  }
  void OnCloseRequested(OfferId) override { told += 'C'; }
  bool OnModifyRequested(OfferId, uint32_t) override {
    told += 'M';
    return true;
  }
  void OnGpadlTeardownRequested(OfferId, GpadlId) override { told += '?'; }
  ModifyConnectionAnswer OnModifyConnectionRequested(
      const MonitorPages&) override {
    told += 'P';
    return ModifyConnectionAnswer::kLater;
  }
  bool OnTlConnectRequested(const TlConnectRequest&) override {
    told += 'T';
    return true;
  }
  void OnPaused() override { told += 'p'; }
  void OnResumed() override { told += 'r'; }

  std::string told;
};

// Whether a message says failure; the sizes are exact.
bool SaysFailure(absl::Span<const std::byte> bytes) {
  const auto at = [&bytes](size_t offset) {
    uint32_t value = 0;
    std::memcpy(&value, bytes.data() + offset, sizeof(value));
    return value != 0;
  };
  switch (TypeOf(bytes)) {
    case 6:
    case 10:
      return at(16);
    case 15:
      return bytes[8] == std::byte{0} || bytes[9] != std::byte{0};
    case 23:
      return at(40);
    case 24:
      return at(12);
    case 26:
      return bytes[8] != std::byte{0};
    default:
      return false;
  }
}

size_t SizeOfType(uint32_t type, bool failed) {
  switch (type) {
    case 1:
      return 196;
    case 2:
    case 12:
    case 20:
      return 12;
    case 6:
    case 10:
      return 20;
    case 15:
      return failed ? 16 : 20;
    case 23:
      return 44;
    case 24:
      return 16;
    case 26:
      return 9;
    default:
      return 8;
  }
}

// The code under test, driven like the model.
class Sut {
 public:
  Sut() { (void)connection_.AddOffer(TestOffer(1)); }

  ModelAnswer Run(Letter letter) {
    const Bytes& message = Messages()[static_cast<size_t>(letter)];
    const absl::Status status = connection_.HandleMessage(message);
    if (letter == Letter::kHostMessage) {
      EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied);
    }
    return Answer(status.ok());
  }
  ModelAnswer Run(Act act) {
    switch (act) {
      case Act::kOpened:
        connection_.OpenCompleted(kOffer, kStatusSuccess).IgnoreError();
        break;
      case Act::kOpenFailed:
        connection_.OpenCompleted(kOffer, kStatusUnsuccessful).IgnoreError();
        break;
      case Act::kClosed:
        connection_.CloseCompleted(kOffer).IgnoreError();
        break;
      case Act::kRescind:
        connection_.RescindOffer(kOffer).IgnoreError();
        break;
      case Act::kRefuseConnect:
        connection_.RefuseTlConnect(TestEndpoint(1), TestService())
            .IgnoreError();
        break;
      case Act::kModified:
        connection_.ModifyConnectionCompleted(true).IgnoreError();
        break;
      case Act::kDisconnect:
        connection_.Disconnect();
        break;
    }
    return Answer(true);
  }

  std::string Saved() const { return SaveServerConnection(connection_); }

 private:
  ModelAnswer Answer(bool ok) {
    ModelAnswer answer{.ok = ok, .out = {}, .events = {}};
    answer.events.swap(events_.told);
    for (; connection_.has_outgoing(); connection_.PopOutgoing()) {
      const auto bytes = connection_.outgoing_front();
      uint32_t code = TypeOf(bytes);
      const bool failed = SaysFailure(bytes);
      EXPECT_EQ(bytes.size(), SizeOfType(code, failed)) << code;
      if (failed) code |= kFailed;
      if (connection_.outgoing_target() != MessageTarget{}) code |= kTargeted;
      answer.out.push_back(code);
    }
    return answer;
  }

  Events events_;
  ServerConnection connection_{TestServerOptions(), &events_};
};

// A step is a letter, or an act behind the letters.
constexpr int kStepCount = kLetterCount + kActCount;
using Path = std::vector<uint8_t>;

template <typename Run>
ModelAnswer RunStep(int step, const Run& run) {
  return step < kLetterCount ? run(static_cast<Letter>(step))
                             : run(static_cast<Act>(step - kLetterCount));
}

ModelAnswer RunModel(int step, ModelState& state) {
  return RunStep(step, [&state](auto what) { return Step(what, state); });
}

ModelAnswer RunSut(int step, Sut& sut) {
  return RunStep(step, [&sut](auto what) { return sut.Run(what); });
}

std::string Describe(const Path& path) {
  std::string text;
  for (uint8_t step : path) text += " " + std::to_string(step);
  return text;
}

std::string Describe(const ModelAnswer& answer) {
  std::string text = answer.ok ? "ok" : "refused";
  for (uint32_t code : answer.out) text += " " + std::to_string(code);
  return text + " events " + answer.events;
}

void Replay(const Path& path, Sut& sut) {
  for (uint8_t step : path) RunSut(step, sut);
}

// Each state that the model can reach, with a shortest way to it.
std::vector<std::pair<ModelState, Path>> ReachableStates() {
  std::set<ModelState> seen = {ModelState()};
  std::vector<std::pair<ModelState, Path>> states = {{ModelState(), Path()}};
  for (size_t next = 0; next < states.size(); ++next) {
    for (int step = 0; step < kStepCount; ++step) {
      ModelState after = states[next].first;
      RunModel(step, after);
      if (!seen.insert(after).second) continue;
      Path longer = states[next].second;
      longer.push_back(static_cast<uint8_t>(step));
      states.emplace_back(std::move(after), std::move(longer));
    }
  }
  return states;
}

// bad:C20
TEST(ServerSequencesTest, EveryReachableStateAnswersAsTheModel) {
  const auto states = ReachableStates();
  std::map<ModelState, std::string> bytes_of;
  size_t steps = 0;
  for (const auto& [state, path] : states) {
    std::unique_ptr<Sut> sut;
    for (int step = 0; step < kStepCount; ++step, ++steps) {
      if (sut == nullptr) {
        sut = std::make_unique<Sut>();
        Replay(path, *sut);
      }
      ModelState after = state;
      const ModelAnswer expected = RunModel(step, after);
      const ModelAnswer actual = RunSut(step, *sut);
      ASSERT_EQ(actual, expected)
          << "after" << Describe(path) << ", then " << step << "\n  is "
          << Describe(actual) << "\n  not " << Describe(expected);
      const std::string bytes = sut->Saved();
      ASSERT_EQ(bytes_of.emplace(after, bytes).first->second, bytes)
          << "two states for one of the model, after" << Describe(path)
          << ", then " << step;
      // What changed nothing leaves a machine that can be used again.
      if (after != state) sut = nullptr;
    }
  }
  const double letters = kLetterCount;
  std::printf(
      "%zu reachable states, %zu steps; covers %.0f sequences of 1, 2 and 3 "
      "messages\n",
      states.size(), steps,
      static_cast<double>(states.size()) * letters *
          (1 + letters + letters * letters));
  EXPECT_GT(states.size(), 10000u);
}

// The same states, saved and restored with their device: nothing is lost, and
// what waits for an answer is asked for again.
TEST(ServerSequencesTest, EveryReachableStateIsRestored) {
  size_t restored = 0;
  for (const auto& [state, path] : ReachableStates()) {
    Sut sut;
    Replay(path, sut);
    const std::string bytes = sut.Saved();
    absl::StatusOr<CheckedServerConnection> checked = ParseServerConnection(
        {reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()},
        TestServerOptions());
    ASSERT_TRUE(checked.ok()) << checked.status() << Describe(path);
    // A device that is being taken away has no successor.
    if (state.rescinding) continue;
    Events events;
    const auto connection = ServerConnection::Restore(
        *std::move(checked), TestServerOptions(), &events);
    if (state.channel != ModelState::kGone &&
        state.channel != ModelState::kRescinded) {
      ASSERT_EQ(*connection->AddOffer(TestOffer(1)), kOffer);
    }
    connection->FinishRestore();
    ASSERT_EQ(SaveServerConnection(*connection), bytes) << Describe(path);
    std::string asked;
    if (state.channel == ModelState::kOpening ||
        state.channel == ModelState::kOpeningThenClose) {
      asked += 'O';
    }
    if (state.channel == ModelState::kClosing ||
        state.channel == ModelState::kClosingThenOpen) {
      asked += 'C';
    }
    if (state.modifying) asked += 'P';
    if (state.connecting) asked += 'T';
    ASSERT_EQ(events.told, asked) << Describe(path);
    ++restored;
  }
  std::printf("%zu states restored\n", restored);
  EXPECT_GT(restored, 8000u);
}

class Enumeration {
 public:
  size_t count() const { return count_; }

  // All sequences of at most `length` messages after `path`.
  void Run(const Path& path, const ModelState& state, int length) {
    auto sut = std::make_unique<Sut>();
    Replay(path, *sut);
    for (int letter = 0; letter < kLetterCount; ++letter) {
      ModelState after = state;
      const ModelAnswer expected = RunModel(letter, after);
      const ModelAnswer actual = RunSut(letter, *sut);
      ++count_;
      ASSERT_EQ(actual, expected)
          << "after" << Describe(path) << ", then " << letter << "\n  is "
          << Describe(actual) << "\n  not " << Describe(expected);
      if (length > 1) {
        Path longer = path;
        longer.push_back(static_cast<uint8_t>(letter));
        Run(longer, after, length - 1);
        if (::testing::Test::HasFatalFailure()) return;
      }
      // What changed nothing leaves a machine that can be used again.
      if (after == state) continue;
      sut = std::make_unique<Sut>();
      Replay(path, *sut);
    }
  }

 private:
  size_t count_ = 0;
};

constexpr uint8_t L(Letter letter) { return static_cast<uint8_t>(letter); }
constexpr uint8_t A(Act act) {
  return static_cast<uint8_t>(kLetterCount + static_cast<int>(act));
}

// bad:C20
TEST(ServerSequencesTest, AllShortSequencesFromAStateOfEachKind) {
  using enum Letter;
  const Path offered = {L(kContact), L(kRequestOffers)};
  const auto then = [](Path path, std::initializer_list<uint8_t> more) {
    path.insert(path.end(), more);
    return path;
  };
  const Path created = then(offered, {L(kGpadlA)});
  const Path open = then(created, {L(kOpen), A(Act::kOpened)});
  const Path reserved = then(created, {L(kOpenReserved), A(Act::kOpened)});
  const Path starts[] = {
      {},
      {L(kContact)},
      offered,
      then(created, {L(kGpadlBHeader), L(kConnect)}),
      then(created, {L(kOpen)}),
      then(created, {L(kOpen), L(kClose)}),
      open,
      then(open, {L(kClose)}),
      then(open, {L(kClose), L(kOpen)}),
      then(open, {L(kTeardownA), L(kModifyConnection)}),
      then(open, {A(Act::kRescind)}),
      then(open, {A(Act::kRescind), A(Act::kClosed)}),
      then(open, {L(kUnload)}),
      then(open, {L(kContact)}),
      then(open, {L(kPause)}),
      then(created, {L(kOpenReserved)}),
      reserved,
      then(reserved, {L(kUnload)}),
      then(reserved, {L(kContact), L(kRequestOffers)}),
      then(reserved, {L(kCloseReserved)}),
  };
  Enumeration enumeration;
  for (const Path& start : starts) {
    ModelState state;
    for (uint8_t step : start) RunModel(step, state);
    enumeration.Run(start, state, 3);
    if (HasFatalFailure()) return;
  }
  const size_t of_one_state =
      kLetterCount * (1 + kLetterCount + kLetterCount * kLetterCount);
  std::printf("%zu sequences of 1, 2 and 3 messages from %zu states\n",
              enumeration.count(), std::size(starts));
  EXPECT_EQ(enumeration.count(), std::size(starts) * of_one_state);
}

}  // namespace
}  // namespace ferrybus
