// SPDX-License-Identifier: MIT

#include "ferrybus/kmcl/kmcl_test_util.h"

#include "ferrybus/channel/check.h"

namespace ferrybus::kmcl {
namespace {

template <typename Function>
void Run(const Function& function) {
  if (function) function();
}

NTSTATUS Opened(VMBCHANNEL channel) {
  End& end = End::Of(channel);
  end.log.push_back("opened");
  Run(end.on_opened);
  return end.open_status;
}

void Closed(VMBCHANNEL channel) {
  End& end = End::Of(channel);
  end.log.push_back("closed");
  Run(end.on_closed);
}

void Suspend(VMBCHANNEL channel) {
  End& end = End::Of(channel);
  end.log.push_back("suspend");
  Run(end.on_suspend);
}

void Started(VMBCHANNEL channel) {
  End& end = End::Of(channel);
  end.log.push_back("started");
  Run(end.on_started);
}

void PostStarted(VMBCHANNEL channel) {
  End& end = End::Of(channel);
  end.log.push_back("post-started");
  Run(end.on_post_started);
}

void PnpFailure(VMBCHANNEL channel, NTSTATUS status) {
  End::Of(channel).log.push_back(NT_SUCCESS(status) ? "pnp ok" : "pnp failure");
}

void ProcessPacket(VMBCHANNEL channel, VMBPACKETCOMPLETION completion,
                   PVOID buffer, UINT32 length, UINT32 flags) {
  End& end = End::Of(channel);
  const End::Held held = {
      completion, std::string(static_cast<const char*>(buffer), length), flags};
  end.log.push_back("packet");
  if (end.on_packet) {
    end.on_packet(held);
  } else if (end.answers) {
    VmbChannelPacketComplete(completion, buffer, length);
  } else {
    end.held.push_back(held);
  }
}

void ProcessingComplete(VMBCHANNEL channel, UINT32 packets) {
  End::Of(channel).log.push_back("batch of " + std::to_string(packets));
}

void PacketCompleted(VMBPACKET packet, NTSTATUS status, PVOID buffer,
                     UINT32 length) {
  End::Of(VmbPacketGetChannel(packet))
      .completions.push_back(
          {status, std::string(static_cast<const char*>(buffer), length),
           packet});
  VmbPacketFree(packet);
}

}  // namespace

GUID TestInstance(uint8_t number) {
  GUID guid = kTestType;
  guid.Data4[7] = number;
  guid.Data1 = 0x1;
  return guid;
}

void End::ASSERT_SUCCESS(NTSTATUS status) {
  FERRYBUS_CHECK(NT_SUCCESS(status), "a call of the test failed");
}

End::End(FERRYBUS_PARENT its_parent, bool is_server, uint8_t number)
    : parent(its_parent) {
  ASSERT_SUCCESS(VmbChannelAllocate(parent, is_server, &channel));
  VmbChannelSetPointer(channel, this);
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS callbacks;
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(&callbacks);
  callbacks.EvtChannelOpened = Opened;
  callbacks.EvtChannelClosed = Closed;
  callbacks.EvtChannelSuspend = Suspend;
  callbacks.EvtChannelStarted = Started;
  callbacks.EvtChannelPostStarted = PostStarted;
  ASSERT_SUCCESS(VmbChannelInitSetStateChangeCallbacks(channel, &callbacks));
  ASSERT_SUCCESS(VmbChannelInitSetProcessPacketCallbacks(channel, ProcessPacket,
                                                         ProcessingComplete));
  const GUID instance = TestInstance(number);
  ASSERT_SUCCESS(is_server ? VmbServerChannelInitSetTargetInterfaceId(
                                 channel, &kTestType, &instance)
                           : VmbClientChannelInitSetTargetPnp(
                                 channel, &kTestType, &instance, PnpFailure));
}

void End::LetGo() {
  on_packet = [](const Held& late) {
    VmbChannelPacketComplete(late.completion, nullptr, 0);
  };
  on_suspend = on_closed = nullptr;
  AnswerAll();
}

End::~End() {
  LetGo();
  VmbChannelDisable(channel);
  VmbChannelCleanup(channel);
}

VMBPACKET End::Packet() {
  const VMBPACKET packet = VmbPacketAllocate(channel);
  if (packet != nullptr) VmbPacketSetCompletionRoutine(packet, PacketCompleted);
  return packet;
}

NTSTATUS End::Send(const std::string& payload, UINT32 flags) {
  const VMBPACKET packet = Packet();
  const NTSTATUS status =
      VmbPacketSend(packet, const_cast<char*>(payload.data()),
                    static_cast<UINT32>(payload.size()), nullptr, flags);
  if (!NT_SUCCESS(status)) VmbPacketFree(packet);
  return status;
}

void End::AnswerAll() {
  for (Held& each : std::exchange(held, {})) {
    VmbChannelPacketComplete(each.completion, each.payload.data(),
                             static_cast<UINT32>(each.payload.size()));
  }
}

Loopback::Loopback(uint64_t ram_bytes) {
  End::ASSERT_SUCCESS(ferrybus_create_loopback(ram_bytes, &server, &client));
}

Loopback::~Loopback() {
  ferrybus_close_parent(client);
  ferrybus_close_parent(server);
}

void Loopback::Pump(int rounds) {
  // One side has nothing to do while what it sent is on its way.
  for (int i = 0; i < rounds; ++i) (void)ferrybus_pump(server);
}

}  // namespace ferrybus::kmcl
