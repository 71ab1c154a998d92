// SPDX-License-Identifier: MIT
//
// A device's view of its channel: what it may do besides completing packets.
//
// Ownership: the bus owns it, from the offer until the offer is gone
// (Bus::channel() gives null).
// Thread safety: Send(), Cancel(), Flush() and BatchScope from any thread; all
// else from the bus's.
//
// States: channel/channel_life.h.  A channel that is paused is open for the
// guest, but takes no packets.
//
//   ServerChannel* channel = bus.channel(*bus.Offer(params, &device));
//   channel->Pause();
//   while (!channel->IsDrained()) bus.Poll();
//
// Source: KMCL's VMBCHANNEL on the server side.

#ifndef FERRYBUS_VSP_SERVER_CHANNEL_H_
#define FERRYBUS_VSP_SERVER_CHANNEL_H_

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "ferrybus/channel/channel_life.h"
#include "ferrybus/channel/gpadl_handle.h"
#include "ferrybus/channel/packet_endpoint.h"
#include "ferrybus/channel/server_connection_types.h"
#include "ferrybus/vsp/device.h"

namespace ferrybus::vsp {

class Bus;

// How a channel is set up, besides its offer.
struct ChannelSettings {
  // Pipe mode comes from the offer's flags.
  EndpointOptions endpoint;
  // kPaused: packets flow only after Start().
  ChannelRun run = ChannelRun::kActive;
  // After a move the channel is not taken up again: what was saved of it is
  // dropped, the guest sees it rescinded and, once it has let go, offered anew.
  // Holds for its sub-channels, too.
  bool force_new_channel = false;
  // Signals to the guest; null: those of the bus, which its channels share.
  Doorbell* dedicated_doorbell = nullptr;
};

class ServerChannel final : private EndpointEvents, private ChannelLifeEvents {
 public:
  // The bus makes channels, and is what a channel needs of it.
  class Host {
   public:
    // The channel wants to be polled.  Any thread.
    virtual void OnChannelWork(ServerChannel& channel) = 0;
    // OnPostStarted is due.
    virtual void OnChannelStarted(ServerChannel& channel) = 0;
    virtual absl::StatusOr<GpadlView> AcquireGpadl(ServerChannel& channel,
                                                   GpadlId gpadl) = 0;
    virtual void ReleaseGpadl(ServerChannel& channel, GpadlId gpadl) = 0;

   protected:
    ~Host() = default;
  };
  ServerChannel(OfferId offer, ChannelId channel_id, Device* device,
                const ChannelSettings& settings, const GuestMemory* memory,
                Doorbell* doorbell, Host* host);
  ~ServerChannel();

  // -- Packets ---------------------------------------------------------------

  // Sends a packet to the guest; on a full ring it is queued in order.  A
  // packet with `wants_completion` ends in Device::OnCompletion.  Guests refuse
  // packets above the maximum of their driver (docs/WIRE_FORMAT.md).
  SendStatus Send(const OutgoingPacket& packet) {
    OutgoingPacket queued = packet;
    queued.may_queue = true;
    return endpoint_->Send(queued);
  }
  // Sends it now, or not at all: kFull if it would have to wait.  A server
  // never waits for a guest, so there is no completion to have.
  SendStatus SendNow(const OutgoingPacket& packet);
  // Nobody waits for the packet with `tag` any more; see
  // PacketEndpoint::Cancel.  Guests may leave requests unanswered for ever.
  bool Cancel(uint64_t tag) { return endpoint_->Cancel(tag); }
  void Flush() { endpoint_->Flush(); }

  // While one lives, completions are published together at its end.
  class BatchScope {
   public:
    explicit BatchScope(ServerChannel& channel) : scope_(*channel.endpoint_) {}

   private:
    PacketEndpoint::BatchScope scope_;
  };

  // -- State -----------------------------------------------------------------

  // Not from within OnOpened, OnStarted, OnSuspend or OnClosed.  In any link
  // state; a pause of a channel that is not open is remembered.
  void Start() { life_.Start(); }
  void Pause() { life_.Pause(); }
  // The device holds no packet: a pause is complete.
  bool IsDrained() const { return life_.IsDrained(); }
  ChannelLink link() const { return life_.link(); }
  ChannelRun run() const { return life_.run(); }

  // What was sent and is not completed, and where the rings stand; nothing is
  // sent until EndSave().  FailedPrecondition: it is not paused and drained, or
  // not open.
  absl::StatusOr<EndpointState> BeginSave();
  void EndSave() { life_.Resume(); }

  void SetQuota(uint32_t quota) { endpoint_->SetQuota(quota); }
  void SetWantsBlocking(bool wants) { endpoint_->SetWantsBlocking(wants); }
  void Reserve(uint32_t packets) { endpoint_->Reserve(packets); }

  // -- Buffers of the guest --------------------------------------------------

  // Maps a GPADL that the client named, from OnOpened until UnmapGpadl() or
  // the end of OnClosed, once at a time.  The guest's deletion waits so long.
  // The memory is shared: bytes change while they are read.
  //
  // AlreadyExists: it is mapped.  PermissionDenied: it was made read-only.
  // NotFound, FailedPrecondition: as ServerConnection::AcquireGpadl.
  absl::StatusOr<absl::Span<const iovec>> MapGpadl(GpadlHandle handle,
                                                   GuestAccess access);
  // False: it is not mapped.
  bool UnmapGpadl(GpadlHandle handle);

  // Openings that ended in a fault that was reported.
  uint64_t faults() const { return faults_; }
  size_t mapped_gpadls() const { return mappings_.size(); }

  OfferId offer() const { return offer_; }
  ChannelId channel_id() const { return channel_id_; }
  const PacketEndpoint& endpoint() const { return *endpoint_; }

 private:
  friend class Bus;

  // EndpointEvents.
  void OnPacket(IncomingPacket packet) override {
    device_->ProcessPacket(std::move(packet));
  }
  void OnCompletion(uint64_t tag, absl::Span<const std::byte> reply) override {
    device_->OnCompletion(tag, reply);
  }
  void OnBatchEnd(size_t packets) override {
    device_->ProcessingComplete(packets);
  }
  void OnSent(uint64_t tag) override { device_->OnSent(tag); }
  void OnRoom() override {}
  void OnWork() override { host_->OnChannelWork(*this); }

  // ChannelLifeEvents.
  absl::Status OnLifeOpened() override;
  void OnLifeStarted() override;
  void OnLifePostStarted() override { device_->OnPostStarted(); }
  void OnLifeSuspend() override { device_->OnSuspend(); }
  void OnLifeClosed() override;

  void UnmapAll();

  const OfferId offer_;
  const ChannelId channel_id_;
  Device* const device_;
  const GuestMemory* const memory_;
  Doorbell* const doorbell_;
  Host* const host_;
  std::unique_ptr<PacketEndpoint> endpoint_;
  ChannelLife life_;
  std::array<std::byte, kUserDataSizeBytes> open_user_data_{};
  std::map<GpadlId, std::vector<iovec>> mappings_;
  // The bus owes the connection a CloseCompleted once nothing is in flight.
  bool closing_ = false;
  bool is_rescinding_ = false;
  bool fault_reported_ = false;
  uint64_t faults_ = 0;
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_SERVER_CHANNEL_H_
