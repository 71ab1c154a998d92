// SPDX-License-Identifier: MIT
//
// Packets of the C interface, in both directions.

#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>

#include "ferrybus/kmcl/kmcl_test_util.h"
#include "gtest/gtest.h"

namespace ferrybus::kmcl {
namespace {

using Log = std::vector<std::string>;

constexpr UINT32 kWait = VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION;

class KmclPacketTest : public ::testing::Test {
 protected:
  void TearDown() override {
    server_.LetGo();
    client_.LetGo();
  }
  void Open() {
    server_.Enable();
    client_.Enable();
    VmbChannelStart(server_.channel);
    loopback_.Pump();
    (void)server_.TakeLog();
    (void)client_.TakeLog();
  }
  char* GuestMemory(uint32_t bytes) {
    return static_cast<char*>(
        ferrybus_allocate_guest_memory(loopback_.client, bytes));
  }
  NTSTATUS Ask(UINT32 room_bytes, const int64_t* timeout, UINT32* bytes,
               char* room, UINT32 flags = kWait) {
    char question[] = "question";
    *bytes = room_bytes;
    return VmbChannelSendSynchronousRequest(
        client_.channel, question, 8, nullptr, flags, room, bytes, timeout);
  }
  // Until the ring is full and more is queued.
  int FillRing(End& end) {
    const std::string payload(1000, 'x');
    int sent = 0;
    for (; sent < 100; ++sent) {
      if (!NT_SUCCESS(end.Send(payload))) break;
    }
    return sent;
  }

