// SPDX-License-Identifier: MIT
//
// A bus out to a save-state frame, and back in.
//
// Restore works in two steps: a plan, made from the bytes alone and checked
// completely; then the plan is carried out.  Only devices can refuse the
// second step, and what they were given is taken back then.

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ferrybus/channel/endpoint_persist.h"
#include "ferrybus/channel/ring_pair.h"
#include "ferrybus/channel/server_connection_persist.h"
#include "ferrybus/savestate/fault_points.h"
#include "ferrybus/savestate/frame.h"
#include "ferrybus/savestate/proto_limits.h"
#include "ferrybus/savestate/size_negotiation.h"
#include "ferrybus/vsp/bus.h"

namespace ferrybus::vsp {
namespace {

using savestate::FaultPoint;
using savestate::PassFaultPoint;

constexpr char kConnectionSection[] = "connection";
constexpr char kChannelSection[] = "channel";
constexpr uint32_t kConnectionVersion = 1;
constexpr uint32_t kChannelVersion = 1;

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

// Whether the channel is abandoned, alone or with its primary.
bool IsForcedNew(const OfferParams& params,
                 absl::Span<const DeviceOffer> devices) {
  return std::any_of(devices.begin(), devices.end(),
                     [&](const DeviceOffer& device) {
                       return device.settings.has_value() &&
                              device.settings->force_new_channel &&
                              (params.HasIdentityOf(device.params) ||
                               params.IsSubChannelOf(device.params));
                     });
}

void ReportSkipped(BusObserver* observer,
                   absl::Span<const savestate::Section> skipped) {
  if (observer == nullptr) return;
  for (const savestate::Section& section : skipped) {
    observer->OnSectionSkipped(section.name, section.instance);
  }
}

}  // namespace

// What a restore will do, checked.
struct Bus::RestorePlan {
  CheckedServerConnection connection;
  std::map<OfferId, ChannelSnapshot> channels;
  absl::Span<const DeviceOffer> devices;
  std::vector<savestate::Section> skipped;  // within the saved bytes
};

// -- Save ---------------------------------------------------------------------

absl::StatusOr<std::string> Bus::Save() {
  if (!frozen_) {
    return absl::FailedPreconditionError("save: Freeze() the bus first");
  }
  if (!IsQuiescent()) {
    return absl::FailedPreconditionError(
        "save: a device whose policy is kDrain, or whose channel was closed, "
        "still has packets in flight; Poll() until IsQuiescent() before "
        "Freeze()");
  }
  absl::Status status = PassFaultPoint(FaultPoint::kSaveConnection);
  if (!status.ok()) return status;
  savestate::FrameWriter writer("ferrybus vsp::Bus");
  writer.AddSection(kConnectionSection, 0, kConnectionVersion,
                    savestate::SectionKind::kRequired,
                    SaveServerConnection(*connection_));
  for (const auto& [offer, channel] : channels_) {
    if (!IsOpen(*channel)) continue;
    absl::StatusOr<std::string> body = SaveChannel(*channel);
    status = body.status();
    status.Update(PassFaultPoint(FaultPoint::kSaveChannel));
    if (!status.ok()) return status;
    writer.AddSection(
        kChannelSection, static_cast<uint64_t>(channel->channel_id_),
        kChannelVersion, savestate::SectionKind::kRequired, *std::move(body));
  }
  status = PassFaultPoint(FaultPoint::kSaveFrame);
  if (!status.ok()) return status;
  return writer.Finish();
}

absl::StatusOr<std::string> Bus::SaveChannel(ServerChannel& channel) {
  Device& device = *channel.device_;
  const auto save_blob = [&](const PacketInfo* packet,
                             uint64_t tag) -> absl::StatusOr<std::string> {
    const absl::Status status =
        PassFaultPoint(packet != nullptr ? FaultPoint::kSavePacket
                                         : FaultPoint::kSaveAwaiting);
    if (!status.ok()) return status;
    return savestate::NegotiateSize(
        {.dialect = savestate::SizingDialect::kKmcl},
        packet != nullptr ? "incoming packet" : "awaiting packet",
        [&](absl::Span<std::byte> buffer) {
          return packet != nullptr ? device.SavePacket(*packet, buffer)
                                   : device.SaveAwaiting(tag, buffer);
        });
  };
  ChannelSnapshot snapshot;
  absl::StatusOr<EndpointState> endpoint = channel.endpoint_->Save(save_blob);
  if (!endpoint.ok()) return endpoint.status();
  snapshot.endpoint = *std::move(endpoint);
  if (device.incoming_policy() == IncomingPolicy::kReissue) {
    // Given to the device or not is the same to the next owner.
    for (EndpointState::Incoming& packet : snapshot.endpoint.incoming) {
      packet.is_waiting = false;
    }
  }
  const absl::Status status = PassFaultPoint(FaultPoint::kSaveDevice);
  if (!status.ok()) return status;
  absl::StatusOr<std::string> state = device.SaveDevice();
  if (!state.ok()) return state.status();
  snapshot.device_state = *std::move(state);
  std::string body = SaveChannelSnapshot(std::move(snapshot));
  // What cannot be restored must not pass for saved.
  const uint64_t bytes_max = savestate::ProtoLimits().bytes_max;
  if (body.empty() || body.size() > bytes_max) {
    return absl::ResourceExhaustedError(absl::StrCat(
        savestate::DescribeSection(kChannelSection,
                                   static_cast<uint64_t>(channel.channel_id_)),
        " would have ", body.size(),
        " bytes (0: too many to count), a restore "
        "takes ",
        bytes_max, "; let the device save less for each packet"));
  }
  return body;
}

// -- Restore ------------------------------------------------------------------

absl::StatusOr<Bus::RestorePlan> Bus::PlanRestore(
    absl::Span<const std::byte> saved, const BusOptions& options,
    absl::Span<const DeviceOffer> devices) {
  const absl::StatusOr<savestate::Frame> frame = savestate::Frame::Parse(saved);
  if (!frame.ok()) return frame.status();
  const savestate::KnownSection known[] = {
      {kConnectionSection, kConnectionVersion},
      {kChannelSection, kChannelVersion}};
  const auto skipped = savestate::CheckKnownSections(*frame, known);
  if (!skipped.ok()) return skipped.status();
  const savestate::Section* const section = frame->Find(kConnectionSection);
  if (section == nullptr) {
    return absl::InvalidArgumentError(
        "the saved state has no section \"connection\"");
  }
  absl::StatusOr<CheckedServerConnection> connection =
      ParseServerConnection(section->body, options.connection);
  if (!connection.ok()) return connection.status();

  RestorePlan plan{*std::move(connection), {}, devices, *skipped};
  size_t used = 0;
  for (const SavedOffer& offer : plan.connection.state().offers) {
    if (offer.state != ServerChannelState::kOpen) continue;
    const uint64_t id = static_cast<uint64_t>(offer.channel_id);
    const std::string where = savestate::DescribeSection(kChannelSection, id);
    const savestate::Section* const body = frame->Find(kChannelSection, id);
    if (body == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, " is missing, but the channel is open"));
    }
    ++used;
    if (IsForcedNew(offer.params, devices)) continue;
    const DeviceOffer* its = nullptr;
    for (const DeviceOffer& device : devices) {
      if (device.params.HasIdentityOf(offer.params)) its = &device;
    }
    if (its == nullptr) {
      return absl::FailedPreconditionError(absl::StrCat(
          where, " is open on device ", offer.params.interface_type.ToString(),
          " instance ", offer.params.interface_instance.ToString(),
          ", which is not among the ", devices.size(),
          " devices given to Restore"));
    }
    absl::StatusOr<ChannelSnapshot> snapshot = ParseChannelSnapshot(
        body->body,
        its->settings.has_value() ? its->settings->endpoint.limits
                                  : options.endpoint,
        where);
    if (!snapshot.ok()) return snapshot.status();
    plan.channels.emplace(offer.id, *std::move(snapshot));
  }
  size_t present = 0;
  for (const savestate::Section& each : frame->sections()) {
    present += each.name == kChannelSection ? 1 : 0;
  }
  if (present != used) {
    return absl::InvalidArgumentError(
        absl::StrCat("the saved state has ", present,
                     " sections \"channel\", but ", used, " open channels"));
  }
  return plan;
}

