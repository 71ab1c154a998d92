// SPDX-License-Identifier: MIT
//
// The host side of one guest's VMBus: offers devices, runs their channels,
// and moves them.
//
// What it is: a ServerConnection (channel messages), a ServerChannel for each
// offer, and the glue between them, without threads and without I/O: messages
// and signals are handed in, the doorbell and the outgoing messages go out.
// vsp/host_port.h connects it to another process; a hypervisor calls it from
// its exits.
//
// Moving:  Suspend(), Poll() until IsQuiescent(), Freeze(), Save(); then
// either Thaw() and go on, or end this bus: the next owner's Restore() and
// Start() go on from the saved bytes on the same guest memory.  Between Freeze
// and Thaw nothing is published, so exactly one of the two owners answers.
//
// Ownership: borrows guest memory, doorbell, observer and devices; all must
// outlive the bus, guest memory also every packet a device still holds.
//
// Thread safety: one thread calls the bus; packets may be completed, and
// ServerChannel::Send called, from any.  wake_fd() tells the one thread when
// another has left work.
//
// Trust: the guest may send anything; see ServerConnection and
// PacketEndpoint.  Saved bytes may be anything, too: Restore() checks all of
// them before a device or the guest sees any effect.
//
// Cost: Poll() visits only channels that were signalled.
//
//   vsp::Bus bus(options, &memory, &doorbell);
//   bus.Offer({.interface_type = kScsi, .interface_instance = id}, &disk);
//   while (running) { bus.HandleMessage(...); bus.Signal(id); bus.Poll(); }

#ifndef FERRYBUS_VSP_BUS_H_
#define FERRYBUS_VSP_BUS_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/channel/counters_page.h"
#include "ferrybus/channel/doorbell.h"
#include "ferrybus/channel/endpoint_persist.h"
#include "ferrybus/channel/guest_memory.h"
#include "ferrybus/channel/ready_channels.h"
#include "ferrybus/channel/server_connection.h"
#include "ferrybus/channel/transport/unique_fd.h"
#include "ferrybus/vsp/device.h"
#include "ferrybus/vsp/server_channel.h"

namespace ferrybus::vsp {

struct BusOptions {
  // ram_page_count is taken from the guest memory.
  ServerConnectionOptions connection;
  EndpointLimits endpoint;
  // Packets per channel and Poll().
  uint32_t poll_budget = 128;
  // Borrowed, this bus's alone: gets a channel's counters after each of its
  // polls.  Null: nobody reads them.
  CountersPage* counters = nullptr;
};

// What an embedder may want to log, and what only it can answer.
class BusObserver {
 public:
  virtual ~BusObserver() = default;
  // The guest broke the channel's protocol: the channel stopped.  Once per
  // opening of the channel.
  virtual void OnChannelFault(const ServerChannel& channel,
                              const std::string& reason) {
    (void)channel, (void)reason;
  }
  // A channel that the guest opens was refused: by its device, or for want of
  // address space for its rings.  The guest may try again.
  virtual void OnOpenRefused(const ServerChannel& channel,
                             const absl::Status& why) {
    (void)channel, (void)why;
  }
  // The guest connects to a socket service (vsp/socket/socket_device.h).  True:
  // it is answered, now or later, by Bus::Offer of SocketDevice::Params with
  // the request's service and endpoint, or by Bus::RefuseTlConnect.  False
  // refuses.  Comes again from Start() if the bus moved before the answer.
  virtual bool OnTlConnectRequested(const TlConnectRequest& request) {
    (void)request;
    return false;
  }
  // A restore left out an optional section that only newer builds know, by
  // name and instance.
  virtual void OnSectionSkipped(std::string_view name, uint64_t instance) {
    (void)name, (void)instance;
  }
};

// A device and what it is offered as.
struct DeviceOffer {
  OfferParams params;
  Device* device = nullptr;
  // Without: BusOptions::endpoint, active.
  std::optional<ChannelSettings> settings = std::nullopt;
};

// What is in flight, over all channels.
struct InFlightCount {
  uint64_t incoming = 0;  // received, not completed
  uint64_t awaiting = 0;  // sent, not completed by the guest
  uint64_t queued = 0;    // waiting for room
};

class Bus final : private ServerEvents, private ServerChannel::Host {
 public:
  Bus(const BusOptions& options, const GuestMemory* memory, Doorbell* doorbell,
      BusObserver* observer = nullptr);
  ~Bus() override;

