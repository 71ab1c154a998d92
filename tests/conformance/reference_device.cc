// SPDX-License-Identifier: MIT

#include "ferrybus/tests/conformance/reference_device.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/gpadl_handle.h"

namespace ferrybus::conformance {
namespace {

constexpr size_t kEchoMax = 65536;
constexpr int kDrainRounds = 1000;
// Tells the blobs of two kinds of packets apart.
constexpr uint64_t kHeldMark = 0x48454c44;
constexpr uint64_t kOwnMark = 0x4f574e;

template <typename T>
absl::Span<const std::byte> BytesOf(const T& value) {
  return {reinterpret_cast<const std::byte*>(&value), sizeof(value)};
}

std::optional<DeviceHeader> ParseHeader(absl::Span<const std::byte> payload) {
  DeviceHeader header;
  if (payload.size() < sizeof(header)) return std::nullopt;
  std::memcpy(&header, payload.data(), sizeof(header));
  return header;
}

void Answer(IncomingPacket packet, const DeviceHeader& header, bool ok) {
  const DeviceHeader answer = {header.command, ok ? 0u : 1u, header.number};
  packet.Complete(BytesOf(answer));
}

savestate::SizeAnswer SaveBlob(uint64_t mark, uint64_t number,
                               absl::Span<std::byte> out) {
  const uint64_t blob[] = {mark, number};
  if (out.size() < sizeof(blob)) {
    return savestate::SizeAnswer::TooSmall(sizeof(blob));
  }
  std::memcpy(out.data(), blob, sizeof(blob));
  return savestate::SizeAnswer::Ok(sizeof(blob));
}

absl::Status CheckBlob(uint64_t mark, uint64_t number,
                       absl::Span<const std::byte> blob) {
  uint64_t found[2] = {};
  if (blob.size() == sizeof(found)) {
    std::memcpy(found, blob.data(), sizeof(found));
  }
  if (found[0] == mark && found[1] == number) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("packet ", number, " has the blob of another"));
}

}  // namespace

// -- ReferenceDevice ---------------------------------------------------------

absl::Status ReferenceDevice::OnOpened(vsp::ServerChannel& channel,
                                       absl::Span<const std::byte> user_data) {
  if (user_data[0] == std::byte{kRefuseOpen}) {
    return absl::PermissionDeniedError("the guest asked for a refusal");
  }
  channel_ = &channel;
  counts_ = {};
  return absl::OkStatus();
}

void ReferenceDevice::OnSuspend() {
  if (number_ == kDrainDevice) CompleteHeld(held_.size(), false);
}

void ReferenceDevice::OnClosed() {
  held_.clear();
  channel_ = nullptr;
}

void ReferenceDevice::ProcessPacket(IncomingPacket packet) {
  const std::optional<DeviceHeader> header = ParseHeader(packet.payload());
  if (!header.has_value()) {
    Answer(std::move(packet), DeviceHeader(), false);
    return;
  }
  Carry(*header, std::move(packet));
}

void ReferenceDevice::Carry(const DeviceHeader& header, IncomingPacket packet) {
  bool ok = true;
  switch (header.command) {
    case Command::kEcho: {
      absl::Span<const std::byte> reply = packet.payload();
      if (header.argument != 0) reply = reply.subspan(0, header.argument);
      packet.Complete(reply.subspan(0, kEchoMax));
      return;
    }
    case Command::kHold:
      held_.push_back(std::move(packet));
      return;
    case Command::kRelease:
      Release(header, std::move(packet));
      return;
    case Command::kSend:
    case Command::kNotify:
      SendOwn(header, header.command == Command::kSend);
      break;
    case Command::kReport: {
      DeviceReport report;
      report.header = {header.command, 0, header.number};
      report.held = held_.size();
      report.awaiting = counts_.awaiting;
      report.completions = counts_.completions;
      report.digest = counts_.digest;
      packet.Complete(BytesOf(report));
      return;
    }
    case Command::kFail:
      packet.Fail("the guest asked for it");
      return;
    case Command::kReadExternal:
    case Command::kWriteExternal:
      External(header, std::move(packet));
      return;
    case Command::kMap:
      Map(header, std::move(packet));
      return;
    case Command::kUnmap:
      ok = channel_->UnmapGpadl(GpadlHandle{header.argument});
      break;
    case Command::kQuota:
      ok = header.argument != 0;
      if (ok) channel_->SetQuota(header.argument);
      break;
    default:
      ok = false;
      break;
  }
  Answer(std::move(packet), header, ok);
}

