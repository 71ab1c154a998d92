// SPDX-License-Identifier: MIT
#ifndef FERRYBUS_CHANNEL_SERVER_CONNECTION_H_
#define FERRYBUS_CHANNEL_SERVER_CONNECTION_H_

// The host side of one guest's VMBus connection, as a state machine without
// I/O.
//
// Messages of the guest go in through HandleMessage, requests to devices come
// out through ServerEvents, messages to the guest are taken from the outgoing
// queue.  Nothing else happens: no thread, no clock, no logging.
//
// Ownership: borrows the ServerEvents, which must outlive it.
// Thread safety: none; the owner locks.
// Ordering: messages are handled one after the other, and answered in the
// order in which their answers are known.
// Trust: the guest is hostile.  A message that breaks a rule is refused with a
// status, counted, and changes nothing else; the connection goes on.  No
// message aborts.  All memory is capped by ServerLimits.
// Cost: control path.  A message costs O(channels) at worst.
//
// Devices let go first: INITIATE_CONTACT and UNLOAD end everything that was
// (reserved channels apart), but they are answered only after each device has
// answered ServerEvents::OnCloseRequested and released its pins.
//
//   ServerConnection connection(options, &events);
//   OfferId scsi = *connection.AddOffer({.interface_type = kScsi, ...});
//   if (connection.can_accept_message()) {
//     absl::Status status = connection.HandleMessage(payload);  // log, go on
//   }
//   while (connection.has_outgoing() && Post(connection.outgoing_front())) {
//     connection.PopOutgoing();
//   }

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/channel/gpadl_table.h"
#include "ferrybus/channel/guid.h"
#include "ferrybus/channel/message_codec.h"
#include "ferrybus/channel/messages.h"
#include "ferrybus/channel/server_connection_state.h"
#include "ferrybus/channel/server_connection_types.h"

namespace ferrybus {

class ServerConnection {
 public:
  ServerConnection(const ServerConnectionOptions& options,
                   ServerEvents* events);

  // A connection that goes on where the saved one was.  It does nothing, and
  // takes no message, until FinishRestore:
  //  1. AddOffer for each device that there is.  It gets its old OfferId.
  //  2. AcquireGpadl for what the devices had pinned.
  //  3. FinishRestore.
  // REQUIRES: `options` are those that `checked` was checked with.
  static std::unique_ptr<ServerConnection> Restore(
      CheckedServerConnection checked, const ServerConnectionOptions& options,
      ServerEvents* events);

  ServerConnection(const ServerConnection&) = delete;
  ServerConnection& operator=(const ServerConnection&) = delete;

  // --- Offers -------------------------------------------------------------

  // Offers a channel to the guest: with the others when the guest asks for
  // offers, or at once if it has.  The number that the guest sees is the
  // lowest free one, so the same order of calls gives the same numbers.
  //
  // While restoring, an offer that was saved is claimed: its id, number and
  // state are kept.
  //
  // InvalidArgument: monitor_id out of range.  AlreadyExists: the identity or
  // the monitor is taken.  ResourceExhausted: no number free.
  // FailedPrecondition: a sub-channel whose primary is not offered, or a
  // claim that differs from what the guest has been told.
  absl::StatusOr<OfferId> AddOffer(const OfferParams& params);

  // Takes an offer back.  If the channel is active, the device is asked to let
  // go first.  The id is dead after that.
  //
  // NotFound: no such offer, or taken back already.  FailedPrecondition: a
  // primary channel whose sub-channels are still offered.
  absl::Status RescindOffer(OfferId id);

  // While restoring: takes back the saved offer of that identity, and its
  // sub-channels, before AddOffer claims it: AddOffer makes a new one then,
  // which the guest is told of when it has released the old one.
  void AbandonSaved(const OfferParams& params);

  // While restoring: saved offers that no AddOffer has claimed yet.
  // FinishRestore takes them back.
  std::vector<OfferId> UnclaimedOffers() const;

  // Ends the restore: unclaimed offers are rescinded, OnOpenRequested and
  // OnCloseRequested come again where an answer is due, GPADLs that nobody has
  // pinned again are torn down if the guest asked for it.
  void FinishRestore();

  // --- Answers of devices -------------------------------------------------

  // The device's answer to OnOpenRequested; status 0 is success.
  // FailedPrecondition: there was no such request.
  absl::Status OpenCompleted(OfferId id, uint32_t status);

  // The device's answer to OnCloseRequested.  The channel is closed when its
  // pins are gone as well.  FailedPrecondition: there was no such request.
  absl::Status CloseCompleted(OfferId id);

