// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/virtual_function/accelerator_device.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace ferrybus::vsp {
namespace {

using accelerator::Command;
using accelerator::Reply;
using accelerator::Status;

constexpr size_t kBlobBytes = sizeof(uint64_t);

uint64_t SizeOf(absl::Span<const iovec> buffers) {
  uint64_t bytes = 0;
  for (const iovec& buffer : buffers) bytes += buffer.iov_len;
  return bytes;
}

// `copy` gets each piece of `size_bytes` from `offset_bytes` on; false, and not
// called: there is less.
template <typename Copy>
bool ForEachPiece(absl::Span<const iovec> buffers, uint64_t offset_bytes,
                  uint64_t size_bytes, Copy copy) {
  const uint64_t all_bytes = SizeOf(buffers);
  if (offset_bytes > all_bytes || size_bytes > all_bytes - offset_bytes) {
    return false;
  }
  for (const iovec& buffer : buffers) {
    if (offset_bytes >= buffer.iov_len) {
      offset_bytes -= buffer.iov_len;
      continue;
    }
    const size_t bytes =
        std::min<uint64_t>(buffer.iov_len - offset_bytes, size_bytes);
    copy(static_cast<std::byte*>(buffer.iov_base) + offset_bytes, bytes);
    size_bytes -= bytes;
    offset_bytes = 0;
    if (size_bytes == 0) break;
  }
  return true;
}

void Answer(IncomingPacket packet, const Reply& reply,
            absl::Span<const std::byte> data) {
  std::array<std::byte, sizeof(Reply) + accelerator::kInlineBytesMax> bytes;
  std::memcpy(bytes.data(), &reply, sizeof(reply));
  const size_t data_bytes = std::min(data.size(), bytes.size() - sizeof(reply));
  std::copy_n(data.begin(), data_bytes, bytes.begin() + sizeof(reply));
  (void)packet.Complete({bytes.data(), sizeof(reply) + data_bytes});
}

void AnswerWithStatus(IncomingPacket packet, Status status, uint64_t sequence) {
  Reply reply = {};
  reply.status = status;
  reply.sequence = sequence;
  Answer(std::move(packet), reply, {});
}

// Empty: none, or they lie outside of guest memory.
absl::Span<const iovec> GuestBuffersOf(IncomingPacket& packet) {
  if (!packet.has_external_data()) return {};
  const absl::StatusOr<absl::Span<const iovec>> buffers =
      packet.guest_buffers();
  return buffers.ok() ? *buffers : absl::Span<const iovec>();
}

}  // namespace

AcceleratorDevice::~AcceleratorDevice() { accelerator_->RemovePort(this); }

size_t AcceleratorDevice::in_flight() const {
  absl::MutexLock lock(&mu_);
  return held_.size();
}

// -- The channel --------------------------------------------------------------

// A packet that is too short becomes a command that is malformed: it is
// answered in its turn.
Command AcceleratorDevice::CommandOf(const IncomingPacket& packet) {
  Command command = {};
  if (packet.payload().size() < sizeof(command)) {
    command.reserved = 1;
    return command;
  }
  std::memcpy(&command, packet.payload().data(), sizeof(command));
  return command;
}

void AcceleratorDevice::ProcessPacket(IncomingPacket packet) {
  const Command command = CommandOf(packet);
  Held held;
  uint64_t data_bytes = 0;
  if ((command.flags & accelerator::kGuestBuffers) != 0) {
    held.buffers = GuestBuffersOf(packet);
    data_bytes = SizeOf(held.buffers);
  } else if (packet.payload().size() > sizeof(command)) {
    data_bytes = packet.payload().size() - sizeof(command);
  }
  held.packet = std::move(packet);
  const bool is_taken =
      accelerator_->Submit(command, data_bytes, [&](uint64_t ticket) {
        absl::MutexLock lock(&mu_);
        held_[ticket] = std::move(held);
      });
  if (!is_taken) {
    AnswerWithStatus(std::move(held.packet), Status::kBusy, command.sequence);
  }
}

void AcceleratorDevice::OnClosed() {
  accelerator_->RemovePort(this);
  std::map<uint64_t, Held> held;
  absl::MutexLock lock(&mu_);
  held.swap(held_);
}

void AcceleratorDevice::OnStarted() {
  std::vector<uint64_t> restored;
  {
    absl::MutexLock lock(&mu_);
    for (auto& [ticket, held] : held_) {
      if (std::exchange(held.is_restored, false)) restored.push_back(ticket);
    }
  }
  for (uint64_t ticket : restored) {
    if (accelerator_->IsQueued(ticket)) continue;
    IncomingPacket packet;
    {
      absl::MutexLock lock(&mu_);
      const auto found = held_.find(ticket);
      if (found == held_.end()) continue;
      packet = std::move(found->second.packet);
      held_.erase(found);
    }
    ++not_executed_;
    const uint64_t sequence = CommandOf(packet).sequence;
    AnswerWithStatus(std::move(packet), Status::kNotExecuted, sequence);
  }
  accelerator_->SetPort(this);
}

