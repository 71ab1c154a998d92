// SPDX-License-Identifier: MIT
//
// Packets that came: completing, giving back, quotas, external data; and
// GPADLs.

#include <cstring>
#include <thread>

#include "ferrybus/kmcl/kmcl_test_util.h"
#include "gtest/gtest.h"

namespace ferrybus::kmcl {
namespace {

using Log = std::vector<std::string>;

constexpr UINT32 kWait = VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION;
constexpr UINT32 kForce = VMBUS_CHANNEL_FORMAT_FLAG_FORCE_MDL_LENGTH;

class KmclIncomingTest : public ::testing::Test {
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
  uint64_t PfnOf(const char* memory) {
    char* const any = GuestMemory(4096);
    // The first free page is known from a map of the whole: count from page 1.
    const auto first = reinterpret_cast<uintptr_t>(first_page_);
    ferrybus_free_guest_memory(loopback_.client, any, 4096);
    return 1 + (reinterpret_cast<uintptr_t>(memory) - first) / 4096;
  }
  NTSTATUS SendMdl(MDL* mdl, UINT32 offset, UINT32 length, UINT32 flags) {
    const VMBPACKET packet = client_.Packet();
    char text[] = "external";
    const NTSTATUS status = VmbPacketSendWithExternalMdl(packet, text, 8, mdl,
                                                         offset, length, flags);
    if (!NT_SUCCESS(status)) VmbPacketFree(packet);
    loopback_.Pump();
    return status;
  }
  // The external data of the packet that is held.
  std::string External(UINT32 flags = 0) {
    std::string all;
    PMDL mdl = nullptr;
    if (server_.held.size() != 1) return "not one packet";
    EXPECT_EQ(VmbChannelPacketGetExternalData(server_.held[0].completion, flags,
                                              &mdl),
              STATUS_SUCCESS);
    segments_ = 0;
    for (; mdl != nullptr; mdl = mdl->Next, ++segments_) {
      all.append(static_cast<char*>(mdl->MappedSystemVa), mdl->ByteCount);
    }
    server_.AnswerAll();
    loopback_.Pump();
    return all;
  }