  // Offers a channel; errors as ServerConnection::AddOffer.  ResourceExhausted:
  // no descriptor was left for wake_fd().
  absl::StatusOr<OfferId> Offer(const OfferParams& params, Device* device);
  // With settings of its own instead of BusOptions::endpoint.
  absl::StatusOr<OfferId> Offer(const OfferParams& params, Device* device,
                                const ChannelSettings& settings);
  // Takes an offer back; the device is closed first if it is open.  It is not
  // called any more, and may end, once channel() gives null.
  absl::Status Rescind(OfferId offer);
  // Refuses what BusObserver::OnTlConnectRequested told.  NotFound: no such
  // request.
  absl::Status RefuseTlConnect(const TlConnectRequest& request) {
    return connection_->RefuseTlConnect(request.endpoint_id,
                                        request.service_id);
  }

  // -- What the guest does ---------------------------------------------------

  // False: leave messages where they are; Poll() and take outgoing first.
  bool can_accept_message() const {
    return !frozen_ && connection_->can_accept_message();
  }
  // An error is for the log: the message was refused, the connection goes on.
  absl::Status HandleMessage(absl::Span<const std::byte> payload,
                             uint32_t message_connection);
  // The guest signalled a channel.  Unknown ids are ignored.
  void Signal(uint32_t channel_id) {
    if (channel_id < signals_in_.size()) ++signals_in_[channel_id];
    ready_.Set(channel_id);
  }
  // The guest may have signalled any of them.
  void SignalAll();

  // -- What the host does ----------------------------------------------------

  // Runs the channels that have work.  True: call again soon.  A device may
  // call it where it may block; it then serves the other channels, and this
  // one's completions.
  bool Poll();
  // Becomes readable when another thread has left work for Poll().
  int wake_fd() const { return wake_.get(); }
  // Signals the channels whose monitor bits the guest has set, instead of a
  // signal each.  For an owner that looks now and then; Poll() follows.  False:
  // the guest has no monitor pages.
  bool PollMonitors();
  // Messages for the guest, in order.
  bool has_outgoing() const { return !frozen_ && connection_->has_outgoing(); }
  absl::Span<const std::byte> outgoing_front() {
    return connection_->outgoing_front();
  }
  void PopOutgoing() { connection_->PopOutgoing(); }

  // -- Moving ----------------------------------------------------------------

  // No more packets are taken; completions still reach the guest.
  void Suspend();
  // True once every channel whose device drains (IncomingPolicy::kDrain) has
  // nothing in flight, and no device holds packets of a channel that the guest
  // closed: their memory is the guest's again once the next owner says so.
  // Poll() meanwhile.
  bool IsQuiescent() const;
  // Nothing is published from here on.
  void Freeze();
  // The whole bus as a save-state frame (docs/SAVE_STATE.md).  Repeatable.
  // REQUIRES: frozen.  FailedPrecondition: not quiescent.
  absl::StatusOr<std::string> Save();
  // Goes on as if nothing had happened.
  void Thaw();

