// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/virtual_function/hot_update_handover.h"

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "ferrybus/savestate/fault_points.h"
#include "ferrybus/savestate/steady_clock.h"
#include "ferrybus/vsp/virtual_function/hot_update_messages_persist.h"

namespace ferrybus::vsp {
namespace {

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

absl::Status Ended(absl::string_view who) {
  return absl::AbortedError(absl::StrCat(who, " ended"));
}

// Waits until the socket can be read or written.
absl::Status Await(int socket, short events, absl::Time deadline) {
  pollfd wanted = {socket, events, 0};
  while (true) {
    const absl::Duration left = deadline - savestate::SteadyNow();
    if (left < absl::ZeroDuration()) {
      return absl::DeadlineExceededError("no answer in time");
    }
    const int64_t ms = left == absl::InfiniteDuration()
                           ? 1000
                           : absl::ToInt64Milliseconds(left) % 1000 + 1;
    if (poll(&wanted, 1, static_cast<int>(ms)) > 0) return absl::OkStatus();
  }
}

absl::Status SendAll(int socket, const std::string& body, int descriptor,
                     absl::Time deadline) {
  const auto size = static_cast<uint32_t>(body.size());
  std::string bytes(reinterpret_cast<const char*>(&size), sizeof(size));
  bytes += body;
  size_t sent = 0;
  while (sent < bytes.size()) {
    iovec data = {bytes.data() + sent, bytes.size() - sent};
    msghdr message = {};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    if (sent == 0 && descriptor >= 0) {
      message.msg_control = control;
      message.msg_controllen = sizeof(control);
      cmsghdr* header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(sizeof(int));
      std::memcpy(CMSG_DATA(header), &descriptor, sizeof(int));
    }
    const ssize_t now = sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (now > 0) {
      sent += static_cast<size_t>(now);
    } else if (errno == EAGAIN) {
      absl::Status status = Await(socket, POLLOUT, deadline);
      if (!status.ok()) return status;
    } else if (errno != EINTR) {
      return Ended("the other process");
    }
  }
  return absl::OkStatus();
}

// Fills `out`; the first descriptor that comes along goes to `descriptor`,
// others are closed.
absl::Status ReceiveExactly(int socket, absl::Span<char> out,
                            UniqueFd* descriptor, absl::Time deadline) {
  while (!out.empty()) {
    absl::Status status = Await(socket, POLLIN, deadline);
    if (!status.ok()) return status;
    iovec data = {out.data(), out.size()};
    alignas(cmsghdr) char control[CMSG_SPACE(4 * sizeof(int))] = {};
    msghdr message = {};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    const ssize_t got =
        recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got == 0) return Ended("the other process");
    if (got < 0) {
      if (errno == EAGAIN || errno == EINTR) continue;
      return Ended("the other process");
    }
    for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
         header = CMSG_NXTHDR(&message, header)) {
      if (header->cmsg_type != SCM_RIGHTS) continue;
      const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      for (size_t i = 0; i < count; ++i) {
        int fd = -1;
        std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(int));
        UniqueFd received(fd);
        if (descriptor != nullptr && !descriptor->valid()) {
          *descriptor = std::move(received);
        }
      }
    }
    out.remove_prefix(static_cast<size_t>(got));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReceiveMessage(int socket, UniqueFd* descriptor,
                                           absl::Time deadline) {
  uint32_t size = 0;
  absl::Status status =
      ReceiveExactly(socket, {reinterpret_cast<char*>(&size), sizeof(size)},
                     descriptor, deadline);
  if (!status.ok()) return status;
  if (size > kHotUpdateMessageBytesMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat("hot update: a message of ", size, " bytes, at most ",
                     kHotUpdateMessageBytesMax));
  }
  std::string body;
  // Grows with what comes, not with what is announced.
  while (body.size() < size) {
    const size_t begin = body.size();
    body.resize(std::min<size_t>(size, begin + (size_t{1} << 20)));
    status = ReceiveExactly(socket,
                            absl::MakeSpan(&body[begin], body.size() - begin),
                            descriptor, deadline);
    if (!status.ok()) return status;
  }
  return body;
}

}  // namespace

