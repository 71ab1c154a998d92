// SPDX-License-Identifier: MIT

#include "ferrybus/channel/transport/port.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"

namespace ferrybus {
namespace {

ino_t Inode(const UniqueFd& fd) {
  struct stat info;
  EXPECT_EQ(fstat(fd.get(), &info), 0);
  return info.st_ino;
}

// The lowest free descriptor: grows when some leak.
int LowestFree() {
  const int fd = dup(0);
  close(fd);
  return fd;
}

class PortTest : public ::testing::Test {
 protected:
  PortTest() : ram_(memfd_create("ram", MFD_CLOEXEC)) {
    int fds[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    here_ = UniqueFd(fds[0]);
    there_ = UniqueFd(fds[1]);
  }
  // Sends `count` descriptors beside `text`, as any program could.
  void SendRaw(const std::string& text, int count) {
    std::vector<int> fds(static_cast<size_t>(count), ram_.get());
    std::vector<char> control(CMSG_SPACE(fds.size() * sizeof(int)));
    iovec data = {const_cast<char*>(text.data()), text.size()};
    msghdr message = {};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    if (count != 0) {
      message.msg_control = control.data();
      message.msg_controllen = control.size();
      cmsghdr* const c = CMSG_FIRSTHDR(&message);
      c->cmsg_level = SOL_SOCKET;
      c->cmsg_type = SCM_RIGHTS;
      c->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
      std::memcpy(CMSG_DATA(c), fds.data(), fds.size() * sizeof(int));
    }
    ASSERT_GE(sendmsg(here_.get(), &message, 0), 0);
  }

  UniqueFd ram_;
  UniqueFd here_;
  UniqueFd there_;
};

TEST_F(PortTest, BothSidesHaveTheSameMemoryAndEvents) {
  const absl::StatusOr<PortPair> pair = CreatePort(ram_.get());
  ASSERT_TRUE(pair.ok()) << pair.status().ToString();
  EXPECT_EQ(Inode(pair->guest.guest_ram), Inode(ram_));
  EXPECT_EQ(Inode(pair->guest.signals), Inode(pair->host.signals));
  EXPECT_NE(Inode(pair->guest.messages), Inode(pair->host.messages));
  const uint64_t one = 1;
  uint64_t count = 0;
  ASSERT_EQ(write(pair->guest.host_event.get(), &one, 8), 8);
  EXPECT_EQ(read(pair->host.host_event.get(), &count, 8), 8);
  ASSERT_EQ(write(pair->host.guest_event.get(), &one, 8), 8);
  EXPECT_EQ(read(pair->guest.guest_event.get(), &count, 8), 8);
  ASSERT_EQ(send(pair->guest.messages.get(), "m", 1, 0), 1);
  char byte;
  EXPECT_EQ(recv(pair->host.messages.get(), &byte, 1, 0), 1);
}

TEST_F(PortTest, APortArrivesWhole) {
  absl::StatusOr<PortPair> pair = CreatePort(ram_.get());
  ASSERT_TRUE(pair.ok());
  ASSERT_TRUE(SendPort(here_.get(), pair->host).ok());
  const absl::StatusOr<Port> received = ReceivePort(there_.get());
  ASSERT_TRUE(received.ok()) << received.status().ToString();
  EXPECT_EQ(Inode(received->guest_ram), Inode(ram_));
  EXPECT_EQ(Inode(received->signals), Inode(pair->host.signals));
  EXPECT_EQ(Inode(received->messages), Inode(pair->host.messages));
  for (const UniqueFd* fd :
       {&received->guest_ram, &received->signals, &received->host_event,
        &received->guest_event, &received->messages}) {
    EXPECT_NE(fcntl(fd->get(), F_GETFD) & FD_CLOEXEC, 0);
  }
}

// bad:T8
TEST_F(PortTest, SurplusDescriptorsAreClosed) {
  const int before = LowestFree();
  for (const int count : {0, 1, 4, 6, 16, 17, 200}) {
    SendRaw("ferrybus port 1", count);
    EXPECT_EQ(ReceivePort(there_.get()).status().code(),
              absl::StatusCode::kInvalidArgument)
        << count;
    EXPECT_EQ(LowestFree(), before) << count << " descriptors leaked";
  }
}

// bad:T8 bad:S4
TEST_F(PortTest, AnotherGreetingIsRefusedAndItsDescriptorsClosed) {
  const int before = LowestFree();
  for (const char* const text :
       {"", "f", "ferrybus port 2", "ferrybus port 1 ", "GET / HTTP/1.1"}) {
    SendRaw(text, 5);
    const absl::Status status = ReceivePort(there_.get()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find("ferrybus port 1"), std::string::npos);
  }
  SendRaw(std::string(1000, 'x'), 5);
  EXPECT_FALSE(ReceivePort(there_.get()).ok());
  EXPECT_EQ(LowestFree(), before);
}

TEST_F(PortTest, AClosedSocketIsAnError) {
  { const UniqueFd closed = std::move(here_); }
  EXPECT_FALSE(ReceivePort(there_.get()).ok());
  EXPECT_FALSE(SendPort(there_.get(), Port()).ok());
}

TEST_F(PortTest, APortWithoutItsDescriptorsIsNotCopied) {
  const int before = LowestFree();
  EXPECT_FALSE(DuplicatePort(Port()).ok());
  EXPECT_FALSE(CreatePort(-1).ok());
  EXPECT_EQ(LowestFree(), before);
}

}  // namespace
}  // namespace ferrybus