  Loopback loopback_;
  End server_{loopback_.server, true};
  End client_{loopback_.client, false};
};

// -- Packet objects ----------------------------------------------------------

// doc:KP1 doc:KP3
TEST_F(KmclPacketTest, PacketObjectsAreUsedAgainUpToTheLimit) {
  ASSERT_EQ(VmbChannelInitSetMaximumPacketCount(client_.channel, 2),
            STATUS_SUCCESS);
  const VMBPACKET first = VmbPacketAllocate(client_.channel);
  const VMBPACKET second = VmbPacketAllocate(client_.channel);
  ASSERT_TRUE(first != nullptr && second != nullptr);
  EXPECT_EQ(VmbPacketAllocate(client_.channel), nullptr);
  VmbPacketFree(first);
  EXPECT_EQ(VmbPacketAllocate(client_.channel), first);
  VmbPacketFree(first);
  VmbPacketFree(second);
}

// doc:KP2
TEST_F(KmclPacketTest, TheDefaultRoutineFreesThePacket) {
  ASSERT_EQ(VmbChannelInitSetMaximumPacketCount(client_.channel, 1),
            STATUS_SUCCESS);
  Open();
  for (int i = 0; i < 5; ++i) {
    const VMBPACKET packet = VmbPacketAllocate(client_.channel);
    ASSERT_NE(packet, nullptr);
    char text[] = "request!";
    ASSERT_EQ(VmbPacketSend(packet, text, 8, nullptr, 0), STATUS_SUCCESS);
    EXPECT_EQ(VmbPacketAllocate(client_.channel), nullptr);
    loopback_.Pump();
  }
}

// doc:KP4 doc:KP5 doc:KP6 doc:KP7
TEST_F(KmclPacketTest, APacketInMemoryOfTheCaller) {
  Open();
  const UINT32 bytes = VmbChannelSizeofPacket(client_.channel);
  const std::unique_ptr<void, decltype(&std::free)> memory(std::malloc(bytes),
                                                           std::free);
  const VMBPACKET packet = static_cast<VMBPACKET>(memory.get());
  EXPECT_EQ(VmbPacketInitialize(client_.channel, packet, bytes - 1),
            STATUS_INVALID_PARAMETER_3);
  ASSERT_EQ(VmbPacketInitialize(client_.channel, packet, bytes),
            STATUS_SUCCESS);
  EXPECT_EQ(VmbPacketGetChannel(packet), client_.channel);
  EXPECT_EQ(VmbPacketGetPointer(packet), nullptr);
  int completed = 0;
  VmbPacketSetPointer(packet, &completed);
  EXPECT_EQ(VmbPacketGetPointer(packet), &completed);
  char text[] = "request!";
  EXPECT_EQ(VmbPacketSend(packet, text, 8, nullptr, 0),
            STATUS_INVALID_PARAMETER_1)
      << "it has no completion routine";
  VmbPacketSetCompletionRoutine(
      packet, [](VMBPACKET done, NTSTATUS, PVOID, UINT32) {
        ++*static_cast<int*>(VmbPacketGetPointer(done));
      });
  EXPECT_EQ(VmbPacketSend(packet, text, 8, nullptr, 0), STATUS_SUCCESS);
  EXPECT_EQ(VmbPacketSend(packet, text, 8, nullptr, 0),
            STATUS_INVALID_PARAMETER_1)
      << "it is in flight";
  loopback_.Pump();
  EXPECT_EQ(completed, 1);
  EXPECT_EQ(VmbPacketSend(packet, text, 8, nullptr, 0), STATUS_SUCCESS);
  loopback_.Pump();
  EXPECT_EQ(completed, 2);
}

// -- Sending -----------------------------------------------------------------

// doc:KC1 doc:KP8
TEST_F(KmclPacketTest, AsLongAsTheMaximumAndNotLonger) {
  EXPECT_EQ(VmbChannelInitSetMaximumPacketSize(client_.channel, 0),
            STATUS_INVALID_PARAMETER_2);
  ASSERT_EQ(VmbChannelInitSetMaximumPacketSize(client_.channel, 100),
            STATUS_SUCCESS);
  Open();
  EXPECT_EQ(client_.Send(std::string(100, 'x')), STATUS_SUCCESS);
  EXPECT_EQ(client_.Send(std::string(101, 'x')), STATUS_INVALID_PARAMETER_3);
  loopback_.Pump();
  ASSERT_EQ(server_.held.size(), 1u);
  EXPECT_EQ(server_.held[0].payload.substr(0, 100), std::string(100, 'x'));
}

// doc:KP10 doc:KP11 doc:CB9
TEST_F(KmclPacketTest, ACompletionRoutineRunsOnceForEachSend) {
  Open();
  EXPECT_EQ(client_.Send("no wait."), STATUS_SUCCESS);
  EXPECT_EQ(client_.Send("wait....", kWait), STATUS_SUCCESS);
  EXPECT_TRUE(client_.completions.empty());
  loopback_.Pump();
  ASSERT_EQ(client_.completions.size(), 1u) << "the one that is in the ring";
  EXPECT_EQ(client_.completions[0].reply, "");
  ASSERT_EQ(server_.held.size(), 2u);
  server_.AnswerAll();
  loopback_.Pump();
  ASSERT_EQ(client_.completions.size(), 2u);
  EXPECT_EQ(client_.completions[1].reply, "wait....");
}

// doc:KP12
TEST_F(KmclPacketTest, ABufferMayBeUsedAgainWhenTheSendReturns) {
  Open();
  FillRing(client_);
  std::string text = "original";
  ASSERT_EQ(client_.Send(text, VMBUS_CHANNEL_FORMAT_FLAG_PAGED_BUFFER),
            STATUS_SUCCESS);
  text = "changed!";
  for (int i = 0; i < 10; ++i) {
    loopback_.Pump();
    if (!server_.held.empty()) text = server_.held.back().payload;
    server_.AnswerAll();
  }
  EXPECT_EQ(text, "original");
}

// doc:KP16
TEST_F(KmclPacketTest, AFullRingQueuesInOrder) {
  ASSERT_EQ(VmbClientChannelInitSetRingBufferPageCount(client_.channel, 1, 1),
            STATUS_SUCCESS);
  // No larger than asked for.
  for (End* end : {&client_, &server_}) {
    ASSERT_EQ(VmbChannelInitSetMaximumPacketSize(end->channel, 1008),
              STATUS_SUCCESS);
  }
  ASSERT_EQ(VmbChannelInitSetMaximumExternalData(client_.channel, 4096, 1),
            STATUS_SUCCESS);
  Open();
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(client_.Send("request " + std::to_string(100 + i) +
                           std::string(989, ' ')),
              STATUS_SUCCESS);
  }
  loopback_.Pump(100);
  ASSERT_EQ(server_.held.size(), 50u);
  EXPECT_EQ(client_.completions.size(), 50u);
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(server_.held[i].payload.substr(8, 3), std::to_string(100 + i));
  }
}

// -- Synchronous requests ----------------------------------------------------

// doc:KP19 doc:KP20
TEST_F(KmclPacketTest, ASynchronousRequestGivesTheAnswerAndItsLength) {
  Open();
  server_.answers = true;
  char room[16];
  UINT32 bytes = 0;
  ASSERT_EQ(Ask(16, nullptr, &bytes, room), STATUS_SUCCESS);
  EXPECT_EQ(std::string(room, bytes), "question");
  EXPECT_EQ(Ask(15, nullptr, &bytes, room), STATUS_INVALID_PARAMETER);
  EXPECT_EQ(Ask(0, nullptr, &bytes, room), STATUS_BUFFER_TOO_SMALL);
}

// doc:KP21
TEST_F(KmclPacketTest, WithoutWaitingAFullRingRefuses) {
  Open();
  VmbChannelPause(server_.channel);
  FillRing(client_);
  const int64_t zero = 0;
  UINT32 bytes = 0;
  EXPECT_EQ(Ask(0, &zero, &bytes, nullptr, 0), STATUS_BUFFER_OVERFLOW);
  VmbChannelStart(server_.channel);
  for (int i = 0; i < 10; ++i) {
    loopback_.Pump();
    for (const End::Held& each : server_.held) {
      EXPECT_NE(each.payload, "question") << "it was queued";
    }
    server_.AnswerAll();
  }
  EXPECT_EQ(Ask(0, &zero, &bytes, nullptr, 0), STATUS_SUCCESS);
}