  // Pins a GPADL of an open or opening channel, so that its memory may be
  // used.  The view is valid until the pin is released; each Acquire needs its
  // Release.
  //
  // NotFound: the channel has no such GPADL.  FailedPrecondition: the channel
  // is not open, or the guest has torn the GPADL down.
  absl::StatusOr<GpadlView> AcquireGpadl(OfferId offer_id, GpadlId gpadl_id);
  // NotFound: no such GPADL, or it is not pinned.
  absl::Status ReleaseGpadl(OfferId offer_id, GpadlId gpadl_id);

  // --- Answers of the owner -----------------------------------------------

  // The answer to OnModifyConnectionRequested if that said kLater.
  // FailedPrecondition: there is no such request.
  absl::Status ModifyConnectionCompleted(bool accepted);

  // The refusal of what OnTlConnectRequested told (acceptance is AddOffer).
  // A guest before 4.1 does not hear of it.  InvalidArgument: status 0.
  // NotFound: no such request.
  absl::Status RefuseTlConnect(const Guid& endpoint_id, const Guid& service_id,
                               uint32_t status = kStatusConnectionRefused);

  // --- The guest's side ---------------------------------------------------

  // False while the outgoing queue could not hold the answers to another
  // message, and while restoring.  The owner then leaves messages where they
  // are.
  bool can_accept_message() const;

  // Handles one message.  `message_connection` is the port that it came by.
  //
  // Unavailable: nothing was done, since can_accept_message() is false; hand
  // the message in again later.  Any other error: the message broke a rule and
  // was dropped, after the answer that the protocol has for it, if any.
  absl::Status HandleMessage(
      absl::Span<const std::byte> payload,
      uint32_t message_connection = kMessageConnectionClassic);

  // Ends the connection without an answer: the virtual machine was reset.
  void Disconnect();

  // Messages for the guest, in order.  The front stays the same until it is
  // popped, but HandleMessage and Disconnect may drop the whole queue.
  bool has_outgoing() const { return !outgoing_.empty() && !restoring_; }
  // REQUIRES: has_outgoing().
  absl::Span<const std::byte> outgoing_front();
  // Where the front goes: mostly to contact().target_message_vp.
  MessageTarget outgoing_target() const;
  void PopOutgoing();

  // --- Lookups ------------------------------------------------------------

  ConnectionPhase phase() const { return phase_; }
  // The last contact that was answered.
  const Contact& contact() const { return contact_; }
  const ServerCounters& counters() const { return counters_; }
  bool is_paused() const { return paused_; }

  std::optional<OfferInfo> FindOffer(OfferId id) const;
  std::optional<OfferId> FindOfferByChannelId(ChannelId channel_id) const;
  // The active channel that a signal of the guest is for: by the connection id
  // of HvSignalEvent, or by the monitor whose trigger is set.
  std::optional<OfferId> FindOfferByConnectionId(uint32_t connection_id) const;
  std::optional<OfferId> FindOfferByMonitorId(uint8_t monitor_id) const;
  // Of an active channel, else nullptr / an error.
  const OpenRequest* open_request(OfferId id) const;
  absl::StatusOr<GpadlView> RingGpadl(OfferId id) const;

  // Everything that a guest could tell from this connection.
  ServerConnectionState Snapshot() const;

 private:
  struct Offer {
    OfferId id{};
    ChannelId channel_id{};
    OfferParams params;
    ServerChannelState state = ServerChannelState::kClosed;
    bool is_offered = false;
    bool is_rescinding = false;
    std::optional<OpenRequest> open;
    std::optional<OpenRequest> reopen;
    std::optional<ReservedChannel> reserved;
    // Not saved.
    uint32_t pin_count = 0;
    bool is_device_done = false;  // kClosing: only pins are missing
    bool is_claimed = true;       // false: saved, no device here yet

    // Its connection is over and it is not.
    bool is_survivor() const { return IsActive(state) && !is_offered; }
    // Where a GPADL of an active channel is.
    GpadlKey Key(GpadlId gpadl) const {
      return {gpadl, is_survivor() ? channel_id : ChannelId{}};
    }
    GpadlKey ring_key() const { return Key(open->ring_gpadl); }
  };

  ProtocolContext protocol() const;
  bool AtLeast(ProtocolVersion version) const {
    return protocol().AtLeast(version);
  }
  Offer* Find(OfferId id);
  const Offer* Find(OfferId id) const;
  Offer* FindByChannelId(ChannelId channel_id);
  // An offer that the guest knows; NotFound names the channel.
  absl::StatusOr<Offer*> OfferedChannel(ChannelId channel_id);
  const Offer* FindPrimary(const OfferParams& params) const;
  absl::Status CheckNewOffer(const OfferParams& params) const;
  absl::StatusOr<ChannelId> FreeChannelId() const;
  absl::StatusOr<OfferId> ClaimOffer(Offer& offer, const OfferParams& params);
  void FinishRescind(Offer& offer);
  void ForgetOffer(OfferId id);
  void RescindUnclaimed(OfferId id);

