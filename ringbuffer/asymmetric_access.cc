// SPDX-License-Identifier: MIT

#include "ferrybus/ringbuffer/asymmetric_access.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace ferrybus::ringbuffer {
namespace {

std::atomic<uint64_t> failed_fences_count{0};

struct Commands {
  int enroll;
  int fence;
};

Commands CommandsOf(FenceScope scope) {
  if (scope == FenceScope::kProcess) {
    return {MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED,
            MEMBARRIER_CMD_PRIVATE_EXPEDITED};
  }
  return {MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED,
          MEMBARRIER_CMD_GLOBAL_EXPEDITED};
}

long Membarrier(int command) { return syscall(SYS_membarrier, command, 0, 0); }

}  // namespace

absl::StatusOr<AsymmetricAccess> AsymmetricAccess::Register(FenceScope scope) {
  if (scope == FenceScope::kNobody) return AsymmetricAccess();
  const Commands commands = CommandsOf(scope);
  const long offered = Membarrier(MEMBARRIER_CMD_QUERY);
  if (offered < 0) {
    return absl::UnimplementedError(absl::StrCat(
        "asymmetric fence: this kernel, or the filter of this process, has no "
        "membarrier: ",
        std::strerror(errno), "; use full fences on both ends"));
  }
  if ((offered & commands.enroll) == 0 || (offered & commands.fence) == 0) {
    return absl::UnimplementedError(absl::StrCat(
        "asymmetric fence: this kernel's membarrier has the commands 0x",
        absl::Hex(offered), ", needed are 0x",
        absl::Hex(commands.enroll | commands.fence),
        "; use full fences on both ends"));
  }
  if (Membarrier(commands.enroll) != 0 || Membarrier(commands.fence) != 0) {
    return absl::UnavailableError(
        absl::StrCat("asymmetric fence: membarrier: ", std::strerror(errno),
                     "; use full fences on both ends"));
  }
  return AsymmetricAccess(scope);
}

void AsymmetricAccess::HeavyFence(FenceScope scope) {
  if (Membarrier(CommandsOf(scope).fence) == 0) return;
  // [L0] relaxed: a count.
  failed_fences_count.fetch_add(1, std::memory_order_relaxed);
  // Our store first, then long enough for any store buffer; see the header.
  ProductionAccess().FullFence();
  timespec left = {0, 1'000'000};
  while (nanosleep(&left, &left) != 0 && errno == EINTR) {
  }
}

uint64_t AsymmetricAccess::failed_fences() {
  // [L0] relaxed: a count.
  return failed_fences_count.load(std::memory_order_relaxed);
}

}  // namespace ferrybus::ringbuffer
