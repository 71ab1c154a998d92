// SPDX-License-Identifier: MIT

#include "ferrybus/channel/transport/message_socket.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "absl/status/status.h"
#include "ferrybus/channel/transport/unique_fd.h"
#include "gtest/gtest.h"

namespace ferrybus {
namespace {

std::string Hex(absl::Span<const std::byte> bytes) {
  std::string text;
  for (const std::byte each : bytes) {
    char pair[3];
    std::snprintf(pair, sizeof(pair), "%02x", static_cast<unsigned>(each));
    text += pair;
  }
  return text;
}

absl::Span<const std::byte> Bytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

class MessageSocketTest : public ::testing::Test {
 protected:
  MessageSocketTest() {
    int fds[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    host_fd_ = UniqueFd(fds[0]);
    guest_fd_ = UniqueFd(fds[1]);
  }
  MessageSocket host() {
    return MessageSocket(host_fd_.get(), MessageSocket::Role::kHost);
  }
  MessageSocket guest() {
    return MessageSocket(guest_fd_.get(), MessageSocket::Role::kGuest);
  }
  void SendRaw(const std::string& bytes) {
    ASSERT_EQ(send(guest_fd_.get(), bytes.data(), bytes.size(), 0),
              static_cast<ssize_t>(bytes.size()));
  }

  UniqueFd host_fd_;
  UniqueFd guest_fd_;
};

// vector:S1 vector:S2
TEST(MessageEncodingTest, LooksAsTheHypervisorGivesIt) {
  std::array<std::byte, 20> bytes;
  ASSERT_EQ(EncodeToHost(4, Bytes("\x0e\x01\x02\x03"), absl::MakeSpan(bytes)),
            20u);
  EXPECT_EQ(Hex(bytes),
            "04000000"
            "00000000"
            "01000000"
            "04000000"
            "0e010203");
  ASSERT_EQ(EncodeToGuest(Bytes("\x0f\x01\x02\x03"), absl::MakeSpan(bytes)),
            20u);
  EXPECT_EQ(Hex(bytes),
            "01000000"
            "04000000"
            "0000000000000000"
            "0f010203");
}

TEST(MessageEncodingTest, DecodingIsTheInverse) {
  for (const size_t size : {0, 1, 8, 239, 240}) {
    const std::string payload(size, 'p');
    std::array<std::byte, kMessageHeaderBytes + kMaxMessageBytes> bytes;
    const absl::Span<const std::byte> all = bytes;
    auto to_host = DecodeToHost(
        all.first(EncodeToHost(77, Bytes(payload), absl::MakeSpan(bytes))));
    ASSERT_TRUE(to_host.ok());
    EXPECT_EQ(to_host->connection_id, 77u);
    EXPECT_EQ(Hex(to_host->payload()), Hex(Bytes(payload)));
    auto to_guest = DecodeToGuest(
        all.first(EncodeToGuest(Bytes(payload), absl::MakeSpan(bytes))));
    ASSERT_TRUE(to_guest.ok());
    EXPECT_EQ(Hex(to_guest->payload()), Hex(Bytes(payload)));
  }
}

// promise:P8
TEST(MessageEncodingTest, EveryPrefixOfAMessageIsRefused) {
  std::array<std::byte, 40> bytes;
  const absl::Span<const std::byte> all = bytes;
  const size_t size = EncodeToHost(1, Bytes("12345678"), absl::MakeSpan(bytes));
  for (size_t i = 0; i < size; ++i) {
    EXPECT_FALSE(DecodeToHost(all.first(i)).ok()) << i;
  }
  EXPECT_TRUE(DecodeToHost(all.first(size)).ok());
}

// promise:P8
TEST(MessageEncodingTest, LengthsAreCheckedInFull) {
  for (const uint32_t size :
       {9u, 240u, 241u, 255u, 256u, 0x80000000u, 0xffffffffu, 0xfffffff0u}) {
    std::string bytes(24, '\0');
    bytes[8] = 1;
    std::memcpy(&bytes[12], &size, 4);
    EXPECT_FALSE(DecodeToHost(Bytes(bytes)).ok()) << size;
  }
}

TEST_F(MessageSocketTest, CarriesMessagesBothWays) {
  EXPECT_TRUE(absl::IsUnavailable(host().Receive().status()));
  ASSERT_TRUE(guest().Send(4, Bytes("to host")));
  ASSERT_TRUE(guest().Send(1, Bytes("")));
  ASSERT_TRUE(host().Send(0, Bytes("to guest")));
  auto first = host().Receive();
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(first->connection_id, 4u);
  EXPECT_EQ(Hex(first->payload()), Hex(Bytes("to host")));
  EXPECT_EQ(host().Receive()->size, 0u);
  EXPECT_EQ(Hex(guest().Receive()->payload()), Hex(Bytes("to guest")));
}

TEST_F(MessageSocketTest, WhatIsNotAMessageIsRefusedAndTheSocketGoesOn) {
  SendRaw("x");
  SendRaw(std::string(16, '\0'));   // type 0
  SendRaw(std::string(300, '\1'));  // too long, too
  ASSERT_TRUE(guest().Send(9, Bytes("good")));
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(absl::IsInvalidArgument(host().Receive().status())) << i;
  }
  EXPECT_EQ(host().Receive()->connection_id, 9u);
}

// It looks like the end of the socket.
TEST_F(MessageSocketTest, AMessageOfNoBytesIsNotTheEnd) {
  SendRaw("");
  SendRaw("");
  ASSERT_TRUE(guest().Send(9, Bytes("good")));
  EXPECT_TRUE(absl::IsInvalidArgument(host().Receive().status()));
  EXPECT_TRUE(absl::IsInvalidArgument(host().Receive().status()));
  EXPECT_EQ(host().Receive()->connection_id, 9u);
  EXPECT_TRUE(absl::IsUnavailable(host().Receive().status()));
}

TEST_F(MessageSocketTest, MessagesBeforeTheEndAreStillRead) {
  ASSERT_TRUE(guest().Send(9, Bytes("last words")));
  guest_fd_ = UniqueFd();
  UniqueFd closed = std::move(guest_fd_);
  EXPECT_EQ(host().Receive()->connection_id, 9u);
}

TEST_F(MessageSocketTest, TheEndIsAborted) {
  { const UniqueFd closed = std::move(guest_fd_); }
  EXPECT_TRUE(absl::IsAborted(host().Receive().status()));
  EXPECT_TRUE(host().Send(0, Bytes("nobody")));  // and no SIGPIPE
}

// A guest that sends descriptors along does not fill our table.
// bad:T8
TEST_F(MessageSocketTest, DescriptorsThatComeAlongAreClosed) {
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  char byte = 0;
  iovec data = {&byte, 1};
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr* const c = CMSG_FIRSTHDR(&message);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(sizeof(int));
  const int before = dup(0);
  close(before);
  for (int i = 0; i < 100; ++i) {
    std::memcpy(CMSG_DATA(c), &before, 0);
    const int fd = guest_fd_.get();
    std::memcpy(CMSG_DATA(c), &fd, sizeof(fd));
    ASSERT_EQ(sendmsg(guest_fd_.get(), &message, 0), 1);
    EXPECT_TRUE(absl::IsInvalidArgument(host().Receive().status()));
  }
  const int after = dup(0);
  close(after);
  EXPECT_EQ(before, after);
}

// bad:C13
TEST_F(MessageSocketTest, AFullSocketSaysSoAndLosesNothing) {
  int sent = 0;
  while (sent < 100000 && host().Send(0, Bytes(std::to_string(sent)))) ++sent;
  ASSERT_LT(sent, 100000);
  for (int i = 0; i < sent; ++i) {
    EXPECT_EQ(Hex(guest().Receive()->payload()), Hex(Bytes(std::to_string(i))));
  }
  EXPECT_TRUE(host().Send(0, Bytes("again")));
}

}  // namespace
}  // namespace ferrybus
