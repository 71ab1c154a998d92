// SPDX-License-Identifier: MIT
//
// ClientConnection: what the owner asks for.  The rarer requests are in
// client_connection_requests.cc, what the host says in
// client_connection_messages.cc.
#include "ferrybus/channel/client_connection.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace ferrybus {
namespace {

absl::Status NoSuchGpadl(GpadlId gpadl) {
  return absl::NotFoundError(absl::StrCat(
      "GPADL 0x", absl::Hex(static_cast<uint32_t>(gpadl)), " does not exist"));
}

// The bytes of a range as GPADL messages carry them.
std::vector<std::byte> RangeBytes(absl::Span<const uint64_t> pages,
                                  uint32_t byte_count, uint32_t byte_offset) {
  const uint32_t header[2] = {byte_count, byte_offset};
  const size_t pages_size_bytes = pages.size() * sizeof(uint64_t);
  std::vector<std::byte> bytes(sizeof(header) + pages_size_bytes);
  std::memcpy(bytes.data(), header, sizeof(header));
  std::memcpy(bytes.data() + sizeof(header), pages.data(), pages_size_bytes);
  return bytes;
}

// GPADL_HEADER and as many GPADL_BODY as are needed.
size_t GpadlMessageCount(size_t page_count) {
  if (page_count <= kGpadlHeaderPagesMax) return 1;
  const size_t rest = page_count - kGpadlHeaderPagesMax;
  return 1 + (rest + kGpadlBodyPagesMax - 1) / kGpadlBodyPagesMax;
}

}  // namespace

ClientConnection::ClientConnection(const ClientConnectionOptions& options,
                                   ClientEvents* events)
    : options_(options), events_(events) {}

absl::Status ClientConnection::NoSuchChannel(ChannelId channel) {
  return absl::NotFoundError(absl::StrCat(
      "channel ", static_cast<uint32_t>(channel), " is not offered"));
}

absl::Status ClientConnection::WrongState(const char* what, ChannelId channel,
                                          ClientChannelState state) {
  return absl::FailedPreconditionError(
      absl::StrCat(what, " for channel ", static_cast<uint32_t>(channel),
                   " in state ", static_cast<int>(state)));
}

absl::Status ClientConnection::Connect() {
  if (options_.versions.empty()) {
    return absl::InvalidArgumentError("no protocol versions to try");
  }
  Forget();
  phase_ = ClientPhase::kConnecting;
  version_index_ = 0;
  SendContact();
  return absl::OkStatus();
}

void ClientConnection::Forget() {
  phase_ = ClientPhase::kDisconnected;
  features_ = 0;
  offers_requested_ = false;
  offers_delivered_ = false;
  pause_ = PausePhase::kRunning;
  monitor_pages_ = {};
  pending_modify_.reset();
  tl_connects_.clear();
  closing_reserved_.clear();
  channels_.clear();
  gpadls_.clear();
  outgoing_.clear();
}

void ClientConnection::SendContact() {
  version_ = options_.versions[version_index_];
  const bool is_modern = version_ >= ProtocolVersion::kWin10Rs3Plus;
  message_connection_ =
      is_modern ? kMessageConnectionMulticlient : kMessageConnectionClassic;
  InitiateContactMessage message;
  message.version = static_cast<uint32_t>(version_);
  message.target_message_vp = options_.target_message_vp;
  if (is_modern) {
    message.target_sint = kVmbusSint;
  } else {
    message.set_interrupt_page(options_.interrupt_page);
  }
  monitor_pages_ = {options_.parent_to_child_monitor_page,
                    options_.child_to_parent_monitor_page};
  message.parent_to_child_monitor_page = monitor_pages_.parent_to_child;
  message.child_to_parent_monitor_page = monitor_pages_.child_to_parent;
  if (version_ >= ProtocolVersion::kCopper) {
    message.feature_flags = FeaturesToAsk();
    message.client_id = options_.client_id.value_or(Guid{});
  }
  outgoing_.push_back(EncodeInitiateContact(message));
}

uint32_t ClientConnection::FeaturesToAsk() const {
  if (version_ < ProtocolVersion::kCopper) return 0;
  const uint32_t features = options_.features & ~kFeatureClientId;
  return options_.client_id.has_value() ? features | kFeatureClientId
                                        : features;
}

absl::Status ClientConnection::CheckConnected() const {
  if (phase_ != ClientPhase::kConnected) {
    return absl::FailedPreconditionError(
        "not connected; Connect and wait for OnVersion first");
  }
  if (pause_ != PausePhase::kRunning) {
    return absl::FailedPreconditionError(
        "paused; wait for OnPaused and Resume first");
  }
  return absl::OkStatus();
}

