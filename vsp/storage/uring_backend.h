// SPDX-License-Identifier: MIT
//
// Block I/O on an image file through io_uring.
//
// Each request names the file by its descriptor, never by a registered slot:
// it then pins the open file description itself, which the fence in
// image_file.h needs.
//
// Thread safety and cost: block_backend.h.

#ifndef FERRYBUS_VSP_STORAGE_URING_BACKEND_H_
#define FERRYBUS_VSP_STORAGE_URING_BACKEND_H_

#include <liburing.h>

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "ferrybus/vsp/storage/block_backend.h"
#include "ferrybus/vsp/storage/image_file.h"
#include "ferrybus/vsp/storage/io_table.h"

namespace ferrybus::vsp {

struct UringBackendOptions {
  uint32_t queue_depth = 256;
  uint64_t bounce_bytes_max = uint64_t{8} << 20;
};

class UringBackend final : public BlockBackend {
 public:
  // Moves from `file` only on success.
  //
  // Unavailable: the kernel has no io_uring or forbids it.
  static absl::StatusOr<std::unique_ptr<BlockBackend>> Create(
      ImageFile& file, const UringBackendOptions& options);

  ~UringBackend() override;
  UringBackend(const UringBackend&) = delete;
  UringBackend& operator=(const UringBackend&) = delete;

  const BlockBackendInfo& info() const override { return info_; }
  EnqueueResult Enqueue(const BlockRequest& request) override;
  void SubmitBatch() override;
  size_t Reap(ReapFunction done) override;
  int event_fd() const override { return event_fd_; }

 private:
  UringBackend(ImageFile file, const io_uring& ring, int event_fd,
               const UringBackendOptions& options);

  bool Prepare(uint32_t index);
  void WakeReaper();

  ImageFile file_;
  BlockBackendInfo info_;
  io_uring ring_;
  const int event_fd_;
  IoTable table_;
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_STORAGE_URING_BACKEND_H_
