// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/socket/socket_device.h"

#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "ferrybus/channel/pipe_header.h"
#include "ferrybus/channel/protocols/hv_sock.h"
#include "ferrybus/vsp/services/pipe_harness.h"
#include "ferrybus/vsp/socket/socket_state_persist.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

std::string Hex(absl::Span<const std::byte> bytes) {
  return absl::BytesToHexString(
      {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

absl::Span<const std::byte> Bytes(absl::string_view text) {
  return absl::MakeConstSpan(reinterpret_cast<const std::byte*>(text.data()),
                             text.size());
}

std::string Text(absl::Span<const std::byte> bytes) {
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

class EventLog final : public SocketStream::Events {
 public:
  void OnConnected() override { ++connects; }
  void OnReadable() override { ++readables; }
  void OnWritable() override { ++writables; }
  void OnDisconnected() override { ++disconnects; }
  int connects = 0;
  int readables = 0;
  int writables = 0;
  int disconnects = 0;
};

class SocketDeviceTest : public ::testing::Test {
 protected:
  explicit SocketDeviceTest(uint32_t ring_data_pages = 1)
      : harness_(
            &device_,
            SocketDevice::Params(ServiceOfVsockPort(0x400), Guid{{1}}, false),
            ring_data_pages) {}

  static std::string ReadSome(SocketDevice& device, size_t bytes = 1 << 20) {
    std::vector<std::byte> room(bytes);
    room.resize(device.stream().Read(absl::MakeSpan(room)));
    return Text(room);
  }
  // All that the guest got since the last call.
  std::string Received() {
    std::string text;
    while (!harness_.payloads.empty()) text += Text(harness_.TakeMessage());
    return text;
  }
  bool GuestSends(absl::string_view text) {
    const bool sent = harness_.Send(Bytes(text));
    harness_.Pump();
    return sent;
  }

  EventLog log_;
  SocketDevice device_{&log_};
  PipeHarness harness_;
};

TEST(HvSockTest, ServicesStandForPorts) {
  EXPECT_EQ(ServiceOfVsockPort(0x400).ToString(),
            "00000400-facb-11e6-bd58-64006a7986d3");
  EXPECT_EQ(VsockPortOfService(ServiceOfVsockPort(0xfedcba98)), 0xfedcba98);
  EXPECT_EQ(VsockPortOfService(Guid{}), std::nullopt);
}

TEST_F(SocketDeviceTest, OffersABytePipeOfTheSocketProvider) {
  const OfferParams params =
      SocketDevice::Params(ServiceOfVsockPort(1), Guid{{9}}, true);
  EXPECT_EQ(params.flags, 0x2011);
  EXPECT_EQ(Hex(absl::MakeConstSpan(params.user_data).first(8)),
            "0000000001000000");
  EXPECT_EQ(log_.connects, 1);
}

// vector:P6 (behind the descriptor)
TEST_F(SocketDeviceTest, WritesTheDocumentedBytes) {
  EXPECT_EQ(device_.stream().Write(Bytes("hello")), 5u);
  device_.stream().ShutdownWrite();
  harness_.Pump();
  ASSERT_EQ(harness_.payloads.size(), 2u);
  EXPECT_EQ(Hex(harness_.payloads[0]), "010000000500000068656c6c6f000000");
  EXPECT_EQ(Hex(harness_.payloads[1]), "0100000000000000");
}

TEST_F(SocketDeviceTest, ReadsBytesWhereverDatagramsEnd) {
  GuestSends("abc");
  GuestSends("d");
  GuestSends("efgh");
  EXPECT_EQ(log_.readables, 3);
  EXPECT_EQ(ReadSome(device_, 2), "ab");
  EXPECT_EQ(ReadSome(device_, 3), "cde");
  EXPECT_EQ(ReadSome(device_), "fgh");
  EXPECT_EQ(ReadSome(device_), "");
  EXPECT_FALSE(device_.stream().is_at_end());
}

TEST_F(SocketDeviceTest, AFullRingStopsTheWriterUntilThereIsRoom) {
  harness_.StopReading(true);
  const std::string text(100'000, 'x');
  size_t written = 0;
  for (int i = 0; i < 10; ++i) {
    written += device_.stream().Write(Bytes(text).subspan(written));
    harness_.Pump();
  }
  // What the ring takes, and one datagram that waits.
  EXPECT_LE(written, 4096u + kSocketChunkBytes);
  EXPECT_GT(written, 2 * kSocketChunkBytes);
  EXPECT_EQ(harness_.channel().endpoint().queued(), 1u);
  EXPECT_EQ(log_.writables, 0);
  harness_.StopReading(false);
  std::string got;
  for (int i = 0; i < 1000 && got.size() < text.size(); ++i) {
    harness_.Pump();
    got += Received();
    written += device_.stream().Write(Bytes(text).subspan(written));
  }
  EXPECT_EQ(got, text);
  EXPECT_GT(log_.writables, 0);
}

// bad:R27 promise:P9
TEST_F(SocketDeviceTest, WhatIsNotReadStopsThePeer) {
  std::string sent;
  for (int i = 0; i < 1000; ++i) {
    const std::string text(500, static_cast<char>('a' + i % 26));
    if (!GuestSends(text)) break;
    sent += text;
  }
  EXPECT_EQ(device_.stream().unread_datagrams(), kSocketUnreadMax);
  // The quota and one ring of 4096 bytes.
  EXPECT_LE(sent.size(), kSocketUnreadMax * 500 + 4096);
  std::string got;
  for (int i = 0; i < 10; ++i) {
    got += ReadSome(device_);
    harness_.Pump();
  }
  EXPECT_EQ(got, sent);
  EXPECT_TRUE(GuestSends("more"));
  EXPECT_EQ(ReadSome(device_), "more");
}

TEST_F(SocketDeviceTest, EachDirectionEndsByItself) {
  GuestSends("last");
  GuestSends("");
  EXPECT_FALSE(device_.stream().is_at_end());
  EXPECT_EQ(ReadSome(device_), "last");
  EXPECT_TRUE(device_.stream().is_at_end());
  EXPECT_TRUE(device_.stream().can_write());
  EXPECT_EQ(device_.stream().Write(Bytes("answer")), 6u);
  device_.stream().ShutdownWrite();
  EXPECT_EQ(device_.stream().Write(Bytes("x")), 0u);
  device_.stream().ShutdownWrite();
  harness_.Pump();
  EXPECT_EQ(harness_.payloads.size(), 2u);
  EXPECT_EQ(Received(), "answer");
  // A second end changes nothing.
  GuestSends("");
  EXPECT_EQ(harness_.fault(), "");
}

TEST_F(SocketDeviceTest, TheEndWaitsForRoomBehindTheBytes) {
  harness_.StopReading(true);
  const std::string text(10'000, 'x');
  const size_t written = device_.stream().Write(Bytes(text));
  device_.stream().ShutdownWrite();
  harness_.Pump();
  harness_.StopReading(false);
  harness_.Pump();
  ASSERT_FALSE(harness_.payloads.empty());
  EXPECT_EQ(harness_.payloads.back().size(), sizeof(PipeHeader));
  EXPECT_EQ(Received().size(), written);
  EXPECT_EQ(log_.writables, 0);
}

TEST_F(SocketDeviceTest, AReaderThatShutDownDropsWhatComes) {
  GuestSends("abc");
  device_.stream().ShutdownRead();
  for (uint32_t i = 0; i < 3 * kSocketUnreadMax; ++i) {
    EXPECT_TRUE(GuestSends("def"));
  }
  EXPECT_EQ(ReadSome(device_), "");
  GuestSends("");
  EXPECT_TRUE(device_.stream().is_at_end());
}

TEST_F(SocketDeviceTest, BytesBehindTheEndFaultTheChannel) {
  GuestSends("");
  GuestSends("x");
  EXPECT_NE(harness_.fault().find("behind the end"), std::string::npos);
}

TEST_F(SocketDeviceTest, CloseEndsBothDirectionsAndAnotherOpenIsNew) {
  GuestSends("abc");
  GuestSends("");
  harness_.Close();
  EXPECT_EQ(log_.disconnects, 1);
  EXPECT_FALSE(device_.stream().is_connected());
  EXPECT_EQ(ReadSome(device_), "");
  EXPECT_EQ(device_.stream().Write(Bytes("x")), 0u);
  device_.stream().ShutdownWrite();
  harness_.Open(1);
  EXPECT_EQ(log_.connects, 2);
  GuestSends("new");
  EXPECT_EQ(ReadSome(device_), "new");
  EXPECT_EQ(device_.stream().Write(Bytes("x")), 1u);
}

// -- Moving ------------------------------------------------------------------

// promise:P2
TEST_F(SocketDeviceTest, UnreadBytesMoveAlong) {
  GuestSends("abcdef");
  GuestSends("ghi");
  EXPECT_EQ(ReadSome(device_, 4), "abcd");
  harness_.Send(Bytes("jk"));  // in the ring
  EventLog next_log;
  SocketDevice next(&next_log);
  ASSERT_TRUE(harness_.MoveTo(&next).ok());
  harness_.Pump();
  EXPECT_GT(next_log.readables, 0);
  EXPECT_EQ(next_log.connects, 0);
  EXPECT_EQ(ReadSome(next), "efghijk");
  EXPECT_EQ(next.stream().Write(Bytes("back")), 4u);
  harness_.Pump();
  EXPECT_EQ(Received(), "back");
  GuestSends("");
  EXPECT_TRUE(next.stream().is_at_end());
}

// promise:P2
TEST_F(SocketDeviceTest, WaitingBytesAndTheEndMoveAlong) {
  for (const bool ends : {false, true}) {
    SCOPED_TRACE(ends);
    EventLog log;
    SocketDevice device(&log);
    PipeHarness harness(
        &device,
        SocketDevice::Params(ServiceOfVsockPort(0x400), Guid{{1}}, false), 1);
    harness.StopReading(true);
    const std::string text(10'000, 'x');
    const size_t written = device.stream().Write(Bytes(text));
    ASSERT_EQ(harness.channel().endpoint().queued(), 1u);
    if (ends) device.stream().ShutdownWrite();
    EventLog next_log;
    SocketDevice next(&next_log);
    ASSERT_TRUE(harness.MoveTo(&next).ok());
    if (!ends) {
      EXPECT_EQ(next.stream().Write(Bytes(text)), 0u);
    }
    harness.StopReading(false);
    harness.Pump();
    size_t got = 0;
    size_t datagrams = harness.payloads.size();
    bool has_end = harness.payloads.back().size() == sizeof(PipeHeader);
    while (!harness.payloads.empty()) got += harness.TakeMessage().size();
    EXPECT_EQ(got, written);
    EXPECT_EQ(has_end, ends);
    EXPECT_GT(datagrams, 1u);
    EXPECT_EQ(next.stream().can_write(), !ends);
    EXPECT_EQ(next_log.writables > 0, !ends);
  }
}

TEST_F(SocketDeviceTest, StatesThatCannotBeAreRefused) {
  const auto refuses = [](auto&& change) {
    SocketDeviceState state;
    change(state);
    const std::string bytes = SerializeSocketState(state);
    return ParseSocketState(Bytes(bytes)).status().code() ==
           absl::StatusCode::kDataLoss;
  };
  SocketDeviceState good;
  good.stream = {4, true, false, true, true};
  good.queued_tag = 77;
  const std::string bytes = SerializeSocketState(good);
  EXPECT_EQ(*ParseSocketState(Bytes(bytes)), good);
  using State = SocketDeviceState;
  EXPECT_TRUE(refuses([](State& s) { s.stream.front_bytes_read = 16384; }));
  EXPECT_TRUE(refuses([](State& s) { s.stream.is_end_due = true; }));
  EXPECT_TRUE(refuses([](State& s) {
    s.stream.is_read_shut = true;
    s.stream.front_bytes_read = 1;
  }));
  EXPECT_FALSE(ParseSocketState(Bytes("\xff\xff")).ok());
  EXPECT_FALSE(ParseSocketState(Bytes(std::string(4097, '\0'))).ok());

  // More was read of the oldest packet than it holds.
  GuestSends("abc");
  SocketDeviceState state;
  state.stream.front_bytes_read = 3;
  EventLog next_log;
  SocketDevice next(&next_log);
  ASSERT_TRUE(
      next.OnRestored(harness_.channel(), Bytes(SerializeSocketState(state)))
          .ok());
  EXPECT_EQ(ReadSome(device_), "abc");
}

// A state that waits for a datagram that is not there writes all the same.
TEST_F(SocketDeviceTest, AForgedWaitEnds) {
  SocketDeviceState state;
  state.queued_tag = 5;
  ASSERT_TRUE(
      device_.OnRestored(harness_.channel(), Bytes(SerializeSocketState(state)))
          .ok());
  EXPECT_EQ(device_.stream().Write(Bytes("x")), 0u);
  device_.OnStarted();
  EXPECT_EQ(device_.stream().Write(Bytes("x")), 1u);
}

}  // namespace
}  // namespace ferrybus::vsp
