// SPDX-License-Identifier: MIT
#ifndef FERRYBUS_CHANNEL_CLIENT_CONNECTION_H_
#define FERRYBUS_CHANNEL_CLIENT_CONNECTION_H_

// The guest side of a VMBus connection, as a state machine without I/O.
//
// The owner calls member functions, which queue messages for the host; the
// host's messages go in through HandleMessage, and what they mean comes out
// through ClientEvents.  No thread, no clock, no logging.
//
// Ownership: borrows the ClientEvents, which must outlive it.
// Thread safety: none; the owner locks.
// Ordering: messages are queued in the order of the calls.
// Trust: the host may be hostile, or just restarted.  A message that was not
// asked for, or names what we do not have, is refused with a status, counted,
// and changes nothing.  Memory is capped by ClientLimits.
// Cost: control path.
//
//   ClientConnection connection(options, &events);
//   connection.Connect();                     // -> OnVersion
//   connection.RequestOffers();               // -> OnOffer..., OnAllOffers...
//   connection.CreateGpadl(channel, pages, bytes, 0);  // -> OnGpadlCreated
//   connection.Open(channel, {...});                   // -> OnOpenResult

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/channel/message_codec.h"
#include "ferrybus/channel/messages.h"
#include "ferrybus/channel/protocol_version.h"

namespace ferrybus {

struct ClientLimits {
  size_t channels_max = kMaxChannelId;
  size_t gpadls_max = 4096;
  size_t tl_connects_max = 64;  // not answered yet
  size_t outgoing_messages_max = 4096;
};

struct ClientConnectionOptions {
  ClientLimits limits;
  // Tried in this order until the host takes one.  {kCopper, kIron, ...} asks
  // for 6.0 first.
  std::vector<ProtocolVersion> versions = {
      ProtocolVersion::kIron,     ProtocolVersion::kWin10Rs5,
      ProtocolVersion::kWin10Rs4, ProtocolVersion::kWin10Rs3Plus,
      ProtocolVersion::kWin10Rs3, ProtocolVersion::kWin10,
      ProtocolVersion::kWin81,    ProtocolVersion::kWin8,
  };
  uint32_t target_message_vp = 0;
  uint64_t interrupt_page = 0;  // its address; before 5.0
  uint64_t parent_to_child_monitor_page = 0;
  uint64_t child_to_parent_monitor_page = 0;
  // Announced from 6.0 on.
  std::optional<Guid> client_id;
  // Feature flags to ask for from 6.0 on, besides that of the client id.
  uint32_t features = 0;
};

// An offer as the host sent it, a private copy.
struct ClientOffer {
  ChannelId channel_id{};
  Guid interface_type;
  Guid interface_instance;
  uint16_t sub_channel_index = 0;
  uint16_t flags = 0;
  uint16_t mmio_megabytes = 0;
  uint16_t mmio_megabytes_optional = 0;
  uint8_t monitor_id = kNoMonitorId;
  uint32_t connection_id = 0;  // what to signal
  std::array<std::byte, kUserDataSizeBytes> user_data{};
};

struct OpenParams {
  GpadlId ring_gpadl{};
  uint32_t downstream_page_offset = 0;
  uint32_t target_vp = 0;  // kNoInterruptVp: no interrupts
  std::array<std::byte, kUserDataSizeBytes> user_data{};
  // Only if kFeatureGuestSignalParameters was granted, and necessary then:
  // what we will signal, and the bit by which we want to be signalled.
  uint32_t connection_id = 0;
  uint16_t event_flag = 0;
  // Only if kFeatureInterruptRedirection was granted.
  bool redirect_interrupt = false;
};

// A channel for the time when the guest crashes: Unload() and Connect() do not
// end it, CloseReserved() does.
struct OpenReservedParams {
  GpadlId ring_gpadl{};
  uint32_t downstream_page_offset = 0;
  MessageTarget target;  // of the answer
};

// The host's answer to the versions that were tried.
struct ClientVersion {
  bool accepted = false;
  ProtocolVersion version{};  // that was accepted, or tried last
  uint8_t connection_state = kConnectionSuccessful;
  uint32_t features = 0;  // granted
  // Ours, or the host's with kFeatureServerMonitorPages.
  MonitorPages monitor_pages = {};
};

enum class ClientPhase { kDisconnected, kConnecting, kConnected, kUnloading };

enum class ClientChannelState {
  kClosed,
  kOpening,
  kOpen,
  kClosingReserved,  // until the host has let go; other closes are at once
  kRescinded,        // waits for ReleaseRelid
};

struct ClientCounters {
  uint64_t messages_handled = 0;  // all, the next two included
  uint64_t messages_refused = 0;
  uint64_t messages_ignored = 0;  // of a connection that has ended
};

// What is told to the owner, from inside HandleMessage.  The state is
// consistent at each call and the callee may call back, except HandleMessage.
class ClientEvents {
 public:
  virtual ~ClientEvents() = default;

