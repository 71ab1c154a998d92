// SPDX-License-Identifier: MIT
//
// The guest's RAM as the host sees it.
//
// What it is: the only way from a guest-physical address to host memory.
// There is no translation without a length, and none that hands out more than
// was checked.  MemfdGuestMemory is RAM in one memfd in which page frame n is
// file page n; a hypervisor with another layout implements the interface.
//
// Ownership: mappings handed out live as long as the object.
// Thread safety: const methods from any thread.
// Trust: addresses and lengths come from the guest and may be anything.  The
// memory itself is shared with the guest and changes under the reader.
//
//   absl::Span<std::byte> page = memory.Translate(gpa, 4096);
//   if (page.empty()) return RefusePacket();

#ifndef FERRYBUS_CHANNEL_GUEST_MEMORY_H_
#define FERRYBUS_CHANNEL_GUEST_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/channel/transport/unique_fd.h"

namespace ferrybus {

class GuestMemory {
 public:
  virtual ~GuestMemory() = default;

  // [gpa, gpa + length) as host memory; empty when any byte of it is not RAM,
  // or when length is 0.
  virtual absl::Span<std::byte> Translate(uint64_t gpa,
                                          uint64_t length) const = 0;

  // Page frames [0, page_count) exist.
  virtual uint64_t page_count() const = 0;

  // The file that backs the RAM, and where in it a page frame lies.
  // REQUIRES: page_number < page_count().
  virtual int file() const = 0;
  virtual uint64_t FileOffset(uint64_t page_number) const = 0;
};

class MemfdGuestMemory final : public GuestMemory {
 public:
  // Maps `ram` whole.  Its size is a positive multiple of 4096, and it is
  // sealed against shrinking (F_SEAL_SHRINK): otherwise the guest's owner
  // could make any access of ours fault.  FailedPrecondition if not.
  static absl::StatusOr<std::unique_ptr<MemfdGuestMemory>> Map(UniqueFd ram);

  // A new sealed memfd of `bytes` (rounded up to pages), mapped: what a
  // guest's owner starts with.
  static absl::StatusOr<std::unique_ptr<MemfdGuestMemory>> Create(
      uint64_t bytes);

  MemfdGuestMemory(const MemfdGuestMemory&) = delete;
  MemfdGuestMemory& operator=(const MemfdGuestMemory&) = delete;
  ~MemfdGuestMemory() override;

  absl::Span<std::byte> Translate(uint64_t gpa, uint64_t length) const override;
  uint64_t page_count() const override { return bytes_ / 4096; }
  int file() const override { return ram_.get(); }
  uint64_t FileOffset(uint64_t page_number) const override {
    return page_number * 4096;
  }

 private:
  MemfdGuestMemory(UniqueFd ram, std::byte* base, uint64_t bytes)
      : ram_(std::move(ram)), base_(base), bytes_(bytes) {}

  UniqueFd ram_;
  std::byte* base_;
  uint64_t bytes_;
};

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_GUEST_MEMORY_H_
