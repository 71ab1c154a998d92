// SPDX-License-Identifier: MIT
//
// That a packet costs no allocation, through the whole of the C interface.

#include <cstdlib>
#include <new>
#include <utility>

#include "ferrybus/kmcl/kmcl_test_util.h"
#include "gtest/gtest.h"

namespace {

bool is_counting = false;
int allocations = 0;

}  // namespace

void* operator new(size_t bytes) {
  if (is_counting) ++allocations;
  void* const memory = std::malloc(bytes);
  if (memory == nullptr) std::abort();
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace ferrybus::kmcl {
namespace {

constexpr UINT32 kWait = VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION;
constexpr int kDepth = 32;

int completed = 0;

// doc:KP17 doc:KP1
TEST(KmclAllocationTest, APacketCostsNoneAtAQueueDepthOf32) {
  Loopback loopback;
  End server(loopback.server, true);
  End client(loopback.client, false);
  ASSERT_EQ(VmbClientChannelInitSetRingBufferPageCount(client.channel, 1, 1),
            STATUS_SUCCESS);
  for (End* end : {&server, &client}) {
    ASSERT_EQ(VmbChannelInitSetMaximumPacketSize(end->channel, 256),
              STATUS_SUCCESS);
    ASSERT_EQ(VmbChannelInitSetMaximumExternalData(end->channel, 4096, 1),
              STATUS_SUCCESS);
    ASSERT_EQ(
        VmbChannelInitSetProcessPacketCallbacks(
            end->channel,
            [](VMBCHANNEL, VMBPACKETCOMPLETION completion, PVOID buffer, UINT32,
               UINT32) { VmbChannelPacketComplete(completion, buffer, 8); },
            nullptr),
        STATUS_SUCCESS);
  }
  server.Enable();
  client.Enable();
  VmbChannelStart(server.channel);
  loopback.Pump();
  char payload[256] = {};
  VMBPACKET packets[kDepth];
  for (VMBPACKET& packet : packets) {
    packet = VmbPacketAllocate(client.channel);
    VmbPacketSetCompletionRoutine(
        packet, [](VMBPACKET, NTSTATUS status, PVOID, UINT32 length) {
          completed += NT_SUCCESS(status) && length == 8 ? 1 : 0;
        });
  }
  const auto round = [&] {
    for (const VMBPACKET packet : packets) {
      ASSERT_EQ(VmbPacketSend(packet, payload, 256, nullptr, kWait),
                STATUS_SUCCESS);
    }
    loopback.Pump(8);
  };
  for (int i = 0; i < 4; ++i) round();
  // What the port's messages cost when nothing is to do.
  is_counting = true;
  for (int i = 0; i < 100; ++i) loopback.Pump(8);
  const int idle = std::exchange(allocations, 0);
  for (int i = 0; i < 100; ++i) round();
  is_counting = false;
  EXPECT_EQ(completed, 104 * kDepth);
  EXPECT_EQ(allocations, idle);
  for (const VMBPACKET packet : packets) VmbPacketFree(packet);
}

}  // namespace
}  // namespace ferrybus::kmcl
