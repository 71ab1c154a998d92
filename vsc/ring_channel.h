// SPDX-License-Identifier: MIT
//
// All of a guest's channel: what vsc::Bus makes of an offer that a driver
// wants.  Drivers that only send and receive see ClientChannel.
//
// Ownership: the bus owns it, until the host has let go of the ring's memory
// (Bus::channel() gives null); it borrows the driver and the guest memory.
// Thread safety: one thread, the bus's.
//
// States: channel/channel_life.h.
//
// Source: KMCL's VMBCHANNEL on the client side.

#ifndef FERRYBUS_VSC_RING_CHANNEL_H_
#define FERRYBUS_VSC_RING_CHANNEL_H_

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "ferrybus/channel/channel_life.h"
#include "ferrybus/channel/client_connection.h"
#include "ferrybus/channel/packet_endpoint.h"
#include "ferrybus/channel/ready_channels.h"
#include "ferrybus/vsc/client_channel.h"
#include "ferrybus/vsc/guest_pages.h"

namespace ferrybus::vsc {

// How a driver wants its channel.
struct DriverSettings {
  // Without: any instance of the type.
  std::optional<Guid> instance = std::nullopt;
  // Without: BusOptions::endpoint.  Pipe mode comes from the offer's flags.
  std::optional<EndpointOptions> endpoint = std::nullopt;
  // Data pages of each ring; 0: BusOptions::ring_data_pages.  More are taken
  // if the endpoint's greatest packet needs them.
  uint32_t outgoing_ring_pages = 0;
  uint32_t incoming_ring_pages = 0;
  // For the server, with the opening.
  std::array<std::byte, kUserDataSizeBytes> open_user_data{};
  ChannelRun run = ChannelRun::kActive;
};

// Lets others run while a sender waits for its answer.
class Waiter {
 public:
  // Polls the bus, and whatever moves the host.  False: the time is over.
  virtual bool Wait() = 0;

 protected:
  ~Waiter() = default;
};

enum class SyncResult {
  kOk,
  kFull,       // may_queue was false: not sent
  kCancelled,  // the time was over; an answer that comes later is dropped
  kClosed,
  kTooLarge,
  kReplyTooLarge,  // the answer did not fit: it is lost
  kNotSupported,
};

class RingChannel final : public ClientChannel,
                          private EndpointEvents,
                          private ChannelLifeEvents {
 public:
  // What the bus shares with its channels.
  struct Shared {
    const GuestMemory* memory;
    Doorbell* doorbell;
    ReadyChannels* ready;
    ClientConnection* connection;
    std::vector<ChannelId>* post_started;  // OnPostStarted is due
  };
  RingChannel(const ClientOffer& offer, Driver* driver,
              const DriverSettings& settings, const EndpointOptions& endpoint,
              const Shared& shared);
  ~RingChannel() override { PacketEndpoint::Retire(std::move(endpoint_)); }

  // ClientChannel.
  SendResult Send(const Request& request) override;
  void Flush() override { endpoint_->Flush(); }
  uint32_t requests_in_flight() const override { return endpoint_->awaiting(); }

  // Sends, then waits for the answer, or without `wants_completion` until it
  // is in the ring.  `bytes` of `room` are the answer.  Not within OnOpened,
  // OnStarted, OnSuspend, OnClosed, or OnPacket without may_block().
  SyncResult SendAndWait(const Request& request, absl::Span<std::byte> room,
                         size_t* bytes, Waiter& waiter);
  // Nobody waits for the request with `tag` any more.
  bool Cancel(uint64_t tag) { return endpoint_->Cancel(tag); }

  // As vsp::ServerChannel's.  The host is not told.
  void Start() { life_.Start(); }
  void Pause() { life_.Pause(); }
  bool IsDrained() const { return life_.IsDrained(); }
  ChannelLink link() const { return life_.link(); }
  ChannelRun run() const { return life_.run(); }
  void SetQuota(uint32_t quota) { endpoint_->SetQuota(quota); }
  void SetWantsBlocking(bool wants) { endpoint_->SetWantsBlocking(wants); }
  void Reserve(uint32_t packets) { endpoint_->Reserve(packets); }

  // Announces a buffer to the server; OnGpadlCreated follows.  From OnOpened
  // on; what is left at OnClosed is deleted then.  Errors as
  // ClientConnection::CreateGpadl.
  absl::StatusOr<GpadlHandle> CreateGpadl(
      absl::Span<const uint64_t> page_numbers, uint32_t byte_count,
      uint32_t byte_offset, GuestAccess access);
  // OnGpadlDeleted follows when the server has let go of it.
  absl::Status DeleteGpadl(GpadlHandle gpadl);

  const ClientOffer& offer() const { return offer_; }
  ChannelId id() const { return offer_.channel_id; }
  const PacketEndpoint& endpoint() const { return *endpoint_; }

 private:
  friend class Bus;

  // EndpointEvents.
  void OnPacket(IncomingPacket packet) override {
    driver_->OnPacket(std::move(packet));
  }
  void OnCompletion(uint64_t tag, absl::Span<const std::byte> reply) override {
    driver_->OnCompletion(tag, reply);
  }
  void OnBatchEnd(size_t packets) override {
    driver_->ProcessingComplete(packets);
  }
  void OnSent(uint64_t tag) override { driver_->OnSent(tag); }
  void OnRoom() override { driver_->OnRoom(); }
  void OnWork() override { ready_->Set(static_cast<uint32_t>(id())); }

  // ChannelLifeEvents.
  absl::Status OnLifeOpened() override;
  void OnLifeStarted() override;
  void OnLifePostStarted() override { driver_->OnPostStarted(); }
  void OnLifeSuspend() override { driver_->OnSuspend(); }
  void OnLifeClosed() override { driver_->OnClosed(); }

  SendStatus SendPacket(const Request& request, ReplyRoom* reply);
  bool BuildRanges(const Request& request);
  bool HasGpadls() const { return has_ring_gpadl_ || !gpadls_.empty(); }

  const ClientOffer offer_;
  Driver* const driver_;
  const DriverSettings settings_;
  ReadyChannels* const ready_;
  ClientConnection* const connection_;
  std::vector<ChannelId>* const post_started_;
  std::unique_ptr<PacketEndpoint> endpoint_;
  ChannelLife life_;
  std::vector<std::byte> ranges_;  // of the request being sent
  std::map<GpadlId, GpadlHandle> gpadls_;
  uint32_t waiters_ = 0;  // threads of control within SendAndWait

  // The bus's.
  PageRun ring_;
  uint32_t downstream_page_ = 0;
  GpadlId ring_gpadl_{};
  bool has_ring_gpadl_ = false;      // the host has confirmed it
  bool is_closing_ = false;          // the GPADLs are being torn down
  bool awaits_open_result_ = false;  // is_closing_: they are then
  bool is_rescinded_ = false;
};

}  // namespace ferrybus::vsc

#endif  // FERRYBUS_VSC_RING_CHANNEL_H_
