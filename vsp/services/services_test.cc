// SPDX-License-Identifier: MIT

// Each service against a guest that does what Linux does.

#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "ferrybus/vsp/services/heartbeat_service.h"
#include "ferrybus/vsp/services/kvp_service.h"
#include "ferrybus/vsp/services/linux_util_guest.h"
#include "ferrybus/vsp/services/pipe_harness.h"
#include "ferrybus/vsp/services/shutdown_service.h"
#include "ferrybus/vsp/services/time_sync_service.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

constexpr uint64_t kSecond = 1'000'000'000;

std::string Hex(absl::Span<const std::byte> bytes) {
  return absl::BytesToHexString(
      {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

// -- Heartbeat ---------------------------------------------------------------

class HeartbeatLog final : public HeartbeatService::Events {
 public:
  void OnHeartbeat() override { ++beats; }
  void OnHeartbeatMissed(uint32_t in_a_row) override {
    missed.push_back(in_a_row);
  }
  int beats = 0;
  std::vector<uint32_t> missed;
};

// vector:P13
TEST(HeartbeatServiceTest, SendsTheDocumentedBytes) {
  HeartbeatService service;
  PipeHarness harness(&service);
  LinuxUtilGuest driver(ic::MessageType::kHeartbeat);
  service.Tick(0);
  harness.PumpWith(driver);
  // The first one, 0, was the negotiation's; now sequence 4 is transaction 5.
  for (uint64_t beat = 1; beat < 4; ++beat) {
    service.Tick(beat * 2 * kSecond);
    harness.PumpWith(driver);
  }
  service.Tick(8 * kSecond);
  harness.Pump();
  ASSERT_EQ(harness.payloads.size(), 1u);
  // As the vector, but for the sequence number.
  EXPECT_EQ(Hex(harness.payloads[0]),
            "010000003c000000"
            "0300000001000300"
            "0000280000000000"
            "0503000004000000"
            "0000000000000000"
            "0000000000000000"
            "0000000000000000"
            "0000000000000000"
            "00000000"
            "00000000");
}

TEST(HeartbeatServiceTest, TellsWhetherTheGuestLives) {
  HeartbeatLog log;
  HeartbeatService service(&log, {.period_ns = kSecond, .timeout_ns = kSecond});
  PipeHarness harness(&service);
  LinuxUtilGuest driver(ic::MessageType::kHeartbeat);
  service.Tick(0);
  EXPECT_FALSE(service.alive());
  harness.PumpWith(driver);
  EXPECT_TRUE(service.alive());
  service.Tick(kSecond / 2);
  harness.Pump();
  EXPECT_TRUE(harness.payloads.empty()) << "before its time";
  service.Tick(kSecond);
  harness.PumpWith(driver);
  EXPECT_EQ(driver.heartbeats, 2u);
  EXPECT_EQ(log.beats, 2);
  // Nobody answers any more.
  for (uint64_t s = 2; s <= 5; ++s) {
    service.Tick(s * kSecond);
    harness.Pump();
  }
  EXPECT_EQ(log.missed, (std::vector<uint32_t>{1, 2, 3}));
  EXPECT_FALSE(service.alive());
  EXPECT_EQ(service.missed(), 3u);
  // And again: the answers that came too late are no heartbeats.
  harness.PumpWith(driver);
  EXPECT_TRUE(service.alive());
  EXPECT_EQ(service.missed(), 0u);
  EXPECT_EQ(log.beats, 3);
  EXPECT_EQ(service.counters().late_answers, 3u);
}

TEST(HeartbeatServiceTest, AWrongSequenceNumberIsNoSignOfLife) {
  HeartbeatLog log;
  HeartbeatService service(&log);
  PipeHarness harness(&service);
  LinuxUtilGuest driver(ic::MessageType::kHeartbeat);
  harness.Send(*driver.Handle(harness.TakeMessage()));
  harness.Pump();
  auto answer = driver.Handle(harness.TakeMessage());
  (*answer)[sizeof(ic::Header) + 1] = std::byte{1};
  ASSERT_TRUE(harness.Send(*answer));
  harness.Pump();
  EXPECT_FALSE(service.alive());
  EXPECT_EQ(log.missed, std::vector<uint32_t>{1});
  EXPECT_EQ(service.counters().bad_messages, 1u);
}

// -- Shutdown ----------------------------------------------------------------

class ShutdownLog final : public ShutdownService::Events {
 public:
  void OnShutdownAnswered(IntegrationOutcome outcome,
                          uint32_t status) override {
    answers.emplace_back(outcome, status);
  }
  std::vector<std::pair<IntegrationOutcome, uint32_t>> answers;
};

TEST(ShutdownServiceTest, SendsTheDocumentedBytes) {
  ShutdownLog log;
  ShutdownService service(&log);
  PipeHarness harness(&service);
  LinuxUtilGuest driver(ic::MessageType::kShutdown);
  harness.PumpWith(driver);
  ASSERT_TRUE(service
                  .Request({.action = ShutdownAction::kRestart,
                            .force = true,
                            .reason = 0x80030001,
                            .timeout_seconds = 30,
                            .text = u"Hi"})
                  .ok());
  harness.Pump();
  ASSERT_EQ(harness.payloads.size(), 1u);
  // 8 + 20 + 2060 bytes: what Linux asks for at least.
  EXPECT_EQ(harness.payloads[0].size(), 2088u);
  EXPECT_EQ(Hex(absl::MakeConstSpan(harness.payloads[0]).first(48)),
            "0100000020080000"
            "0300000003000300"
            "02000c0800000000"
            "0103000001000380"
            "1e00000003000000"
            "4800690000000000");
}

TEST(ShutdownServiceTest, TellsWhatTheGuestAnswered) {
  ShutdownLog log;
  ShutdownService service(&log);
  PipeHarness harness(&service);
  LinuxUtilGuest driver(ic::MessageType::kShutdown);
  harness.PumpWith(driver);
  for (const ShutdownAction action :
       {ShutdownAction::kPowerOff, ShutdownAction::kRestart,
        ShutdownAction::kHibernate}) {
    ASSERT_TRUE(service.Request({.action = action}).ok());
    EXPECT_EQ(service.Request({.action = action}).code(),
              absl::StatusCode::kResourceExhausted);
    harness.PumpWith(driver);
  }
  EXPECT_EQ(driver.shutdowns, (std::vector<uint32_t>{0, 2}));
  ASSERT_EQ(log.answers.size(), 3u);
  EXPECT_EQ(log.answers[1].first, IntegrationOutcome::kOk);
  EXPECT_EQ(log.answers[2].first, IntegrationOutcome::kRefused);
  EXPECT_EQ(log.answers[2].second, ic::kStatusFail);
}

TEST(ShutdownServiceTest, WhatTheGuestDoesNotKnowIsNotAsked) {
  ShutdownLog log;
  ShutdownService service(&log);
  EXPECT_EQ(service.Request({}).code(), absl::StatusCode::kFailedPrecondition);
  PipeHarness harness(&service);
  LinuxUtilGuest driver(ic::MessageType::kShutdown);
  driver.message_versions = {{3, 1}, {3, 0}, {1, 0}};
  harness.PumpWith(driver);
  EXPECT_EQ(service.message_version(), (ic::Version{3, 1}));
  EXPECT_EQ(service.Request({.action = ShutdownAction::kHibernate}).code(),
            absl::StatusCode::kFailedPrecondition);
  const std::u16string text(1024, u'x');
  EXPECT_EQ(service.Request({.text = text}).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(
      service.Request({.text = std::u16string_view(text).substr(1)}).ok());
}

// -- Time synchronisation ----------------------------------------------------

class FakeTime final : public TimeSource {
 public:
  HostTime Now() override { return now; }
  HostTime now = {0x0102030405060708, 0x1112131415161718};
};

TEST(TimeSyncServiceTest, SendsTheDocumentedBytes) {
  FakeTime time;
  TimeSyncService service(&time);
  PipeHarness harness(&service);
  LinuxUtilGuest driver(ic::MessageType::kTimeSync);
  ASSERT_TRUE(harness.Send(*driver.Handle(harness.TakeMessage())));
  harness.Pump();
  EXPECT_EQ(Hex(harness.TakeMessage()),
            "0300000004000400"
            "0000160000000000"
            "01030000"
            "0807060504030201"
            "1817161514131211"
            "010000000000");
}

TEST(TimeSyncServiceTest, OlderGuestsGetTheOlderForm) {
  FakeTime time;
  TimeSyncService service(&time);
  PipeHarness harness(&service);
  LinuxUtilGuest driver(ic::MessageType::kTimeSync);
  driver.message_versions = {{3, 0}, {1, 0}};
  ASSERT_TRUE(harness.Send(*driver.Handle(harness.TakeMessage())));
  harness.Pump();
  EXPECT_EQ(Hex(harness.TakeMessage()),
            "0300000004000300"
            "0000190000000000"
            "01030000"
            "0807060504030201"
            "0000000000000000"
            "0000000000000000"
            "01");
}

TEST(TimeSyncServiceTest, SetsOnceThenSamples) {
  FakeTime time;
  TimeSyncService service(&time, {.period_ns = 5 * kSecond});
  PipeHarness harness(&service);
  LinuxUtilGuest driver(ic::MessageType::kTimeSync);
  service.Tick(0);
  harness.PumpWith(driver);
  for (uint64_t s = 1; s <= 10; ++s) {
    time.now.utc = s;
    service.Tick(s * kSecond);
    harness.PumpWith(driver);
  }
  ASSERT_EQ(driver.times.size(), 3u);
  EXPECT_EQ(driver.times[0].flags, ic::kTimeSyncSet);
  EXPECT_EQ(driver.times[1].flags, ic::kTimeSyncSample);
  EXPECT_EQ(driver.times[1].host_time, 5u);
  EXPECT_EQ(driver.times[2].host_time, 10u);
  service.SetGuestClock();
  harness.PumpWith(driver);
  EXPECT_EQ(driver.times.back().flags, ic::kTimeSyncSet);
}

TEST(TimeSyncServiceTest, ARestoredGuestSetsItsClock) {
  // With the guest's answer outstanding, or without.
  for (const bool is_pending : {false, true}) {
    FakeTime time;
    TimeSyncService service(&time);
    PipeHarness harness(&service);
    LinuxUtilGuest driver(ic::MessageType::kTimeSync);
    service.Tick(0);
    harness.PumpWith(driver);
    if (is_pending) service.Tick(5 * kSecond);
    time.now.utc = 77;
    TimeSyncService next(&time);
    ASSERT_TRUE(harness.MoveTo(&next).ok());
    harness.PumpWith(driver);
    EXPECT_EQ(driver.times.size(), is_pending ? 3u : 2u);
    EXPECT_EQ(driver.times.back().flags, ic::kTimeSyncSet);
    EXPECT_EQ(driver.times.back().host_time, 77u);
  }
}

// -- Key-value exchange ------------------------------------------------------

class KvpServiceTest : public ::testing::Test, public KvpService::Events {
 protected:
  KvpServiceTest() : service_(this), harness_(&service_) {
    harness_.PumpWith(driver_);
  }
  void OnKvpDone(uint64_t, const KvpResult& result) override {
    results_.push_back(result);
  }
  KvpResult Run(const absl::Status& started) {
    EXPECT_TRUE(started.ok()) << started;
    harness_.PumpWith(driver_);
    EXPECT_FALSE(results_.empty());
    return results_.back();
  }
  // Has the guest answer the next request with this pair.
  KvpResult AnswerGetWith(const ic::KvpPair& pair) {
    EXPECT_TRUE(service_.Get(ic::KvpPool::kAuto, u"k", 1).ok());
    harness_.Pump();
    auto answer = driver_.Handle(harness_.TakeMessage());
    ic::Header header;
    EXPECT_TRUE(ic::ReadBody(*answer, &header));
    header.status = ic::kStatusOk;
    ic::KvpPairBody body;
    body.pair = pair;
    EXPECT_TRUE(harness_.Send(ic::BuildMessage(header, ic::BytesOf(body))));
    harness_.Pump();
    return results_.back();
  }

  std::vector<KvpResult> results_;
  LinuxUtilGuest driver_{ic::MessageType::kKeyValue};
  KvpService service_;
  PipeHarness harness_;
};

TEST_F(KvpServiceTest, SendsTheDocumentedBytes) {
  ASSERT_TRUE(service_.Set(ic::KvpPool::kGuest, u"k", u"val", 1).ok());
  harness_.Pump();
  const std::vector<std::byte> set = harness_.TakeMessage();
  ASSERT_EQ(set.size(), 20 + sizeof(ic::KvpPairBody));
  EXPECT_EQ(Hex(absl::MakeConstSpan(set).first(40)),
            "0300000002000400"
            "0000100a00000000"
            "01030000"
            "01010000"  // set, pool 1
            "01000000"  // text
            "04000000"  // both lengths with the final zero
            "08000000"
            "6b000000");
  EXPECT_EQ(Hex(absl::MakeConstSpan(set).subspan(36 + 512, 8)),
            "760061006c000000");
}

TEST_F(KvpServiceTest, SetsGetsDeletesAndEnumerates) {
  const auto pool = ic::KvpPool::kExternal;
  EXPECT_EQ(Run(service_.Set(pool, u"a", u"1", 1)).outcome,
            IntegrationOutcome::kOk);
  Run(service_.Set(pool, u"b", u"", 2));
  Run(service_.Set(pool, u"a", u"3", 3));
  EXPECT_EQ(driver_.pools[pool],
            (LinuxUtilGuest::Pool{{u"a", u"3"}, {u"b", u""}}));
  KvpResult result = Run(service_.Get(pool, u"a", 4));
  EXPECT_EQ(result.key, u"a");
  EXPECT_EQ(std::get<std::u16string>(result.value), u"3");
  result = Run(service_.Enumerate(pool, 1, 5));
  EXPECT_EQ(result.key, u"b");
  EXPECT_EQ(std::get<std::u16string>(result.value), u"");
  result = Run(service_.Enumerate(pool, 2, 6));
  EXPECT_EQ(result.outcome, IntegrationOutcome::kRefused);
  EXPECT_EQ(result.status, ic::kStatusNoMoreItems);
  EXPECT_EQ(Run(service_.Delete(pool, u"a", 7)).outcome,
            IntegrationOutcome::kOk);
  EXPECT_EQ(Run(service_.Get(pool, u"a", 8)).outcome,
            IntegrationOutcome::kRefused);
}

// quirk:D24
TEST_F(KvpServiceTest, NumbersAreSentAsTextAndReadInEitherForm) {
  Run(service_.SetNumber(ic::KvpPool::kGuest, u"n", ~uint64_t{0}, 1));
  EXPECT_EQ(driver_.pools[ic::KvpPool::kGuest][0].second,
            u"18446744073709551615");
  ic::KvpPair pair;
  pair.value_bytes = 8;
  const uint64_t number = 0x1122334455667788;
  std::memcpy(pair.value, &number, sizeof(number));
  for (const uint32_t type : {8u, 11u}) {
    pair.value_type = type;
    EXPECT_EQ(std::get<uint64_t>(AnswerGetWith(pair).value), number);
  }
  pair.value_type = 4;
  EXPECT_EQ(AnswerGetWith(pair).outcome, IntegrationOutcome::kBadAnswer);
  pair.value_bytes = 4;
  EXPECT_EQ(std::get<uint32_t>(AnswerGetWith(pair).value), 0x55667788u);
}

TEST_F(KvpServiceTest, AnswersThatCannotBeFailOnlyTheirRequest) {
  ic::KvpPair good;
  good.value_type = ic::kKvpString;
  good.key_bytes = 512;  // all of it, without a final zero
  good.value_bytes = 2048;
  std::fill(std::begin(good.value), std::end(good.value), u'v');
  const KvpResult result = AnswerGetWith(good);
  EXPECT_EQ(result.outcome, IntegrationOutcome::kOk);
  EXPECT_EQ(std::get<std::u16string>(result.value).size(), 1024u);

  const auto refuses = [&](auto&& change) {
    ic::KvpPair pair = good;
    change(pair);
    return AnswerGetWith(pair).outcome == IntegrationOutcome::kBadAnswer;
  };
  EXPECT_TRUE(refuses([](ic::KvpPair& p) { p.key_bytes = 514; }));
  EXPECT_TRUE(refuses([](ic::KvpPair& p) { p.key_bytes = 0xffffffff; }));
  EXPECT_TRUE(refuses([](ic::KvpPair& p) { p.key_bytes = 3; }));
  EXPECT_TRUE(refuses([](ic::KvpPair& p) { p.value_bytes = 2050; }));
  EXPECT_TRUE(refuses([](ic::KvpPair& p) { p.value_bytes = 0xfffffffe; }));
  EXPECT_TRUE(refuses([](ic::KvpPair& p) { p.value_type = 0; }));
  EXPECT_TRUE(refuses([](ic::KvpPair& p) { p.value_type = 0x80000001; }));
  EXPECT_EQ(service_.counters().bad_messages, 7u);
  EXPECT_EQ(harness_.fault(), "");
}

TEST_F(KvpServiceTest, TextsThatDoNotFitAreRefused) {
  const std::u16string key(256, u'k');
  const std::u16string value(1024, u'v');
  const auto pool = ic::KvpPool::kGuest;
  for (const absl::Status& status :
       {service_.Get(pool, key, 1), service_.Delete(pool, key, 1),
        service_.Set(pool, key, u"", 1), service_.Set(pool, u"", value, 1)}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  }
  Run(service_.Set(pool, key.substr(1), value.substr(1), 1));
  EXPECT_EQ(driver_.pools[pool][0],
            std::make_pair(key.substr(1), value.substr(1)));
}

}  // namespace
}  // namespace ferrybus::vsp
