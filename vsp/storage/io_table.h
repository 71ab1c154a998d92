// SPDX-License-Identifier: MIT
//
// The requests that a file backend has in flight, and their bookkeeping:
// private iovecs, progress over short transfers, bounce buffers.  Shared by
// the io_uring and the thread backend; not for users.
//
// A request whose buffers do not suit O_DIRECT goes through an aligned bounce
// buffer.  A guest chooses its buffers, so bounce memory is capped; a request
// larger than the cap is still taken when it is the only one.
//
// Thread safety: Start() and Finish() on the owner's thread.  Between them one
// thread at a time may use one PendingIo (handing over needs a lock).

#ifndef FERRYBUS_VSP_STORAGE_IO_TABLE_H_
#define FERRYBUS_VSP_STORAGE_IO_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "ferrybus/vsp/storage/block_backend.h"

namespace ferrybus::vsp {

struct PendingIo {
  BlockOp op = BlockOp::kRead;
  bool durable = false;
  uint64_t cookie = 0;
  // What is still to do.
  uint64_t offset_bytes = 0;
  uint64_t remaining_bytes = 0;
  uint64_t total_bytes = 0;
  std::vector<iovec> buffers;
  size_t first_buffer = 0;
  // System calls in a row that brought nothing.
  uint32_t idle_attempts = 0;
  int32_t result = 0;

  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  std::unique_ptr<std::byte, Free> bounce;
  // Where a bounced read goes in the end.
  std::vector<iovec> guest_buffers;

  const iovec* iovecs() const { return buffers.data() + first_buffer; }
  uint32_t iovec_count() const {
    return static_cast<uint32_t>(buffers.size() - first_buffer);
  }

  // Takes the result of one system call (bytes or negative errno).  True: the
  // request is finished and `result` is final.  False: issue what remains.
  bool Account(int64_t system_result);
};

class IoTable {
 public:
  IoTable(size_t depth, uint32_t alignment_bytes, uint64_t bounce_bytes_max);

  // Copies what `request` says into a free entry and sets `index`.
  // REQUIRES: IsValidRequest(request).
  EnqueueResult Start(const BlockRequest& request, uint32_t* index);

  PendingIo& at(uint32_t index) { return entries_[index]; }

  // Copies a bounced read to the guest, frees the entry, returns its result.
  int32_t Finish(uint32_t index);

  size_t used() const { return entries_.size() - free_.size(); }

 private:
  bool NeedsBounce(const BlockRequest& request) const;
  bool Bounce(const BlockRequest& request, PendingIo& io);

  const uint32_t alignment_bytes_;
  const uint64_t bounce_bytes_max_;
  uint64_t bounce_bytes_ = 0;
  std::vector<PendingIo> entries_;
  std::vector<uint32_t> free_;
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_STORAGE_IO_TABLE_H_
