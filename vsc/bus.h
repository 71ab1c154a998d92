// SPDX-License-Identifier: MIT
//
// The guest side of VMBus: connects, takes offers, opens channels for drivers.
//
// What it is: a ClientConnection (channel messages) and a ClientChannel for
// each offer that a driver wants, without threads and without I/O.
// vsc/guest_port.h connects it to the serving process.
//
// A server that moves is not seen here: no message tells of it, and no
// callback runs; completions pause and come again.
//
// Ownership: borrows memory, pages, doorbell and drivers; all must outlive it.
// Thread safety: one thread.
// Trust: the host may be hostile; see ClientConnection and PacketEndpoint.
//
//   vsc::Bus bus(options, memory, &pages, doorbell);
//   bus.AddDriver(kScsi, &disk_client);
//   bus.Connect();
//   while (running) { bus.HandleMessage(...); bus.Signal(id); bus.Poll(); }

#ifndef FERRYBUS_VSC_BUS_H_
#define FERRYBUS_VSC_BUS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "ferrybus/channel/client_connection.h"
#include "ferrybus/channel/doorbell.h"
#include "ferrybus/channel/guest_memory.h"
#include "ferrybus/channel/ready_channels.h"
#include "ferrybus/vsc/client_channel.h"
#include "ferrybus/vsc/guest_pages.h"
#include "ferrybus/vsc/ring_channel.h"

namespace ferrybus::vsc {

struct BusOptions {
  ClientConnectionOptions connection;
  EndpointLimits endpoint;
  // Data pages of each of a channel's two rings.
  uint32_t ring_data_pages = 32;
  uint32_t poll_budget = 128;
};

class Bus final : private ClientEvents {
 public:
  Bus(const BusOptions& options, const GuestMemory* memory, GuestPages* pages,
      Doorbell* doorbell);
  ~Bus() override;

  // The first offer of `interface_type` that no other driver has, present or
  // to come, is opened for `driver`; the next one if that is rescinded, at once
  // if it is there already.
  void AddDriver(const Guid& interface_type, Driver* driver,
                 const DriverSettings& settings = DriverSettings());
  // Closes its channel, if there is one, and offers it nothing more.  The
  // driver is not called any more when this returns; its ring's memory is free
  // once channel() gives null.
  void RemoveDriver(Driver* driver);

  // Asks the host for a connection to its socket service `service`
  // (vsc/socket/socket_client.h); `endpoint` names it and must be new.
  // `driver` is then opened as after AddDriver, or its OnOpenFailed says that
  // the host refused, and it is free again.  Hosts before 4.1 refuse by
  // silence: RemoveDriver() ends the wait.
  // Errors as ClientConnection::TlConnect; the driver is free then.
  absl::Status ConnectSocket(const Guid& service, const Guid& endpoint,
                             Driver* driver, const DriverSettings& settings);

  // Negotiates a version, asks for offers, opens what drivers want.
  absl::Status Connect() { return connection_.Connect(); }
  // Closes a driver's channel; its OnClosed runs.
  absl::Status Close(Driver* driver);
  // Ends the connection: every channel is closed first.
  absl::Status Unload();

  // -- What the host does ----------------------------------------------------

  absl::Status HandleMessage(absl::Span<const std::byte> payload) {
    return connection_.HandleMessage(payload);
  }
  void Signal(uint32_t channel_id) { ready_.Set(channel_id); }

  // -- What the guest does ---------------------------------------------------

  // Runs the channels that have work.  True: call again soon.  A driver may
  // call it, and HandleMessage, where it may block.
  bool Poll();
  bool has_outgoing() const { return connection_.has_outgoing(); }
  absl::Span<const std::byte> outgoing_front() const {
    return connection_.outgoing_front();
  }
  uint32_t message_connection() const {
    return connection_.message_connection();
  }
  void PopOutgoing() { connection_.PopOutgoing(); }

  const ClientConnection& connection() const { return connection_; }
  // A driver's channel, from the offer until its memory is free; else null.
  RingChannel* channel(const Driver* driver) const;
  // Of a driver's open channel; zeroes when it has none.
  EndpointCounters counters(const Driver* driver) const;
  // The first thing that went wrong while connecting or opening, for people.
  const absl::Status& status() const { return status_; }

 private:
  struct Registration {
    Guid interface_type;
    Driver* driver = nullptr;
    DriverSettings settings;
    ChannelId channel{};
    bool is_bound = false;
    bool is_connecting = false;  // a socket: the host has not answered

    // As ConnectSocket() made it.
    bool IsConnect(const Guid& endpoint, const Guid& service) const {
      return is_connecting && settings.instance == endpoint &&
             interface_type == service;
    }
    bool Wants(const ClientOffer& offer) const;
  };

  struct Offered {
    ClientOffer offer;
    // No driver took it, or the one that did was removed while it had it.  Else
    // that one closed it, and it is left alone until a driver is added.
    bool is_free = true;
  };

  // ClientEvents.
  void OnVersion(const ClientVersion& version) override;
  void OnOffer(const ClientOffer& offer) override;
  void OnAllOffersDelivered() override {}
  void OnRescind(ChannelId id) override;
  void OnOpenResult(ChannelId id, uint32_t status) override;
  void OnGpadlCreated(ChannelId id, GpadlId gpadl, uint32_t status) override;
  void OnGpadlTorndown(ChannelId id, GpadlId gpadl) override;
  void OnModifyResponse(ChannelId channel, uint32_t status) override {
    (void)channel, (void)status;
  }
  void OnUnloaded() override;
  void OnTlConnectResult(const Guid& endpoint, const Guid& service,
                         uint32_t status) override;

  RingChannel* Find(ChannelId channel) const;
  void Bind(const ClientOffer& offer);
  // An offer that no other driver has, if there is one.
  void OpenOffered(Registration& registration, bool only_free);
  void OpenFor(Registration& registration, const ClientOffer& offer);
  std::unique_ptr<RingChannel> MakeChannel(const Registration& registration,
                                           const ClientOffer& offer);
  void RingSizes(const RingChannel& channel, uint32_t* outgoing_pages,
                 uint32_t* incoming_pages) const;
  absl::Status StartOpen(RingChannel& channel);
  absl::Status AttachAndOpen(RingChannel& channel);
  void StartClose(RingChannel& channel);
  void TearDown(RingChannel& channel);
  void OpenFailed(RingChannel& channel, const absl::Status& status);
  void OnDeviceGpadlCreated(RingChannel& channel, GpadlId gpadl,
                            uint32_t status);
  void FailConnects();
  void Forget(ChannelId id);
  void BuryDead();
  void RunDue();
  void Note(const absl::Status& status);
  bool PollChannel(uint32_t channel_id);

  const BusOptions options_;
  const GuestMemory* const memory_;
  GuestPages* const pages_;
  Doorbell* const doorbell_;
  ClientConnection connection_;
  std::vector<Registration> drivers_;
  std::map<ChannelId, Offered> offers_;
  std::map<ChannelId, std::unique_ptr<RingChannel>> channels_;
  // Ended, but somebody may still be inside.
  std::vector<std::unique_ptr<RingChannel>> dead_;
  std::vector<ChannelId> opened_;  // OnOpened is due
  std::vector<ChannelId> post_started_;
  int poll_depth_ = 0;
  ReadyChannels ready_;
  absl::Status status_;
};

}  // namespace ferrybus::vsc

#endif  // FERRYBUS_VSC_BUS_H_