  // A bus that stands where the saved one stood, frozen.  `devices` must hold
  // one for each offer that the guest uses; others are offered anew.  All or
  // nothing: on failure no device holds a packet and nothing was published.
  // DataLoss, InvalidArgument, Unimplemented, ResourceExhausted: the bytes.
  // FailedPrecondition: they need what is not here.
  static absl::StatusOr<std::unique_ptr<Bus>> Restore(
      absl::Span<const std::byte> saved, const BusOptions& options,
      const GuestMemory* memory, Doorbell* doorbell,
      absl::Span<const DeviceOffer> devices, BusObserver* observer = nullptr);
  // The same piece by piece, for owners that come one after the other: the
  // connection alone; then Offer() claims what was saved, RestoreChannel()
  // puts each open channel's packets back, and Start() begins.  An open channel
  // that is not restored by then is rescinded.
  std::string SaveConnection() const;
  static absl::StatusOr<std::unique_ptr<Bus>> RestoreConnection(
      absl::Span<const std::byte> saved, const BusOptions& options,
      const GuestMemory* memory, Doorbell* doorbell,
      BusObserver* observer = nullptr);
  // All or nothing.  FailedPrecondition: the channel was not open, or is
  // restored already.
  absl::Status RestoreChannel(OfferId offer, const ChannelSnapshot& snapshot);

  // Begins to serve: what was held back is sent, each open channel is
  // signalled once and polled once, since a signal may have been lost.
  void Start();

  // -- Looking ---------------------------------------------------------------

  const ServerConnection& connection() const { return *connection_; }
  InFlightCount in_flight() const;
  // Null when there is none.
  ServerChannel* channel(OfferId offer) const;
  // What a device is offered as, also by a restore; the newest, if it is
  // offered again.
  std::optional<OfferId> FindOffer(const Device& device) const;
  // Brings BusOptions::counters up to date: between polls other threads may
  // have completed packets.
  void PublishCounters() const;

 private:
  struct RestorePlan;

  // ServerEvents.
  void OnConnected(const Contact& contact) override;
  void OnDisconnected() override;
  void OnOpenRequested(OfferId offer, const OpenRequest& request,
                       const GpadlView& ring) override;
  void OnCloseRequested(OfferId offer) override;
  bool OnModifyRequested(OfferId offer, uint32_t target_vp) override;
  void OnGpadlTeardownRequested(OfferId offer, GpadlId gpadl) override;
  bool OnTlConnectRequested(const TlConnectRequest& request) override;

  // ServerChannel::Host.
  void OnChannelWork(ServerChannel& channel) override;
  void OnChannelStarted(ServerChannel& channel) override;
  absl::StatusOr<GpadlView> AcquireGpadl(ServerChannel& channel,
                                         GpadlId gpadl) override;
  void ReleaseGpadl(ServerChannel& channel, GpadlId gpadl) override;

  void AddChannel(OfferId offer, Device* device,
                  const ChannelSettings& settings);
  absl::Status OpenChannel(ServerChannel& channel, const OpenRequest& request,
                           const GpadlView& ring);
  bool PollChannel(uint32_t channel_id);
  void RunPostStarted();
  void FinishClose(ServerChannel& channel);
  void DropRescinded();
  void WriteCounters(const ServerChannel& channel) const;
  void WakeUp();
  bool IsOpen(const ServerChannel& channel) const;

  // bus_persist.cc
  absl::StatusOr<std::string> SaveChannel(ServerChannel& channel);
  static absl::StatusOr<RestorePlan> PlanRestore(
      absl::Span<const std::byte> saved, const BusOptions& options,
      absl::Span<const DeviceOffer> devices);
  absl::Status RestoreChannels(const RestorePlan& plan);
  absl::Status RestoreSnapshot(ServerChannel& channel,
                               const ChannelSnapshot& snapshot);

  BusOptions options_;
  const GuestMemory* const memory_;
  Doorbell* const doorbell_;
  BusObserver* const observer_;
  UniqueFd wake_;
  absl::Status wake_status_;  // why there is none
  // wake_ may be readable: spares a poll without news the system call.
  std::atomic<bool> is_awake_{false};
  std::unique_ptr<ServerConnection> connection_;
  std::map<OfferId, std::unique_ptr<ServerChannel>> channels_;
  std::map<uint32_t, ServerChannel*> channels_by_id_;
  std::vector<OfferId> rescinding_;
  std::vector<OfferId> post_started_;  // OnPostStarted is due
  int poll_depth_ = 0;
  ReadyChannels ready_;
  std::vector<uint64_t> signals_in_;  // by channel number, if counted
  bool suspended_ = false;
  bool frozen_ = false;
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_BUS_H_
