// SPDX-License-Identifier: MIT

// StorageDevice's save and restore.

#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "ferrybus/vsp/storage/storage_device.h"
#include "ferrybus/vsp/storage/storage_state_persist.h"

namespace ferrybus::vsp {
namespace {

absl::string_view AsText(const std::array<uint8_t, 16>& uuid) {
  return {reinterpret_cast<const char*>(uuid.data()), uuid.size()};
}

absl::Status Mismatch(absl::string_view field, absl::string_view saved,
                      absl::string_view here) {
  return absl::FailedPreconditionError(absl::StrCat(
      "storage device: ", field, " was ", saved, " when saved and is ", here,
      " here: attach the disk that the guest had"));
}

template <typename T>
absl::Status CompareField(absl::string_view field, const T& saved,
                          const T& here) {
  if (saved == here) return absl::OkStatus();
  return Mismatch(field, absl::StrCat(saved), absl::StrCat(here));
}

// What the guest was told must still hold.
absl::Status CheckSameDisk(const StorageDeviceState& saved,
                           const StorageDeviceState& here) {
  const DiskIdentity& was = saved.disk;
  const DiskIdentity& is = here.disk;
  for (const absl::Status& status :
       {CompareField("disk size in bytes", was.size_bytes, is.size_bytes),
        CompareField("block size in bytes", was.block_bytes, is.block_bytes),
        CompareField("read-only flag", was.read_only, is.read_only)}) {
    if (!status.ok()) return status;
  }
  if (was.serial != is.serial) {
    return Mismatch("serial", absl::CHexEscape(was.serial), is.serial);
  }
  if (was.uuid != is.uuid) {
    return Mismatch("uuid", absl::BytesToHexString(AsText(was.uuid)),
                    absl::BytesToHexString(AsText(is.uuid)));
  }
  if (was.can_discard && !is.can_discard) {
    return Mismatch("discard support", "offered", "missing");
  }
  if (saved.max_transfer_bytes > here.max_transfer_bytes) {
    return Mismatch("max_transfer_bytes",
                    absl::StrCat(saved.max_transfer_bytes),
                    absl::StrCat(here.max_transfer_bytes));
  }
  return absl::OkStatus();
}

}  // namespace

StorageDeviceState StorageDevice::State() const {
  const DiskModel& model = disk_.model();
  StorageDeviceState state;
  state.phase = session_.phase();
  state.version = session_.version();
  state.max_transfer_bytes = model.max_transfer_bytes;
  state.sub_channels = session_.sub_channels();
  state.disk.size_bytes = model.size_bytes;
  state.disk.block_bytes = kLogicalBlockBytes;
  state.disk.read_only = model.read_only;
  state.disk.can_discard = model.can_discard;
  state.disk.serial = model.serial;
  state.disk.uuid = model.uuid;
  return state;
}

absl::StatusOr<std::string> StorageDevice::SaveDevice() {
  return SerializeDeviceState(State());
}

absl::Status StorageDevice::OnRestored(ServerChannel& channel,
                                       absl::Span<const std::byte> state) {
  (void)channel;
  absl::StatusOr<StorageDeviceState> saved = ParseDeviceState(state);
  if (!saved.ok()) return saved.status();
  if (absl::Status status = CheckSameDisk(*saved, State()); !status.ok()) {
    return status;
  }
  if (saved->sub_channels > options_.sub_channels_max) {
    return Mismatch("number of sub-channels", absl::StrCat(saved->sub_channels),
                    absl::StrCat("at most ", options_.sub_channels_max));
  }
  session_.Restore(saved->phase, saved->version, saved->sub_channels);
  return absl::OkStatus();
}

StorageDevice::Request* StorageDevice::FindRequest(uint32_t channel,
                                                   const PacketInfo& packet) {
  if (packet.slot >= options_.requests_max) return nullptr;
  Request& request = RequestsOf(channel)[packet.slot];
  if (request.state == Request::State::kFree) return nullptr;
  if (request.packet.info().generation != packet.generation) return nullptr;
  return &request;
}

savestate::SizeAnswer StorageDevice::SavePacketOf(uint32_t channel,
                                                  const PacketInfo& packet,
                                                  absl::Span<std::byte> out) {
  const Request* request = FindRequest(channel, packet);
  if (request == nullptr) {
    return savestate::SizeAnswer::Failed(absl::InternalError(absl::StrCat(
        "storage device: packet in slot ", packet.slot, " of generation ",
        packet.generation, " is not one that the device has in flight")));
  }
  StoragePacketState state;
  if (request->saved_result.has_value()) {
    state.done = true;
    state.result = *request->saved_result;
  }
  const std::string blob = SerializePacketState(state);
  if (out.size() < blob.size()) {
    return savestate::SizeAnswer::TooSmall(blob.size());
  }
  std::memcpy(out.data(), blob.data(), blob.size());
  return savestate::SizeAnswer::Ok(blob.size());
}

absl::Status StorageDevice::RestorePacketOf(uint32_t channel,
                                            IncomingPacket packet,
                                            absl::Span<const std::byte> blob) {
  absl::StatusOr<StoragePacketState> saved = ParsePacketState(blob);
  if (!saved.ok()) return saved.status();
  if (saved->done) {
    vstor::Packet copy = {};
    if (packet.payload().size() >= sizeof(copy)) {
      std::memcpy(&copy, packet.payload().data(), sizeof(copy));
    }
    const auto srb = vstor::GetBody<vstor::Srb>(copy);
    if (copy.operation != vstor::Operation::kExecuteSrb ||
        saved->result.transferred_bytes > srb.transfer_bytes) {
      return absl::DataLossError(absl::StrCat(
          "storage device: a result of ", saved->result.transferred_bytes,
          " bytes was saved for a packet with operation ",
          static_cast<uint32_t>(copy.operation), " and ", srb.transfer_bytes,
          " bytes: the saved state is corrupt"));
    }
  }
  const uint32_t slot = packet.info().slot;
  Request* request = Acquire(channel, packet);
  if (request == nullptr) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "storage device: no entry for the packet in slot ", slot, " of ",
        options_.requests_max, ": raise requests_max to the channel's quota"));
  }
  request->state = Request::State::kRestored;
  if (saved->done) request->saved_result = saved->result;
  restored_[channel].push_back(IndexOf(*request));
  return absl::OkStatus();
}

void StorageDevice::StartChannel(uint32_t channel) {
  // In the saved order, which is the guest's.
  for (uint32_t index : std::exchange(restored_[channel], {})) {
    Request& request = requests_[index];
    request.state = Request::State::kWaiting;
    if (!request.saved_result.has_value()) {
      ++counters_.reissued;
      Dispatch(request);
      continue;
    }
    vstor::Packet packet;
    std::memcpy(&packet, request.packet.payload().data(), sizeof(packet));
    request.srb = vstor::GetBody<vstor::Srb>(packet);
    FinishSrb(request, *request.saved_result);
  }
  FinishResets();
  SubmitEnqueued();
}

}  // namespace ferrybus::vsp
