// SPDX-License-Identifier: MIT
//
// ClientConnection against a naive model of it: a guest with one channel, one
// GPADL and one socket, whose host says anything at any time.  From each state
// that the model can reach, every message and every call.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <compare>
#include <cstdio>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "ferrybus/channel/client_connection.h"
#include "ferrybus/channel/connection_test_util.h"

namespace ferrybus {
namespace {

constexpr ChannelId kChannel{1};
constexpr uint32_t kFeatures = kFeatureModifyConnection | kFeaturePauseResume;

// What the host says; kBad... is of the right type and wrong all the same.
enum Message {
  kVersion,
  kNoVersion,
  kFailedVersion,
  kBadGrant,
  kUnloaded,
  kOffer,
  kBadOffer,
  kSocketOffer,
  kAllOffers,
  kRescind,
  kBadRescind,
  kOpened,
  kOpenFailed,
  kReservedOpened,
  kBadOpenId,
  kCreated,
  kCreateFailed,
  kBadCreated,
  kTorndown,
  kModified,
  kReservedClosed,
  kBadReservedClosed,
  kConnectRefused,
  kBadConnectResult,
  kConnectionModified,
  kPaused,
  kGuestMessage,
  kUnknown,
  kShort,
  kMessageCount,
};

// What the owner asks for.
enum Call {
  kConnect = kMessageCount,
  kRequestOffers,
  kCreateGpadl,
  kTeardown,
  kOpen,
  kClose,
  kModify,
  kRelease,
  kUnload,
  kOpenReserved,
  kCloseReserved,
  kTlConnect,
  kAbandon,
  kModifyConnection,
  kPause,
  kResume,
  kStepCount,
};

struct Answer {
  bool ok = false;
  uint32_t out = 0;    // type of the message that was sent, if any
  std::string events;  // see Events

  friend bool operator==(const Answer&, const Answer&) = default;
};

struct State {
  enum Phase { kOff, kConnecting, kOn, kUnloading } phase = kOff;
  enum Channel {
    kNoChannel,
    kClosed,
    kOpening,
    kOpen,
    kClosingReserved,
    kRescinded,
  } channel = kNoChannel;
  enum Gpadl { kNoGpadl, kCreating, kCreated, kTearingDown } gpadl = kNoGpadl;
  enum Pause { kRunning, kPausing, kPaused } pause = kRunning;
  bool requested = false;
  bool delivered = false;
  bool reserved = false;
  bool modifying = false;
  bool moving_pages = false;
  bool connecting = false;
  bool has_socket = false;
  bool closing_reserved = false;

  friend auto operator<=>(const State&, const State&) = default;
};

// --- The model --------------------------------------------------------------

class Model {
 public:
  explicit Model(State& state) : s(state) {}

  Answer Run(int step) {
    if (step < kMessageCount) {
      answer_.ok = Hear(step);
    } else {
      answer_.ok = Ask(step);
      if (!answer_.ok) answer_.out = 0;
    }
    return answer_;
  }

 private:
  // If `condition`, the step is in order and tells `event`.
  bool Tell(bool condition, char event) {
    if (condition) answer_.events += event;
    return condition;
  }
  bool Send(bool condition, uint32_t type) {
    answer_.out = type;
    return condition;
  }
  template <typename Field, typename Value>
  bool Set(bool condition, Field& field, Value value) {
    if (condition) field = value;
    return condition;
  }

  bool Hear(int message);
  bool HearConnected(int message);
  bool Ask(int call);
  bool AskReady(int call);

