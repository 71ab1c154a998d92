// SPDX-License-Identifier: MIT
//
// Which pages of guest RAM the host's side may have written: a hypervisor's
// dirty log knows only what the guest's processors write.
//
// PageLog is a bit for each page, in a file that another process can look into;
// LoggedMemory sets the bits of all that is handed out.  They stay set as long
// as somebody runs, since who got the memory may write at any time.  A
// migration therefore begins with a new process behind the devices, and a new
// log (examples/hypervisor/).
//
// Ownership: a log owns its mapping; LoggedMemory borrows both.
// Thread safety: any thread, several processes; Clear() while nobody marks.
// Memory ordering: a bit is set before the memory is handed out.  What is
// written after it was seen is found by looking again, the last time when the
// writer has ended.
// Trust: of who may write the file, as of a process that could write the
// memory itself; the guest chooses only which pages are marked.
// Cost: a bit per page; an atomic operation for each page that is handed out
// for the first time.
//
//   auto log = PageLog::Create(memory->page_count(), "/run/vm1/pages");
//   LoggedMemory logged(memory, log->get());
//   vsp::Bus bus(options, &logged, doorbell);

#ifndef FERRYBUS_CHANNEL_PAGE_LOG_H_
#define FERRYBUS_CHANNEL_PAGE_LOG_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/channel/guest_memory.h"

namespace ferrybus {

class PageLog {
 public:
  // In the file, which is replaced by an empty one; without a path, for this
  // process alone.
  static absl::StatusOr<std::unique_ptr<PageLog>> Create(
      uint64_t page_count, const std::string& path = {});
  // Another process's.  FailedPrecondition: it is of another size.
  static absl::StatusOr<std::unique_ptr<PageLog>> Open(uint64_t page_count,
                                                       const std::string& path);
  ~PageLog();
  PageLog(const PageLog&) = delete;
  PageLog& operator=(const PageLog&) = delete;

  // REQUIRES: there are such pages.
  void Mark(uint64_t first_page, uint64_t pages);
  // Nobody marks meanwhile.
  void Clear();
  // Calls with each run of pages that are marked.
  void ForEach(
      absl::FunctionRef<void(uint64_t first_page, uint64_t pages)> run) const;

 private:
  explicit PageLog(absl::Span<std::atomic<uint64_t>> words) : words_(words) {}
  static absl::StatusOr<std::unique_ptr<PageLog>> Map(uint64_t page_count,
                                                      const std::string& path,
                                                      int flags);

  const absl::Span<std::atomic<uint64_t>> words_;
};

class LoggedMemory final : public GuestMemory {
 public:
  // Borrows both.
  LoggedMemory(const GuestMemory* memory, PageLog* log)
      : memory_(memory), log_(log) {}

  absl::Span<std::byte> Translate(uint64_t gpa, uint64_t length) const override;
  uint64_t page_count() const override { return memory_->page_count(); }
  int file() const override { return memory_->file(); }
  // Asked by who maps the page.
  uint64_t FileOffset(uint64_t page_number) const override;

 private:
  const GuestMemory* const memory_;
  PageLog* const log_;
};

// Calls with each run of bits that are set in the words.
void ForEachRun(absl::Span<const uint64_t> words,
                absl::FunctionRef<void(uint64_t first, uint64_t count)> run);

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_PAGE_LOG_H_