// ---- The old process

absl::StatusOr<std::unique_ptr<RemoteSuccessor>> RemoteSuccessor::Create(
    UniqueFd socket, UniqueFd process, absl::Span<std::byte> memory,
    int memory_file, const RemoteSuccessorOptions& options) {
  // Without it a process that does not answer could not be ended.
  if (!process.valid()) return absl::InvalidArgumentError("no pidfd");
  auto successor = absl::WrapUnique(new RemoteSuccessor(
      std::move(socket), std::move(process), memory, options));
  absl::Status status =
      successor->Ask(SerializeRequest({.step = HotUpdateStep::kBegin,
                                       .memory_bytes = memory.size()}),
                     memory_file);
  if (!status.ok()) return status;
  return successor;
}

absl::Status RemoteSuccessor::Save(HotUpdateBlocks&) {
  return absl::UnimplementedError("a driver in another process");
}

absl::Status RemoteSuccessor::Restore(HotUpdateBlock block) {
  HotUpdateRequest request = {.step = HotUpdateStep::kRestore};
  for (absl::Span<std::byte> segment : block.segments) {
    if (block.copy != nullptr) {
      request.copy.append(reinterpret_cast<const char*>(segment.data()),
                          segment.size());
    } else {
      request.segments.push_back(
          {static_cast<uint64_t>(segment.data() - memory_.data()),
           segment.size()});
    }
  }
  request.metadata = std::move(block.metadata);
  return Ask(SerializeRequest(request));
}

absl::Status RemoteSuccessor::Start() {
  absl::Status status = Ask(SerializeRequest({.step = HotUpdateStep::kStart}));
  is_started_ = status.ok();
  return status;
}

void RemoteSuccessor::RestoreComplete() {
  // It has the device: whether it frees what it does not need is its own.
  (void)SendAll(socket_.get(),
                SerializeRequest({.step = HotUpdateStep::kComplete}), -1,
                savestate::SteadyNow() + options_.answer_max);
}

absl::Status RemoteSuccessor::Ask(const std::string& request, int descriptor) {
  const absl::Time deadline = savestate::SteadyNow() + options_.answer_max;
  absl::Status status = SendAll(socket_.get(), request, descriptor, deadline);
  absl::Status answer;
  if (status.ok()) {
    absl::StatusOr<std::string> bytes =
        ReceiveMessage(socket_.get(), nullptr, deadline);
    status = bytes.status();
    if (status.ok()) status = ParseAnswer(AsBytes(*bytes), &answer);
  }
  if (status.ok()) return answer;
  // Only a process that is gone is certain not to run the device.
  Kill();
  return status;
}

void RemoteSuccessor::Kill() {
  if (!process_.valid()) return;
  syscall(SYS_pidfd_send_signal, process_.get(), SIGKILL, nullptr, 0);
  pollfd ended = {process_.get(), POLLIN, 0};
  while (poll(&ended, 1, -1) < 0 && errno == EINTR) {
  }
}

// ---- The new process

namespace {

using savestate::FaultPoint;
using savestate::PassFaultPoint;

class Successor {
 public:
  explicit Successor(UniqueFd socket) : socket_(std::move(socket)) {}

  absl::StatusOr<TakenOver> Run(
      absl::FunctionRef<absl::StatusOr<TakenOver>(UniqueFd, uint64_t)>
          make_driver);

 private:
  absl::Status Do(
      HotUpdateRequest request, UniqueFd descriptor,
      absl::FunctionRef<absl::StatusOr<TakenOver>(UniqueFd, uint64_t)>
          make_driver);
  absl::Status Restore(HotUpdateRequest request);

