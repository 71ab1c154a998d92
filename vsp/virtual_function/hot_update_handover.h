// SPDX-License-Identifier: MIT
//
// Hot update across processes: the successor is a driver in another one, which
// takes the device's memory over by its descriptor.  Pages are not copied.
//
//   old process                              new process
//   HotUpdate update(memory, &driver,        TakeOver(socket, make_driver)
//       RemoteSuccessor::Create(...));
//   update.Run()   -- memory's file -->      make_driver(file, size)
//                  -- each block    -->      Restore
//                  -- start         -->      Start: the device is its own now
//                  -- complete      -->      RestoreComplete; TakeOver returns
//
// So HotUpdate's promise holds for processes: the old driver or the new one,
// never neither, never both.  A new process that fails or ends before it
// started is an ordinary failure: the old driver rolls back.  One that does not
// answer is killed, and its end awaited, before that.  If the old process ends
// before it said "start", the new one starts nothing.
//
// Ownership: as stated.  Thread safety: one thread on each side.
// Trust: both processes are the embedder's; yet what one says is checked by the
// other, and bounded.
// Blocking: each step, until it is answered, or the time is up.

#ifndef FERRYBUS_VSP_VIRTUAL_FUNCTION_HOT_UPDATE_HANDOVER_H_
#define FERRYBUS_VSP_VIRTUAL_FUNCTION_HOT_UPDATE_HANDOVER_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ferrybus/channel/transport/unique_fd.h"
#include "ferrybus/vsp/virtual_function/hot_update.h"

namespace ferrybus::vsp {

struct RemoteSuccessorOptions {
  // Of each step; then the process is killed.
  absl::Duration answer_max = absl::Seconds(10);
};

class RemoteSuccessor final : public HotUpdateDriver {
 public:
  // `socket` is a stream to the new process, `process` its pidfd.  `memory` is
  // all of `memory_file`, which is borrowed for the call.  InvalidArgument: no
  // pidfd; else as the steps.
  static absl::StatusOr<std::unique_ptr<RemoteSuccessor>> Create(
      UniqueFd socket, UniqueFd process, absl::Span<std::byte> memory,
      int memory_file, const RemoteSuccessorOptions& options = {});
  // Not started: the new process is told by the end of the socket.
  ~RemoteSuccessor() override = default;

  // The new process has the device.
  bool is_started() const { return is_started_; }

  // It is a successor only.
  absl::Status Save(HotUpdateBlocks& blocks) override;
  void CancelUpdate() override {}

  absl::Status Restore(HotUpdateBlock block) override;
  absl::Status Start() override;
  void RestoreComplete() override;

 private:
  RemoteSuccessor(UniqueFd socket, UniqueFd process,
                  absl::Span<std::byte> memory,
                  const RemoteSuccessorOptions& options)
      : socket_(std::move(socket)),
        process_(std::move(process)),
        memory_(memory),
        options_(options) {}

  // Sends, and waits for the answer.  Afterwards the process has answered, or
  // has ended.
  absl::Status Ask(const std::string& request, int descriptor = -1);
  void Kill();

  UniqueFd socket_;
  UniqueFd process_;
  const absl::Span<std::byte> memory_;
  const RemoteSuccessorOptions options_;
  bool is_started_ = false;
};

struct TakenOver {
  std::unique_ptr<HotUpdateDriver> driver;
  absl::Span<std::byte> memory;  // the device's, mapped here
};

// In the new process: makes the driver, and has it take over.  Returns it once
// it runs.  Aborted: the old driver runs on, or its process ended; the driver
// was destroyed.
absl::StatusOr<TakenOver> TakeOver(
    UniqueFd socket,
    absl::FunctionRef<absl::StatusOr<TakenOver>(UniqueFd memory_file,
                                                uint64_t memory_bytes)>
        make_driver);

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_VIRTUAL_FUNCTION_HOT_UPDATE_HANDOVER_H_
