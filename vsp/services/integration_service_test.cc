// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/services/integration_service.h"

#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "ferrybus/channel/pipe_header.h"
#include "ferrybus/channel/protocols/device_classes.h"
#include "ferrybus/vsp/services/heartbeat_service.h"
#include "ferrybus/vsp/services/kvp_service.h"
#include "ferrybus/vsp/services/linux_util_guest.h"
#include "ferrybus/vsp/services/pipe_harness.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

constexpr uint64_t kSecond = 1'000'000'000;

std::string Hex(absl::Span<const std::byte> bytes) {
  return absl::BytesToHexString(
      {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

class KvpLog final : public KvpService::Events {
 public:
  void OnKvpDone(uint64_t cookie, const KvpResult& result) override {
    done.emplace_back(cookie, result);
  }
  std::vector<std::pair<uint64_t, KvpResult>> done;
};

std::vector<std::byte> Answer(const ic::Header& request,
                              absl::Span<const std::byte> body,
                              uint32_t status = 0) {
  ic::Header header = request;
  header.status = status;
  header.flags = ic::kFlagTransaction | ic::kFlagResponse;
  return ic::BuildMessage(header, body);
}

std::vector<std::byte> VersionAnswer(std::vector<ic::Version> framework,
                                     std::vector<ic::Version> message) {
  return Answer(ic::Header(), ic::BuildNegotiateBody(framework, message));
}

TEST(IntegrationServiceTest, NegotiatesByItselfWithExactBytes) {
  HeartbeatService service;
  PipeHarness harness(&service);
  ASSERT_EQ(harness.payloads.size(), 1u);
  // Pipe header, message header, versions; the ring pads to 8.
  EXPECT_EQ(Hex(harness.payloads[0]),
            "010000002c000000"
            "0100000000000100"
            "0000180000000000"
            "0003000002000200"
            "0000000001000000"
            "0300000001000000"
            "0300000000000000");
  EXPECT_EQ(service.phase(), IntegrationPhase::kNegotiating);
}

TEST(IntegrationServiceTest, OffersAMessagePipe) {
  HeartbeatService service;
  const OfferParams params = service.Params(Guid{{7}});
  EXPECT_EQ(params.interface_type, kHeartbeatInterface);
  EXPECT_EQ(params.interface_instance, Guid{{7}});
  EXPECT_EQ(params.flags, kOfferNamedPipeMode);
  EXPECT_EQ(params.user_data[0], std::byte{4});
  EXPECT_EQ(params.user_data[1], std::byte{0});
}

// Each framework and message version that a Linux has had.
TEST(IntegrationServiceTest, AgreesWithGuestsOfEachAge) {
  for (const ic::Version framework : {ic::Version{1, 0}, {3, 0}}) {
    for (const ic::Version message : {ic::Version{1, 0}, {3, 0}, {4, 0}}) {
      KvpLog log;
      KvpService service(&log);
      PipeHarness harness(&service);
      LinuxUtilGuest driver(ic::MessageType::kKeyValue);
      driver.framework_versions = {framework};
      driver.message_versions = {message};
      harness.PumpWith(driver);
      ASSERT_EQ(service.phase(), IntegrationPhase::kReady);
      EXPECT_EQ(service.framework_version(), framework);
      EXPECT_EQ(service.message_version(), message);
      // Requests carry what was agreed on.
      ASSERT_TRUE(service.Get(ic::KvpPool::kAuto, u"a", 1).ok());
      harness.Pump();
      ic::Header header;
      ASSERT_TRUE(ic::ReadBody(harness.TakeMessage(), &header));
      EXPECT_EQ(header.framework, framework);
      EXPECT_EQ(header.message, message);
      EXPECT_EQ(header.type, ic::MessageType::kKeyValue);
      EXPECT_EQ(header.transaction, 1);
    }
  }
}

TEST(IntegrationServiceTest, AGuestWithoutACommonVersionIsLeftAlone) {
  for (const bool framework_differs : {true, false}) {
    HeartbeatService service;
    PipeHarness harness(&service);
    LinuxUtilGuest driver(ic::MessageType::kHeartbeat);
    (framework_differs ? driver.framework_versions
                       : driver.message_versions) = {{9, 0}};
    harness.PumpWith(driver);
    EXPECT_EQ(service.phase(), IntegrationPhase::kRefused);
    for (uint64_t s = 0; s < 100; ++s) service.Tick(s * kSecond);
    harness.Pump();
    EXPECT_TRUE(harness.payloads.empty());
    // A guest that reboots into another kernel is asked again.
    harness.Close();
    harness.Open();
    LinuxUtilGuest next_driver(ic::MessageType::kHeartbeat);
    harness.PumpWith(next_driver);
    EXPECT_EQ(service.phase(), IntegrationPhase::kReady);
    EXPECT_EQ(harness.fault(), "");
  }
}

TEST(IntegrationServiceTest, VersionAnswersThatCannotBeAreDropped) {
  HeartbeatService service;
  PipeHarness harness(&service);
  const std::vector<std::vector<std::byte>> answers = {
      VersionAnswer({{2, 0}}, {{3, 0}}),          // not offered
      VersionAnswer({{3, 0}}, {{3, 1}}),          // not offered
      VersionAnswer({{3, 0}}, {}),                // half
      VersionAnswer({{3, 0}, {1, 0}}, {{3, 0}}),  // two
      Answer(ic::Header(), {}),                   // nothing
      ic::BuildMessage(ic::Header(), {}),         // our own message
  };
  for (size_t i = 0; i < answers.size(); ++i) {
    ASSERT_TRUE(harness.Send(answers[i]));
    harness.Pump();
    EXPECT_EQ(service.counters().bad_messages, i + 1);
    EXPECT_EQ(service.phase(), IntegrationPhase::kNegotiating);
  }
  ASSERT_TRUE(harness.Send(VersionAnswer({{3, 0}}, {{1, 0}})));
  harness.Pump();
  EXPECT_EQ(service.phase(), IntegrationPhase::kReady);
  // Once is enough.
  ASSERT_TRUE(harness.Send(VersionAnswer({{1, 0}}, {{3, 0}})));
  harness.Pump();
  EXPECT_EQ(service.message_version(), (ic::Version{1, 0}));
  EXPECT_EQ(service.counters().late_answers, 1u);
  EXPECT_EQ(harness.fault(), "");
}

// A message cut anywhere ends nothing but itself.
TEST(IntegrationServiceTest, ShortMessagesAreDropped) {
  KvpLog log;
  KvpService service(&log);
  PipeHarness harness(&service);
  LinuxUtilGuest driver(ic::MessageType::kKeyValue);
  harness.PumpWith(driver);
  driver.pools[ic::KvpPool::kAuto] = {{u"key", u"value"}};
  ASSERT_TRUE(service.Get(ic::KvpPool::kAuto, u"key", 1).ok());
  harness.Pump();
  const auto answer = driver.Handle(harness.TakeMessage());
  ASSERT_TRUE(answer.has_value());
  size_t sent = 0;
  for (size_t bytes = 0; bytes < answer->size(); bytes += bytes < 40 ? 1 : 97) {
    ASSERT_TRUE(harness.Send(absl::MakeConstSpan(*answer).first(bytes)));
    harness.Pump();
    EXPECT_EQ(service.counters().bad_messages, ++sent);
    ASSERT_TRUE(log.done.empty()) << bytes;
  }
  ASSERT_TRUE(harness.Send(*answer));
  harness.Pump();
  ASSERT_EQ(log.done.size(), 1u);
  EXPECT_EQ(log.done[0].second.outcome, IntegrationOutcome::kOk);
  EXPECT_EQ(harness.fault(), "");
}

TEST(IntegrationServiceTest, AMalformedPipeHeaderFaultsOnlyTheChannel) {
  HeartbeatService service;
  PipeHarness harness(&service);
  const std::vector<std::byte> bytes(16, std::byte{0xff});
  ASSERT_TRUE(harness.SendRaw(bytes));
  harness.Pump();
  EXPECT_NE(harness.fault(), "");
  for (uint64_t s = 0; s < 10; ++s) service.Tick(s * kSecond);
  harness.Close();
  EXPECT_EQ(service.phase(), IntegrationPhase::kClosed);
  harness.Open();
  LinuxUtilGuest driver(ic::MessageType::kHeartbeat);
  harness.PumpWith(driver);
  EXPECT_TRUE(service.alive());
}

TEST(IntegrationServiceTest, OneRequestAtATimeInOrderAndNoMoreThanTheLimit) {
  KvpLog log;
  KvpService service(&log, {.requests_max = 3});
  PipeHarness harness(&service);
  EXPECT_EQ(service.Get(ic::KvpPool::kAuto, u"k", 0).code(),
            absl::StatusCode::kFailedPrecondition);
  LinuxUtilGuest driver(ic::MessageType::kKeyValue);
  harness.PumpWith(driver);
  for (uint64_t cookie = 1; cookie <= 3; ++cookie) {
    ASSERT_TRUE(service.Get(ic::KvpPool::kAuto, u"k", cookie).ok());
  }
  EXPECT_EQ(service.Get(ic::KvpPool::kAuto, u"k", 4).code(),
            absl::StatusCode::kResourceExhausted);
  harness.Pump();
  EXPECT_EQ(harness.payloads.size(), 1u);
  harness.PumpWith(driver);
  ASSERT_EQ(log.done.size(), 3u);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(log.done[i].first, i + 1);
  EXPECT_EQ(service.counters().requests, 3u);
  EXPECT_EQ(service.counters().answers, 3u);
}

TEST(IntegrationServiceTest, ARequestIsGivenUpAndItsLateAnswerDropped) {
  KvpLog log;
  KvpService service(&log, {.request_timeout_ns = 10 * kSecond});
  PipeHarness harness(&service);
  LinuxUtilGuest driver(ic::MessageType::kKeyValue);
  harness.PumpWith(driver);
  service.Tick(100 * kSecond);
  ASSERT_TRUE(service.Get(ic::KvpPool::kAuto, u"a", 1).ok());
  ASSERT_TRUE(service.Get(ic::KvpPool::kAuto, u"b", 2).ok());
  harness.Pump();
  const auto late = driver.Handle(harness.TakeMessage());
  service.Tick(50 * kSecond);  // a clock that went back: no time passes
  service.Tick(60 * kSecond - 1);
  EXPECT_TRUE(log.done.empty());
  service.Tick(60 * kSecond);
  ASSERT_EQ(log.done.size(), 1u);
  EXPECT_EQ(log.done[0].second.outcome, IntegrationOutcome::kTimedOut);
  ASSERT_TRUE(harness.Send(*late));
  harness.Pump();
  EXPECT_EQ(log.done.size(), 1u);
  EXPECT_EQ(service.counters().late_answers, 1u);
  // The next one has all of its time.
  service.Tick(70 * kSecond - 1);
  EXPECT_EQ(log.done.size(), 1u);
  harness.PumpWith(driver);
  ASSERT_EQ(log.done.size(), 2u);
  EXPECT_EQ(log.done[1].first, 2u);
  EXPECT_EQ(log.done[1].second.outcome, IntegrationOutcome::kRefused);
}

// bad:R27 promise:P9
TEST(IntegrationServiceTest, AGuestThatDoesNotReadMakesNothingPileUp) {
  KvpLog log;
  KvpService service(&log, {.request_timeout_ns = kSecond});
  PipeHarness harness(&service, /*ring_data_pages=*/1);
  LinuxUtilGuest driver(ic::MessageType::kKeyValue);
  harness.PumpWith(driver);
  harness.StopReading(true);
  for (uint64_t s = 0; s < 50; ++s) {
    service.Tick(s * kSecond);
    (void)service.Get(ic::KvpPool::kAuto, u"a", s);
    harness.Pump();
    EXPECT_EQ(harness.channel().endpoint().queued(), 0u);
    EXPECT_LE(service.pending(), 16u);
  }
  // One lies in the ring, the others never got so far.
  EXPECT_EQ(service.counters().requests, 1u);
  EXPECT_GE(service.counters().timeouts, 40u);
  // It reads again: the old request's answer comes too late, the new one's
  // does not.
  harness.StopReading(false);
  ASSERT_TRUE(service.Get(ic::KvpPool::kAuto, u"a", 99).ok());
  harness.PumpWith(driver);
  EXPECT_EQ(service.counters().late_answers, 1u);
  EXPECT_EQ(log.done.back().first, 99u);
  EXPECT_EQ(log.done.back().second.outcome, IntegrationOutcome::kRefused);
}

TEST(IntegrationServiceTest, RequestsEndWithTheChannel) {
  KvpLog log;
  KvpService service(&log);
  PipeHarness harness(&service);
  LinuxUtilGuest driver(ic::MessageType::kKeyValue);
  harness.PumpWith(driver);
  ASSERT_TRUE(service.Get(ic::KvpPool::kAuto, u"a", 1).ok());
  ASSERT_TRUE(service.Get(ic::KvpPool::kAuto, u"a", 2).ok());
  harness.Close();
  ASSERT_EQ(log.done.size(), 2u);
  EXPECT_EQ(log.done[1].second.outcome, IntegrationOutcome::kClosed);
  EXPECT_EQ(service.phase(), IntegrationPhase::kClosed);
}

// -- Moving ------------------------------------------------------------------

// promise:P1
TEST(IntegrationServiceTest, RequestsGoOnAtTheNextOwner) {
  // The guest has the first request, or its answer stands in the ring.
  for (const bool is_answered : {false, true}) {
    KvpLog log;
    KvpService service(&log);
    PipeHarness harness(&service);
    LinuxUtilGuest driver(ic::MessageType::kKeyValue);
    driver.message_versions = {{3, 0}};
    harness.PumpWith(driver);
    driver.pools[ic::KvpPool::kAuto] = {{u"a", u"1"}, {u"b", u"2"}};
    ASSERT_TRUE(service.Get(ic::KvpPool::kAuto, u"a", 41).ok());
    ASSERT_TRUE(service.Get(ic::KvpPool::kAuto, u"b", 42).ok());
    harness.Pump();
    const auto answer = driver.Handle(harness.TakeMessage());
    if (is_answered) {
      ASSERT_TRUE(harness.Send(*answer));
    }
    KvpLog next_log;
    KvpService next(&next_log);
    ASSERT_TRUE(harness.MoveTo(&next).ok());
    EXPECT_EQ(next.message_version(), (ic::Version{3, 0}));
    if (!is_answered) {
      ASSERT_TRUE(harness.Send(*answer));
    }
    harness.PumpWith(driver);
    ASSERT_EQ(log.done.size() + next_log.done.size(), 2u);
    for (size_t i = 0; i < 2; ++i) {
      EXPECT_EQ(next_log.done[i].first, 41 + i);
      EXPECT_EQ(std::get<std::u16string>(next_log.done[i].second.value),
                i == 0 ? u"1" : u"2");
    }
    EXPECT_EQ(next.counters().late_answers, 0u);
  }
}

TEST(IntegrationServiceTest, ANegotiationGoesOnAtTheNextOwner) {
  HeartbeatService service;
  PipeHarness harness(&service);
  LinuxUtilGuest driver(ic::MessageType::kHeartbeat);
  const auto answer = driver.Handle(harness.TakeMessage());
  HeartbeatService next;
  ASSERT_TRUE(harness.MoveTo(&next).ok());
  harness.Pump();
  EXPECT_TRUE(harness.payloads.empty()) << "asked twice";
  ASSERT_TRUE(harness.Send(*answer));
  harness.PumpWith(driver);
  EXPECT_EQ(next.phase(), IntegrationPhase::kReady);
  EXPECT_TRUE(next.alive());
}

TEST(IntegrationServiceTest, TheTimeLeftMovesAlong) {
  KvpLog log;
  KvpService service(&log, {.request_timeout_ns = 10 * kSecond});
  PipeHarness harness(&service);
  LinuxUtilGuest driver(ic::MessageType::kKeyValue);
  harness.PumpWith(driver);
  service.Tick(0);
  ASSERT_TRUE(service.Get(ic::KvpPool::kAuto, u"a", 1).ok());
  service.Tick(7 * kSecond);
  KvpLog next_log;
  KvpService next(&next_log, {.request_timeout_ns = 10 * kSecond});
  ASSERT_TRUE(harness.MoveTo(&next).ok());
  next.Tick(1000 * kSecond);  // another clock
  next.Tick(1003 * kSecond - 1);
  EXPECT_TRUE(next_log.done.empty());
  next.Tick(1003 * kSecond);
  ASSERT_EQ(next_log.done.size(), 1u);
  EXPECT_EQ(next_log.done[0].second.outcome, IntegrationOutcome::kTimedOut);
}

TEST(IntegrationServiceTest, AnotherServicesStateIsRefused) {
  HeartbeatService service;
  PipeHarness harness(&service);
  KvpLog log;
  KvpService other(&log);
  EXPECT_EQ(harness.MoveTo(&other).code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(IntegrationServiceTest, StatesThatCannotBeAreRefused) {
  KvpLog log;
  KvpService service(&log);
  PipeHarness harness(&service);
  EXPECT_FALSE(service.OnRestored(harness.channel(), {}).ok());
  LinuxUtilGuest driver(ic::MessageType::kKeyValue);
  harness.PumpWith(driver);
  ASSERT_TRUE(service.Get(ic::KvpPool::kAuto, u"a", 1).ok());
  const std::string saved = *service.SaveDevice();
  ASSERT_TRUE(service.OnRestored(harness.channel(), AsBytes(saved)).ok());
  EXPECT_EQ(*service.SaveDevice(), saved);
  // Of a request the length, of a version the number.
  for (const std::string& text : {std::string("\x12\x90\x14", 3)}) {
    ASSERT_NE(saved.find(text), std::string::npos);
    std::string changed = saved;
    changed[saved.find(text) + 3] = '\x02';  // kDelete: another length
    EXPECT_EQ(service.OnRestored(harness.channel(), AsBytes(changed)).code(),
              absl::StatusCode::kDataLoss);
  }
}

}  // namespace
}  // namespace ferrybus::vsp