void ReferenceDevice::Release(const DeviceHeader& header,
                              IncomingPacket packet) {
  uint64_t order = 0;
  const absl::Span<const std::byte> data =
      packet.payload().subspan(sizeof(header));
  if (data.size() >= sizeof(order)) {
    std::memcpy(&order, data.data(), sizeof(order));
  }
  const size_t count = header.argument == 0 ? held_.size() : header.argument;
  CompleteHeld(std::min(count, held_.size()), order == 1);
  Answer(std::move(packet), header, true);
}

void ReferenceDevice::CompleteHeld(size_t count, bool newest_first) {
  for (; count > 0; --count) {
    IncomingPacket packet =
        std::move(newest_first ? held_.back() : held_.front());
    newest_first ? held_.pop_back() : held_.pop_front();
    packet.Complete(packet.payload());
  }
}

void ReferenceDevice::SendOwn(const DeviceHeader& header,
                              bool wants_completion) {
  for (uint64_t i = 0; i < header.argument; ++i) {
    const DeviceHeader own = {header.command, 0, header.number + i};
    OutgoingPacket packet;
    packet.payload = BytesOf(own);
    packet.wants_completion = wants_completion;
    packet.tag = own.number;
    if (channel_->Send(packet) != SendStatus::kOk) return;
    if (wants_completion) ++counts_.awaiting;
  }
}

void ReferenceDevice::OnCompletion(uint64_t tag,
                                   absl::Span<const std::byte> reply) {
  (void)reply;
  --counts_.awaiting;
  ++counts_.completions;
  counts_.digest = counts_.digest * 31 + tag;
}

void ReferenceDevice::External(const DeviceHeader& header,
                               IncomingPacket packet) {
  const auto buffers = packet.guest_buffers();
  if (!buffers.ok() || buffers->empty()) {
    Answer(std::move(packet), header, false);
    return;
  }
  std::vector<std::byte> reply(BytesOf(header).begin(), BytesOf(header).end());
  std::memset(reply.data() + 4, 0, 4);
  const bool reads = header.command == Command::kReadExternal;
  size_t left = kExternalMax;
  for (const iovec& buffer : *buffers) {
    const size_t count = std::min(left, buffer.iov_len);
    auto* const bytes = static_cast<std::byte*>(buffer.iov_base);
    if (reads) reply.insert(reply.end(), bytes, bytes + count);
    for (size_t i = 0; !reads && i + 8 <= count; i += 8) {
      std::memcpy(bytes + i, &header.number, sizeof(header.number));
    }
    left -= count;
  }
  packet.Complete(reply);
}

void ReferenceDevice::Map(const DeviceHeader& header, IncomingPacket packet) {
  const auto buffers =
      channel_->MapGpadl(GpadlHandle{header.argument}, GuestAccess::kReadOnly);
  if (!buffers.ok() || (*buffers)[0].iov_len < 8) {
    Answer(std::move(packet), header, false);
    return;
  }
  std::array<std::byte, sizeof(DeviceHeader) + 8> reply{};
  const DeviceHeader answer = {header.command, 0, header.number};
  std::memcpy(reply.data(), &answer, sizeof(answer));
  std::memcpy(reply.data() + sizeof(answer), (*buffers)[0].iov_base, 8);
  packet.Complete(reply);
}

vsp::IncomingPolicy ReferenceDevice::incoming_policy() const {
  if (number_ == kDrainDevice) return vsp::IncomingPolicy::kDrain;
  if (number_ == kReissueDevice) return vsp::IncomingPolicy::kReissue;
  return vsp::IncomingPolicy::kResume;
}

absl::StatusOr<std::string> ReferenceDevice::SaveDevice() {
  return std::string(reinterpret_cast<const char*>(&counts_), sizeof(counts_));
}

savestate::SizeAnswer ReferenceDevice::SavePacket(const PacketInfo& packet,
                                                  absl::Span<std::byte> out) {
  if (number_ == kReissueDevice) return savestate::SizeAnswer::Ok(0);
  const std::optional<DeviceHeader> header = ParseHeader(packet.payload);
  return SaveBlob(kHeldMark, header.has_value() ? header->number : 0, out);
}

savestate::SizeAnswer ReferenceDevice::SaveAwaiting(uint64_t tag,
                                                    absl::Span<std::byte> out) {
  return SaveBlob(kOwnMark, tag, out);
}

