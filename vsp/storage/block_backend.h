// SPDX-License-Identifier: MIT
//
// Asynchronous block I/O under a virtual disk.
//
// What it is: the interface between StorageDevice and whatever holds the
// bytes.  Shipped: an image file through io_uring or a few threads
// (open_block_backend.h), and memory (memory_backend.h, for tests).
//
// Ownership: the caller keeps the memory behind `buffers` alive until the
// request's completion was reaped; the iovec array itself is copied.
//
// Thread safety: one thread at a time calls a backend.  event_fd() may be
// polled from anywhere.
//
// Ordering: none between requests in flight.  A kFlush covers the writes whose
// completions were reaped before it was enqueued.
//
// Trust: buffers are guest memory; their bytes may change at any time.
// Offsets and lengths are checked here again, so that a bug above cannot grow
// the image or read beyond it.
//
// Cost: no allocation per request once warm, except where a buffer has to be
// bounced; one system call per batch with io_uring.
//
//   backend->Enqueue({.op = BlockOp::kRead, .offset_bytes = 4096,
//                     .buffers = iovecs, .cookie = 7});
//   backend->SubmitBatch();
//   ... poll(backend->event_fd()) ...
//   backend->Reap([](uint64_t cookie, int32_t result) { ... });

#ifndef FERRYBUS_VSP_STORAGE_BLOCK_BACKEND_H_
#define FERRYBUS_VSP_STORAGE_BLOCK_BACKEND_H_

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"

namespace ferrybus::vsp {

inline constexpr uint32_t kLogicalBlockBytes = 512;
inline constexpr uint32_t kPhysicalBlockBytes = 4096;

// Bytes of one read or write, and entries of its iovec array (IOV_MAX).
inline constexpr uint64_t kTransferBytesMax = uint64_t{1} << 30;
inline constexpr size_t kIovecsMax = 1024;

enum class BlockOp : uint8_t {
  kRead,
  kWrite,
  kFlush,
  // The range reads as zeroes afterwards, and its space is given back where
  // the file system can.
  kDiscard,
};

struct BlockRequest {
  BlockOp op = BlockOp::kRead;
  // kWrite: completes only when the data is on the medium (FUA).
  bool durable = false;
  uint64_t offset_bytes = 0;
  // kDiscard only; a transfer is as long as its buffers.
  uint64_t length_bytes = 0;
  absl::Span<const iovec> buffers = {};
  // Comes back in Reap(); not looked at.
  uint64_t cookie = 0;
};

enum class [[nodiscard]] EnqueueResult{
    // A completion will follow, exactly one.
    kAccepted,
    // Depth or bounce memory is used up; try again after a completion.
    kFull,
    // Range outside the disk, not whole blocks, nothing to transfer, too many
    // buffers, or a change to a read-only disk.
    kInvalid,
};

struct BlockBackendInfo {
  uint64_t size_bytes = 0;
  bool read_only = false;
  bool can_discard = false;
  // What is used and what was given up, and why: for a log line.
  std::string description;
};

class BlockBackend {
 public:
  // Called with a request's cookie and its result: bytes transferred (0 for
  // kFlush and kDiscard), or a negative errno.  Never a short count.
  using ReapFunction = absl::FunctionRef<void(uint64_t cookie, int32_t result)>;

  // Waits until no I/O that was submitted touches memory or image any more.
  // What was not started by then is never done; neither kind is reaped.
  virtual ~BlockBackend() = default;

  virtual const BlockBackendInfo& info() const = 0;

  // Takes a request; nothing need happen before SubmitBatch().
  virtual EnqueueResult Enqueue(const BlockRequest& request) = 0;
  virtual void SubmitBatch() = 0;

  // Hands out what has completed, never blocks, returns how many.  The
  // function may enqueue.
  virtual size_t Reap(ReapFunction done) = 0;

  // Readable when Reap() has work.
  virtual int event_fd() const = 0;
};

// Checks that every backend makes before it takes a request.
bool IsValidRequest(const BlockBackendInfo& info, const BlockRequest& request);

// Bytes that `buffers` describe, saturating.
uint64_t TotalBytes(absl::Span<const iovec> buffers);

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_STORAGE_BLOCK_BACKEND_H_
