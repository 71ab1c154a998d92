// SPDX-License-Identifier: MIT

#include "ferrybus/channel/transport/signal_page.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <bit>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace ferrybus {
namespace {

constexpr size_t kPageBytes = 4096;
constexpr uint32_t kChannels = 2048;  // bit 0 is reserved
constexpr uint32_t kWords = kChannels / 64;
constexpr size_t kGuestToHostOffset = 2048;

}  // namespace

absl::StatusOr<SignalPage> SignalPage::Map(int fd) {
  struct stat info;
  const int seals = fcntl(fd, F_GET_SEALS);
  if (fstat(fd, &info) != 0 || info.st_size != kPageBytes || seals < 0 ||
      (seals & F_SEAL_SHRINK) == 0) {
    return absl::FailedPreconditionError(
        "signal page: not a memfd of 4096 bytes with F_SEAL_SHRINK");
  }
  void* const base =
      mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (base == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("signal page: mmap: ", std::strerror(errno)));
  }
  return SignalPage(base);
}

SignalPage::SignalPage(SignalPage&& other) noexcept
    : base_(std::exchange(other.base_, nullptr)) {}

SignalPage& SignalPage::operator=(SignalPage&& other) noexcept {
  std::swap(base_, other.base_);
  return *this;
}

SignalPage::~SignalPage() {
  if (base_ != nullptr) munmap(base_, kPageBytes);
}

uint64_t* SignalPage::words(SignalDirection direction) const {
  const size_t offset =
      direction == SignalDirection::kHostToGuest ? 0 : kGuestToHostOffset;
  return reinterpret_cast<uint64_t*>(static_cast<std::byte*>(base_) + offset);
}

void SignalSender::Ring(uint32_t channel_id) {
  if (channel_id >= kChannels) return;
  const uint64_t bit = uint64_t{1} << (channel_id % 64);
  // [W3] release: pairs with [R3] in Take(); what the ring holds is visible to
  // whoever sees the bit.
  const uint64_t before =
      __atomic_fetch_or(&words_[channel_id / 64], bit, __ATOMIC_ACQ_REL);
  if ((before & bit) != 0) return;
  const uint64_t one = 1;
  // EAGAIN: the counter is full, so the receiver is as awake as can be.
  ssize_t result;
  do {
    result = write(eventfd_, &one, sizeof(one));
  } while (result < 0 && errno == EINTR);
}

bool SignalReceiver::Take(
    absl::FunctionRef<void(uint32_t channel_id)> signalled) {
  uint64_t count;
  iovec data = {&count, sizeof(count)};
  // Cleared before the bits are taken: a bit set in between finds the eventfd
  // written again, which costs an empty round, never a lost one.
  //
  // RWF_NOWAIT: whether the descriptor blocks is for the peer to switch, too.
  was_woken_ = preadv2(eventfd_, &data, 1, -1, RWF_NOWAIT) > 0;
  bool any = false;
  for (uint32_t i = 0; i < kWords; ++i) {
    // [L1] relaxed: a look; the exchange below decides.
    if (__atomic_load_n(&words_[i], __ATOMIC_RELAXED) == 0) continue;
    // [R3] acquire: pairs with [W3] in Ring().
    uint64_t bits = __atomic_exchange_n(&words_[i], 0, __ATOMIC_ACQ_REL);
    while (bits != 0) {
      signalled(i * 64 + static_cast<uint32_t>(std::countr_zero(bits)));
      bits &= bits - 1;
      any = true;
    }
  }
  return any;
}

}  // namespace ferrybus
