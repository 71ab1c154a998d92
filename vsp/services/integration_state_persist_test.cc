// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/services/integration_state_persist.h"

#include <string>

#include "ferrybus/vsp/services/integration_state.pb.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

namespace pb = ::ferrybus::vsp::services::v1;

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return absl::MakeConstSpan(reinterpret_cast<const std::byte*>(text.data()),
                             text.size());
}

IntegrationState Ready() {
  IntegrationState state;
  state.service = ic::MessageType::kKeyValue;
  state.phase = IntegrationPhase::kReady;
  state.framework = {3, 0};
  state.message = {4, 0};
  state.next_transaction = 0;
  state.is_sent = true;
  state.sent_transaction = 255;
  state.remaining_ns = 123456789012;
  state.next_cookie = ~uint64_t{0};
  state.requests = {{7, {std::byte{1}, std::byte{0}}}, {8, {}}};
  return state;
}

absl::StatusCode Code(const pb::ServiceState& message) {
  return ParseIntegrationState(AsBytes(message.SerializeAsString()))
      .status()
      .code();
}

TEST(IntegrationStatePersistTest, ComesBackAsItWas) {
  IntegrationState negotiating;
  negotiating.service = ic::MessageType::kHeartbeat;
  negotiating.phase = IntegrationPhase::kNegotiating;
  negotiating.is_sent = true;
  IntegrationState refused = negotiating;
  refused.phase = IntegrationPhase::kRefused;
  refused.is_sent = false;
  for (const IntegrationState& state : {Ready(), negotiating, refused}) {
    const std::string bytes = SerializeIntegrationState(state);
    const auto parsed = ParseIntegrationState(AsBytes(bytes));
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(*parsed, state);
    EXPECT_EQ(SerializeIntegrationState(*parsed), bytes);
  }
}

TEST(IntegrationStatePersistTest, FieldsOfLaterVersionsAreIgnored) {
  std::string bytes = SerializeIntegrationState(Ready());
  bytes += std::string("\xfa\x3f\x03new", 6);  // field 1023, bytes
  const auto parsed = ParseIntegrationState(AsBytes(bytes));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(*parsed, Ready());
}

TEST(IntegrationStatePersistTest, StatesOutsideTheirBoundsAreRefused) {
  pb::ServiceState good;
  ASSERT_TRUE(good.ParseFromString(SerializeIntegrationState(Ready())));
  EXPECT_EQ(Code(good), absl::StatusCode::kOk);
  const auto refuses = [&](auto&& change) {
    pb::ServiceState message = good;
    change(message);
    return Code(message) == absl::StatusCode::kDataLoss;
  };
  using State = pb::ServiceState;
  EXPECT_TRUE(refuses([](State& m) { m.set_service(0); }));
  EXPECT_TRUE(refuses([](State& m) { m.set_service(5); }));
  EXPECT_TRUE(refuses([](State& m) { m.clear_phase(); }));
  EXPECT_TRUE(
      refuses([](State& m) { m.set_phase(static_cast<pb::ServicePhase>(4)); }));
  EXPECT_TRUE(refuses([](State& m) { m.set_next_transaction(256); }));
  EXPECT_TRUE(refuses([](State& m) { m.set_sent_transaction(256); }));
  EXPECT_TRUE(refuses([](State& m) { m.mutable_message()->set_major(65536); }));
  EXPECT_TRUE(refuses([](State& m) { m.clear_framework(); }));
  EXPECT_TRUE(refuses([](State& m) { m.clear_requests(); }));  // is_sent
  EXPECT_TRUE(
      refuses([](State& m) { m.set_phase(pb::SERVICE_PHASE_NEGOTIATING); }));
  EXPECT_TRUE(refuses([](State& m) {
    m.mutable_requests(0)->set_body(std::string(4097, 'x'));
  }));
  EXPECT_TRUE(refuses([](State& m) {
    while (m.requests_size() <= 64) m.add_requests();
  }));
  EXPECT_TRUE(refuses([](State& m) {
    m.set_phase(pb::SERVICE_PHASE_REFUSED);
    m.clear_requests();
    m.clear_message();
    m.set_is_sent(false);
  }));
  // Requests before the versions are agreed on.
  EXPECT_TRUE(refuses([](State& m) {
    m.set_phase(pb::SERVICE_PHASE_NEGOTIATING);
    m.clear_framework();
    m.clear_message();
  }));
}

TEST(IntegrationStatePersistTest, BytesBeyondTheLimitAreNotDecoded) {
  std::string bytes = SerializeIntegrationState(Ready());
  bytes.resize(kIntegrationStateBytesMax + 1);
  EXPECT_EQ(ParseIntegrationState(AsBytes(bytes)).status().code(),
            absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace ferrybus::vsp
