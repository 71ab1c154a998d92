// SPDX-License-Identifier: MIT

#include "ferrybus/examples/hypervisor/bus_bridge.h"

#include <poll.h>
#include <sys/eventfd.h>

#include <utility>
#include <variant>

#include "ferrybus/channel/message_codec.h"
#include "ferrybus/channel/server_connection_types.h"
#include "ferrybus/channel/signal_event.h"

namespace ferrybus::hypervisor {
namespace {

// Linux takes its messages, and interrupts, on the processor that connected,
// which is the first.
constexpr uint32_t kMessageVp = 0;
// How long until a slot that was not empty is looked at again.  The guest's
// "end of message" would tell; messages are few, and this is one way for both
// modes.
constexpr int kSlotRetryMs = 1;
// Each takes KVM's time when it goes, so a guest has no more than this many;
// signals of channels that it opens while it has them come by hypercalls.
constexpr size_t kMaxDoorbells = 64;

void TakeAll(MessageSocket& socket, std::vector<SocketMessage>* messages) {
  while (true) {
    const absl::StatusOr<SocketMessage> message = socket.Receive();
    if (message.ok()) {
      messages->push_back(*message);
    } else if (!absl::IsInvalidArgument(message.status())) {
      return;
    }
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<BusBridge>> BusBridge::Open(
    Port port, Synic* synic, DoorbellSwitch doorbells) {
  absl::StatusOr<SignalPage> signals = SignalPage::Map(port.signals.get());
  if (!signals.ok()) return signals.status();
  return std::unique_ptr<BusBridge>(new BusBridge(
      std::move(port), *std::move(signals), synic, std::move(doorbells)));
}

BusBridge::BusBridge(Port port, SignalPage signals, Synic* synic,
                     DoorbellSwitch doorbells)
    : port_(std::move(port)),
      signals_(std::move(signals)),
      sender_(signals_, SignalDirection::kGuestToHost, port_.host_event.get()),
      receiver_(signals_, SignalDirection::kHostToGuest,
                port_.guest_event.get()),
      messages_(port_.messages.get(), MessageSocket::Role::kGuest),
      synic_(synic),
      doorbells_(std::move(doorbells)),
      stop_event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

HypercallStatus BusBridge::PostMessage(uint32_t connection_id,
                                       absl::Span<const std::byte> payload) {
  if (connection_id != kMessageConnectionClassic &&
      connection_id != kMessageConnectionMulticlient) {
    return HypercallStatus::kInvalidConnectionId;
  }
  ++hypercalls_;
  const std::lock_guard lock(send_mutex_);
  NoteChannels(payload);
  // The guest's processor does not wait; the guest tries again.
  return messages_.Send(connection_id, payload)
             ? HypercallStatus::kSuccess
             : HypercallStatus::kInsufficientBuffers;
}

HypercallStatus BusBridge::SignalEvent(uint64_t input) {
  ++hypercalls_;
  const ferrybus::SignalEvent event = DecodeSignalEvent(input);
  const uint32_t channel_id = event.connection_id & kMaxChannelId;
  if (channel_id == 0 || event.flag_number != 0 ||
      event.connection_id != EventConnectionId(ChannelId{channel_id})) {
    return HypercallStatus::kInvalidConnectionId;
  }
  sender_.Ring(channel_id);
  return HypercallStatus::kSuccess;
}

// The port's signals name a channel; the processor that it wants to interrupt
// is in the messages by which it is opened and modified.  Whether the host
// agrees does not matter: a doorbell too many wakes it up, one too few comes by
// a hypercall.
void BusBridge::NoteChannels(absl::Span<const std::byte> message) {
  const absl::StatusOr<GuestMessage> decoded = DecodeGuestMessage(message, {});
  if (!decoded.ok()) return;
  const auto note = [this](ChannelId channel_id, uint32_t vp) {
    const auto index = static_cast<uint32_t>(channel_id);
    if (index <= kMaxChannelId) target_vps_[index] = vp;
  };
  if (const auto* open = std::get_if<OpenChannelMessage>(&*decoded)) {
    note(open->channel_id, open->target_vp);
    SetOpen(static_cast<uint32_t>(open->channel_id), true);
  } else if (const auto* modify =
                 std::get_if<ModifyChannelMessage>(&*decoded)) {
    note(modify->channel_id, modify->target_vp);
  } else if (const auto* close = std::get_if<CloseChannelMessage>(&*decoded)) {
    SetOpen(static_cast<uint32_t>(close->channel_id), false);
  } else if (std::holds_alternative<UnloadMessage>(*decoded) ||
             std::holds_alternative<InitiateContactMessage>(*decoded)) {
    CloseAll();
  }
}

void BusBridge::SetOpen(uint32_t channel_id, bool open) {
  if (channel_id == 0 || channel_id > kMaxChannelId ||
      open_[channel_id] == open) {
    return;
  }
  open_[channel_id] = open;
  if (doorbells_ == nullptr) return;
  if (open && has_doorbell_.count() == kMaxDoorbells) return;
  if (has_doorbell_[channel_id] == open) return;
  has_doorbell_[channel_id] = open;
  doorbells_(EventConnectionId(ChannelId{channel_id}), port_.host_event.get(),
             open);
}

// A guest that begins anew, or is about to.
void BusBridge::CloseAll() {
  for (uint32_t id = 1; id <= kMaxChannelId; ++id) SetOpen(id, false);
}

bool BusBridge::DeliverMessages() {
  while (true) {
    if (waiting_.empty()) {
      const absl::StatusOr<SocketMessage> message = messages_.Receive();
      if (absl::IsInvalidArgument(message.status())) continue;
      if (!message.ok()) return true;
      waiting_.push_back(*message);
    }
    if (synic_->PostMessage(kMessageVp, waiting_.front().payload()) ==
        Synic::Delivery::kSlotBusy) {
      return false;
    }
    waiting_.pop_front();
  }
}

void BusBridge::DeliverSignals() {
  receiver_.Take([this](uint32_t channel_id) {
    synic_->SetEventFlag(target_vps_[channel_id], channel_id);
  });
}

void BusBridge::Run() {
  while (!stopping_) {
    const bool all_delivered = DeliverMessages();
    DeliverSignals();
    pollfd fds[] = {
        {receiver_.wait_fd(), POLLIN, 0},
        {stop_event_.get(), POLLIN, 0},
        {messages_.wait_fd(), all_delivered ? short{POLLIN} : short{0}, 0}};
    poll(fds, 3, all_delivered ? -1 : kSlotRetryMs);
  }
}

void BusBridge::Stop() {
  stopping_ = true;
  (void)eventfd_write(stop_event_.get(), 1);
}

void BusBridge::Continue() {
  stopping_ = false;
  eventfd_t ignored;
  (void)eventfd_read(stop_event_.get(), &ignored);
}

PortState BusBridge::Drain(const Port& host) {
  PortState state;
  DeliverSignals();
  if (!DeliverMessages()) {
    state.to_guest.assign(waiting_.begin(), waiting_.end());
    waiting_.clear();
    // Those behind the one that waits.
    TakeAll(messages_, &state.to_guest);
  }
  MessageSocket to_host(host.messages.get(), MessageSocket::Role::kHost);
  TakeAll(to_host, &state.to_host);
  SignalReceiver(signals_, SignalDirection::kGuestToHost, host.host_event.get())
      .Take([&](uint32_t channel_id) { state.signals.push_back(channel_id); });
  // A signal that KVM took is nowhere but here, and not needed: whoever goes on
  // polls all channels first.
  for (uint32_t id = 1; id <= kMaxChannelId; ++id) {
    if (open_[id]) state.target_vps.push_back({id, target_vps_[id]});
  }
  return state;
}

void BusBridge::Fill(const PortState& state) {
  waiting_.assign(state.to_guest.begin(), state.to_guest.end());
  for (const SocketMessage& message : state.to_host) {
    (void)messages_.Send(message.connection_id, message.payload());
  }
  for (const uint32_t channel_id : state.signals) sender_.Ring(channel_id);
  const std::lock_guard lock(send_mutex_);
  for (const PortState::TargetVp& target : state.target_vps) {
    target_vps_[target.channel_id] = target.vp;
    SetOpen(target.channel_id, true);
  }
}

}  // namespace ferrybus::hypervisor