// doc:KP22
TEST_F(KmclPacketTest, ATimeThatIsOverCancels) {
  Open();
  const int64_t soon = -10 * 1000;  // a millisecond
  UINT32 bytes = 0;
  char room[8];
  EXPECT_EQ(Ask(8, &soon, &bytes, room), STATUS_CANCELLED);
  ASSERT_EQ(server_.held.size(), 1u);
  server_.AnswerAll();  // too late: dropped
  loopback_.Pump();
  EXPECT_TRUE(client_.completions.empty());
  server_.answers = true;
  EXPECT_EQ(Ask(8, nullptr, &bytes, room), STATUS_SUCCESS);
}

// doc:KP22
TEST_F(KmclPacketTest, ATimeThatIsOverTakesAQueuedRequestBack) {
  Open();
  VmbChannelPause(server_.channel);
  FillRing(client_);
  const int64_t past = 1;  // long before 1970
  UINT32 bytes = 0;
  EXPECT_EQ(Ask(0, &past, &bytes, nullptr), STATUS_CANCELLED);
  VmbChannelStart(server_.channel);
  for (int i = 0; i < 10; ++i) {
    loopback_.Pump();
    for (const End::Held& each : server_.held) {
      EXPECT_NE(each.payload, "question");
    }
    server_.AnswerAll();
  }
}

// doc:KP23
TEST_F(KmclPacketTest, AClosingEndsASynchronousRequest) {
  UINT32 bytes = 0;
  char room[8];
  EXPECT_EQ(Ask(8, nullptr, &bytes, room), STATUS_DEVICE_REMOVED);
  Open();
  // The server goes while the client waits.
  server_.on_packet = [&](const End::Held& packet) {
    VmbChannelPacketFail(packet.completion);
  };
  const int64_t second = -10 * 1000 * 1000;
  std::thread nobody;
  client_.on_suspend = [&] { client_.log.push_back("gone"); };
  End* const server = &server_;
  End other(loopback_.client, false, 2);
  End its_server(loopback_.server, true, 2);
  its_server.Enable();
  VmbChannelStart(its_server.channel);
  other.on_post_started = [&, server] { VmbChannelDisable(server->channel); };
  other.Enable();
  EXPECT_EQ(Ask(8, &second, &bytes, room), STATUS_DEVICE_REMOVED);
  client_.on_suspend = nullptr;
}

// doc:KP24
TEST_F(KmclPacketTest, AServerOnlySendsWithoutWaiting) {
  Open();
  char text[] = "from server";
  const int64_t zero = 0;
  const int64_t one = 1;
  UINT32 bytes = 0;
  const auto send = [&](UINT32 flags, const int64_t* timeout) {
    return VmbChannelSendSynchronousRequest(server_.channel, text, 8, nullptr,
                                            flags, nullptr, &bytes, timeout);
  };
  EXPECT_EQ(send(0, nullptr), STATUS_NOT_SUPPORTED);
  EXPECT_EQ(send(0, &one), STATUS_NOT_SUPPORTED);
  EXPECT_EQ(send(kWait, &zero), STATUS_NOT_SUPPORTED);
  EXPECT_EQ(send(0, &zero), STATUS_SUCCESS);
  loopback_.Pump();
  EXPECT_EQ(client_.held.size(), 1u);
  while (NT_SUCCESS(send(0, &zero))) {
  }
  EXPECT_EQ(send(0, &zero), STATUS_BUFFER_OVERFLOW);
}

// -- Pipes -------------------------------------------------------------------

// doc:KC21 doc:KC8
TEST_F(KmclPacketTest, APipeCarriesDatagramsOfAnyLength) {
  ASSERT_EQ(VmbServerChannelInitSetFlags(
                server_.channel, VMBUS_SERVER_CHANNEL_INIT_FLAG_OFFER_AS_PIPE),
            STATUS_SUCCESS);
  Open();
  for (const std::string text : {"", "x", "1234567", "12345678", "123456789"}) {
    ASSERT_EQ(client_.Send(text), STATUS_SUCCESS);
    ASSERT_EQ(server_.Send(text), STATUS_SUCCESS);
    loopback_.Pump();
    ASSERT_EQ(server_.held.size(), 1u);
    ASSERT_EQ(client_.held.size(), 1u);
    EXPECT_EQ(server_.held[0].payload, text);
    EXPECT_EQ(client_.held[0].payload, text);
    server_.AnswerAll();
    client_.AnswerAll();
  }
  EXPECT_EQ(client_.Send("x", kWait), STATUS_NOT_SUPPORTED);
  char* const memory = GuestMemory(4096);
  MDL mdl = {nullptr, memory, 4096};
  const VMBPACKET packet = client_.Packet();
  char text[] = "x";
  EXPECT_EQ(VmbPacketSend(packet, text, 1, &mdl, kWait), STATUS_NOT_SUPPORTED);
  VmbPacketFree(packet);
}

}  // namespace
}  // namespace ferrybus::kmcl