absl::Status ReferenceDevice::OnRestored(vsp::ServerChannel& channel,
                                         absl::Span<const std::byte> state) {
  if (state.size() != sizeof(counts_)) {
    return absl::InvalidArgumentError("not the state of a reference device");
  }
  channel_ = &channel;
  std::memcpy(&counts_, state.data(), sizeof(counts_));
  return absl::OkStatus();
}

absl::Status ReferenceDevice::RestoreAwaiting(
    uint64_t tag, absl::Span<const std::byte> blob) {
  return CheckBlob(kOwnMark, tag, blob);
}

absl::Status ReferenceDevice::RestorePacket(IncomingPacket packet,
                                            absl::Span<const std::byte> blob) {
  const std::optional<DeviceHeader> header = ParseHeader(packet.payload());
  const absl::Status status =
      CheckBlob(kHeldMark, header.has_value() ? header->number : 0, blob);
  if (status.ok()) held_.push_back(std::move(packet));
  return status;
}

// -- ReferenceHost -----------------------------------------------------------

ReferenceHost::ReferenceHost(const GuestMemory* memory, Doorbell* doorbell)
    : memory_(memory), doorbell_(doorbell) {
  for (uint32_t i = 1; i <= kDevices; ++i) {
    devices_.push_back(std::make_unique<ReferenceDevice>(i));
  }
}

OfferParams ReferenceHost::Params(uint32_t device) {
  OfferParams params;
  params.interface_type = kInterfaceType;
  params.interface_instance.bytes[0] = static_cast<uint8_t>(device);
  params.user_data.fill(static_cast<std::byte>(device));
  return params;
}

absl::Status ReferenceHost::Start() {
  bus_ = std::make_unique<vsp::Bus>(vsp::BusOptions(), memory_, doorbell_);
  for (uint32_t i = 1; i <= kDevices; ++i) {
    const absl::Status status = Offer(i);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReferenceHost::Save() {
  bus_->Suspend();
  for (int i = 0; i < kDrainRounds && !bus_->IsQuiescent(); ++i) bus_->Poll();
  bus_->Freeze();
  return bus_->Save();
}

absl::Status ReferenceHost::Resume() {
  bus_->Thaw();
  return absl::OkStatus();
}

absl::Status ReferenceHost::Restore(const std::string& saved) {
  std::vector<vsp::DeviceOffer> devices;
  for (uint32_t i = 1; i <= kDevices; ++i) {
    devices.push_back({Params(i), devices_[i - 1].get()});
  }
  absl::StatusOr<std::unique_ptr<vsp::Bus>> bus = vsp::Bus::Restore(
      {reinterpret_cast<const std::byte*>(saved.data()), saved.size()},
      vsp::BusOptions(), memory_, doorbell_, devices);
  if (!bus.ok()) return bus.status();
  bus_ = *std::move(bus);
  for (uint32_t i = 1; i <= kDevices; ++i) {
    const vsp::ServerChannel* const channel = devices_[i - 1]->channel();
    if (channel != nullptr) offers_[i] = channel->offer();
  }
  bus_->Start();
  return absl::OkStatus();
}

absl::StatusOr<vsp::ServerChannel*> ReferenceHost::Channel(uint32_t device) {
  const auto offer = offers_.find(device);
  vsp::ServerChannel* const channel =
      offer == offers_.end() ? nullptr : bus_->channel(offer->second);
  if (channel != nullptr) return channel;
  return absl::NotFoundError(absl::StrCat("device ", device, " is not there"));
}

absl::Status ReferenceHost::Rescind(uint32_t device) {
  const absl::StatusOr<vsp::ServerChannel*> channel = Channel(device);
  if (!channel.ok()) return channel.status();
  return bus_->Rescind((*channel)->offer());
}

absl::Status ReferenceHost::Offer(uint32_t device) {
  if (device == 0 || device > kDevices) {
    return absl::InvalidArgumentError(absl::StrCat("no device ", device));
  }
  const absl::StatusOr<OfferId> offer =
      bus_->Offer(Params(device), devices_[device - 1].get());
  if (offer.ok()) offers_[device] = *offer;
  return offer.status();
}

absl::Status ReferenceHost::Pause(uint32_t device) {
  const absl::StatusOr<vsp::ServerChannel*> channel = Channel(device);
  if (!channel.ok()) return channel.status();
  (*channel)->Pause();
  return absl::OkStatus();
}

absl::Status ReferenceHost::Unpause(uint32_t device) {
  const absl::StatusOr<vsp::ServerChannel*> channel = Channel(device);
  if (!channel.ok()) return channel.status();
  (*channel)->Start();
  return absl::OkStatus();
}

}  // namespace ferrybus::conformance