  Loopback loopback_;
  // Page 1 of guest RAM: page 0 is never handed out.
  char* const first_page_ = GuestMemory(4096);
  End server_{loopback_.server, true};
  End client_{loopback_.client, false};
  int segments_ = 0;
};

// -- Completing --------------------------------------------------------------

// doc:KI1 doc:KI2
TEST_F(KmclIncomingTest, APacketIsCompletedLaterOnAnyThread) {
  Open();
  EXPECT_EQ(client_.Send("one.....", kWait), STATUS_SUCCESS);
  EXPECT_EQ(client_.Send("two.....", kWait), STATUS_SUCCESS);
  EXPECT_EQ(client_.Send("three..."), STATUS_SUCCESS);
  loopback_.Pump();
  ASSERT_EQ(server_.held.size(), 3u);
  client_.completions.clear();
  std::thread([&] { server_.AnswerAll(); }).join();
  loopback_.Pump();
  ASSERT_EQ(client_.completions.size(), 2u) << "one asked for no completion";
  EXPECT_EQ(client_.completions[0].reply, "one.....");
  EXPECT_EQ(client_.completions[1].reply, "two.....");
}

// doc:KI4
TEST_F(KmclIncomingTest, ADeferredPacketComesAgainFirstAndMayWait) {
  Open();
  client_.answers = true;
  int deliveries = 0;
  std::vector<std::string> seen;
  server_.on_packet = [&](const End::Held& packet) {
    seen.push_back(packet.payload);
    if (packet.payload == "defer..." && ++deliveries == 1) {
      return VmbChannelPacketDeferToPassive(packet.completion);
    }
    if (packet.payload == "defer...") {
      // Where waiting is allowed.
      EXPECT_EQ(server_.Send("ask the client..", kWait), STATUS_SUCCESS);
      for (int i = 0; i < 10; ++i) (void)ferrybus_pump(server_.parent);
      EXPECT_EQ(server_.completions.size(), 1u);
    }
    VmbChannelPacketComplete(packet.completion, nullptr, 0);
  };
  EXPECT_EQ(client_.Send("defer...", kWait), STATUS_SUCCESS);
  EXPECT_EQ(client_.Send("next....", kWait), STATUS_SUCCESS);
  loopback_.Pump();
  EXPECT_EQ(seen, (Log{"defer...", "defer...", "next...."}));
  EXPECT_EQ(client_.completions.size(), 2u);
}

// doc:KC18
TEST_F(KmclIncomingTest, AllPacketsCanComeWhereWaitingIsAllowed) {
  VmbChannelSetIncomingProcessingAtPassive(server_.channel, 1);
  Open();
  client_.answers = true;
  int inside = 0;
  server_.on_packet = [&](const End::Held& packet) {
    EXPECT_EQ(++inside, 1) << "one at a time";
    const size_t before = server_.completions.size();
    EXPECT_EQ(server_.Send("ask.....", kWait), STATUS_SUCCESS);
    for (int i = 0; i < 10; ++i) (void)ferrybus_pump(server_.parent);
    EXPECT_EQ(server_.completions.size(), before + 1);
    --inside;
    VmbChannelPacketComplete(packet.completion, nullptr, 0);
  };
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(client_.Send("request!", kWait), STATUS_SUCCESS);
  }
  loopback_.Pump();
  EXPECT_EQ(client_.completions.size(), 3u);
  server_.on_packet = nullptr;
  VmbChannelSetIncomingProcessingAtPassive(server_.channel, 0);
}

// doc:KI5
TEST_F(KmclIncomingTest, AFailedPacketStopsTheQueue) {
  Open();
  server_.on_packet = [&](const End::Held& packet) {
    VmbChannelPacketFail(packet.completion);
  };
  EXPECT_EQ(client_.Send("bad.....", kWait), STATUS_SUCCESS);
  EXPECT_EQ(client_.Send("good....", kWait), STATUS_SUCCESS);
  loopback_.Pump();
  EXPECT_EQ(server_.TakeLog(), (Log{"packet", "batch of 1"}));
  EXPECT_EQ(server_.Send("refused."), STATUS_DEVICE_REMOVED);
}

// doc:CB7 doc:CB8
TEST_F(KmclIncomingTest, ABatchEndsWithItsNumberOfPackets) {
  Open();
  server_.answers = true;
  client_.answers = true;
  for (int i = 0; i < 7; ++i) {
    EXPECT_EQ(client_.Send("request!", kWait), STATUS_SUCCESS);
    // The answers to these are no packets.
    EXPECT_EQ(server_.Send("request!", kWait), STATUS_SUCCESS);
  }
  loopback_.Pump();
  int packets = 0;
  int told = 0;
  for (const std::string& each : server_.TakeLog()) {
    if (each == "packet") ++packets;
    if (each.substr(0, 9) == "batch of ") told += std::stoi(each.substr(9));
  }
  EXPECT_EQ(packets, 7);
  EXPECT_EQ(told, 7);
}

// doc:KC3
TEST_F(KmclIncomingTest, EachPacketHasAnAreaOfItsOwn) {
  ASSERT_EQ(VmbChannelInitSetClientContextSize(server_.channel, 24),
            STATUS_SUCCESS);
  Open();
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(client_.Send("request!", kWait), STATUS_SUCCESS);
  }
  loopback_.Pump();
  ASSERT_EQ(server_.held.size(), 3u);
  for (int i = 0; i < 3; ++i) {
    std::memset(VmbChannelPacketGetClientContext(server_.held[i].completion),
                'a' + i, 24);
  }
  for (int i = 0; i < 3; ++i) {
    const auto* const area = static_cast<const char*>(
        VmbChannelPacketGetClientContext(server_.held[i].completion));
    EXPECT_EQ(std::string(area, 24),
              std::string(24, static_cast<char>('a' + i)));
  }
}

