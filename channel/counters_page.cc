// SPDX-License-Identifier: MIT

#include "ferrybus/channel/counters_page.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cstring>
#include <optional>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ferrybus/channel/messages.h"

namespace ferrybus {
namespace {

// All of it little endian, as the machine is.
struct Header {
  uint64_t magic = 0x31'73'74'63'79'72'72'66;  // "frrycts1"
  uint32_t version = 1;
  uint32_t header_bytes = 64;
  uint32_t slot_bytes = 128;
  uint32_t slot_count = kMaxChannelId + 1;  // by channel number; 0 is unused
  std::array<std::byte, 40> reserved{};

  friend bool operator==(const Header&, const Header&) = default;
};
static_assert(sizeof(Header) == 64 && std::is_trivially_copyable_v<Header>);

// Words of a slot: the sequence number, odd while the slot is written; whether
// there is such a channel; the counters; zero.
using CounterWords = std::array<uint64_t, sizeof(ChannelCounters) / 8>;
constexpr size_t kSlotBytes = Header().slot_bytes;
constexpr size_t kSequenceWord = 0;
constexpr size_t kUsedWord = 1;
constexpr size_t kCountersWord = 2;
static_assert((kCountersWord + std::tuple_size_v<CounterWords>)*8 <=
              kSlotBytes);
constexpr size_t kPageBytes =
    sizeof(Header) + size_t{Header().slot_count} * kSlotBytes;

constexpr int kSeals =
    F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL;
// A look that meets a write is repeated at most so often.
constexpr int kLooksMax = 1000;

// The page is aligned, and so are its slots and words.
template <typename Word, typename Byte>
Word* SlotWords(Byte* base, uint32_t channel_id) {
  return reinterpret_cast<Word*>(base + sizeof(Header) +
                                 size_t{channel_id} * kSlotBytes);
}

bool IsChannel(uint32_t channel_id) {
  return channel_id != 0 && channel_id <= kMaxChannelId;
}

uint64_t LoadWord(const uint64_t* word) {
  // [R9] acquire: pairs with [W9] in WriteSlot(): who sees a new word sees the
  // odd number before it, at the second look at the number.
  return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

// One look at a slot; nothing if it is being written.
struct Look {
  bool is_used = false;
  ChannelCounters counters;
};
std::optional<Look> LookAt(const uint64_t* slot) {
  // [R8] acquire: pairs with [W8] in WriteSlot(): the words are not older.
  const uint64_t sequence =
      __atomic_load_n(slot + kSequenceWord, __ATOMIC_ACQUIRE);
  if (sequence % 2 != 0) return std::nullopt;
  const bool is_used = LoadWord(slot + kUsedWord) != 0;
  CounterWords words;
  for (size_t i = 0; i < words.size(); ++i) {
    words[i] = LoadWord(slot + kCountersWord + i);
  }
  // [L1] relaxed: after the words, which were acquired.
  if (__atomic_load_n(slot + kSequenceWord, __ATOMIC_RELAXED) != sequence) {
    return std::nullopt;
  }
  return Look{is_used, std::bit_cast<ChannelCounters>(words)};
}

}  // namespace

// -- Writing -----------------------------------------------------------------

absl::StatusOr<std::unique_ptr<CountersPage>> CountersPage::Create() {
  UniqueFd fd(
      memfd_create("ferrybus-counters", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  void* base = MAP_FAILED;
  if (fd.valid() && ftruncate(fd.get(), kPageBytes) == 0) {
    base = mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED,
                fd.get(), 0);
  }
  if (base == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("counters page: ", std::strerror(errno)));
  }
  std::unique_ptr<CountersPage> page(
      new CountersPage(std::move(fd), static_cast<std::byte*>(base)));
  const Header header;
  std::memcpy(base, &header, sizeof(header));
  // The mapping above stays writable.
  if (fcntl(page->fd(), F_ADD_SEALS, kSeals) != 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("counters page: sealing: ", std::strerror(errno)));
  }
  return page;
}

CountersPage::~CountersPage() { munmap(base_, kPageBytes); }

void CountersPage::Write(uint32_t channel_id, const ChannelCounters& counters) {
  if (IsChannel(channel_id)) WriteSlot(channel_id, 1, counters);
}

void CountersPage::Clear(uint32_t channel_id) {
  if (IsChannel(channel_id)) WriteSlot(channel_id, 0, {});
}

void CountersPage::WriteSlot(uint32_t channel_id, uint64_t is_used,
                             const ChannelCounters& counters) {
  uint64_t* const slot = SlotWords<uint64_t>(base_, channel_id);
  const auto words = std::bit_cast<CounterWords>(counters);
  // [L1] relaxed: this thread is the only writer.
  const uint64_t sequence =
      __atomic_load_n(slot + kSequenceWord, __ATOMIC_RELAXED);
  // [L1] relaxed: before each [W9].
  __atomic_store_n(slot + kSequenceWord, sequence + 1, __ATOMIC_RELAXED);
  // [W9] release: pairs with [R9] in LoadWord(); a plain store on x86-64.
  __atomic_store_n(slot + kUsedWord, is_used, __ATOMIC_RELEASE);
  for (size_t i = 0; i < words.size(); ++i) {
    // [W9] release: as above.
    __atomic_store_n(slot + kCountersWord + i, words[i], __ATOMIC_RELEASE);
  }
  // [W8] release: pairs with [R8] in LookAt(); the words come before it.
  __atomic_store_n(slot + kSequenceWord, sequence + 2, __ATOMIC_RELEASE);
}

// -- Reading -----------------------------------------------------------------

absl::StatusOr<std::unique_ptr<CountersReader>> CountersReader::Map(int fd) {
  struct stat info;
  const int seals = fcntl(fd, F_GET_SEALS);
  if (fstat(fd, &info) != 0 || info.st_size != off_t{kPageBytes} || seals < 0 ||
      (seals & F_SEAL_SHRINK) == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("counters page: not a memfd of ", kPageBytes,
                     " bytes with F_SEAL_SHRINK"));
  }
  void* const base = mmap(nullptr, kPageBytes, PROT_READ, MAP_SHARED, fd, 0);
  if (base == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("counters page: mmap: ", std::strerror(errno)));
  }
  std::unique_ptr<CountersReader> reader(
      new CountersReader(static_cast<const std::byte*>(base)));
  Header header;
  std::memcpy(&header, base, sizeof(header));
  if (!(header == Header())) {
    return absl::FailedPreconditionError(
        "counters page: unknown magic, version or layout");
  }
  return reader;
}

CountersReader::~CountersReader() {
  munmap(const_cast<std::byte*>(base_), kPageBytes);
}

absl::StatusOr<ChannelCounters> CountersReader::Read(
    uint32_t channel_id) const {
  const absl::Status not_found =
      absl::NotFoundError(absl::StrCat("no channel ", channel_id));
  if (!IsChannel(channel_id)) return not_found;
  const uint64_t* const slot = SlotWords<const uint64_t>(base_, channel_id);
  for (int i = 0; i < kLooksMax; ++i) {
    const std::optional<Look> look = LookAt(slot);
    if (!look.has_value()) continue;
    if (!look->is_used) return not_found;
    return look->counters;
  }
  return absl::UnavailableError(
      absl::StrCat("channel ", channel_id, ": its counters are being written"));
}

}  // namespace ferrybus
