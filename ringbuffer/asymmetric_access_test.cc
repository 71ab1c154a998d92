// SPDX-License-Identifier: MIT
//
// The asymmetric fence as such: who makes the system call, what happens where
// there is none.  Seccomp filters in child processes stand for kernels without
// it.  That no wake-up is lost is in waiting_storm_test.cc.

#include "ferrybus/ringbuffer/asymmetric_access.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/membarrier.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <functional>

#include "absl/status/status.h"
#include "ferrybus/ringbuffer/ring_consumer.h"
#include "ferrybus/ringbuffer/ring_producer.h"
#include "ferrybus/ringbuffer/testing/test_ring.h"
#include "gtest/gtest.h"

namespace ferrybus::ringbuffer {
namespace {

using testing::Bytes;
using testing::TestRing;

constexpr uint32_t kSize = 4096;
constexpr int kNoFilter = 77;
constexpr uint32_t kAnyCommand = ~uint32_t{0};

// From here on membarrier(command), or all of membarrier, fails with `error`.
bool RefuseMembarrier(uint32_t command, uint32_t error) {
  const uint32_t wrong_command = command == kAnyCommand ? 0 : 1;
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_membarrier, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, command, 0,
               static_cast<uint8_t>(wrong_command)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  sock_fprog program = {sizeof(filter) / sizeof(filter[0]), filter};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

// What `body` returns in a process of its own.
int InChild(const std::function<int()>& body) {
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) _exit(body());
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

bool Offered() {
  const long offered = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
  return offered > 0 && (offered & MEMBARRIER_CMD_GLOBAL_EXPEDITED) != 0;
}

class AsymmetricAccessTest : public ::testing::TestWithParam<FenceScope> {
 protected:
  void SetUp() override {
    if (!Offered()) GTEST_SKIP() << "no membarrier on this machine";
  }
};
INSTANTIATE_TEST_SUITE_P(Scopes, AsymmetricAccessTest,
                         ::testing::Values(FenceScope::kProcess,
                                           FenceScope::kHost));

TEST_P(AsymmetricAccessTest, RegistersAsOftenAsAsked) {
  for (int i = 0; i < 3; ++i) {
    const auto access = AsymmetricAccess::Register(GetParam());
    ASSERT_TRUE(access.ok()) << access.status();
    EXPECT_EQ(access->scope(), GetParam());
  }
}

// A machine without the system call, and one that has it but refuses it.
TEST_P(AsymmetricAccessTest, ARefusalIsAStatus) {
  const auto code_after = [](uint32_t command, uint32_t error) {
    return InChild([&] {
      if (!RefuseMembarrier(command, error)) return kNoFilter;
      const auto access = AsymmetricAccess::Register(GetParam());
      return static_cast<int>(access.status().code());
    });
  };
  const int none = code_after(kAnyCommand, ENOSYS);
  if (none == kNoFilter) GTEST_SKIP() << "no seccomp on this machine";
  EXPECT_EQ(none, static_cast<int>(absl::StatusCode::kUnimplemented));
  const bool process = GetParam() == FenceScope::kProcess;
  // Each of the two calls is tried.
  EXPECT_EQ(code_after(process ? MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED
                               : MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED,
                       EPERM),
            static_cast<int>(absl::StatusCode::kUnavailable));
  EXPECT_EQ(code_after(process ? MEMBARRIER_CMD_PRIVATE_EXPEDITED
                               : MEMBARRIER_CMD_GLOBAL_EXPEDITED,
                       EPERM),
            static_cast<int>(absl::StatusCode::kUnavailable));
}

TEST(AsymmetricAccessDefaultTest, IsNotArmed) {
  EXPECT_EQ(AsymmetricAccess().scope(), FenceScope::kNobody);
  const auto access = AsymmetricAccess::Register(FenceScope::kNobody);
  ASSERT_TRUE(access.ok());
  EXPECT_EQ(access->scope(), FenceScope::kNobody);
}

#if !defined(__SANITIZE_THREAD__)

// How many system calls each operation makes: after registration all of them
// are made to fail, and the failures counted.  Each of them is survived.
TEST_P(AsymmetricAccessTest, OnlyTheSideThatGoesToSleepMakesTheCall) {
  const auto failures_of = [](const AsymmetricAccess& access) {
    TestRing ring(kSize);
    BasicRingProducer<AsymmetricAccess> producer(ring.view(), access);
    BasicRingConsumer<AsymmetricAccess> consumer(ring.view(), kSize, access);
    BasicPacketView<AsymmetricAccess> packet;
    int failed = 0;
    for (int i = 1; i <= 100; ++i) {
      (void)producer.Write({}, {}, Bytes(1000));
      if (!producer.Publish()) return 1;
      consumer.MaskSignals();
      if (consumer.Next(&packet) != ReadResult::kOk) return 2;
      (void)consumer.Release();
      if (AsymmetricAccess::failed_fences() != static_cast<uint64_t>(failed)) {
        return 3;  // the hot side called
      }
      if (consumer.UnmaskSignals()) return 4;
      if (!producer.ArmPendingSend(100)) return 5;
      failed += access.scope() == FenceScope::kNobody ? 0 : 2;
      if (AsymmetricAccess::failed_fences() != static_cast<uint64_t>(failed)) {
        return 6;  // the sleeping side did not
      }
    }
    return 0;
  };
  for (FenceScope scope : {GetParam(), FenceScope::kNobody}) {
    const int result = InChild([&] {
      const auto access = AsymmetricAccess::Register(scope);
      if (!access.ok()) return 10;
      if (!RefuseMembarrier(kAnyCommand, EPERM)) return kNoFilter;
      return failures_of(*access);
    });
    if (result == kNoFilter) GTEST_SKIP() << "no seccomp on this machine";
    EXPECT_EQ(result, 0);
  }
}

#endif  // the thread sanitizer sees full fences on both sides

}  // namespace
}  // namespace ferrybus::ringbuffer