  State& s;
  Answer answer_;
};

bool Model::Hear(int message) {
  const bool connecting = s.phase == State::kConnecting;
  switch (message) {
    case kVersion:
      return Tell(Set(connecting, s.phase, State::kOn), 'V');
    case kNoVersion:
    case kFailedVersion:
      return Tell(Set(connecting, s.phase, State::kOff), 'v');
    case kUnloaded:
      if (s.phase != State::kUnloading) return false;
      s = State();
      return Tell(true, 'U');
    case kBadGrant:
    case kGuestMessage:
    case kUnknown:
    case kShort:
      return false;
    default:
      break;
  }
  if (s.pause == State::kPaused) return false;
  if (message == kBadReservedClosed) return false;
  if (message == kReservedClosed) {
    if (!std::exchange(s.closing_reserved, false)) return false;
    if (s.channel == State::kClosingReserved) {
      s.channel = State::kClosed;
      s.reserved = false;
    }
    return Tell(true, 'R');
  }
  return s.phase != State::kOn || HearConnected(message);
}

bool Model::HearConnected(int message) {
  const bool is_there = s.channel != State::kNoChannel;
  const bool opening = s.channel == State::kOpening;
  switch (message) {
    case kOffer:
      return Tell(Set(s.requested && !is_there, s.channel, State::kClosed),
                  'O');
    case kSocketOffer:
      if (!Tell(Set(s.requested && !s.has_socket, s.has_socket, true), 'O')) {
        return false;
      }
      Tell(std::exchange(s.connecting, false), 'T');
      return true;
    case kAllOffers:
      return Tell(Set(s.requested && !s.delivered, s.delivered, true), 'A');
    case kRescind:
      if (!is_there || s.channel == State::kRescinded) return false;
      s.channel = State::kRescinded;
      s.modifying = s.reserved = false;
      return Tell(true, 'X');
    case kOpened:
      return Tell(Set(opening && !s.reserved, s.channel, State::kOpen), 'o');
    case kOpenFailed:
      return Tell(Set(opening && !s.reserved, s.channel, State::kClosed), 'o');
    case kReservedOpened:
      return Tell(Set(opening && s.reserved, s.channel, State::kOpen), 'o');
    case kCreated:
      return Tell(Set(s.gpadl == State::kCreating, s.gpadl, State::kCreated),
                  'c');
    case kCreateFailed:
      return Tell(Set(s.gpadl == State::kCreating, s.gpadl, State::kNoGpadl),
                  'c');
    case kTorndown:
      return Tell(Set(s.gpadl == State::kTearingDown, s.gpadl, State::kNoGpadl),
                  't');
    case kModified:
      return Tell(std::exchange(s.modifying, false), 'm');
    case kConnectRefused:
      return Tell(std::exchange(s.connecting, false), 'T');
    case kConnectionModified:
      return Tell(std::exchange(s.moving_pages, false), 'P');
    case kPaused:
      return Tell(Set(s.pause == State::kPausing, s.pause, State::kPaused),
                  'p');
    default:
      return false;
  }
}

bool Model::Ask(int call) {
  const bool ready = s.phase == State::kOn && s.pause == State::kRunning;
  switch (call) {
    case kConnect:
      s = State();
      s.phase = State::kConnecting;
      return Send(true, 14);
    case kUnload:
      if (s.phase != State::kOn) return false;
      s.phase = State::kUnloading;
      s.pause = State::kRunning;
      return Send(true, 16);
    case kAbandon:
      return std::exchange(s.connecting, false);
    case kResume:
      return Send(Set(s.pause == State::kPaused, s.pause, State::kRunning), 29);
    case kCloseReserved:
      if ((s.phase == State::kOn && !ready) || s.closing_reserved) return false;
      if (s.channel != State::kNoChannel) {
        if (s.channel != State::kOpen || !s.reserved) return false;
        s.channel = State::kClosingReserved;
      }
      s.closing_reserved = true;
      return Send(true, 19);
    default:
      return ready && AskReady(call);
  }
}

bool Model::AskReady(int call) {
  const bool open = s.channel == State::kOpen && !s.reserved;
  const bool can_open =
      s.channel == State::kClosed && s.gpadl == State::kCreated;
  switch (call) {
    case kRequestOffers:
      return Send(Set(!s.requested, s.requested, true), 3);
    case kCreateGpadl:
      return Send(Set(s.channel != State::kNoChannel &&
                          s.channel != State::kRescinded && !s.reserved,
                      s.gpadl, State::kCreating),
                  8);
    case kTeardown:
      return Send(Set(s.gpadl == State::kCreated, s.gpadl, State::kTearingDown),
                  11);
    case kOpen:
      return Send(Set(can_open, s.channel, State::kOpening), 5);
    case kOpenReserved:
      return Send(
          Set(Set(can_open, s.channel, State::kOpening), s.reserved, true), 18);
    case kClose:
      return Send(Set(Set(open, s.channel, State::kClosed), s.modifying, false),
                  7);
    case kModify:
      return Send(Set(open && !s.modifying, s.modifying, true), 22);
    case kRelease:
      return Send(
          Set(s.channel == State::kRescinded && s.gpadl == State::kNoGpadl,
              s.channel, State::kNoChannel),
          13);
    case kTlConnect:
      return Send(Set(s.requested && !s.connecting, s.connecting, true), 21);
    case kModifyConnection:
      return Send(Set(!s.moving_pages, s.moving_pages, true), 25);
    default:  // kPause
      return Send(Set(true, s.pause, State::kPausing), 27);
  }
}

// --- The code under test, driven like the model -----------------------------

class Events : public ClientEvents {
 public:
  void OnVersion(const ClientVersion& version) override {
    told += version.accepted ? 'V' : 'v';
  }
  void OnOffer(const ClientOffer&) override { told += 'O'; }
  void OnAllOffersDelivered() override { told += 'A'; }
  void OnRescind(ChannelId) override { told += 'X'; }
  void OnOpenResult(ChannelId, uint32_t) override { told += 'o'; }
  void OnGpadlCreated(ChannelId, GpadlId, uint32_t) override { told += 'c'; }
  void OnGpadlTorndown(ChannelId, GpadlId) override { told += 't'; }
  void OnModifyResponse(ChannelId, uint32_t) override { told += 'm'; }
  void OnUnloaded() override { told += 'U'; }
  void OnReservedClosed(ChannelId) override { told += 'R'; }
  void OnTlConnectResult(const Guid&, const Guid&, uint32_t) override {
    told += 'T';
  }
  void OnModifyConnectionResponse(uint8_t) override { told += 'P'; }
  void OnPaused() override { told += 'p'; }