absl::Status ClientConnection::CheckRoom(size_t messages) const {
  const size_t count_max = options_.limits.outgoing_messages_max;
  if (outgoing_.size() + messages <= count_max) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat(outgoing_.size(), " messages wait for the host and ",
                   messages, " more are due; at most ", count_max, " allowed"));
}

absl::StatusOr<ClientConnection::Channel*> ClientConnection::Ready(
    ChannelId channel, size_t messages) {
  absl::Status status = CheckConnected();
  status.Update(CheckRoom(messages));
  if (!status.ok()) return status;
  const auto found = channels_.find(channel);
  if (found == channels_.end()) return NoSuchChannel(channel);
  return &found->second;
}

absl::Status ClientConnection::RequestOffers() {
  absl::Status status = CheckConnected();
  status.Update(CheckRoom(1));
  if (!status.ok()) return status;
  if (offers_requested_) {
    return absl::FailedPreconditionError("the offers were requested already");
  }
  offers_requested_ = true;
  outgoing_.push_back(EncodeMessage(RequestOffersMessage{}));
  return absl::OkStatus();
}

GpadlId ClientConnection::NextGpadlId() {
  while (gpadls_.contains(GpadlId{next_gpadl_id_})) ++next_gpadl_id_;
  return GpadlId{next_gpadl_id_++};
}

absl::StatusOr<GpadlId> ClientConnection::CreateGpadl(
    ChannelId channel_id, absl::Span<const uint64_t> pages, uint32_t byte_count,
    uint32_t byte_offset) {
  const uint32_t page_count = GpadlPageCount(byte_count, byte_offset);
  if (page_count == 0 || pages.size() != page_count) {
    return absl::InvalidArgumentError(absl::StrCat(
        byte_count, " bytes at offset ", byte_offset, " are ", page_count,
        " pages (0: more than one GPADL can hold), not ", pages.size()));
  }
  absl::StatusOr<Channel*> channel =
      Ready(channel_id, GpadlMessageCount(pages.size()));
  if (!channel.ok()) return channel.status();
  if ((*channel)->state == ClientChannelState::kRescinded ||
      (*channel)->is_reserved) {
    return WrongState("CreateGpadl", channel_id, (*channel)->state);
  }
  if (gpadls_.size() >= options_.limits.gpadls_max) {
    return absl::ResourceExhaustedError(
        absl::StrCat(gpadls_.size(), " GPADLs exist; no more allowed"));
  }

  const GpadlId id = NextGpadlId();
  gpadls_[id] = {channel_id, GpadlPhase::kCreating};
  const std::vector<std::byte> range =
      RangeBytes(pages, byte_count, byte_offset);
  auto rest = absl::MakeConstSpan(range);
  const GpadlHeaderMessage header{
      .channel_id = channel_id,
      .gpadl_id = id,
      .range_buffer_size_bytes = static_cast<uint16_t>(range.size()),
      .range_count = 1};
  auto part = rest.first(
      std::min(rest.size(), 8 + kGpadlHeaderPagesMax * sizeof(uint64_t)));
  outgoing_.push_back(EncodeGpadlHeader(header, part));
  rest.remove_prefix(part.size());
  while (!rest.empty()) {
    part = rest.first(
        std::min(rest.size(), kGpadlBodyPagesMax * sizeof(uint64_t)));
    outgoing_.push_back(EncodeGpadlBody({.gpadl_id = id}, part));
    rest.remove_prefix(part.size());
  }
  return id;
}

absl::Status ClientConnection::TeardownGpadl(GpadlId id) {
  absl::Status status = CheckConnected();
  status.Update(CheckRoom(1));
  if (!status.ok()) return status;
  const auto found = gpadls_.find(id);
  if (found == gpadls_.end()) return NoSuchGpadl(id);
  ClientGpadl& gpadl = found->second;
  if (gpadl.phase != GpadlPhase::kCreated) {
    return absl::FailedPreconditionError(
        "TeardownGpadl of a GPADL that is not created, or torn down already");
  }
  gpadl.phase = GpadlPhase::kTearingDown;
  outgoing_.push_back(EncodeMessage(
      GpadlTeardownMessage{.channel_id = gpadl.channel, .gpadl_id = id}));
  return absl::OkStatus();
}

absl::StatusOr<ClientConnection::Channel*> ClientConnection::ReadyToOpen(
    ChannelId channel_id, GpadlId ring_gpadl) {
  absl::StatusOr<Channel*> channel = Ready(channel_id, 1);
  if (!channel.ok()) return channel.status();
  if ((*channel)->state != ClientChannelState::kClosed) {
    return WrongState("Open", channel_id, (*channel)->state);
  }
  const auto gpadl = gpadls_.find(ring_gpadl);
  if (gpadl == gpadls_.end() || gpadl->second.channel != channel_id ||
      gpadl->second.phase != GpadlPhase::kCreated) {
    return absl::FailedPreconditionError(
        "Open with a GPADL that is not a created one of the channel");
  }
  return channel;
}

