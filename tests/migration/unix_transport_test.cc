// SPDX-License-Identifier: MIT
//
// Handing a machine over to another process: what it does, and what peers that
// mean harm can not.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "ferrybus/savestate/migration/migration_messages.h"
#include "ferrybus/savestate/migration/unix/socket_frame.h"
#include "ferrybus/savestate/migration/unix/unix_connection.h"
#include "ferrybus/savestate/migration/unix/unix_socket.h"
#include "ferrybus/savestate/steady_clock.h"
#include "ferrybus/savestate/unique_fd.h"
#include "ferrybus/tests/migration/unix_relay.h"
#include "ferrybus/tests/migration/unix_world.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ferrybus::migration {
namespace {

using savestate::UniqueFd;
using ::testing::HasSubstr;

constexpr uint64_t kSizeBytes = 65536;

// Of tests that wait it out, and then move a machine: as long as a busy host
// may let a thread wait.
constexpr absl::Duration kShortPatience = absl::Seconds(3);

std::string Text(const absl::Status& status) { return status.ToString(); }

// Until the servers' threads of connections have ended theirs.
bool DescriptorsAre(int wanted) {
  const absl::Time until = savestate::SteadyNow() + absl::Seconds(20);
  while (savestate::SteadyNow() < until) {
    if (OpenDescriptors() == wanted) return true;
    absl::SleepFor(absl::Milliseconds(10));
  }
  return false;
}

TEST(UnixTransportTest, MemoryIsHandedOverNotCopied) {
  UnixWorld world;
  const uint64_t memory = world.source().memory_inode();
  const MigrationProgress result =
      world.Move(world.Outgoing(world.target().address()));
  EXPECT_EQ(result.phase, SourcePhase::kDone) << result.status;
  EXPECT_TRUE(result.status.ok()) << result.status;
  EXPECT_EQ(result.plain_bytes_sent, 0u);
  EXPECT_EQ(world.CheckEnd(), "");
  EXPECT_TRUE(world.is_moved());
  EXPECT_EQ(world.target().memory_inode(), memory);
}

TEST(UnixTransportTest, MemoryWithoutDescriptorIsCopied) {
  UnixWorld world({.share_memory = false});
  const MigrationProgress result =
      world.Move(world.Outgoing(world.target().address()));
  EXPECT_EQ(result.phase, SourcePhase::kDone) << result.status;
  EXPECT_GT(result.pages_sent, 0u);
  EXPECT_EQ(world.CheckEnd(), "");
  EXPECT_TRUE(world.is_moved());
}

TEST(UnixTransportTest, NobodyListensThere) {
  UnixWorld world;
  const MigrationProgress result =
      world.Move(world.Outgoing("unix:/nowhere/at.all"));
  EXPECT_EQ(result.phase, SourcePhase::kFailed);
  EXPECT_THAT(Text(result.status), HasSubstr("/nowhere/at.all"));
  EXPECT_EQ(world.CheckEnd(), "");
}

TEST(UnixTransportTest, SourceAnswersWhatItDecided) {
  UnixWorld world;
  OutgoingOptions options = world.Outgoing(world.target().address());
  const auto ask = [&](const std::string& machine) {
    return AskDecisionOverUnix(world.source().address(), machine,
                               options.source.migration_id, absl::Seconds(5));
  };
  int asked = 0;
  options.on_progress = [&](const MigrationProgress& progress) {
    if (progress.phase >= SourcePhase::kCommitted) return;
    EXPECT_EQ(*ask(kMachine), Decision::kUndecided);
    ++asked;
  };
  EXPECT_EQ(world.Move(options).phase, SourcePhase::kDone);
  EXPECT_GT(asked, 2);
  EXPECT_EQ(*ask(kMachine), Decision::kCommitted);
  EXPECT_TRUE(absl::IsNotFound(ask("another").status()));
  EXPECT_EQ(world.CheckEnd(), "");
}

TEST(UnixTransportTest, SocketIsForThisUserOnly) {
  UnixWorld world;
  struct stat info = {};
  ASSERT_EQ(stat(world.source().path().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

// A server that was killed leaves its socket; one that lives keeps it.
TEST(UnixTransportTest, TakesThePlaceOfADeadServerOnly) {
  UnixWorld world;
  MigrationBook book;
  UnixServer second({.address = world.target().address()}, &world.target(),
                    &book);
  EXPECT_TRUE(absl::IsAlreadyExists(second.Start()));
  second.Stop();
  const std::string path = world.folder() + "/old.sock";
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  {
    const UniqueFd dead(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(bind(dead.get(), reinterpret_cast<const sockaddr*>(&address),
                   sizeof(address)),
              0);
  }
  UnixServer third({.address = absl::StrCat(kUnixPrefix, path)},
                   &world.target(), &book);
  EXPECT_TRUE(third.Start().ok());
  third.Stop();
  EXPECT_NE(access(path.c_str(), F_OK), 0);
}

// Another user's process is not heard, whatever it sends.  As root only: who
// else could be another user.
TEST(UnixTransportTest, AnotherUsersProcessIsRefused) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  int pair[2] = {};
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
  // Credentials are those of when the sockets were made.
  const pid_t child = fork();
  if (child == 0) {
    int theirs[2] = {};
    const bool is_refused =
        setresuid(65534, 65534, 0) == 0 &&
        socketpair(AF_UNIX, SOCK_STREAM, 0, theirs) == 0 &&
        setresuid(0, 0, 0) == 0 &&
        absl::IsPermissionDenied(
            UnixSocket::Adopt(UniqueFd(theirs[0])).status());
    _exit(is_refused ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(UnixSocket::Adopt(UniqueFd(pair[0])).ok());
  close(pair[1]);
}

// ---- Descriptors

Hello SharedHello(const std::string& machine = kMachine) {
  Hello hello;
  hello.migration_id = std::string(kIdSizeBytes, 'i');
  hello.machine = machine;
  hello.epoch = 7;
  hello.devices = {{"memory",
                    "",
                    {{.id = 1,
                      .page_size_bytes = 4096,
                      .size_bytes = kSizeBytes,
                      .is_shared = true}}}};
  return hello;
}

UniqueFd Memfd(uint64_t size_bytes, int seals) {
  UniqueFd fd(memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  EXPECT_EQ(ftruncate(fd.get(), static_cast<off_t>(size_bytes)), 0);
  EXPECT_EQ(fcntl(fd.get(), F_ADD_SEALS, seals), 0);
  return fd;
}

std::vector<UniqueFd> One(UniqueFd fd) {
  std::vector<UniqueFd> list;
  list.push_back(std::move(fd));
  return list;
}

UniqueFd ReadOnly() {
  const UniqueFd fd = Memfd(kSizeBytes, F_SEAL_SHRINK);
  return UniqueFd(open(absl::StrCat("/proc/self/fd/", fd.get()).c_str(),
                       O_RDONLY | O_CLOEXEC));
}

UniqueFd File(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  EXPECT_EQ(ftruncate(fd.get(), kSizeBytes), 0);
  return fd;
}

// A source that greets, and sends this.  What the target says then.
std::string AnswerTo(UnixHost& target, const std::string& bytes,
                     const std::vector<UniqueFd>& descriptors) {
  auto socket = UnixSocket::Connect(target.path(), absl::Seconds(5));
  EXPECT_TRUE(socket.ok()) << socket.status();
  EXPECT_TRUE(
      (*socket)
          ->Send(FrameKind::kGreeting, SerializeGreeting("unix:/nobody/here"))
          .ok());
  EXPECT_TRUE((*socket)->Send(FrameKind::kMessage, bytes, descriptors).ok());
  absl::StatusOr<Frame> frame =
      (*socket)->Receive({}, savestate::SteadyNow() + absl::Seconds(10));
  if (!frame.ok()) return frame.status().ToString();
  absl::StatusOr<Message> message =
      ParseMessage({reinterpret_cast<const std::byte*>(frame->bytes.data()),
                    frame->bytes.size()},
                   {});
  if (!message.ok()) return message.status().ToString();
  if (const Abort* abort = std::get_if<Abort>(&*message)) {
    return abort->reason.ToString();
  }
  return std::string(MessageName(*message));
}

// bad:T8
TEST(UnixDescriptorsTest, OnlyMemoryAsAnnounced) {
  UnixWorld world({.pages = kSizeBytes / 4096});
  ASSERT_TRUE(DescriptorsAre(OpenDescriptors()));
  const int open_before = OpenDescriptors();
  struct Case {
    const char* wrong;
    std::function<UniqueFd()> make;
  };
  const std::string path = world.folder() + "/file";
  (void)File(path);
  const Case cases[] = {
      {"announced are 65536",
       [] { return Memfd(kSizeBytes - 4096, F_SEAL_SHRINK); }},
      {"announced are 65536",
       [] { return Memfd(kSizeBytes + 4096, F_SEAL_SHRINK); }},
      {"no F_SEAL_SHRINK", [] { return Memfd(kSizeBytes, F_SEAL_GROW); }},
      {"against writing",
       [] { return Memfd(kSizeBytes, F_SEAL_SHRINK | F_SEAL_WRITE); }},
      {"against writing",
       [] { return Memfd(kSizeBytes, F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE); }},
      {"reading and writing", ReadOnly},
      {"not a memfd", [&] { return File(path); }},
      {"no memory", [] { return UniqueFd(open("/dev/null", O_RDWR)); }},
      {"no memory", [] { return UniqueFd(open("/tmp", O_PATH)); }},
      {"no memory", [] { return UniqueFd(socket(AF_UNIX, SOCK_STREAM, 0)); }},
  };
  for (const Case& each : cases) {
    EXPECT_THAT(AnswerTo(world.target(), SerializeMessage(SharedHello()),
                         One(each.make())),
                HasSubstr(each.wrong));
  }
  EXPECT_THAT(AnswerTo(world.target(), SerializeMessage(SharedHello()), {}),
              HasSubstr("no descriptor"));
  std::vector<UniqueFd> two = One(Memfd(kSizeBytes, F_SEAL_SHRINK));
  two.push_back(Memfd(kSizeBytes, F_SEAL_SHRINK));
  EXPECT_THAT(AnswerTo(world.target(), SerializeMessage(SharedHello()), two),
              HasSubstr("2 descriptors, 1 segments"));
  // And what is right.
  EXPECT_EQ(AnswerTo(world.target(), SerializeMessage(SharedHello()),
                     One(Memfd(kSizeBytes, F_SEAL_SHRINK))),
            "HelloReply");
  two.clear();
  EXPECT_TRUE(DescriptorsAre(open_before)) << OpenDescriptors();
}

// Raw bytes with as many descriptors as the system takes.
void SendRaw(int socket, const std::string& bytes, size_t descriptors) {
  const UniqueFd fd(open("/dev/null", O_RDWR | O_CLOEXEC));
  alignas(cmsghdr) char control[CMSG_SPACE(kFrameDescriptorsMax * sizeof(int))];
  std::memset(control, 0, sizeof(control));
  iovec part = {const_cast<char*>(bytes.data()), bytes.size()};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (descriptors > 0) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(descriptors * sizeof(int));
    cmsghdr* rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(descriptors * sizeof(int));
    for (size_t i = 0; i < descriptors; ++i) {
      const int raw = fd.get();
      std::memcpy(CMSG_DATA(rights) + i * sizeof(int), &raw, sizeof(int));
    }
  }
  (void)sendmsg(socket, &message, MSG_NOSIGNAL);
}

std::string Framed(FrameKind kind, const std::string& bytes,
                   uint8_t descriptors = 0) {
  const auto header =
      SerializeFrameHeader({.kind = kind,
                            .descriptors = descriptors,
                            .size_bytes = static_cast<uint32_t>(bytes.size())});
  return std::string(header.data(), header.size()) + bytes;
}

// bad:T8 bad:T2
TEST(UnixDescriptorsTest, SurplusDescriptorsAreClosedWhereverTheyAre) {
  UnixWorld world;
  const int open_before = OpenDescriptors();
  const std::string greeting =
      Framed(FrameKind::kGreeting, SerializeGreeting("unix:/nobody/here"));
  const std::string hello = SerializeMessage(SharedHello());
  struct Part {
    std::string bytes;
    size_t descriptors;
  };
  const std::vector<std::vector<Part>> cases = {
      {{greeting, 1}},
      {{greeting, kFrameDescriptorsMax}},
      {{greeting.substr(0, 3), 1}, {greeting.substr(3), 1}},
      {{greeting, 0}, {Framed(FrameKind::kMessage, hello, 1), 2}},
      {{greeting, 0}, {Framed(FrameKind::kMessage, hello, 2), 1}},
      {{greeting, 0}, {Framed(FrameKind::kMessage, hello, 255), 253}},
      {{greeting, 0},
       {Framed(FrameKind::kMessage, hello, 1).substr(0, 40), 1},
       {Framed(FrameKind::kMessage, hello, 1).substr(40), 1}},
      {{greeting, 0}, {Framed(FrameKind::kBlock, "block", 1), 1}},
      {{Framed(FrameKind::kQuestion, SerializeQuestion({"m", hello}), 1), 1}},
  };
  for (const std::vector<Part>& parts : cases) {
    const UniqueFd raw(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, world.target().path().data(),
                world.target().path().size());
    ASSERT_EQ(connect(raw.get(), reinterpret_cast<const sockaddr*>(&address),
                      sizeof(address)),
              0);
    for (const Part& part : parts) {
      SendRaw(raw.get(), part.bytes, part.descriptors);
      absl::SleepFor(absl::Milliseconds(5));
    }
  }
  EXPECT_TRUE(DescriptorsAre(open_before)) << OpenDescriptors();
  EXPECT_EQ(world.CheckEnd(), "");
}

// ---- Peers that mean harm

// bad:T2
TEST(UnixTransportTest, BytesThatAreNoFrameEndTheConnection) {
  UnixWorld world({.silence_max = kShortPatience});
  const int open_before = OpenDescriptors();
  const std::string greeting =
      Framed(FrameKind::kGreeting, SerializeGreeting("unix:/nobody/here"));
  std::string bad_greeting = greeting;
  bad_greeting.back() ^= 1;
  const std::string cases[] = {
      "",
      "F",
      std::string(8, '\0'),
      std::string(8, '\xff'),
      std::string("FB\x02\x00\xff\xff\xff\xff", 8),
      std::string("FB\x01\x00\xff\x00\x00\x00", 8),
      std::string("FB\x06\x00\x01\x00\x00\x00", 8),
      "GET / HTTP/1.0\r\n\r\n",
      bad_greeting,
      Framed(FrameKind::kGreeting, SerializeGreeting("host:7070")),
      Framed(FrameKind::kGreeting, SerializeGreeting("unix:relative")),
      Framed(FrameKind::kMessage, "no greeting"),
      Framed(FrameKind::kAnswer, SerializeAnswer(Decision::kCommitted)),
      Framed(FrameKind::kQuestion, "short"),
      greeting,
      greeting + "F",
      greeting + Framed(FrameKind::kBlock, "before the hello"),
      greeting + Framed(FrameKind::kMessage, ""),
      greeting + Framed(FrameKind::kMessage, "no message"),
      greeting + greeting,
      greeting + std::string("FB\x02\x00\xff\xff\xff\x01", 8) + "some",
  };
  // All at once: some of them end by the server's patience alone.
  std::vector<UniqueFd> raws;
  for (const std::string& bytes : cases) {
    raws.emplace_back(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, world.target().path().data(),
                world.target().path().size());
    ASSERT_EQ(
        connect(raws.back().get(), reinterpret_cast<const sockaddr*>(&address),
                sizeof(address)),
        0);
    SendRaw(raws.back().get(), bytes, 0);
  }
  // Whatever it answers, it ends: nobody waits for ever.
  for (const UniqueFd& raw : raws) {
    const timeval patience = {.tv_sec = 10, .tv_usec = 0};
    setsockopt(raw.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    char buffer[4096];
    ssize_t got = 0;
    while ((got = recv(raw.get(), buffer, sizeof(buffer), 0)) > 0) {
    }
    EXPECT_TRUE(got == 0 || errno == ECONNRESET) << "case " << &raw - &raws[0];
  }
  raws.clear();
  EXPECT_TRUE(DescriptorsAre(open_before)) << OpenDescriptors();
  const MigrationProgress result =
      world.Move(world.Outgoing(world.target().address()));
  EXPECT_EQ(result.phase, SourcePhase::kDone) << result.status;
  EXPECT_EQ(world.CheckEnd(), "");
}

// bad:T4
TEST(UnixTransportTest, ConnectionsThatSayNothingAreBounded) {
  UnixWorld world({.silence_max = kShortPatience});
  const int open_before = OpenDescriptors();
  std::vector<std::unique_ptr<UnixSocket>> sockets;
  for (int i = 0; i < 100; ++i) {
    auto socket = UnixSocket::Connect(world.target().path(), absl::Seconds(5));
    if (socket.ok()) sockets.push_back(*std::move(socket));
  }
  // Those that it has room for by its patience, the others at once.
  const absl::Time until = savestate::SteadyNow() + absl::Seconds(30);
  for (const std::unique_ptr<UnixSocket>& socket : sockets) {
    const absl::Status end = socket->Receive({}, until).status();
    EXPECT_FALSE(absl::IsDeadlineExceeded(end)) << end;
  }
  const MigrationProgress result =
      world.Move(world.Outgoing(world.target().address()));
  EXPECT_EQ(result.phase, SourcePhase::kDone) << result.status;
  sockets.clear();
  EXPECT_TRUE(DescriptorsAre(open_before)) << OpenDescriptors();
  EXPECT_EQ(world.CheckEnd(), "");
}

// The same hello, once more, by another source.
// bad:T6
TEST(UnixTransportTest, TwoSourcesOfOneMachine) {
  UnixWorld world({.pages = kSizeBytes / 4096});
  auto first = UnixSocket::Connect(world.target().path(), absl::Seconds(5));
  ASSERT_TRUE(first.ok());
  ASSERT_TRUE(
      (*first)
          ->Send(FrameKind::kGreeting, SerializeGreeting("unix:/nobody/here"))
          .ok());
  ASSERT_TRUE((*first)
                  ->Send(FrameKind::kMessage, SerializeMessage(SharedHello()),
                         One(Memfd(kSizeBytes, F_SEAL_SHRINK)))
                  .ok());
  ASSERT_TRUE(
      (*first)->Receive({}, savestate::SteadyNow() + absl::Seconds(10)).ok());
  EXPECT_THAT(AnswerTo(world.target(), SerializeMessage(SharedHello()),
                       One(Memfd(kSizeBytes, F_SEAL_SHRINK))),
              HasSubstr("already"));
  const MigrationProgress result =
      world.Move(world.Outgoing(world.target().address()));
  EXPECT_THAT(Text(result.status), HasSubstr("already"));
  (*first)->Shutdown();
  EXPECT_EQ(world.CheckEnd(), "");
}

}  // namespace
}  // namespace ferrybus::migration
