// SPDX-License-Identifier: MIT
//
// An image that is opened when it is first used: for a target, whose channels
// are restored while the source still has the image, and which must not touch
// it before the source has let go.
//
// Only the size is looked at before.  Opening waits for the lock (image_file.h,
// "the fence"), in the call that first uses it; what cannot be opened then
// answers every request with an error, as a disk that died.
//
// Thread safety, ownership, trust: as BlockBackend.

#ifndef FERRYBUS_VSP_STORAGE_DEFERRED_BACKEND_H_
#define FERRYBUS_VSP_STORAGE_DEFERRED_BACKEND_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ferrybus/channel/transport/unique_fd.h"
#include "ferrybus/vsp/storage/block_backend.h"
#include "ferrybus/vsp/storage/open_block_backend.h"

namespace ferrybus::vsp {

class DeferredBackend final : public BlockBackend {
 public:
  // Errors: of finding the image's size; no descriptors.
  static absl::StatusOr<std::unique_ptr<DeferredBackend>> Create(
      const std::string& path, const BlockBackendOptions& options);

  // Now, if it was not used yet.  The same status again afterwards.
  absl::Status Open();
  bool is_open() const { return backend_ != nullptr; }

  const BlockBackendInfo& info() const override {
    return backend_ != nullptr ? backend_->info() : info_;
  }
  EnqueueResult Enqueue(const BlockRequest& request) override;
  void SubmitBatch() override;
  size_t Reap(ReapFunction done) override;
  int event_fd() const override { return event_.get(); }

 private:
  DeferredBackend(std::string path, const BlockBackendOptions& options,
                  BlockBackendInfo info, UniqueFd event, UniqueFd failed_event)
      : path_(std::move(path)),
        options_(options),
        info_(std::move(info)),
        event_(std::move(event)),
        failed_event_(std::move(failed_event)) {}

  const std::string path_;
  const BlockBackendOptions options_;
  const BlockBackendInfo info_;
  // An epoll instance: the backend's own event once it is open.
  UniqueFd event_;
  // Readable while `failed_` is not empty.  Made in time: what cannot be opened
  // may be so for want of descriptors.
  UniqueFd failed_event_;
  bool was_opened_ = false;
  absl::Status status_;
  std::unique_ptr<BlockBackend> backend_;
  std::deque<uint64_t> failed_;  // cookies
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_STORAGE_DEFERRED_BACKEND_H_
