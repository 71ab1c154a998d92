// SPDX-License-Identifier: MIT
//
// Channels of the C interface: their settings, states and callbacks, as the
// documents have them.

#include <cstring>

#include "ferrybus/kmcl/channel.h"
#include "ferrybus/kmcl/kmcl_test_util.h"
#include "gtest/gtest.h"

namespace ferrybus::kmcl {
namespace {

using Log = std::vector<std::string>;

constexpr UINT32 kWait = VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION;

class KmclChannelTest : public ::testing::Test {
 protected:
  void TearDown() override {
    server_.LetGo();
    client_.LetGo();
  }
  // Both ends open, the server started.
  void Open() {
    server_.Enable();
    client_.Enable();
    VmbChannelStart(server_.channel);
    loopback_.Pump();
    (void)server_.TakeLog();
    (void)client_.TakeLog();
  }

  Loopback loopback_;
  End server_{loopback_.server, true};
  End client_{loopback_.client, false};
};

// doc:KL1 doc:KL8
TEST_F(KmclChannelTest, AnAllocatedChannelIsDisabledAndTakesSettings) {
  VMBCHANNEL channel = nullptr;
  ASSERT_EQ(VmbChannelAllocate(loopback_.server, 1, &channel), STATUS_SUCCESS);
  EXPECT_EQ(VmbChannelGetPointer(channel), nullptr);
  int mine = 0;
  VmbChannelSetPointer(channel, &mine);
  EXPECT_EQ(VmbChannelGetPointer(channel), &mine);
  EXPECT_EQ(VmbChannelInitSetMaximumPacketSize(channel, 100), STATUS_SUCCESS);
  EXPECT_EQ(VmbServerChannelInitSetFlags(channel, 0), STATUS_SUCCESS);
  VmbChannelCleanup(channel);
  EXPECT_EQ(VmbChannelAllocate(nullptr, 1, &channel),
            STATUS_INVALID_PARAMETER_1);
}

// doc:KL2 doc:ST18
TEST_F(KmclChannelTest, CleanupWantsADisabledChannel) {
  Open();
  EXPECT_DEATH(VmbChannelCleanup(server_.channel), "not disabled");
  VmbChannelDisable(server_.channel);
}

// doc:KL3 doc:KL6 doc:KC11 doc:KC13
TEST_F(KmclChannelTest, AnEnabledServerIsOfferedWithItsIdentity) {
  EXPECT_EQ(
      VmbServerChannelInitSetVmbusHandle(server_.channel, loopback_.server),
      STATUS_SUCCESS);
  EXPECT_EQ(VmbServerChannelInitSetVmbusHandle(server_.channel, nullptr),
            STATUS_INVALID_PARAMETER_2);
  client_.Enable();
  server_.Enable();
  loopback_.Pump();
  EXPECT_EQ(client_.log, (Log{"opened", "started", "post-started"}));
  GUID at_server;
  GUID at_client;
  VmbChannelGetInterfaceInstance(server_.channel, &at_server);
  VmbChannelGetInterfaceInstance(client_.channel, &at_client);
  const GUID wanted = TestInstance(1);
  EXPECT_EQ(std::memcmp(&at_server, &wanted, sizeof(GUID)), 0);
  EXPECT_EQ(std::memcmp(&at_client, &wanted, sizeof(GUID)), 0);
}

// doc:KL4 doc:ST1 doc:ST3
TEST_F(KmclChannelTest, AClientTakesAnOfferThatIsThereOrComesLater) {
  server_.Enable();
  loopback_.Pump();
  client_.Enable();
  EXPECT_TRUE(client_.log.empty()) << "it did not wait";
  loopback_.Pump();
  EXPECT_EQ(client_.log.front(), "opened");
  End later(loopback_.client, false, 2);
  later.Enable();
  loopback_.Pump();
  EXPECT_TRUE(later.log.empty());
  End its_server(loopback_.server, true, 2);
  its_server.Enable();
  loopback_.Pump();
  EXPECT_EQ(later.log, (Log{"opened", "started", "post-started"}));
}

// doc:KL5 doc:ST10
TEST_F(KmclChannelTest, DisablingATakesTheOfferBackAndEndsAllCallbacks) {
  Open();
  VmbChannelDisable(server_.channel);
  EXPECT_EQ(server_.TakeLog(), (Log{"suspend", "closed"}));
  loopback_.Pump();
  EXPECT_EQ(client_.TakeLog(), (Log{"suspend", "closed"}));
  EXPECT_TRUE(server_.log.empty());
}

// doc:KL7 doc:KC10
TEST_F(KmclChannelTest, TheMmioWindowIsThereOnceOpen) {
  ferrybus_set_mmio(loopback_.server, 0xf000000000, 64 << 20);
  ferrybus_set_mmio(loopback_.client, 0xe000000000, 64 << 20);
  EXPECT_EQ(VmbServerChannelInitSetMmioMegabytes(server_.channel, 0, 0),
            STATUS_INVALID_PARAMETER);
  EXPECT_EQ(VmbServerChannelInitSetMmioMegabytes(server_.channel, 3, 1),
            STATUS_SUCCESS);
  UINT64 address = 1;
  UINT64 size = 1;
  VmbChannelGetMmioSpace(server_.channel, &address, &size);
  EXPECT_EQ(size, 0u);
  Open();
  VmbChannelGetMmioSpace(server_.channel, &address, &size);
  EXPECT_EQ(address, 0xf000000000);
  EXPECT_EQ(size, 4u << 20);
  // The client knows the size from the offer.
  VmbChannelGetMmioSpace(client_.channel, &address, &size);
  EXPECT_EQ(address, 0xe000000000);
  EXPECT_EQ(size, 4u << 20);
}

// doc:KL9
TEST_F(KmclChannelTest, ASecondReferenceToABusIsClosedByItself) {
  HANDLE second = nullptr;
  ASSERT_EQ(VmbConvertVmbusHandleToKernelHandle(loopback_.server, &second),
            STATUS_SUCCESS);
  {
    End end(second, true, 7);
    ferrybus_close_parent(second);
    end.Enable();
    loopback_.Pump();
  }
  EXPECT_EQ(VmbConvertVmbusHandleToKernelHandle(nullptr, &second),
            STATUS_INVALID_PARAMETER_1);
}

// doc:KC4
TEST_F(KmclChannelTest, TheSecondPacketCallbackIsOptional) {
  EXPECT_EQ(
      VmbChannelInitSetProcessPacketCallbacks(
          server_.channel,
          [](VMBCHANNEL, VMBPACKETCOMPLETION completion, PVOID, UINT32,
             UINT32) { VmbChannelPacketComplete(completion, nullptr, 0); },
          nullptr),
      STATUS_SUCCESS);
  Open();
  EXPECT_EQ(client_.Send("request!", kWait), STATUS_SUCCESS);
  loopback_.Pump();
  EXPECT_EQ(client_.completions.size(), 1u);
}

// doc:KC5 doc:KC6
TEST_F(KmclChannelTest, StateCallbacksHaveAVersionAndASize) {
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS callbacks;
  std::memset(&callbacks, 0xff, sizeof(callbacks));
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(&callbacks);
  EXPECT_EQ(callbacks.Version, 1u);
  EXPECT_EQ(callbacks.Size, sizeof(callbacks));
  EXPECT_EQ(sizeof(callbacks), 48u);
  EXPECT_EQ(callbacks.EvtChannelOpened, nullptr);
  EXPECT_EQ(callbacks.EvtChannelPostStarted, nullptr);
  // All of them null is fine.
  EXPECT_EQ(VmbChannelInitSetStateChangeCallbacks(server_.channel, &callbacks),
            STATUS_SUCCESS);
  Open();
  EXPECT_TRUE(server_.log.empty());
  VmbChannelDisable(server_.channel);
  ++callbacks.Size;
  EXPECT_EQ(VmbChannelInitSetStateChangeCallbacks(server_.channel, &callbacks),
            STATUS_INVALID_PARAMETER_2);
  --callbacks.Size;
  ++callbacks.Version;
  EXPECT_EQ(VmbChannelInitSetStateChangeCallbacks(server_.channel, &callbacks),
            STATUS_INVALID_PARAMETER_2);
}

// doc:KC7
TEST_F(KmclChannelTest, AChannelHasAFriendlyName) {
  EXPECT_STREQ(ferrybus_friendly_name(server_.channel), "");
  const uint16_t text[] = {'N', 'e', 't', 0xe4, 0xd83d, 0xde00, 0xd800};
  const UNICODE_STRING name = {sizeof(text), sizeof(text), text};
  ASSERT_EQ(VmbChannelInitSetFriendlyName(server_.channel, &name),
            STATUS_SUCCESS);
  EXPECT_STREQ(ferrybus_friendly_name(server_.channel),
               "Net\xc3\xa4\xf0\x9f\x98\x80\xef\xbf\xbd");
}

// doc:KC8 doc:KC9
TEST_F(KmclChannelTest, UnknownFlagsAreRefused) {
  EXPECT_EQ(VmbChannelInitSetFlags(server_.channel, 1), STATUS_SUCCESS);
  EXPECT_EQ(VmbChannelInitSetFlags(server_.channel, 2),
            STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(VmbServerChannelInitSetFlags(server_.channel, 0x1f),
            STATUS_SUCCESS);
  EXPECT_EQ(VmbServerChannelInitSetFlags(server_.channel, 0x20),
            STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(VmbServerChannelInitSetFlags(client_.channel, 0),
            STATUS_INVALID_PARAMETER_1);
}

// doc:KC12
TEST_F(KmclChannelTest, AnOfferForAnotherTrustLevelIsNotSeen) {
  EXPECT_EQ(VmbServerChannelInitSetTargetVtl(server_.channel, 3),
            STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(VmbServerChannelInitSetTargetVtl(server_.channel, 1),
            STATUS_SUCCESS);
  Open();
  VmbChannelPause(server_.channel);
  EXPECT_TRUE(server_.log.empty() && client_.log.empty());
  VmbChannelDisable(server_.channel);
  EXPECT_EQ(VmbServerChannelInitSetTargetVtl(server_.channel, 0),
            STATUS_SUCCESS);
  server_.Enable();
  loopback_.Pump();
  EXPECT_EQ(client_.log.front(), "opened");
}

// doc:KC15
TEST_F(KmclChannelTest, AClientChoosesThePagesOfItsRings) {
  EXPECT_EQ(VmbClientChannelInitSetRingBufferPageCount(server_.channel, 1, 1),
            STATUS_INVALID_PARAMETER_1);
  EXPECT_EQ(VmbClientChannelInitSetRingBufferPageCount(client_.channel, 0, 1),
            STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(VmbClientChannelInitSetRingBufferPageCount(client_.channel, 1, 0),
            STATUS_INVALID_PARAMETER_3);
  ASSERT_EQ(VmbClientChannelInitSetRingBufferPageCount(client_.channel, 30, 20),
            STATUS_SUCCESS);
  // 4 MiB of RAM: all but page 0 and the rings can still be allocated.
  constexpr UINT32 kRings = (30 + 1 + 20 + 1) * 4096;
  Open();
  EXPECT_EQ(
      ferrybus_allocate_guest_memory(loopback_.client, (4 << 20) - kRings),
      nullptr);
  EXPECT_NE(ferrybus_allocate_guest_memory(loopback_.client,
                                           (4 << 20) - 4096 - kRings),
            nullptr);
}

// doc:KC22
TEST_F(KmclChannelTest, ServerFlagsAreInTheOffer) {
  const struct {
    UINT32 init;
    uint16_t offer;
  } kFlags[] = {{VMBUS_SERVER_CHANNEL_INIT_FLAG_LOOPBACK_OFFER, 0x100},
                {VMBUS_SERVER_CHANNEL_INIT_FLAG_ENUMERATE_DEVICE_INTERFACE, 1},
                {VMBUS_SERVER_CHANNEL_INIT_FLAG_OFFER_AS_PIPE, 0x10},
                {VMBUS_SERVER_CHANNEL_INIT_FLAG_FORCE_NEW_CHANNEL, 0},
                {VMBUS_SERVER_CHANNEL_INIT_FLAG_TLNPI_PROVIDER_OFFER, 0x2000}};
  uint8_t number = 1;
  for (const auto& each : kFlags) {
    End end(loopback_.server, true, ++number);
    ASSERT_EQ(VmbServerChannelInitSetFlags(end.channel, each.init),
              STATUS_SUCCESS);
    EXPECT_EQ(OfferFlags(end.channel->settings), each.offer) << each.init;
  }
}

// doc:KC16 doc:CB6
TEST_F(KmclChannelTest, AClientWithoutAnInstanceTakesAny) {
  ASSERT_EQ(VmbClientChannelInitSetTargetPnp(
                client_.channel, &kTestType, nullptr,
                [](VMBCHANNEL channel, NTSTATUS) {
                  End::Of(channel).log.push_back("pnp failure");
                }),
            STATUS_SUCCESS);
  client_.Enable();
  End other(loopback_.server, true, 9);
  other.open_status = STATUS_UNSUCCESSFUL;
  other.Enable();
  loopback_.Pump();
  EXPECT_EQ(client_.TakeLog(), Log{"pnp failure"});
  server_.Enable();
  loopback_.Pump();
  EXPECT_EQ(client_.TakeLog(), (Log{"opened", "started", "post-started"}));
}

// doc:KC17
TEST_F(KmclChannelTest, SettingsAreRefusedOnceEnabled) {
  Open();
  const VMBCHANNEL s = server_.channel;
  const VMBCHANNEL c = client_.channel;
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS callbacks;
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(&callbacks);
  const UNICODE_STRING name = {0, 0, nullptr};
  const GUID guid = TestInstance(3);
  for (const NTSTATUS status : {
           VmbChannelInitSetMaximumPacketSize(s, 1),
           VmbChannelInitSetMaximumExternalData(s, 1, 1),
           VmbChannelInitSetMaximumPacketCount(s, 1),
           VmbChannelInitSetClientContextSize(s, 1),
           VmbChannelInitSetProcessPacketCallbacks(s, nullptr, nullptr),
           VmbChannelInitSetStateChangeCallbacks(s, &callbacks),
           VmbChannelInitSetFriendlyName(s, &name),
           VmbChannelInitSetFlags(s, 0),
           VmbServerChannelInitSetFlags(s, 0),
           VmbServerChannelInitSetMmioMegabytes(s, 1, 1),
           VmbServerChannelInitSetTargetInterfaceId(s, &guid, &guid),
           VmbServerChannelInitSetTargetVtl(s, 0),
           VmbServerChannelInitSetVmbusHandle(s, loopback_.server),
           VmbServerChannelInitSetSaveRestorePacketCallbacks(s, nullptr,
                                                             nullptr),
           VmbClientChannelInitSetRingBufferPageCount(c, 1, 1),
           VmbClientChannelInitSetTargetPnp(c, &guid, &guid, nullptr),
           ferrybus_set_user_data(c, "", 0),
       }) {
    EXPECT_EQ(status, STATUS_INVALID_PARAMETER_1);
  }
}

// doc:KC20
TEST_F(KmclChannelTest, TheInterruptLatencyIsSetWhileOpen) {
  UINT16 before = 7;
  EXPECT_EQ(VmbChannelSetInterruptLatency(client_.channel, 100, &before),
            STATUS_INVALID_DEVICE_STATE);
  Open();
  EXPECT_EQ(VmbChannelSetInterruptLatency(client_.channel, 100, &before),
            STATUS_SUCCESS);
  EXPECT_EQ(before, 0);
  EXPECT_EQ(VmbChannelSetInterruptLatency(client_.channel, 200, &before),
            STATUS_SUCCESS);
  EXPECT_EQ(before, 100);
  EXPECT_EQ(VmbChannelSetInterruptLatency(server_.channel, 1, &before),
            STATUS_NOT_SUPPORTED);
}

// doc:KC23
TEST_F(KmclChannelTest, OfferAndOpenCarryUserData) {
  std::string data(VMBUS_SERVER_CHANNEL_INIT_MAXIMUM_OFFER_DATA, 's');
  ASSERT_EQ(ferrybus_set_user_data(server_.channel, data.data(), 120),
            STATUS_SUCCESS);
  EXPECT_EQ(ferrybus_set_user_data(server_.channel, data.data(), 121),
            STATUS_INVALID_PARAMETER_3);
  ASSERT_EQ(ferrybus_set_user_data(client_.channel, "hello", 5),
            STATUS_SUCCESS);
  EXPECT_EQ(ferrybus_peer_user_data(server_.channel), nullptr);
  Open();
  EXPECT_EQ(std::memcmp(ferrybus_peer_user_data(client_.channel), data.data(),
                        data.size()),
            0);
  EXPECT_STREQ(
      static_cast<const char*>(ferrybus_peer_user_data(server_.channel)),
      "hello");
}

// doc:KC25
TEST_F(KmclChannelTest, TheTablesHaveEveryFunction) {
  KMCL_SERVER_INTERFACE_V1 server = {};
  KMCL_CLIENT_INTERFACE_V1 client = {};
  EXPECT_EQ(sizeof(client), 41 * sizeof(void*));
  EXPECT_EQ(sizeof(server), (41 + 14) * sizeof(void*));
  ASSERT_EQ(ferrybus_query_interface(1, 1, sizeof(server), &server),
            STATUS_SUCCESS);
  ASSERT_EQ(ferrybus_query_interface(0, 1, sizeof(client), &client),
            STATUS_SUCCESS);
  EXPECT_EQ(ferrybus_query_interface(0, 2, sizeof(client), &client),
            STATUS_NOT_SUPPORTED);
  EXPECT_EQ(ferrybus_query_interface(1, 1, sizeof(client), &client),
            STATUS_NOT_SUPPORTED);
  void* pointers[41 + 14];
  static_assert(sizeof(pointers) == sizeof(server));
  std::memcpy(pointers, &server, sizeof(server));
  for (const void* pointer : pointers) EXPECT_NE(pointer, nullptr);
  EXPECT_EQ(client.VmbPacketSend, &VmbPacketSend);
  EXPECT_EQ(server.Server.VmbPacketRestore, &VmbPacketRestore);
}

}  // namespace
}  // namespace ferrybus::kmcl