savestate::SizeAnswer AcceleratorDevice::SavePacket(const PacketInfo& packet,
                                                    absl::Span<std::byte> out) {
  if (!accelerator_->is_held(Accelerator::kMigration)) {
    return savestate::SizeAnswer::Failed(absl::FailedPreconditionError(
        "accelerator: it still executes commands: pause it before its bus is "
        "saved"));
  }
  if (out.size() < kBlobBytes) {
    return savestate::SizeAnswer::TooSmall(kBlobBytes);
  }
  absl::MutexLock lock(&mu_);
  for (const auto& [ticket, held] : held_) {
    if (held.packet.info().slot != packet.slot ||
        held.packet.info().generation != packet.generation) {
      continue;
    }
    std::memcpy(out.data(), &ticket, kBlobBytes);
    return savestate::SizeAnswer::Ok(kBlobBytes);
  }
  return savestate::SizeAnswer::Failed(absl::InternalError(absl::StrCat(
      "accelerator: the packet in slot ", packet.slot, " of generation ",
      packet.generation, " is not one of its commands")));
}

absl::Status AcceleratorDevice::RestorePacket(
    IncomingPacket packet, absl::Span<const std::byte> blob) {
  uint64_t ticket = 0;
  if (blob.size() != kBlobBytes) {
    return absl::DataLossError(
        absl::StrCat("accelerator: a packet's state has ", blob.size(),
                     " bytes, must have ", kBlobBytes));
  }
  std::memcpy(&ticket, blob.data(), kBlobBytes);
  Held held;
  held.buffers = GuestBuffersOf(packet);
  held.packet = std::move(packet);
  held.is_restored = true;
  absl::MutexLock lock(&mu_);
  // Not moved from if the ticket is there.
  if (!held_.try_emplace(ticket, std::move(held)).second) {
    return absl::DataLossError(
        absl::StrCat("accelerator: two packets of command ", ticket));
  }
  return absl::OkStatus();
}

// -- The accelerator ----------------------------------------------------------

bool AcceleratorDevice::ReadData(uint64_t ticket, uint64_t offset_bytes,
                                 absl::Span<std::byte> out) {
  absl::MutexLock lock(&mu_);
  const auto found = held_.find(ticket);
  if (found == held_.end()) return false;
  const Held& held = found->second;
  if (held.buffers.empty()) {
    const absl::Span<const std::byte> payload = held.packet.payload();
    const uint64_t begin = sizeof(Command) + offset_bytes;
    if (begin > payload.size() || out.size() > payload.size() - begin) {
      return false;
    }
    std::memcpy(out.data(), payload.data() + begin, out.size());
    return true;
  }
  return ForEachPiece(held.buffers, offset_bytes, out.size(),
                      [&](const std::byte* from, size_t bytes) {
                        std::memcpy(out.data(), from, bytes);
                        out.remove_prefix(bytes);
                      });
}

bool AcceleratorDevice::WriteData(uint64_t ticket, uint64_t offset_bytes,
                                  absl::Span<const std::byte> data) {
  absl::MutexLock lock(&mu_);
  const auto found = held_.find(ticket);
  if (found == held_.end()) return false;
  return ForEachPiece(found->second.buffers, offset_bytes, data.size(),
                      [&](std::byte* to, size_t bytes) {
                        std::memcpy(to, data.data(), bytes);
                        data.remove_prefix(bytes);
                      });
}

void AcceleratorDevice::OnDone(uint64_t ticket, const Reply& reply,
                               absl::Span<const std::byte> data) {
  IncomingPacket packet;
  {
    absl::MutexLock lock(&mu_);
    const auto found = held_.find(ticket);
    if (found == held_.end()) return;  // the channel was closed
    packet = std::move(found->second.packet);
    held_.erase(found);
  }
  Answer(std::move(packet), reply, data);
}

// -- Another bus --------------------------------------------------------------

absl::Status AcceleratorChannel::SetBus(Bus* bus, const OfferParams& params) {
  if (bus == nullptr) {
    return absl::InvalidArgumentError("accelerator: no bus for its channel");
  }
  if (current_.bus != nullptr) {
    // The same bus cannot have two offers of the same name.
    if (absl::Status status = current_.bus->Rescind(current_.offer);
        !status.ok()) {
      return status;
    }
    ending_.push_back(std::move(current_));
    current_ = {};
  }
  auto device = std::make_unique<AcceleratorDevice>(accelerator_);
  absl::StatusOr<OfferId> offer = bus->Offer(params, device.get());
  if (!offer.ok()) return offer.status();
  current_ = {bus, *offer, std::move(device)};
  return absl::OkStatus();
}

bool AcceleratorChannel::is_settled() {
  ending_.erase(std::remove_if(ending_.begin(), ending_.end(),
                               [](const Attachment& its) {
                                 return its.bus->channel(its.offer) == nullptr;
                               }),
                ending_.end());
  return ending_.empty();
}

}  // namespace ferrybus::vsp