  virtual void OnVersion(const ClientVersion& version) = 0;
  virtual void OnOffer(const ClientOffer& offer) = 0;
  virtual void OnAllOffersDelivered() = 0;
  // The channel is gone: no answer to an Open will come, its ring is not
  // served.  The owner tears down its GPADLs, then calls ReleaseRelid.
  virtual void OnRescind(ChannelId channel) = 0;
  virtual void OnOpenResult(ChannelId channel, uint32_t status) = 0;
  // On a status other than 0 the id is free again.
  virtual void OnGpadlCreated(ChannelId channel, GpadlId gpadl,
                              uint32_t status) = 0;
  // The host has let go of the pages.
  virtual void OnGpadlTorndown(ChannelId channel, GpadlId gpadl) = 0;
  virtual void OnModifyResponse(ChannelId channel, uint32_t status) = 0;
  virtual void OnUnloaded() = 0;

  // The host has let go of a reserved channel, also of one of an earlier
  // connection.
  virtual void OnReservedClosed(ChannelId channel) { (void)channel; }
  // The answer to TlConnect.  Status 0: connected, and OnOffer was told of the
  // channel, whose instance is the endpoint and whose type the service.
  virtual void OnTlConnectResult(const Guid& endpoint_id,
                                 const Guid& service_id, uint32_t status) {
    (void)endpoint_id, (void)service_id, (void)status;
  }
  // kConnectionSuccessful, or the monitor pages are as they were.
  virtual void OnModifyConnectionResponse(uint8_t connection_state) {
    (void)connection_state;
  }
  // The host sends nothing until Resume.
  virtual void OnPaused() {}
};

class ClientConnection {
 public:
  ClientConnection(const ClientConnectionOptions& options,
                   ClientEvents* events);

  ClientConnection(const ClientConnection&) = delete;
  ClientConnection& operator=(const ClientConnection&) = delete;

  // All of these queue a message or change nothing.  FailedPrecondition: not
  // in this state.  NotFound: no such channel or GPADL.  ResourceExhausted: a
  // limit, or the outgoing queue, is full.

  // Starts a connection, from any state.  What was before is forgotten, also
  // queued messages: the host drops its side when it sees the contact.
  // InvalidArgument: no versions to try.
  absl::Status Connect();
  // Once for each connection.
  absl::Status RequestOffers();
  // Announces a buffer to the host.  Ids count up from 0xE1E10.
  // InvalidArgument: `pages` is not what the range covers, or more than 8190.
  absl::StatusOr<GpadlId> CreateGpadl(ChannelId channel,
                                      absl::Span<const uint64_t> pages,
                                      uint32_t byte_count,
                                      uint32_t byte_offset);
  absl::Status TeardownGpadl(GpadlId id);
  absl::Status Open(ChannelId channel, const OpenParams& params);
  // There is no answer; the ring may still be read for a moment, until its
  // GPADL is torn down.
  absl::Status Close(ChannelId channel);
  // From 4.1 on; OnModifyResponse comes from 5.3 on.
  absl::Status ModifyChannel(ChannelId channel, uint32_t target_vp);
  // Gives a rescinded channel's number back and forgets the channel.
  // FailedPrecondition also: it still has GPADLs.
  absl::Status ReleaseRelid(ChannelId channel);
  absl::Status Unload();

  // The same with a channel for the crash path, from 4.0 on; OnOpenResult
  // answers.  It takes no new GPADLs while it is open.
  absl::Status OpenReserved(ChannelId channel,
                            const OpenReservedParams& params);
  // OnReservedClosed answers.  Also while not connected, for a channel that
  // was opened before; then the host may have none, and say nothing.
  absl::Status CloseReserved(ChannelId channel, const MessageTarget& target);
  // hv_sock, from 4.0 on: asks for a channel to a service.  OnTlConnectResult
  // answers, but a refusal only from 4.1 on.  Hence AbandonTlConnect, for when
  // it takes too long.  AlreadyExists: the same request is under way.
  absl::Status TlConnect(const Guid& endpoint_id, const Guid& service_id,
                         const Guid& silo_id = {});
  absl::Status AbandonTlConnect(const Guid& endpoint_id,
                                const Guid& service_id);
  // Moves the monitor pages, or takes them away; with kFeatureModifyConnection,
  // one at a time.  OnModifyConnectionResponse answers.
  absl::Status ModifyConnection(const MonitorPages& pages);
  // Makes the host keep its messages, with kFeaturePauseResume.  Until Resume,
  // which needs OnPaused first, nothing can be asked but Unload and Connect.
  absl::Status Pause();
  absl::Status Resume();