absl::Status ClientConnection::Open(ChannelId channel_id,
                                    const OpenParams& params) {
  absl::StatusOr<Channel*> channel = ReadyToOpen(channel_id, params.ring_gpadl);
  if (!channel.ok()) return channel.status();
  if (((params.connection_id != 0 || params.event_flag != 0) &&
       (features_ & kFeatureGuestSignalParameters) == 0) ||
      (params.redirect_interrupt &&
       (features_ & kFeatureInterruptRedirection) == 0)) {
    return absl::FailedPreconditionError(
        "Open with signal parameters or redirection, which the host has not "
        "granted");
  }
  (*channel)->state = ClientChannelState::kOpening;
  const OpenChannelMessage message{
      .channel_id = channel_id,
      .open_id = static_cast<uint32_t>(channel_id),  // as Linux does
      .ring_gpadl = params.ring_gpadl,
      .target_vp = params.target_vp,
      .downstream_page_offset = params.downstream_page_offset,
      .user_data = params.user_data,
      .connection_id = params.connection_id,
      .event_flag = params.event_flag,
      .flags =
          params.redirect_interrupt ? kOpenRedirectInterrupt : uint16_t{0}};
  outgoing_.push_back(EncodeOpenChannel(message, features_));
  return absl::OkStatus();
}

absl::Status ClientConnection::Close(ChannelId channel_id) {
  absl::StatusOr<Channel*> channel = Ready(channel_id, 1);
  if (!channel.ok()) return channel.status();
  if ((*channel)->state != ClientChannelState::kOpen ||
      (*channel)->is_reserved) {
    return WrongState("Close", channel_id, (*channel)->state);
  }
  (*channel)->state = ClientChannelState::kClosed;
  (*channel)->is_modifying = false;
  outgoing_.push_back(
      EncodeMessage(CloseChannelMessage{.channel_id = channel_id}));
  return absl::OkStatus();
}

absl::Status ClientConnection::ModifyChannel(ChannelId channel_id,
                                             uint32_t target_vp) {
  absl::StatusOr<Channel*> channel = Ready(channel_id, 1);
  if (!channel.ok()) return channel.status();
  absl::Status needs = CheckNeeds("MODIFYCHANNEL", ProtocolVersion::kWin10Rs3);
  if (!needs.ok()) return needs;
  if ((*channel)->state != ClientChannelState::kOpen ||
      (*channel)->is_modifying || (*channel)->is_reserved) {
    return WrongState("ModifyChannel", channel_id, (*channel)->state);
  }
  (*channel)->is_modifying = version_ >= ProtocolVersion::kIron;
  outgoing_.push_back(EncodeMessage(
      ModifyChannelMessage{.channel_id = channel_id, .target_vp = target_vp}));
  return absl::OkStatus();
}

absl::Status ClientConnection::ReleaseRelid(ChannelId channel_id) {
  absl::StatusOr<Channel*> channel = Ready(channel_id, 1);
  if (!channel.ok()) return channel.status();
  if ((*channel)->state != ClientChannelState::kRescinded ||
      HasGpadls(channel_id)) {
    return absl::FailedPreconditionError(
        absl::StrCat("channel ", static_cast<uint32_t>(channel_id),
                     " is not rescinded, or still has GPADLs; tear them down "
                     "and wait for OnGpadlTorndown"));
  }
  channels_.erase(channel_id);
  outgoing_.push_back(
      EncodeMessage(RelidReleasedMessage{.channel_id = channel_id}));
  return absl::OkStatus();
}

absl::Status ClientConnection::Unload() {
  absl::Status status =
      phase_ == ClientPhase::kConnected ? absl::OkStatus() : CheckConnected();
  status.Update(CheckRoom(1));
  if (!status.ok()) return status;
  phase_ = ClientPhase::kUnloading;
  pause_ = PausePhase::kRunning;
  outgoing_.push_back(EncodeMessage(UnloadMessage{}));
  return absl::OkStatus();
}

bool ClientConnection::HasGpadls(ChannelId channel) const {
  return std::any_of(gpadls_.begin(), gpadls_.end(), [channel](const auto& g) {
    return g.second.channel == channel;
  });
}

// --- Lookups ----------------------------------------------------------------

const ClientOffer* ClientConnection::FindOffer(ChannelId channel) const {
  const auto found = channels_.find(channel);
  return found == channels_.end() ? nullptr : &found->second.offer;
}

std::optional<ClientChannelState> ClientConnection::channel_state(
    ChannelId channel) const {
  const auto found = channels_.find(channel);
  if (found == channels_.end()) return std::nullopt;
  return found->second.state;
}

}  // namespace ferrybus