absl::StatusOr<std::unique_ptr<Bus>> Bus::Restore(
    absl::Span<const std::byte> saved, const BusOptions& options,
    const GuestMemory* memory, Doorbell* doorbell,
    absl::Span<const DeviceOffer> devices, BusObserver* observer) {
  absl::Status status = PassFaultPoint(FaultPoint::kRestorePlan);
  if (!status.ok()) return status;
  auto bus = std::make_unique<Bus>(options, memory, doorbell, observer);
  if (!bus->wake_status_.ok()) return bus->wake_status_;
  absl::StatusOr<RestorePlan> plan = PlanRestore(saved, bus->options_, devices);
  status = plan.status();
  status.Update(PassFaultPoint(FaultPoint::kRestoreConnection));
  if (!status.ok()) return status;
  bus->frozen_ = true;
  bus->connection_ = ServerConnection::Restore(
      plan->connection, bus->options_.connection, bus.get());
  status = bus->RestoreChannels(*plan);
  if (status.ok()) {
    ReportSkipped(observer, plan->skipped);
    return bus;
  }
  // Devices let go of what they were given.
  for (const auto& [offer, channel] : bus->channels_) {
    channel->life_.Close(ChannelLink::kClosed);
  }
  return status;
}

absl::Status Bus::RestoreChannels(const RestorePlan& plan) {
  for (const DeviceOffer& device : plan.devices) {
    const absl::Status status = PassFaultPoint(FaultPoint::kRestoreOffer);
    if (!status.ok()) return status;
    const absl::StatusOr<OfferId> offer =
        device.settings.has_value()
            ? Offer(device.params, device.device, *device.settings)
            : Offer(device.params, device.device);
    if (!offer.ok()) return offer.status();
  }
  for (const auto& [offer, snapshot] : plan.channels) {
    ServerChannel* const its = channel(offer);
    if (its == nullptr) {
      return absl::FailedPreconditionError(
          absl::StrCat("the device of saved channel offer ",
                       static_cast<uint32_t>(offer), " got another offer"));
    }
    const absl::Status status = RestoreSnapshot(*its, snapshot);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

// -- Piece by piece ----------------------------------------------------------

std::string Bus::SaveConnection() const {
  savestate::FrameWriter writer("ferrybus vsp::Bus");
  writer.AddSection(kConnectionSection, 0, kConnectionVersion,
                    savestate::SectionKind::kRequired,
                    SaveServerConnection(*connection_));
  return *writer.Finish();
}

absl::StatusOr<std::unique_ptr<Bus>> Bus::RestoreConnection(
    absl::Span<const std::byte> saved, const BusOptions& options,
    const GuestMemory* memory, Doorbell* doorbell, BusObserver* observer) {
  const absl::StatusOr<savestate::Frame> frame = savestate::Frame::Parse(saved);
  if (!frame.ok()) return frame.status();
  const savestate::KnownSection known[] = {
      {kConnectionSection, kConnectionVersion}};
  const auto skipped = savestate::CheckKnownSections(*frame, known);
  if (!skipped.ok()) return skipped.status();
  const savestate::Section* const section = frame->Find(kConnectionSection);
  if (section == nullptr) {
    return absl::InvalidArgumentError(
        "the saved state has no section \"connection\"");
  }
  auto bus = std::make_unique<Bus>(options, memory, doorbell, observer);
  if (!bus->wake_status_.ok()) return bus->wake_status_;
  absl::StatusOr<CheckedServerConnection> connection =
      ParseServerConnection(section->body, bus->options_.connection);
  if (!connection.ok()) return connection.status();
  bus->frozen_ = true;
  bus->connection_ = ServerConnection::Restore(
      *std::move(connection), bus->options_.connection, bus.get());
  ReportSkipped(observer, *skipped);
  return bus;
}

absl::Status Bus::RestoreChannel(OfferId offer,
                                 const ChannelSnapshot& snapshot) {
  ServerChannel* const its = channel(offer);
  if (its == nullptr || !IsOpen(*its) || its->life_.is_up()) {
    return absl::FailedPreconditionError(
        "the channel was not open when it was saved, or is restored already");
  }
  const absl::Status status = RestoreSnapshot(*its, snapshot);
  if (!status.ok()) its->life_.Close(ChannelLink::kClosed);
  return status;
}

absl::Status Bus::RestoreSnapshot(ServerChannel& channel,
                                  const ChannelSnapshot& snapshot) {
  const absl::StatusOr<GpadlView> ring = connection_->RingGpadl(channel.offer_);
  const OpenRequest* const request = connection_->open_request(channel.offer_);
  if (!ring.ok() || request == nullptr) {
    return absl::InvalidArgumentError("a saved open channel has no ring");
  }
  absl::Status status = PassFaultPoint(FaultPoint::kRestoreRings);
  if (!status.ok()) return status;
  absl::StatusOr<RingPair> rings =
      RingPair::Map(*memory_, ring->pages, request->downstream_page_offset);
  status = rings.status();
  status.Update(PassFaultPoint(FaultPoint::kRestoreDevice));
  if (!status.ok()) return status;
  status = channel.device_->OnRestored(channel, AsBytes(snapshot.device_state));
  if (!status.ok()) return status;
  channel.life_.Restored();
  for (const EndpointState::Awaiting& packet : snapshot.endpoint.awaiting) {
    if (packet.is_cancelled) continue;
    status = PassFaultPoint(FaultPoint::kRestoreAwaiting);
    if (!status.ok()) return status;
    status = channel.device_->RestoreAwaiting(packet.tag, AsBytes(packet.blob));
    if (!status.ok()) return status;
  }
  return channel.endpoint_->Restore(
      snapshot.endpoint, *std::move(rings),
      static_cast<uint32_t>(channel.channel_id_),
      [&channel](IncomingPacket packet, absl::Span<const std::byte> blob) {
        absl::Status status = PassFaultPoint(FaultPoint::kRestorePacket);
        if (!status.ok()) return status;
        if (channel.device_->incoming_policy() == IncomingPolicy::kReissue &&
            blob.empty()) {
          packet.Defer();  // given again when the channel starts
          return absl::OkStatus();
        }
        return channel.device_->RestorePacket(std::move(packet), blob);
      });
}

}  // namespace ferrybus::vsp