// doc:KC19
TEST_F(KmclIncomingTest, AQuotaStallsAndACompletionGoesOn) {
  EXPECT_EQ(VmbChannelSetTransactionQuota(server_.channel, 0),
            STATUS_INVALID_PARAMETER_2);
  Open();
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(client_.Send("request!", kWait), STATUS_SUCCESS);
  }
  ASSERT_EQ(VmbChannelSetTransactionQuota(server_.channel, 4), STATUS_SUCCESS);
  loopback_.Pump();
  EXPECT_EQ(server_.held.size(), 4u);
  // Below what is outstanding, then above: neither takes more.
  ASSERT_EQ(VmbChannelSetTransactionQuota(server_.channel, 2), STATUS_SUCCESS);
  ASSERT_EQ(VmbChannelSetTransactionQuota(server_.channel, 100),
            STATUS_SUCCESS);
  EXPECT_EQ(client_.Send("request!", kWait), STATUS_SUCCESS);
  loopback_.Pump();
  EXPECT_EQ(server_.held.size(), 4u);
  VmbChannelPacketComplete(server_.held[0].completion, nullptr, 0);
  server_.held.erase(server_.held.begin());
  loopback_.Pump();
  EXPECT_EQ(server_.held.size(), 8u);
}

// -- External data -----------------------------------------------------------

// doc:KP9 doc:KE1 doc:KE3 doc:KE4 doc:CB7
TEST_F(KmclIncomingTest, ExternalDataOfSeveralSegments) {
  Open();
  char* const memory = GuestMemory(5 * 4096);
  for (int i = 0; i < 5 * 4096; ++i) memory[i] = static_cast<char>(i % 251);
  MDL third = {nullptr, memory + 4 * 4096 + 5, 11};
  MDL second = {&third, memory + 2 * 4096 - 1, 4096};
  MDL first = {&second, memory + 100, 50};
  EXPECT_EQ(SendMdl(&first, 0, 0, kWait), STATUS_SUCCESS);
  ASSERT_EQ(server_.held.size(), 1u);
  EXPECT_EQ(server_.held[0].flags,
            UINT32{VMBUS_CHANNEL_PROCESS_PACKET_FLAG_EXTERNAL_DATA});
  EXPECT_EQ(External(VMBUS_CHANNEL_PACKET_EXTERNAL_DATA_FLAG_READ_ONLY),
            std::string(memory + 100, 50) +
                std::string(memory + 2 * 4096 - 1, 4096) +
                std::string(memory + 4 * 4096 + 5, 11));
  EXPECT_EQ(segments_, 3);
  // Without external data: an empty chain.
  EXPECT_EQ(client_.Send("in band.", kWait), STATUS_SUCCESS);
  loopback_.Pump();
  EXPECT_EQ(server_.held[0].flags, 0u);
  EXPECT_EQ(External(), "");
}

// doc:KP13
TEST_F(KmclIncomingTest, APartOfAChainIsSent) {
  Open();
  char* const memory = GuestMemory(8192);
  std::memcpy(memory, "0123456789", 10);
  std::memcpy(memory + 4096, "abcdefghij", 10);
  MDL second = {nullptr, memory + 4096, 10};
  MDL first = {&second, memory, 10};
  EXPECT_EQ(SendMdl(&first, 8, 5, kWait), STATUS_SUCCESS);
  EXPECT_EQ(External(), "89abc");
  EXPECT_EQ(SendMdl(&first, 12, 0, kWait), STATUS_SUCCESS);
  EXPECT_EQ(External(), "cdefghij");
  EXPECT_EQ(SendMdl(&first, 8, 13, kWait), STATUS_INVALID_PARAMETER);
  EXPECT_EQ(SendMdl(&first, 0, 0, 0), STATUS_INVALID_PARAMETER)
      << "without waiting for the completion";
  char outside[16];
  MDL wrong = {nullptr, outside, 16};
  EXPECT_EQ(SendMdl(&wrong, 0, 0, kWait), STATUS_INVALID_PARAMETER);
}

// doc:KP14
TEST_F(KmclIncomingTest, AForcedLengthEndsAtThePage) {
  Open();
  char* const memory = GuestMemory(8192);
  std::memset(memory, 'x', 8192);
  MDL second = {nullptr, memory + 4096, 10};
  MDL first = {&second, memory + 4000, 10};
  EXPECT_EQ(SendMdl(&first, 0, 96, kWait | kForce), STATUS_SUCCESS);
  EXPECT_EQ(External(), std::string(96, 'x'));
  EXPECT_EQ(segments_, 1) << "the first buffer only";
  EXPECT_EQ(SendMdl(&first, 0, 97, kWait | kForce), STATUS_INVALID_PARAMETER);
}