  UniqueFd socket_;
  TakenOver taken_;
  bool is_started_ = false;
};

absl::Status Successor::Restore(HotUpdateRequest request) {
  HotUpdateBlock block;
  for (const auto& [offset, size] : request.segments) {
    if (offset > taken_.memory.size() || size > taken_.memory.size() - offset) {
      return absl::InvalidArgumentError(absl::StrCat(size, " bytes at ", offset,
                                                     " of a memory of ",
                                                     taken_.memory.size()));
    }
    block.segments.push_back(taken_.memory.subspan(offset, size));
    block.size_bytes += size;
  }
  if (block.segments.empty()) {
    block.size_bytes = request.copy.size();
    block.copy = std::make_unique<HotUpdatePage[]>(
        (request.copy.size() + kHotUpdatePageBytes - 1) / kHotUpdatePageBytes);
    auto* bytes = reinterpret_cast<std::byte*>(block.copy.get());
    std::memcpy(bytes, request.copy.data(), request.copy.size());
    block.segments.push_back({bytes, request.copy.size()});
  }
  block.metadata = std::move(request.metadata);
  absl::Status passed = PassFaultPoint(FaultPoint::kTakeOverRestore);
  if (!passed.ok()) return passed;
  return taken_.driver->Restore(std::move(block));
}

absl::Status Successor::Do(
    HotUpdateRequest request, UniqueFd descriptor,
    absl::FunctionRef<absl::StatusOr<TakenOver>(UniqueFd, uint64_t)>
        make_driver) {
  const bool is_first = request.step == HotUpdateStep::kBegin;
  if (is_first != (taken_.driver == nullptr) ||
      is_first != descriptor.valid() ||
      request.step == HotUpdateStep::kComplete) {
    return absl::FailedPreconditionError(absl::StrCat(
        "step ", static_cast<int>(request.step), " at the wrong time"));
  }
  if (is_first) {
    absl::Status passed = PassFaultPoint(FaultPoint::kTakeOverCreate);
    if (!passed.ok()) return passed;
    absl::StatusOr<TakenOver> made =
        make_driver(std::move(descriptor), request.memory_bytes);
    if (!made.ok()) return made.status();
    taken_ = *std::move(made);
    return absl::OkStatus();
  }
  if (request.step == HotUpdateStep::kRestore) {
    return Restore(std::move(request));
  }
  absl::Status status = PassFaultPoint(FaultPoint::kTakeOverStart);
  if (status.ok()) status = taken_.driver->Start();
  is_started_ = status.ok();
  if (is_started_) savestate::MarkFaultPoint(FaultPoint::kTakeOverStarted);
  return status;
}

absl::StatusOr<TakenOver> Successor::Run(
    absl::FunctionRef<absl::StatusOr<TakenOver>(UniqueFd, uint64_t)>
        make_driver) {
  while (true) {
    UniqueFd descriptor;
    absl::StatusOr<std::string> bytes =
        ReceiveMessage(socket_.get(), &descriptor, absl::InfiniteFuture());
    if (is_started_) {
      // Complete, or the old process is gone: either way it is over.
      taken_.driver->RestoreComplete();
      return std::move(taken_);
    }
    if (absl::IsAborted(bytes.status())) return bytes.status();
    HotUpdateRequest request;
    absl::Status status = bytes.status();
    if (status.ok()) status = ParseRequest(AsBytes(*bytes), &request);
    if (status.ok()) {
      status = Do(std::move(request), std::move(descriptor), make_driver);
    }
    absl::Status sent = SendAll(socket_.get(), SerializeAnswer(status), -1,
                                absl::InfiniteFuture());
    // A driver that has started has the device, whoever heard of it.
    if (is_started_) continue;
    if (!status.ok()) return absl::AbortedError(status.message());
    if (!sent.ok()) return sent;
  }
}

}  // namespace

absl::StatusOr<TakenOver> TakeOver(
    UniqueFd socket,
    absl::FunctionRef<absl::StatusOr<TakenOver>(UniqueFd memory_file,
                                                uint64_t memory_bytes)>
        make_driver) {
  return Successor(std::move(socket)).Run(make_driver);
}

}  // namespace ferrybus::vsp