  absl::Status Dispatch(const GuestMessage& message,
                        uint32_t message_connection);
  absl::Status DispatchToChannel(const GuestMessage& message);
  void Send(const OutgoingMessage& message);
  void Send(MessageType type, ChannelId channel_id = {}, uint32_t id = 0,
            uint32_t status = 0) {
    Send(OutgoingMessage{
        .type = type, .channel_id = channel_id, .id = id, .status = status});
  }
  bool CanBeOffered(const Offer& offer) const;
  bool IsHeld(const Offer& offer) const;
  void SendOffer(Offer& offer);
  void SendHeldOffer(Offer& offer);
  EncodedMessage Encode(const OutgoingMessage& message) const;
  EncodedMessage EncodeOffer(const Offer& offer) const;
  EncodedMessage EncodeContactAnswer() const;
  size_t AnswersDue() const;
  absl::Status Ignore();

  // server_connection_restore.cc
  void RestoreOutgoing(const ServerConnectionState& state);
  void RequestAgain();

  // server_connection_contact.cc
  absl::Status HandleInitiateContact(const InitiateContactMessage& message,
                                     uint32_t message_connection);
  Contact JudgeContact(const InitiateContactMessage& message,
                       uint32_t message_connection) const;
  absl::Status HandleUnload();
  absl::Status HandleRequestOffers();
  void GrantFeatures(const InitiateContactMessage& message,
                     Contact& contact) const;
  void DropOutgoing(bool with_reserved);
  void BeginReset(AfterReset after_reset);
  void FinishResetIfClosed();

  // server_connection_channels.cc
  absl::Status HandleOpen(const OpenChannelMessage& message);
  absl::Status HandleClose(ChannelId channel_id);
  absl::Status HandleModify(const ModifyChannelMessage& message);
  absl::Status Modify(Offer& offer, uint32_t target_vp);
  absl::Status HandleRelidReleased(ChannelId channel_id);
  absl::Status CheckOpen(const Offer& offer, const OpenRequest& request) const;
  absl::Status StartOpen(Offer& offer, const OpenRequest& request);
  void BeginOpen(Offer& offer, const OpenRequest& request);
  void RequestOpen(const Offer& offer);
  bool StartClose(Offer& offer);
  void StartCloseAll(const std::vector<OfferId>& offers);
  void StartCloseWithSubChannels(const Offer& offer);
  void FinishCloseIfReleased(OfferId id);

  // server_connection_reserved.cc
  absl::Status HandleOpenReserved(const OpenReservedChannelMessage& message);
  absl::Status HandleCloseReserved(const CloseReservedChannelMessage& message);
  absl::Status CheckOpenReserved(const Offer& offer,
                                 const OpenRequest& request) const;
  bool IsTarget(uint32_t vp, uint32_t sint) const;

  // server_connection_requests.cc
  absl::Status HandleModifyConnection(const ModifyConnectionMessage& message);
  absl::Status CheckModifyConnection(const MonitorPages& pages) const;
  absl::Status RequestModifyConnection();
  absl::Status HandleTlConnect(const TlConnectRequestMessage& message);
  absl::Status CheckTlConnect(const TlConnectRequest& request) const;
  void RequestTlConnect(const TlConnectRequest& request);
  void EndTlConnect(const OfferParams& offer);
  absl::Status HandlePause();
  absl::Status HandleResume();

  // server_connection_gpadls.cc
  absl::Status HandleGpadlHeader(const DecodedGpadlHeader& header);
  absl::Status HandleGpadlBody(const DecodedGpadlBody& body);
  absl::Status AnswerGpadl(ChannelId channel_id, GpadlId id,
                           const absl::StatusOr<GpadlState>& result);
  absl::Status HandleGpadlTeardown(const GpadlTeardownMessage& message);
  void FinishTeardownIfUnused(GpadlKey key);

  const ServerConnectionOptions options_;
  ServerEvents* const events_;

  ConnectionPhase phase_ = ConnectionPhase::kDisconnected;
  Contact contact_;
  AfterReset after_reset_ = AfterReset::kNothing;
  Contact pending_contact_;
  bool was_connected_ = false;  // when the reset began
  bool offers_requested_ = false;
  bool restoring_ = false;
  bool handling_message_ = false;
  uint32_t next_offer_id_ = 0;
  std::map<OfferId, Offer> offers_;
  std::map<ChannelId, OfferId> offers_by_channel_id_;
  GpadlTable gpadls_;
  bool paused_ = false;
  std::optional<MonitorPages> pending_modify_;
  std::vector<TlConnectRequest> tl_connects_;
  std::deque<OutgoingMessage> outgoing_;
  std::deque<OutgoingMessage> held_;  // while paused, from the response on
  EncodedMessage front_;
  ServerCounters counters_;
};

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_SERVER_CONNECTION_H_