// doc:KP15
TEST_F(KmclIncomingTest, PagesAreSentByNumber) {
  Open();
  char* const memory = GuestMemory(3 * 4096);
  std::memset(memory, 'a', 4096);
  std::memset(memory + 8192, 'c', 4096);
  const UINT64 pfns[] = {PfnOf(memory + 8192), PfnOf(memory)};
  const VMBPACKET packet = client_.Packet();
  char text[] = "external";
  EXPECT_EQ(VmbPacketSendWithExternalPfns(packet, text, 8, pfns, 2, 0),
            STATUS_INVALID_PARAMETER);
  EXPECT_EQ(VmbPacketSendWithExternalPfns(packet, text, 8, pfns, 2, kWait),
            STATUS_SUCCESS);
  loopback_.Pump();
  EXPECT_EQ(External(), std::string(4096, 'c') + std::string(4096, 'a'));
}

// doc:KC2
TEST_F(KmclIncomingTest, TheRingsHoldTheGreatestExternalData) {
  EXPECT_EQ(VmbChannelInitSetMaximumExternalData(client_.channel, 0, 1),
            STATUS_INVALID_PARAMETER_2);
  EXPECT_EQ(VmbChannelInitSetMaximumExternalData(client_.channel, 1, 0),
            STATUS_INVALID_PARAMETER_3);
  // Its page numbers alone are more than the ring's one page.
  constexpr UINT32 kBytes = 2 << 20;
  for (End* end : {&server_, &client_}) {
    ASSERT_EQ(VmbChannelInitSetMaximumExternalData(end->channel, kBytes, 4),
              STATUS_SUCCESS);
  }
  ASSERT_EQ(VmbClientChannelInitSetRingBufferPageCount(client_.channel, 1, 1),
            STATUS_SUCCESS);
  Open();
  char* const memory = GuestMemory(kBytes);
  ASSERT_NE(memory, nullptr);
  MDL mdl = {nullptr, memory, kBytes};
  EXPECT_EQ(SendMdl(&mdl, 0, 0, kWait), STATUS_SUCCESS);
  EXPECT_EQ(External().size(), kBytes);
  MDL more = {&mdl, memory, 1};
  EXPECT_EQ(SendMdl(&more, 0, 0, kWait), STATUS_INVALID_PARAMETER);
}

// -- GPADLs ------------------------------------------------------------------

class KmclGpadlTest : public KmclIncomingTest {
 protected:
  KmclGpadlTest() {
    Open();
    memory_ = GuestMemory(3 * 4096);
    std::memset(memory_, 'g', 3 * 4096);
  }
  std::string Mapped(UINT32 handle, UINT32 flags = 0) {
    PMDL mdl = nullptr;
    const NTSTATUS status =
        VmbChannelMapGpadl(server_.channel, flags, handle, &mdl);
    if (!NT_SUCCESS(status)) return "refused";
    std::string all;
    for (; mdl != nullptr; mdl = mdl->Next) {
      all.append(static_cast<char*>(mdl->MappedSystemVa), mdl->ByteCount);
    }
    return all;
  }
  char* memory_ = nullptr;
};

// doc:KG1 doc:KG4 doc:KG6
TEST_F(KmclGpadlTest, ABufferCanBeMappedOnceItWasMade) {
  UINT32 handle = 0;
  memory_[6000] = '!';
  ASSERT_EQ(VmbChannelCreateGpadlFromBuffer(client_.channel, 0, memory_ + 10,
                                            8000, &handle),
            STATUS_SUCCESS);
  EXPECT_EQ(Mapped(handle), std::string(memory_ + 10, 8000));
  EXPECT_EQ(Mapped(handle), "refused") << "mapped twice";
  VmbChannelUnmapGpadl(server_.channel, handle);
  EXPECT_EQ(Mapped(handle).size(), 8000u);
  VmbChannelUnmapGpadl(server_.channel, handle);
  VmbChannelDeleteGpadl(client_.channel, handle);
  EXPECT_EQ(Mapped(handle), "refused") << "deleted";
}

