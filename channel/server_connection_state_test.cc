// SPDX-License-Identifier: MIT
//
// Saved states that must be refused: each test changes one thing in a state
// that is accepted.
#include "ferrybus/channel/server_connection_state.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "ferrybus/channel/connection_test_util.h"
#include "ferrybus/channel/server_connection_persist.h"
#include "ferrybus/savestate/connection.pb.h"

namespace ferrybus {
namespace {

namespace proto = ::ferrybus::savestate::v1;
using ::absl::StatusCode;
using Saved = proto::ConnectionState;
using Offer = proto::OfferState;
using Gpadl = proto::GpadlState;

constexpr StatusCode kInvalid = StatusCode::kInvalidArgument;
constexpr StatusCode kNotHere = StatusCode::kFailedPrecondition;
constexpr StatusCode kTooMany = StatusCode::kResourceExhausted;

StatusCode Code(const Saved& saved,
                const ServerConnectionOptions& options = TestServerOptions()) {
  const std::string bytes = saved.SerializeAsString();
  return ParseServerConnection(
             {reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()},
             options)
      .status()
      .code();
}

Saved Save(const TestHost& host) {
  Saved saved;
  EXPECT_TRUE(saved.ParseFromString(SaveServerConnection(host.connection)));
  EXPECT_EQ(Code(saved), StatusCode::kOk);
  return saved;
}

// Offer 0: channel 1, open, GPADL 1.  Offer 1: channel 2, closed, GPADL 2
// unfinished.  Offer 2: channel 3, sub-channel of 1, open, GPADL 3.  Offer 3:
// channel 4, rescinded, the guest does not know yet.
Saved Connected() {
  TestHost host;
  for (OfferParams params :
       {TestOffer(1), TestOffer(2), TestOffer(1, 1), TestOffer(4)}) {
    (void)host.connection.AddOffer(params);
  }
  host.ConnectGuest();
  host.OpenChannel(OfferId{0}, 1, 1);
  host.OpenChannel(OfferId{2}, 3, 3);
  host.Handle(GpadlMessages(2, 2, 40, 0x200)[0]).IgnoreError();
  host.connection.RescindOffer(OfferId{3}).IgnoreError();
  return Save(host);
}

Saved Resetting() {
  TestHost host;
  (void)host.connection.AddOffer(TestOffer(1));
  host.ConnectGuest();
  host.OpenChannel(OfferId{0}, 1, 1);
  host.Handle(ContactMessage(ProtocolVersion::kIron)).IgnoreError();
  return Save(host);
}

Saved Disconnected() {
  TestHost host;
  (void)host.connection.AddOffer(TestOffer(1));
  return Save(host);
}

struct Case {
  const char* what;
  StatusCode code;
  std::function<void(Saved&)> change;
};

void CheckAll(const Saved& good, const std::vector<Case>& cases) {
  for (const Case& c : cases) {
    Saved saved = good;
    c.change(saved);
    EXPECT_EQ(Code(saved), c.code) << c.what;
  }
}

// bad:S10
TEST(SavedStateTest, RefusesDuplicates) {
  CheckAll(
      Connected(),
      {
          {"channel number", kInvalid,
           [](Saved& s) { s.mutable_offers(1)->set_channel_id(1); }},
          {"offer id", kInvalid,
           [](Saved& s) { s.mutable_offers(1)->set_id(0); }},
          {"offers out of order", kInvalid,
           [](Saved& s) { s.mutable_offers()->SwapElements(1, 2); }},
          {"offer id not given out yet", kInvalid,
           [](Saved& s) { s.set_next_offer_id(3); }},
          {"identity", kInvalid,
           [](Saved& s) {
             s.mutable_offers(1)->set_interface_instance(
                 s.offers(0).interface_instance());
           }},
          {"monitor", kInvalid,
           [](Saved& s) {
             s.mutable_offers(0)->set_monitor_id(5);
             s.mutable_offers(1)->set_monitor_id(5);
           }},
          {"GPADL", kInvalid, [](Saved& s) { s.mutable_gpadls(1)->set_id(1); }},
          {"GPADLs out of order", kInvalid,
           [](Saved& s) { s.mutable_gpadls()->SwapElements(0, 1); }},
          {"rescind message", kInvalid,
           [](Saved& s) { *s.add_outgoing() = s.outgoing(0); }},
      });
}

// bad:S11
TEST(SavedStateTest, RefusesDanglingReferences) {
  CheckAll(
      Connected(),
      {
          {"GPADL of no channel", kInvalid,
           [](Saved& s) { s.mutable_gpadls(1)->set_channel_id(9); }},
          {"GPADL of a channel that is not offered", kInvalid,
           [](Saved& s) { s.mutable_offers(1)->set_is_offered(false); }},
          {"ring GPADL missing", kInvalid,
           [](Saved& s) { s.mutable_gpadls()->DeleteSubrange(0, 1); }},
          {"ring GPADL of another channel", kInvalid,
           [](Saved& s) { s.mutable_gpadls(0)->set_channel_id(2); }},
          {"ring GPADL unfinished", kInvalid,
           [](Saved& s) {
             s.mutable_offers(0)->mutable_open()->set_ring_gpadl(2);
           }},
          {"ring offset beyond the GPADL", kInvalid,
           [](Saved& s) {
             s.mutable_offers(0)->mutable_open()->set_downstream_page_offset(4);
           }},
          {"ring with a partial page", kInvalid,
           [](Saved& s) { s.mutable_gpadls(0)->set_byte_count(4 * 4096 - 1); }},
          {"sub-channel without primary", kInvalid,
           [](Saved& s) {
             s.mutable_offers(2)->set_interface_instance(std::string(16, 'x'));
           }},
          {"open sub-channel of a closed primary", kInvalid,
           [](Saved& s) {
             s.mutable_offers(0)->set_state(Offer::STATE_CLOSED);
             s.mutable_offers(0)->clear_open();
           }},
      });
}

// bad:S12
TEST(SavedStateTest, RefusesValuesOutOfRange) {
  CheckAll(
      Connected(),
      {
          {"channel 0", kInvalid,
           [](Saved& s) { s.mutable_offers(1)->set_channel_id(0); }},
          {"channel 2048", kInvalid,
           [](Saved& s) { s.mutable_offers(1)->set_channel_id(2048); }},
          {"monitor 128", kInvalid,
           [](Saved& s) { s.mutable_offers(0)->set_monitor_id(128); }},
          {"monitor 256", kInvalid,
           [](Saved& s) { s.mutable_offers(0)->set_monitor_id(256); }},
          {"flags of 17 bits", kInvalid,
           [](Saved& s) { s.mutable_offers(0)->set_flags(0x10000); }},
          {"VP of the channel", kNotHere,
           [](Saved& s) {
             s.mutable_offers(0)->mutable_open()->set_target_vp(4);
           }},
          {"VP of messages", kNotHere,
           [](Saved& s) { s.mutable_contact()->set_target_message_vp(4); }},
          {"unknown version", kNotHere,
           [](Saved& s) { s.mutable_contact()->set_version(0x50004); }},
          {"page 0", kNotHere,
           [](Saved& s) {
             s.mutable_gpadls(0)->mutable_pages()->replace(0, 8, 8, '\0');
           }},
          {"page outside RAM", kNotHere,
           [](Saved& s) { (*s.mutable_gpadls(0)->mutable_pages())[3] = 1; }},
          {"half a page number", kInvalid,
           [](Saved& s) { s.mutable_gpadls(1)->mutable_pages()->pop_back(); }},
          {"page missing", kInvalid,
           [](Saved& s) { s.mutable_gpadls(0)->mutable_pages()->resize(24); }},
          {"page too many", kInvalid,
           [](Saved& s) {
             s.mutable_gpadls(0)->mutable_pages()->append(8, '\1');
           }},
          {"unfinished GPADL that is complete", kInvalid,
           [](Saved& s) {
             s.mutable_gpadls(0)->set_state(Gpadl::STATE_IN_PROGRESS);
           }},
          {"short instance", kInvalid,
           [](Saved& s) {
             s.mutable_offers(0)->mutable_interface_instance()->pop_back();
           }},
          {"no user data", kInvalid,
           [](Saved& s) { s.mutable_offers(0)->clear_user_data(); }},
          {"unknown channel state", kInvalid,
           [](Saved& s) {
             s.mutable_offers(0)->set_state(static_cast<Offer::State>(99));
           }},
          {"no phase", kInvalid, [](Saved& s) { s.clear_phase(); }},
      });
}

// bad:S12
// bad:S13
TEST(SavedStateTest, RefusesWhatTheEmbedderDoesNotHave) {
  const Saved saved = Connected();
  ServerConnectionOptions options = TestServerOptions();
  options.max_version = ProtocolVersion::kWin10Rs5;
  EXPECT_EQ(Code(saved, options), kNotHere);
  options = TestServerOptions();
  options.ram_page_count = 0x103;
  EXPECT_EQ(Code(saved, options), kNotHere);
  options = TestServerOptions();
  options.limits.channels_max = 3;
  EXPECT_EQ(Code(saved, options), kTooMany);
  options = TestServerOptions();
  options.limits.gpadls_max = 2;
  EXPECT_EQ(Code(saved, options), kTooMany);
  options = TestServerOptions();
  options.limits.gpadl_pages_max = 47;
  EXPECT_EQ(Code(saved, options), kTooMany);
  options.limits.gpadl_pages_max = 48;
  EXPECT_EQ(Code(saved, options), StatusCode::kOk);
  options.limits.gpadls_in_progress_max = 0;
  EXPECT_EQ(Code(saved, options), kTooMany);

  CheckAll(saved,
           {
               {"features before 6.0", kInvalid,
                [](Saved& s) { s.mutable_contact()->set_features(0x8); }},
               {"features that we never grant", kNotHere,
                [](Saved& s) {
                  s.mutable_contact()->set_version(0x60000);
                  s.mutable_contact()->set_features(0x10);
                }},
               {"client id without its feature", kInvalid,
                [](Saved& s) {
                  s.mutable_contact()->set_client_id(std::string(16, 'x'));
                }},
               {"one monitor page", kInvalid,
                [](Saved& s) {
                  s.mutable_contact()->set_parent_to_child_monitor_page(4096);
                }},
               {"monitor pages outside RAM", kNotHere,
                [](Saved& s) {
                  s.mutable_contact()->set_parent_to_child_monitor_page(4096);
                  s.mutable_contact()->set_child_to_parent_monitor_page(
                      kTestRamPages * 4096);
                }},
           });
}

TEST(SavedStateTest, RefusesChannelStatesThatContradict) {
  CheckAll(
      Connected(),
      {
          {"open without a request", kInvalid,
           [](Saved& s) { s.mutable_offers(0)->clear_open(); }},
          {"closed with a request", kInvalid,
           [](Saved& s) {
             s.mutable_offers(0)->set_state(Offer::STATE_CLOSED);
           }},
          {"reopen without a second request", kInvalid,
           [](Saved& s) {
             s.mutable_offers(0)->set_state(Offer::STATE_CLOSING_THEN_OPEN);
           }},
          {"a second request with nothing to close", kInvalid,
           [](Saved& s) {
             *s.mutable_offers(0)->mutable_reopen() = s.offers(0).open();
           }},
          {"open but not offered", kInvalid,
           [](Saved& s) { s.mutable_offers(0)->set_is_offered(false); }},
          {"offered but not requested", kInvalid,
           [](Saved& s) { s.set_offers_requested(false); }},
          {"open and rescinding", kInvalid,
           [](Saved& s) { s.mutable_offers(0)->set_is_rescinding(true); }},
          {"torn down GPADL of a closed channel", kInvalid,
           [](Saved& s) {
             s.mutable_gpadls(1)->set_byte_count(26 * 4096);
             s.mutable_gpadls(1)->set_state(Gpadl::STATE_TEARING_DOWN);
           }},
          {"sub-channel before 2.4", kInvalid,
           [](Saved& s) { s.mutable_contact()->set_version(0x10001); }},
      });
}

TEST(SavedStateTest, RefusesPhasesThatContradict) {
  CheckAll(Connected(),
           {
               {"connected without contact", kInvalid,
                [](Saved& s) { s.mutable_contact()->set_supported(false); }},
               {"connected after a failed contact", kInvalid,
                [](Saved& s) { s.mutable_contact()->set_connection_state(2); }},
               {"disconnected with channels open", kInvalid,
                [](Saved& s) { s.set_phase(Saved::PHASE_DISCONNECTED); }},
               {"resetting with channels open", kInvalid,
                [](Saved& s) { s.set_phase(Saved::PHASE_RESETTING); }},
               {"a reset that is not", kInvalid,
                [](Saved& s) {
                  s.set_after_reset(Saved::AFTER_RESET_UNLOAD_RESPONSE);
                }},
               {"a contact that nothing waits for", kInvalid,
                [](Saved& s) { *s.mutable_pending_contact() = s.contact(); }},
           });
  CheckAll(
      Resetting(),
      {
          {"a reset that waits for nothing", kInvalid,
           [](Saved& s) {
             s.mutable_offers(0)->set_state(Offer::STATE_CLOSED);
             s.mutable_offers(0)->clear_open();
           }},
          {"a message during a reset", kInvalid,
           [](Saved& s) { s.add_outgoing()->set_type(17); }},
          {"a version that is not here", kNotHere,
           [](Saved& s) { s.mutable_pending_contact()->set_version(0x70000); }},
      });
  CheckAll(Disconnected(),
           {
               {"offers requested", kInvalid,
                [](Saved& s) { s.set_offers_requested(true); }},
               {"an offer message", kInvalid,
                [](Saved& s) {
                  s.add_outgoing()->set_type(1);
                  s.mutable_outgoing(0)->set_channel_id(1);
                }},
               {"a version response for nobody's acceptance", kInvalid,
                [](Saved& s) {
                  s.add_outgoing()->set_type(15);
                  s.mutable_contact()->set_version(0x50003);
                  s.mutable_contact()->set_supported(true);
                }},
           });
}

TEST(SavedStateTest, RefusesMessagesThatCannotBeDue) {
  struct Outgoing {
    const char* what;
    uint32_t type, channel, id, status;
    StatusCode code;
  };
  const Outgoing kCases[] = {
      {"all offers", 4, 0, 0, 0, StatusCode::kOk},
      {"failed open of any channel", 6, 999, 1, 5, StatusCode::kOk},
      {"open", 6, 1, 1, 0, StatusCode::kOk},
      {"created", 10, 1, 1, 0, StatusCode::kOk},
      {"torn down", 12, 0, 77, 0, StatusCode::kOk},
      {"modified", 24, 1, 0, 0, StatusCode::kOk},
      {"offer", 1, 1, 0, 0, StatusCode::kOk},

      {"offer of nothing", 1, 9, 0, 0, kInvalid},
      {"offer with a status", 1, 1, 0, 1, kInvalid},
      {"offer after its rescind", 1, 4, 0, 0, kInvalid},
      {"rescind of a live channel", 2, 1, 0, 0, kInvalid},
      {"all offers with a channel", 4, 1, 0, 0, kInvalid},
      {"successful open of nothing", 6, 999, 1, 0, kInvalid},
      {"created on nothing", 10, 9, 1, 0, kInvalid},
      {"torn down with a channel", 12, 1, 1, 0, kInvalid},
      {"version response in the middle", 15, 0, 0, 0, kInvalid},
      {"unload response while connected", 17, 0, 0, 0, kInvalid},
      {"modified with an id", 24, 1, 1, 0, kInvalid},
      {"guest's message", 5, 1, 0, 0, kInvalid},
      {"no message", 0, 0, 0, 0, kInvalid},
      {"unknown message", 30, 0, 0, 0, kInvalid},
  };
  for (const Outgoing& c : kCases) {
    Saved saved = Connected();
    auto* message = saved.add_outgoing();
    message->set_type(c.type);
    message->set_channel_id(c.channel);
    message->set_id(c.id);
    message->set_status(c.status);
    EXPECT_EQ(Code(saved), c.code) << c.what;
  }
  Saved saved = Connected();
  saved.add_outgoing()->set_type(4);
  saved.add_outgoing()->set_type(4);
  EXPECT_EQ(Code(saved), kInvalid) << "all offers twice";
  saved = Connected();
  saved.mutable_contact()->set_version(0x50002);
  saved.add_outgoing()->set_type(24);
  saved.mutable_outgoing(1)->set_channel_id(1);
  EXPECT_EQ(Code(saved), kInvalid) << "modified before 5.3";
  ServerConnectionOptions options = TestServerOptions();
  for (size_t i = 0; i < 20000; ++i) saved.add_outgoing()->set_type(12);
  EXPECT_EQ(Code(saved, options), kTooMany);
}

// bad:S1
// bad:S2
TEST(SavedStateTest, SurvivesEveryTruncationAndBitFlip) {
  const std::string good = Connected().SerializeAsString();
  const auto parse = [](const std::string& bytes) {
    return ParseServerConnection(
        {reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()},
        TestServerOptions());
  };
  for (size_t size = 0; size < good.size(); ++size) {
    (void)parse(good.substr(0, size));
  }
  RecordingEvents events;
  int accepted = 0;
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    std::string bytes = good;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << (bit % 8)));
    absl::StatusOr<CheckedServerConnection> checked = parse(bytes);
    if (!checked.ok()) continue;
    ++accepted;
    auto connection = ServerConnection::Restore(*std::move(checked),
                                                TestServerOptions(), &events);
    connection->FinishRestore();
    Drain(*connection);
  }
  // Flips in user data and the like are no contradiction.
  EXPECT_GT(accepted, 0);
}

}  // namespace
}  // namespace ferrybus