  std::string told;
};

ClientConnectionOptions Options() {
  ClientConnectionOptions options;
  options.versions = {ProtocolVersion::kCopper};
  options.features = kFeatures;
  return options;
}

Bytes Version(uint8_t supported, uint8_t state, uint32_t features) {
  VersionResponseMessage message;
  message.version_supported = supported;
  message.connection_state = state;
  message.supported_features = features;
  return ToBytes(EncodeVersionResponse(message, ProtocolVersion::kCopper));
}

Bytes Offer(uint32_t channel, bool is_socket) {
  OfferChannelMessage message;
  message.channel_id = ChannelId{channel};
  message.interface_type = TestService();
  message.interface_instance = TestEndpoint(1);
  message.flags = is_socket ? kOfferTlnpiProvider : kOfferNamedPipeMode;
  return ToBytes(EncodeOfferChannel(message, ProtocolVersion::kCopper));
}

Bytes OpenResult(uint32_t open_id, uint32_t status) {
  return ToBytes(EncodeMessage(OpenChannelResultMessage{
      .channel_id = kChannel, .open_id = open_id, .status = status}));
}

Bytes Created(GpadlId gpadl, uint32_t status) {
  return ToBytes(EncodeMessage(GpadlCreatedMessage{
      .channel_id = kChannel, .gpadl_id = gpadl, .status = status}));
}

Bytes TlResult(uint32_t status) {
  return ToBytes(
      EncodeMessage(TlConnectResultMessage{.endpoint_id = TestEndpoint(1),
                                           .service_id = TestService(),
                                           .status = status}));
}

// The messages that name no GPADL.
std::array<Bytes, kMessageCount> MakeMessages() {
  std::array<Bytes, kMessageCount> m;
  m[kVersion] = Version(1, 0, kFeatures);
  m[kNoVersion] = Version(0, 0, 0);
  m[kFailedVersion] = Version(1, 2, 0);
  m[kBadGrant] = Version(1, 0, kFeatureConfidentialChannels);
  m[kUnloaded] = ToBytes(EncodeMessage(UnloadResponseMessage{}));
  m[kOffer] = Offer(1, false);
  m[kBadOffer] = Offer(0, false);
  m[kSocketOffer] = Offer(2, true);
  m[kAllOffers] = ToBytes(EncodeMessage(AllOffersDeliveredMessage{}));
  m[kRescind] = ToBytes(
      EncodeMessage(RescindChannelOfferMessage{.channel_id = kChannel}));
  m[kBadRescind] = ToBytes(
      EncodeMessage(RescindChannelOfferMessage{.channel_id = ChannelId{99}}));
  m[kOpened] = OpenResult(1, 0);
  m[kOpenFailed] = OpenResult(1, 5);
  m[kReservedOpened] = OpenResult(0, 0);
  m[kBadOpenId] = OpenResult(9, 0);
  m[kBadCreated] = Created(GpadlId{1}, 0);
  m[kModified] = ToBytes(EncodeMessage(
      ModifyChannelResponseMessage{.channel_id = kChannel, .status = 0}));
  m[kReservedClosed] = ToBytes(
      EncodeMessage(CloseReservedResponseMessage{.channel_id = kChannel}));
  m[kBadReservedClosed] = ToBytes(
      EncodeMessage(CloseReservedResponseMessage{.channel_id = ChannelId{99}}));
  m[kConnectRefused] = TlResult(kStatusConnectionRefused);
  m[kBadConnectResult] = TlResult(0);
  m[kConnectionModified] = ToBytes(EncodeModifyConnectionResponse({}));
  m[kPaused] = ToBytes(EncodeMessage(PauseResponseMessage{}));
  m[kGuestMessage] = UnloadBytes();
  m[kUnknown] = FromHex("6300000000000000 +64");
  m[kShort] = FromHex("0200000000000000 010000");
  return m;
}

class Sut {
 public:
  Answer Run(int step) {
    Answer answer;
    answer.ok = step < kMessageCount ? Hear(step) : Ask(step);
    for (; client_.has_outgoing(); client_.PopOutgoing()) {
      EXPECT_EQ(answer.out, 0u);
      answer.out = TypeOf(client_.outgoing_front());
      EXPECT_TRUE(DecodeGuestMessage(client_.outgoing_front(), {}).ok());
    }
    answer.events.swap(events_.told);
    return answer;
  }