  // Handles one message of the host.  An error: it broke a rule and was
  // dropped.
  absl::Status HandleMessage(absl::Span<const std::byte> payload);

  bool has_outgoing() const { return !outgoing_.empty(); }
  // REQUIRES: has_outgoing().
  absl::Span<const std::byte> outgoing_front() const {
    return outgoing_.front().bytes();
  }
  void PopOutgoing() { outgoing_.pop_front(); }
  // Where to post the outgoing messages.
  uint32_t message_connection() const { return message_connection_; }

  ClientPhase phase() const { return phase_; }
  // Of the connection, or the one being tried.
  ProtocolVersion version() const { return version_; }
  uint32_t features() const { return features_; }
  bool is_paused() const { return pause_ == PausePhase::kPaused; }
  const ClientCounters& counters() const { return counters_; }
  // In force, or announced while connecting.
  const MonitorPages& monitor_pages() const { return monitor_pages_; }
  // nullptr if there is none; valid until the next non-const call.
  const ClientOffer* FindOffer(ChannelId channel) const;
  std::optional<ClientChannelState> channel_state(ChannelId channel) const;

 private:
  enum class PausePhase { kRunning, kPausing, kPaused };
  enum class GpadlPhase { kCreating, kCreated, kTearingDown };
  struct ClientGpadl {
    ChannelId channel{};
    GpadlPhase phase = GpadlPhase::kCreating;
  };
  struct Channel {
    ClientOffer offer;
    ClientChannelState state = ClientChannelState::kClosed;
    bool is_modifying = false;
    bool is_reserved = false;
  };

  static absl::Status NoSuchChannel(ChannelId channel);
  static absl::Status WrongState(const char* what, ChannelId channel,
                                 ClientChannelState state);
  ProtocolContext protocol() const;
  void Forget();
  uint32_t FeaturesToAsk() const;
  void SendContact();
  // Connected, and not paused.
  absl::Status CheckConnected() const;
  absl::Status CheckNeeds(const char* message, ProtocolVersion version,
                          uint32_t feature = 0) const;
  absl::StatusOr<Channel*> ReadyToOpen(ChannelId channel, GpadlId ring_gpadl);
  absl::Status CheckRoom(size_t messages) const;
  // The channel, if we are connected and have room for so many messages.
  absl::StatusOr<Channel*> Ready(ChannelId channel, size_t messages);
  GpadlId NextGpadlId();
  bool HasGpadls(ChannelId channel) const;

  absl::Status Dispatch(const HostMessage& message, size_t size_bytes);
  absl::Status HandleVersionResponse(const VersionResponseMessage& message,
                                     size_t size_bytes);
  absl::Status HandleUnloadResponse();
  absl::Status Handle(const OfferChannelMessage& message);
  absl::Status Handle(const RescindChannelOfferMessage& message);
  absl::Status Handle(const AllOffersDeliveredMessage& message);
  absl::Status Handle(const OpenChannelResultMessage& message);
  absl::Status Handle(const GpadlCreatedMessage& message);
  absl::Status Handle(const GpadlTorndownMessage& message);
  absl::Status Handle(const ModifyChannelResponseMessage& message);
  absl::Status Handle(const TlConnectResultMessage& message);
  absl::Status Handle(const ModifyConnectionResponseMessage& message);
  absl::Status Handle(const PauseResponseMessage& message);
  absl::Status HandleCloseReservedResponse(
      const CloseReservedResponseMessage& message);
  absl::Status CheckGrant(const VersionResponseMessage& message,
                          size_t size_bytes) const;
  absl::Status CheckOffer(const OfferChannelMessage& message) const;
  // What does not need a connection is handled before.
  template <typename Message>
  absl::Status Handle(const Message&) {
    return absl::InternalError("host message without a handler");
  }

  const ClientConnectionOptions options_;
  ClientEvents* const events_;

  ClientPhase phase_ = ClientPhase::kDisconnected;
  size_t version_index_ = 0;  // into options_.versions, while connecting
  ProtocolVersion version_{};
  uint32_t features_ = 0;
  uint32_t message_connection_ = kMessageConnectionClassic;
  bool offers_requested_ = false;
  bool offers_delivered_ = false;
  uint32_t next_gpadl_id_ = 0xe1e10;
  std::map<ChannelId, Channel> channels_;
  std::map<GpadlId, ClientGpadl> gpadls_;
  PausePhase pause_ = PausePhase::kRunning;
  MonitorPages monitor_pages_;
  std::optional<MonitorPages> pending_modify_;
  std::set<std::pair<Guid, Guid>> tl_connects_;  // endpoint, service
  std::set<ChannelId> closing_reserved_;
  std::deque<EncodedMessage> outgoing_;
  ClientCounters counters_;
};

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_CLIENT_CONNECTION_H_
