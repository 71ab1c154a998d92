// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/storage/open_block_backend.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "ferrybus/vsp/storage/thread_pool_backend.h"
#include "ferrybus/vsp/storage/uring_backend.h"

namespace ferrybus::vsp {

absl::StatusOr<std::unique_ptr<BlockBackend>> OpenBlockBackend(
    const std::string& path, const BlockBackendOptions& options) {
  absl::StatusOr<ImageFile> file = ImageFile::Open(path, options.image);
  if (!file.ok()) return file.status();
  ThreadPoolBackendOptions threads;
  threads.queue_depth = options.queue_depth;
  threads.bounce_bytes_max = options.bounce_bytes_max;
  threads.thread_count = options.thread_count;
  if (options.engine != BlockEngine::kThreads) {
    UringBackendOptions uring;
    uring.queue_depth = options.queue_depth;
    uring.bounce_bytes_max = options.bounce_bytes_max;
    absl::StatusOr<std::unique_ptr<BlockBackend>> backend =
        UringBackend::Create(*file, uring);
    if (backend.ok() || options.engine == BlockEngine::kUring) return backend;
    threads.note =
        absl::StrCat("io_uring given up: ", backend.status().message());
  }
  return ThreadPoolBackend::Create(*file, threads);
}

}  // namespace ferrybus::vsp
