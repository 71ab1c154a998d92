// SPDX-License-Identifier: MIT
//
// Counters of a connection's channels that another process reads while
// traffic runs.
//
// What it is: a memfd of a fixed layout (docs/EMBEDDING.md), with a slot for
// each channel number.  The one who serves the channels writes it, once per
// channel and Poll(); whoever is given fd() maps it to read, and can do
// nothing else with it.
//
// Ownership: writer and reader own their mappings; the memory lives as long as
// one of them, or a descriptor.
// Thread safety: one thread writes.  A reader is one thread's; any number of
// readers, in any process.
//
// Ordering: a slot is read as it stood at one moment: [W8] pairs with [R8],
// [W9] with [R9] in counters_page.cc.  Two slots are of two moments.
//
// Trust: the writer's descriptor is sealed (F_SEAL_FUTURE_WRITE): who has it
// cannot write, resize or map it to write.  A reader believes the numbers no
// more than their writer; a writer that ends within a slot costs the reader a
// bounded number of looks.
//
// Cost: writing a slot is about fifteen plain stores, no system call.
//
//   std::unique_ptr<CountersPage> page = *CountersPage::Create();
//   options.counters = page.get();   // vsp::BusOptions
//   SendDescriptor(page->fd());      // elsewhere: CountersReader::Map(fd)

#ifndef FERRYBUS_CHANNEL_COUNTERS_PAGE_H_
#define FERRYBUS_CHANNEL_COUNTERS_PAGE_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "ferrybus/channel/transport/unique_fd.h"

namespace ferrybus {

// Since the channel was opened, but for `faults`: since it was offered.
struct ChannelCounters {
  uint64_t packets_in = 0;      // received, without completions
  uint64_t packets_out = 0;     // sent, with completions
  uint64_t bytes_in = 0;        // extensions and payloads
  uint64_t bytes_out = 0;       //
  uint64_t completions_in = 0;  // received
  uint64_t completions_unmatched = 0;
  uint64_t faults = 0;
  uint64_t signals_in = 0;
  uint64_t signals_out = 0;
  // How many there are, not how many there were.
  uint64_t in_flight = 0;  // received and not completed
  uint64_t awaiting = 0;   // sent and not completed
  uint64_t queued = 0;     // waiting for room

  friend bool operator==(const ChannelCounters&,
                         const ChannelCounters&) = default;
};

class CountersPage {
 public:
  // ResourceExhausted: no memory, or a kernel without F_SEAL_FUTURE_WRITE.
  static absl::StatusOr<std::unique_ptr<CountersPage>> Create();
  CountersPage(const CountersPage&) = delete;
  CountersPage& operator=(const CountersPage&) = delete;
  ~CountersPage();

  // Channel numbers that do not exist are ignored.
  void Write(uint32_t channel_id, const ChannelCounters& counters);
  // The channel is gone.
  void Clear(uint32_t channel_id);

  // Borrowed.  Readable by whoever gets it, writable by nobody.
  int fd() const { return fd_.get(); }

 private:
  CountersPage(UniqueFd fd, std::byte* base)
      : fd_(std::move(fd)), base_(base) {}
  void WriteSlot(uint32_t channel_id, uint64_t is_used,
                 const ChannelCounters& counters);

  UniqueFd fd_;
  std::byte* const base_;
};

class CountersReader {
 public:
  // Borrows the descriptor.  FailedPrecondition: not such a page, or one that
  // could shrink under its reader.
  static absl::StatusOr<std::unique_ptr<CountersReader>> Map(int fd);
  CountersReader(const CountersReader&) = delete;
  CountersReader& operator=(const CountersReader&) = delete;
  ~CountersReader();

  // NotFound: there is no such channel.  Unavailable: its writer ended, or was
  // stopped, in the middle; or is very busy.
  absl::StatusOr<ChannelCounters> Read(uint32_t channel_id) const;

 private:
  explicit CountersReader(const std::byte* base) : base_(base) {}
  const std::byte* const base_;
};

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_COUNTERS_PAGE_H_