  // What can be seen of a state, to be that of the model.
  void ExpectLooksLike(const State& state) const {
    const std::optional<ClientChannelState> channel =
        client_.channel_state(kChannel);
    ASSERT_EQ(channel.has_value(), state.channel != State::kNoChannel);
    if (channel.has_value()) {
      ASSERT_EQ(static_cast<int>(*channel), state.channel - State::kClosed);
    }
    ASSERT_EQ(static_cast<int>(client_.phase()), state.phase);
    ASSERT_EQ(client_.is_paused(), state.pause == State::kPaused);
    ASSERT_EQ(client_.FindOffer(ChannelId{2}) != nullptr, state.has_socket);
  }

 private:
  bool Hear(int message) {
    static const auto& messages =
        *new std::array<Bytes, kMessageCount>(MakeMessages());
    if (message == kCreated) return Handle(Created(gpadl_, 0));
    if (message == kCreateFailed) return Handle(Created(gpadl_, 5));
    if (message == kTorndown) {
      return Handle(
          ToBytes(EncodeMessage(GpadlTorndownMessage{.gpadl_id = gpadl_})));
    }
    return Handle(messages[static_cast<size_t>(message)]);
  }
  bool Handle(const Bytes& message) {
    return client_.HandleMessage(message).ok();
  }

