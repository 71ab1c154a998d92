// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/host_port.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

#include "absl/status/status.h"
#include "ferrybus/channel/message_codec.h"
#include "ferrybus/vsp/bus_test_util.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

UniqueFd Memfd(off_t bytes, bool sealed) {
  UniqueFd fd(memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  EXPECT_EQ(ftruncate(fd.get(), bytes), 0);
  const int seals = sealed ? F_SEAL_SHRINK : 0;
  EXPECT_EQ(fcntl(fd.get(), F_ADD_SEALS, seals), 0);
  return fd;
}

std::string ToHost(const EncodedMessage& message) {
  std::array<std::byte, kMessageHeaderBytes + kMaxMessageBytes> bytes;
  const size_t size = EncodeToHost(1, message.bytes(), absl::MakeSpan(bytes));
  return std::string(reinterpret_cast<const char*>(bytes.data()), size);
}

class HostPortTest : public ::testing::Test {
 protected:
  HostPortTest()
      : memory_(*MemfdGuestMemory::Create(64 * 4096)),
        pair_(*CreatePort(memory_->file())) {}

  void Open() {
    port_ = *HostPort::Open(*DuplicatePort(pair_.host));
    bus_ =
        std::make_unique<Bus>(BusOptions(), port_->memory(), port_->doorbell());
    ASSERT_TRUE(bus_->Offer(TestParams(1), &device_).ok());
  }
  bool GuestSends(const std::string& bytes) {
    return send(pair_.guest.messages.get(), bytes.data(), bytes.size(),
                MSG_DONTWAIT | MSG_NOSIGNAL) >= 0;
  }
  // A host that waits for the port's descriptors would wake up now.
  bool Wakes() const {
    pollfd fds[2] = {{port_->wait_fds()[0], POLLIN, 0},
                     {port_->wait_fds()[1], POLLIN, 0}};
    return poll(fds, 2, 0) > 0;
  }

  std::unique_ptr<MemfdGuestMemory> memory_;
  PortPair pair_;
  LoggingDevice device_;
  std::unique_ptr<HostPort> port_;
  std::unique_ptr<Bus> bus_;
};

// bad:R31
TEST_F(HostPortTest, APortWithMemoryThatMayShrinkIsRefused) {
  Port port = *DuplicatePort(pair_.host);
  port.guest_ram = Memfd(64 * 4096, false);
  const auto opened = HostPort::Open(std::move(port));
  EXPECT_EQ(opened.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(opened.status().message().find("F_SEAL_SHRINK"), std::string::npos);
  port = *DuplicatePort(pair_.host);
  port.signals = Memfd(4096, false);
  EXPECT_FALSE(HostPort::Open(std::move(port)).ok());
  port = *DuplicatePort(pair_.host);
  port.signals = Memfd(8192, true);
  EXPECT_FALSE(HostPort::Open(std::move(port)).ok());
}

// bad:T8
TEST_F(HostPortTest, DescriptorsOfTheWrongKindAreRefused) {
  EXPECT_FALSE(HostPort::Open(Port()).ok());
  Port port = *DuplicatePort(pair_.host);
  port.messages = Memfd(4096, true);
  EXPECT_EQ(HostPort::Open(std::move(port)).status().code(),
            absl::StatusCode::kFailedPrecondition);
  port = *DuplicatePort(pair_.host);
  std::swap(port.guest_ram, port.host_event);
  EXPECT_FALSE(HostPort::Open(std::move(port)).ok());
}

// A guest that hands over a pipe, or an eventfd that blocks, cannot stop the
// host's thread.
// promise:P8
TEST_F(HostPortTest, WakeUpsDoNotBlock) {
  int pipe_fds[2];
  ASSERT_EQ(pipe2(pipe_fds, O_CLOEXEC), 0);
  const UniqueFd other_end(dup(pipe_fds[1]));
  pair_.host.host_event = UniqueFd(pipe_fds[0]);
  pair_.host.guest_event = UniqueFd(pipe_fds[1]);
  Open();
  (void)port_->Pump(*bus_);
  for (uint32_t i = 0; i < 20000; ++i) {
    // A guest that takes the bits and leaves the pipe full.
    port_->doorbell()->Ring(1);
    *SignalPage::Map(pair_.guest.signals.get())
         ->words(SignalDirection::kHostToGuest) = 0;
  }
  (void)port_->Pump(*bus_);
}

TEST_F(HostPortTest, RefusedMessagesAreCounted) {
  Open();
  ASSERT_TRUE(GuestSends("x") && GuestSends("") && GuestSends("yz"));
  (void)port_->Pump(*bus_);
  EXPECT_EQ(port_->refused_messages(), 3u);
  EXPECT_FALSE(port_->last_refusal().ok());
  EXPECT_FALSE(port_->peer_gone());
  { const UniqueFd closed = std::move(pair_.guest.messages); }
  (void)port_->Pump(*bus_);
  EXPECT_TRUE(port_->peer_gone());
}

// bad:R27 promise:P9
TEST_F(HostPortTest, AFloodOfMessagesIsTakenInPortions) {
  Open();
  int sent = 0;
  while (GuestSends("x")) ++sent;
  ASSERT_GT(sent, 100);
  (void)port_->Pump(*bus_);
  EXPECT_EQ(port_->refused_messages(), 64u);
  EXPECT_TRUE(Wakes());
  while (Wakes()) (void)port_->Pump(*bus_);
  EXPECT_EQ(port_->refused_messages(), static_cast<uint64_t>(sent));
}

// bad:C13 bad:R26 promise:P9
TEST_F(HostPortTest, AGuestThatReadsNoMessagesDoesNotMakeTheHostSpin) {
  Open();
  InitiateContactMessage contact;
  contact.version = static_cast<uint32_t>(ProtocolVersion::kIron);
  ASSERT_TRUE(GuestSends(ToHost(EncodeInitiateContact(contact))));
  ASSERT_TRUE(GuestSends(ToHost(EncodeMessage(RequestOffersMessage{}))));
  // Each is refused with an answer; nobody reads the answers.
  const std::string range(8, '\0');
  GpadlHeaderMessage header;
  header.channel_id = ChannelId{1};
  header.gpadl_id = GpadlId{1};
  header.range_buffer_size_bytes = 8;
  header.range_count = 1;
  const std::string bad = ToHost(EncodeGpadlHeader(header, AsBytes(range)));
  int pumps = 0;
  for (; pumps < 5000; ++pumps) {
    while (GuestSends(bad)) {
    }
    if (!port_->Pump(*bus_) && !Wakes()) break;
  }
  EXPECT_LT(pumps, 5000) << "the host never sleeps";
  EXPECT_GT(pumps, 10);
  EXPECT_FALSE(port_->peer_gone());
  // It goes on when the guest reads.
  MessageSocket guest(pair_.guest.messages.get(), MessageSocket::Role::kGuest);
  int read = 0;
  for (int i = 0; i < 5000 && read < 8000; ++i) {
    while (guest.Receive().ok()) ++read;
    if (Wakes()) (void)port_->Pump(*bus_);
  }
  EXPECT_GE(read, 8000);
}

// A hypervisor that takes the guest's signals for us does not say of which
// channel they are.
TEST_F(HostPortTest, AnUnnamedSignalMeansAllChannels) {
  port_ =
      *HostPort::Open(*DuplicatePort(pair_.host), {.unnamed_signals = true});
  TestGuest guest;
  bus_ =
      std::make_unique<Bus>(BusOptions(), guest.memory.get(), &guest.doorbell);
  ASSERT_TRUE(bus_->Offer(TestParams(1), &device_).ok());
  guest.Connect(*bus_);
  TestGuest::Channel& channel = guest.Open(*bus_, 1);
  channel.end.doorbell.on_ring = [] {};  // somebody takes them for us
  guest.Request(channel, 1);
  (void)port_->Pump(*bus_);
  EXPECT_TRUE(device_.held.empty());
  ASSERT_EQ(eventfd_write(pair_.guest.host_event.get(), 1), 0);
  EXPECT_TRUE(Wakes());
  (void)port_->Pump(*bus_);
  EXPECT_EQ(device_.held.size(), 1u);
  EXPECT_FALSE(Wakes());
  device_.AnswerAll();
  guest.ForgetChannels();
}

// What the guest does meanwhile is for the next owner of the port.
// promise:P2 promise:P3
TEST_F(HostPortTest, AFrozenBusLeavesMessagesInTheSocket) {
  Open();
  bus_->Suspend();
  bus_->Freeze();
  const std::string saved = *bus_->Save();
  InitiateContactMessage contact;
  contact.version = static_cast<uint32_t>(ProtocolVersion::kIron);
  ASSERT_TRUE(GuestSends(ToHost(EncodeInitiateContact(contact))));
  EXPECT_FALSE(port_->Pump(*bus_));
  EXPECT_FALSE(Wakes()) << "it would spin until the thaw";
  bus_.reset();
  port_ = *HostPort::Open(*DuplicatePort(pair_.host));
  const DeviceOffer devices[] = {{TestParams(1), &device_}};
  bus_ = *Bus::Restore(AsBytes(saved), BusOptions(), port_->memory(),
                       port_->doorbell(), devices);
  bus_->Start();
  EXPECT_TRUE(Wakes());
  (void)port_->Pump(*bus_);
  MessageSocket guest(pair_.guest.messages.get(), MessageSocket::Role::kGuest);
  EXPECT_TRUE(guest.Receive().ok());
}

}  // namespace
}  // namespace ferrybus::vsp