// doc:KG2
TEST_F(KmclGpadlTest, AChainOfBuffersCanBeOne) {
  std::memset(memory_ + 8192, 'h', 4096);
  MDL second = {nullptr, memory_ + 8192, 4096};
  MDL first = {&second, memory_, 4096};
  UINT32 handle = 0;
  ASSERT_EQ(
      VmbChannelCreateGpadlFromMdl(client_.channel, 0, &first, 96, 0, &handle),
      STATUS_SUCCESS);
  EXPECT_EQ(Mapped(handle), std::string(4000, 'g') + std::string(4096, 'h'));
  ASSERT_EQ(VmbChannelCreateGpadlFromMdl(client_.channel, 0, &first, 4095, 3,
                                         &handle),
            STATUS_SUCCESS);
  EXPECT_EQ(Mapped(handle), "ghh");
  first.ByteCount = 4000;
  EXPECT_EQ(
      VmbChannelCreateGpadlFromMdl(client_.channel, 0, &first, 0, 0, &handle),
      STATUS_INVALID_PARAMETER_3)
      << "a gap within a page";
}

// doc:KG3 doc:KG6
TEST_F(KmclGpadlTest, DeletingWaitsForTheUnmapping) {
  UINT32 handle = 0;
  ASSERT_EQ(VmbChannelCreateGpadlFromBuffer(client_.channel, 0, memory_, 4096,
                                            &handle),
            STATUS_SUCCESS);
  ASSERT_EQ(Mapped(handle).size(), 4096u);
  bool unmapped = false;
  int seen = 0;
  server_.on_packet = [&](const End::Held& packet) {
    VmbChannelPacketComplete(packet.completion, nullptr, 0);
    if (++seen < 3) return;
    unmapped = true;
    VmbChannelUnmapGpadl(server_.channel, handle);
  };
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(client_.Send("request!"), STATUS_SUCCESS);
  }
  VmbChannelDeleteGpadl(client_.channel, handle);
  EXPECT_TRUE(unmapped);
}

// doc:KG5
TEST_F(KmclGpadlTest, AReadOnlyBufferIsNotMappedForWriting) {
  UINT32 handle = 0;
  ASSERT_EQ(VmbChannelCreateGpadlFromBuffer(client_.channel,
                                            VMBUS_CHANNEL_GPADL_FLAG_READ_ONLY,
                                            memory_, 4096, &handle),
            STATUS_SUCCESS);
  EXPECT_EQ(Mapped(handle), "refused");
  EXPECT_EQ(Mapped(handle, VMBUS_CHANNEL_GPADL_READ_ONLY).size(), 4096u);
}

// doc:ST16
TEST_F(KmclGpadlTest, GpadlsAreMadeFromOpenedOnAndEndWithClosed) {
  VmbChannelDisable(client_.channel);
  UINT32 handle = 0;
  EXPECT_EQ(VmbChannelCreateGpadlFromBuffer(client_.channel, 0, memory_, 4096,
                                            &handle),
            STATUS_INVALID_DEVICE_STATE);
  client_.on_opened = [&] {
    EXPECT_EQ(VmbChannelCreateGpadlFromBuffer(client_.channel, 0, memory_, 4096,
                                              &handle),
              STATUS_SUCCESS);
  };
  client_.Enable();
  loopback_.Pump();
  EXPECT_EQ(Mapped(handle).size(), 4096u);
  bool was_mapped = false;
  server_.on_closed = [&] {
    was_mapped = Mapped(handle) == "refused";
    VmbChannelUnmapGpadl(server_.channel, handle);
  };
  VmbChannelDisable(client_.channel);
  loopback_.Pump();
  EXPECT_TRUE(was_mapped);
  // Nothing is left: the pages of ring and buffer are the client's again.
  ferrybus_free_guest_memory(loopback_.client, memory_, 3 * 4096);
  EXPECT_NE(GuestMemory((4 << 20) - 2 * 4096), nullptr);
}

}  // namespace
}  // namespace ferrybus::kmcl