  bool Ask(int call) {
    switch (call) {
      case kConnect:
        return client_.Connect().ok();
      case kRequestOffers:
        return client_.RequestOffers().ok();
      case kCreateGpadl: {
        const auto gpadl = client_.CreateGpadl(kChannel, {5}, 4096, 0);
        if (gpadl.ok()) gpadl_ = *gpadl;
        return gpadl.ok();
      }
      case kTeardown:
        return client_.TeardownGpadl(gpadl_).ok();
      case kOpen:
        return client_.Open(kChannel, {.ring_gpadl = gpadl_}).ok();
      case kClose:
        return client_.Close(kChannel).ok();
      case kModify:
        return client_.ModifyChannel(kChannel, 1).ok();
      case kRelease:
        return client_.ReleaseRelid(kChannel).ok();
      case kUnload:
        return client_.Unload().ok();
      case kOpenReserved:
        return client_
            .OpenReserved(kChannel, {.ring_gpadl = gpadl_, .target = {}})
            .ok();
      case kCloseReserved:
        return client_.CloseReserved(kChannel, {}).ok();
      case kTlConnect:
        return client_.TlConnect(TestEndpoint(1), TestService()).ok();
      case kAbandon:
        return client_.AbandonTlConnect(TestEndpoint(1), TestService()).ok();
      case kModifyConnection:
        return client_.ModifyConnection({0x4000, 0x5000}).ok();
      case kPause:
        return client_.Pause().ok();
      default:
        return client_.Resume().ok();
    }
  }

  Events events_;
  ClientConnection client_{Options(), &events_};
  GpadlId gpadl_{};
};

// --- The comparison ---------------------------------------------------------

// A second GPADL at once is allowed, and more than the model knows.
bool IsInModel(const State& state, int step) {
  return step != kCreateGpadl || state.gpadl == State::kNoGpadl;
}

using Path = std::vector<uint8_t>;

std::string Describe(const Path& path, int step) {
  std::string text;
  for (uint8_t each : path) text += std::to_string(each) + " ";
  return text + std::to_string(step);
}

// bad:C20
TEST(ClientSequencesTest, EveryReachableStateAnswersAsTheModel) {
  std::set<State> seen = {State()};
  std::vector<std::pair<State, Path>> queue = {{State(), Path()}};
  size_t steps = 0;
  for (size_t next = 0; next < queue.size(); ++next) {
    const auto [state, path] = queue[next];
    std::unique_ptr<Sut> sut;
    for (int step = 0; step < kStepCount; ++step) {
      if (!IsInModel(state, step)) continue;
      if (sut == nullptr) {
        sut = std::make_unique<Sut>();
        for (uint8_t each : path) sut->Run(each);
      }
      State after = state;
      const Answer expected = Model(after).Run(step);
      const Answer actual = sut->Run(step);
      ++steps;
      ASSERT_EQ(actual, expected)
          << "after " << Describe(path, step) << ": " << actual.ok << " "
          << actual.out << " " << actual.events << ", not " << expected.ok
          << " " << expected.out << " " << expected.events;
      SCOPED_TRACE(Describe(path, step));
      ASSERT_NO_FATAL_FAILURE(sut->ExpectLooksLike(after));
      // What changed nothing leaves a machine that can be used again.
      if (after != state) sut = nullptr;
      if (!seen.insert(after).second) continue;
      Path longer = path;
      longer.push_back(static_cast<uint8_t>(step));
      queue.emplace_back(after, std::move(longer));
    }
  }
  std::printf("%zu reachable states, %zu steps\n", queue.size(), steps);
  EXPECT_GT(queue.size(), 300u);
}

}  // namespace
}  // namespace ferrybus
