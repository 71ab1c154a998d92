// SPDX-License-Identifier: MIT
//
// Opens a disk image with the best backend that the machine offers.
//
//   auto backend = OpenBlockBackend("disk.img", {});
//   if (!backend.ok()) return backend.status();
//   LOG((*backend)->info().description);  // "io_uring, O_DIRECT"

#ifndef FERRYBUS_VSP_STORAGE_OPEN_BLOCK_BACKEND_H_
#define FERRYBUS_VSP_STORAGE_OPEN_BLOCK_BACKEND_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "ferrybus/vsp/storage/block_backend.h"
#include "ferrybus/vsp/storage/image_file.h"

namespace ferrybus::vsp {

enum class BlockEngine {
  // io_uring, or threads where that fails; info().description says why.
  kAuto,
  kUring,
  kThreads,
};

struct BlockBackendOptions {
  ImageFileOptions image;
  BlockEngine engine = BlockEngine::kAuto;
  uint32_t queue_depth = 256;
  // Memory for guest buffers that do not suit O_DIRECT.
  uint64_t bounce_bytes_max = uint64_t{8} << 20;
  uint32_t thread_count = 4;
};

// Waits for the image's lock (image_file.h, "the fence").  Errors: those of
// ImageFile::Open(); Unavailable when the engine asked for is not there.
absl::StatusOr<std::unique_ptr<BlockBackend>> OpenBlockBackend(
    const std::string& path, const BlockBackendOptions& options);

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_STORAGE_OPEN_BLOCK_BACKEND_H_
