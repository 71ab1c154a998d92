// SPDX-License-Identifier: MIT
#ifndef FERRYBUS_CHANNEL_SERVER_CONNECTION_TYPES_H_
#define FERRYBUS_CHANNEL_SERVER_CONNECTION_TYPES_H_

// Plain values of the host side of a connection: what the owner configures,
// offers and is told.  The state machine is in server_connection.h.
//
// Trust: OpenRequest and Contact are what a guest said; a handler gets them
// only after the checks that their comments name, user data unchecked.

#include <array>
#include <cstddef>
#include <cstdint>

#include "ferrybus/channel/gpadl_table.h"
#include "ferrybus/channel/guid.h"
#include "ferrybus/channel/messages.h"
#include "ferrybus/channel/protocol_version.h"

namespace ferrybus {

// What an offer is called inside this process.  Unlike a ChannelId it is never
// used a second time on a connection.
enum class OfferId : uint32_t {};

// One channel that the host offers.  (type, instance, sub-channel index) is
// its identity: it must be unique, and finds the offer again after a restore.
struct OfferParams {
  Guid interface_type;
  Guid interface_instance;
  // 0 is the primary channel, which must be offered first.
  uint16_t sub_channel_index = 0;
  uint16_t flags = 0;  // kOffer...
  uint16_t mmio_megabytes = 0;
  uint16_t mmio_megabytes_optional = 0;
  uint8_t monitor_id = kNoMonitorId;  // or 0...127
  std::array<std::byte, kUserDataSizeBytes> user_data{};

  friend bool operator==(const OfferParams&, const OfferParams&) = default;

  bool HasIdentityOf(const OfferParams& other) const {
    return interface_type == other.interface_type &&
           interface_instance == other.interface_instance &&
           sub_channel_index == other.sub_channel_index;
  }
  // Of the same device, whichever channel `other` is.
  bool IsSubChannelOf(const OfferParams& other) const {
    return sub_channel_index != 0 && interface_type == other.interface_type &&
           interface_instance == other.interface_instance;
  }
};

// What the guest asked for in OPENCHANNEL.
struct OpenRequest {
  uint32_t open_id = 0;  // the guest's, returned unchanged
  GpadlId ring_gpadl{};
  uint32_t downstream_page_offset = 0;
  uint32_t target_vp = 0;  // kNoInterruptVp: the channel wants no interrupts
  std::array<std::byte, kUserDataSizeBytes> user_data{};

  friend bool operator==(const OpenRequest&, const OpenRequest&) = default;
};

// Feature flags that we grant when the guest asks for them.
inline constexpr uint32_t kGrantedFeatures = kFeatureClientId;

// What the guest asked for in INITIATE_CONTACT, and our answer.
struct Contact {
  ProtocolVersion version{};  // may be none that we know, if not supported
  bool supported = false;
  uint8_t connection_state = kConnectionSuccessful;
  uint32_t features = 0;  // granted
  // Where the guest wants its messages delivered.  0 if it may not choose.
  uint32_t target_message_vp = 0;
  uint64_t parent_to_child_monitor_page = 0;  // both 0: no monitor pages
  uint64_t child_to_parent_monitor_page = 0;
  Guid client_id;

  bool accepted() const {
    return supported && connection_state == kConnectionSuccessful;
  }
  friend bool operator==(const Contact&, const Contact&) = default;
};

// States of one channel on the host.  docs/WIRE_FORMAT.md, "Channel states".
enum class ServerChannelState {
  kClosed,
  kOpening,           // the device was asked and has not answered
  kOpeningThenClose,  // as kOpening, and is to be closed when it has
  kOpen,
  kClosing,          // the device was asked to let go
  kClosingThenOpen,  // as kClosing, and the guest has sent OPEN already
  kRescinded,        // the guest was told and has not released the number
};

// The channel's device has, or is about to have, the ring.
constexpr bool IsActive(ServerChannelState state) {
  return state != ServerChannelState::kClosed &&
         state != ServerChannelState::kRescinded;
}

enum class ConnectionPhase {
  kDisconnected,
  kConnected,
  kResetting,  // waits until every device has let go of its channel
};

struct OfferInfo {
  ChannelId channel_id{};
  uint32_t connection_id = 0;  // for the guest's signals
  ServerChannelState state = ServerChannelState::kClosed;
  bool is_offered = false;              // to the guest, on this connection
  uint32_t target_vp = kNoInterruptVp;  // of an active channel
};

// Caps on what a guest can make the host hold.
struct ServerLimits {
  size_t channels_max = kMaxChannelId;
  size_t gpadls_max = 4096;
  size_t gpadls_in_progress_max = 256;
  uint64_t gpadl_pages_max = uint64_t{1} << 20;
  uint32_t ring_pages_max = 8190;  // both rings of a channel together
  // Answers waiting for the guest; see OutgoingMessagesMax.
  size_t outgoing_messages_max = 4096;
};

struct ServerConnectionOptions {
  ServerLimits limits;
  // Versions above are refused; the guest then tries a lower one.
  ProtocolVersion max_version = ProtocolVersion::kCopper;
  // Highest virtual processor that exists.
  uint32_t max_vp = 0;
  // One past the highest page number of guest RAM.
  uint64_t ram_page_count = 0;
};

// How many messages can be waiting for the guest, with those that come by
// themselves and once for each channel (offer, rescind) not counted.  Never
// less than what can be due at once, so that a full queue always empties as
// the guest reads.
constexpr size_t OutgoingMessagesMax(const ServerLimits& limits) {
  const size_t due_max = 2 * limits.channels_max + limits.gpadls_max + 2;
  return limits.outgoing_messages_max > due_max ? limits.outgoing_messages_max
                                                : due_max;
}

struct ServerCounters {
  uint64_t messages_handled = 0;  // all, the next two included
  uint64_t messages_refused = 0;  // broke a rule
  uint64_t messages_ignored = 0;  // too late to matter, as the rules allow
  uint64_t resets = 0;            // contacts, unloads, disconnects
};

// What is told to the owner of a ServerConnection, from inside one of its
// member functions.  The connection's state is consistent at each call, and
// the callee may call back, except HandleMessage and Disconnect.
class ServerEvents {
 public:
  virtual ~ServerEvents() = default;

  // A guest has connected.
  virtual void OnConnected(const Contact& contact) = 0;
  // The guest's connection has ended; all its channels are closed.  Comes also
  // between two connections.
  virtual void OnDisconnected() = 0;

  // The guest opens a channel.  `ring` holds both rings, of whole pages, and
  // stays as long as the channel is active.  Answer with OpenCompleted, now or
  // later.
  virtual void OnOpenRequested(OfferId offer, const OpenRequest& request,
                               const GpadlView& ring) = 0;

  // The channel is to end: the guest closed it, or went, or the offer is
  // rescinded.  Answer with CloseCompleted once ring and guest memory are no
  // longer touched.
  virtual void OnCloseRequested(OfferId offer) = 0;

  // The guest wants the interrupts of an open channel at another VP, which
  // exists.  False refuses.
  virtual bool OnModifyRequested(OfferId offer, uint32_t target_vp) = 0;

  // The guest tears down a GPADL that this channel's device has pinned.  It is
  // answered when the last pin is released.
  virtual void OnGpadlTeardownRequested(OfferId offer, GpadlId gpadl) = 0;
};

// The number that the guest signals; it treats it as opaque.
constexpr uint32_t EventConnectionId(ChannelId channel_id) {
  return static_cast<uint32_t>(channel_id) | (uint32_t{kVmbusSint} << 12);
}

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_SERVER_CONNECTION_TYPES_H_
