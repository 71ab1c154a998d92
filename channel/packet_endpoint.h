// SPDX-License-Identifier: MIT
//
// One side of an open channel: packets in, packets out, and every packet in
// flight accounted for.
//
// What it is: the machinery that server and client channels share.  It owns
// - the consumer of the incoming and the producer of the outgoing ring,
// - a slot for each packet received and not yet completed (incoming),
// - the packets that wait for room in the outgoing ring, in order (queued),
// - an entry for each packet sent whose completion has not come (awaiting).
// These four are what a save stores and a restore rebuilds.
//
// A packet may also stand in line (waiting): its receiver gave it back, asked
// to be called where it may block, or another one stands before it.  Waiting
// packets have no handle; Poll() hands them out when the ring's batch is over.
//
// A packet's way: Poll() copies it once out of the ring into a slot, checks
// the copy, and hands out an IncomingPacket; its Complete() stages the
// completion; the end of the Poll() publishes the batch and rings once.
//
// States:
//   kDetached --Attach--> kSuspended <--Start/Suspend--> kActive
//                              |                            |
//                              +--Freeze--> kFrozen --Thaw--+
//   any --Detach--> kDetached;  any attached --peer's fault--> kFaulted
// Active takes packets.  Suspended takes none, but completions still reach
// the peer.  Frozen publishes nothing: what is sent or completed meanwhile is
// queued, so that a save sees one moment and either this owner or the next
// one, never both, tells the peer.
//
// Ownership: borrows events, doorbell and guest memory.  Guest memory must
// outlive every IncomingPacket.
//
// Thread safety: IncomingPacket's calls and Send/Flush from any thread; all
// else from the one polling thread.  Events run on the polling thread, without
// the lock, except OnWork, which may run on any.
//
// Ordering: packets are sent in the order of Send() and Complete() calls; what
// waits for room is never overtaken.
//
// Trust: the peer may break any rule: it faults this endpoint and nothing
// else.  Everything a guest can make grow is capped by EndpointLimits: one that
// does not read its completions finds its packets left in the ring.
//
// Cost: two lock/unlock pairs and one copy per packet; no allocation once the
// slots and the queue are warm; Reserve() warms the queue.
//
// Source: KMCL's packet objects and channel states (docs/SAVE_STATE.md).

#ifndef FERRYBUS_CHANNEL_PACKET_ENDPOINT_H_
#define FERRYBUS_CHANNEL_PACKET_ENDPOINT_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "ferrybus/channel/doorbell.h"
#include "ferrybus/channel/endpoint_state.h"
#include "ferrybus/channel/endpoint_view.h"
#include "ferrybus/channel/guest_memory.h"
#include "ferrybus/channel/guest_pins.h"
#include "ferrybus/channel/incoming_packet.h"
#include "ferrybus/channel/outgoing_packet.h"
#include "ferrybus/channel/outgoing_queue.h"
#include "ferrybus/channel/relaxed.h"
#include "ferrybus/channel/ring_pair.h"
#include "ferrybus/ringbuffer/ring_consumer.h"
#include "ferrybus/ringbuffer/ring_producer.h"

namespace ferrybus {

class EndpointEvents {
 public:
  virtual void OnPacket(IncomingPacket packet) = 0;
  // The completion of the packet sent with `tag`.
  virtual void OnCompletion(uint64_t tag,
                            absl::Span<const std::byte> reply) = 0;
  // At least one OnPacket since the last call, `packets` in all.
  virtual void OnBatchEnd(size_t packets) = 0;
  // The packet sent with `tag` and `wants_sent` is in the ring.
  virtual void OnSent(uint64_t tag) { (void)tag; }
  // A Send() said kFull and there is room now.
  virtual void OnRoom() = 0;
  // Poll() should run soon.  Any thread.
  virtual void OnWork() = 0;

 protected:
  ~EndpointEvents() = default;
};

enum class EndpointSide { kHost, kGuest };

struct EndpointOptions {
  EndpointOptions() = default;
  // NOLINTNEXTLINE(google-explicit-constructor): limits alone are options.
  EndpointOptions(const EndpointLimits& all_limits) : limits(all_limits) {}

  EndpointLimits limits;
  // Datagrams of an exact length, without completions or external data.
  bool is_pipe = false;
  // All packets are handed out where the receiver may block.
  bool wants_blocking = false;
  // Longest payload that will be sent; rings that could not hold it are
  // refused.  0: whatever fits.
  uint32_t max_payload_bytes = 0;
  // External data of one packet; a peer that sends more is faulted.  0: as
  // much as a packet can describe.
  uint64_t max_external_bytes = 0;
  uint32_t max_external_ranges = 0;
  // Null: guest memory stays in place by itself.
  GuestPins* pins = nullptr;
};

class PacketEndpoint final : private IncomingPacketOwner, private PinOwner {
 public:
  PacketEndpoint(EndpointSide side, const EndpointOptions& options,
                 const GuestMemory* memory, Doorbell* doorbell,
                 EndpointEvents* events);
  PacketEndpoint(const PacketEndpoint&) = delete;
  PacketEndpoint& operator=(const PacketEndpoint&) = delete;
  // Ends an endpoint.  Packets in flight keep it alive, detached, until the
  // last of their handles ends; events, doorbell and rings are not touched
  // any more.  Waits for a thread that is ringing the doorbell.
  static void Retire(std::unique_ptr<PacketEndpoint> endpoint);
  // REQUIRES: no IncomingPacket of this endpoint exists; see Retire().
  ~PacketEndpoint();

  // -- Life ----------------------------------------------------------------

  // The channel opened: kDetached -> kSuspended.  `channel_id` is what the
  // doorbell is rung with.  DataLoss if the rings' control words are
  // impossible, InvalidArgument if a packet of the greatest length, or one
  // that waits, would not fit (then still detached).
  absl::Status Attach(RingPair rings, uint32_t channel_id);
  void Start();    // kSuspended -> kActive
  void Suspend();  // kActive -> kSuspended
  // Stops publishing at once: both indices in shared memory now equal the
  // private ones.
  void Freeze();
  // Back to kActive; what was completed meanwhile is sent.
  void Thaw();
  // The channel closed: unmaps the rings, forgets queued and awaiting packets.
  // Packets in flight become orphans; see outstanding().  An event may call it.
  // Waits for a thread that is ringing the doorbell.
  void Detach();
  // As Detach(), but what was sent waits for the next Attach().
  // REQUIRES: frozen since Attach(), or detached.
  void RollBack();

  // -- Traffic -------------------------------------------------------------

  // Takes up to `budget` packets, sends what waited for room.  True: more is
  // to do, call again; false: the peer will ring.
  bool Poll(uint32_t budget);

  SendStatus Send(const OutgoingPacket& packet);
  // From now on `packets` packets wait without an allocation.
  void Reserve(uint32_t packets);
  // Takes a packet back that waits for room; else its completion will be
  // dropped when it comes, and its transaction id stays taken until then.
  // False: there is no such packet, or its completion was taken from the ring
  // and is told next.
  bool Cancel(uint64_t tag);
  bool Cancel(const ReplyRoom* reply);
  // How far the answer is; kGone also when the endpoint is faulted.
  ReplyRoom::State Look(const ReplyRoom& reply) const;
  // Packets received and not completed that the receiver wants at most.  What
  // is outstanding above it is not touched; a queue that stands for it goes on
  // with the next completion, not by raising it.  The polling thread's.
  // REQUIRES: quota > 0.
  void SetQuota(uint32_t quota);
  void SetWantsBlocking(bool wants_blocking) {
    options_.wants_blocking = wants_blocking;
  }
  // Publishes what was sent.  Poll() does it, too.
  void Flush();

  // While a scope lives, completions and sends are staged only, and published
  // together at its end.
  class BatchScope {
   public:
    explicit BatchScope(PacketEndpoint& endpoint);
    BatchScope(const BatchScope&) = delete;
    BatchScope& operator=(const BatchScope&) = delete;
    ~BatchScope();

   private:
    PacketEndpoint& endpoint_;
  };

  // -- Save and restore ----------------------------------------------------

  // Asks the device for a packet's blob; `tag` is set for awaiting packets.
  using SaveBlob = absl::FunctionRef<absl::StatusOr<std::string>(
      const PacketInfo* incoming, uint64_t tag)>;
  // The endpoint's state at this moment.  REQUIRES: kFrozen or kFaulted.
  absl::StatusOr<EndpointState> Save(SaveBlob save_blob);

  // Gives each saved incoming packet back, with its blob, but those that wait.
  using RestoreBlob = absl::FunctionRef<absl::Status(
      IncomingPacket packet, absl::Span<const std::byte> blob)>;
  // kDetached -> kFrozen, on rings in memory that moved along.  Sends nothing
  // before Thaw().  A ring whose indices differ from the saved ones restores
  // as kFaulted: it belongs to another moment.  On failure the endpoint is
  // kDetached again.
  absl::Status Restore(const EndpointState& state, RingPair rings,
                       uint32_t channel_id, RestoreBlob restore_blob);

  // -- Looking -------------------------------------------------------------

  EndpointRunState run_state() const;
  // Packets received and not completed, orphans included.
  uint32_t outstanding() const;
  // ... of which the receiver has the handle.
  uint32_t held() const;
  uint32_t awaiting() const;
  uint32_t queued() const;
  EndpointCounters counters() const;
  EndpointLoad load() const;
  // At most `packets_max` of each kind of packet.  The polling thread's.
  EndpointView View(size_t packets_max) const;
  // Why the endpoint is kFaulted; empty otherwise.
  std::string fault_reason() const;
  uint32_t channel_id() const { return channel_id_; }
  const EndpointLimits& limits() const { return options_.limits; }
  const EndpointOptions& options() const { return options_; }

  // Faults the endpoint: the peer broke a rule that a layer above knows.
  void Fault(std::string_view reason);

 private:
  enum class SlotState : uint8_t {
    kFree,
    kInFlight,
    kOrphan,  // the channel closed under it
  };
  enum class PinState : uint8_t { kNone, kPending, kPinned };
  struct Slot {
    PacketInfo info;
    SlotState state = SlotState::kFree;
    uint64_t sequence = 0;         // order of arrival
    std::vector<std::byte> bytes;  // extension, then payload
    std::vector<iovec> buffers;
    PinState pin = PinState::kNone;
    GuestAccess access = GuestAccess::kReadOnly;  // of the pin
  };
  struct Transaction {
    bool awaiting = false;
    bool cancelled = false;  // nobody waits
    uint32_t generation = 0;
    uint64_t tag = 0;
    ReplyRoom* reply = nullptr;
  };
  // Taken from the ring and not told.
  struct Completion {
    uint64_t transaction_id = 0;
    uint32_t offset = 0;  // in completion_bytes_
    uint32_t bytes = 0;
    uint64_t tag = 0;
    bool is_told = false;  // to OnCompletion
  };
  // What is left to do once the lock is gone.
  struct Afterwards {
    bool ring = false;
    bool work = false;
    bool room = false;     // a refused Send() can be repeated
    bool end = false;      // the last handle of a retired endpoint ended
    bool leaving = false;  // counted in leaving_
  };

  // IncomingPacketOwner.
  CompleteResult CompletePacket(uint32_t slot, uint32_t generation,
                                absl::Span<const std::byte> payload) override;
  void DropPacket(uint32_t slot, uint32_t generation) override;
  void FailPacket(uint32_t slot, uint32_t generation,
                  std::string_view reason) override;
  void DeferPacket(uint32_t slot, uint32_t generation) override;
  absl::StatusOr<absl::Span<const iovec>> MapGuestBuffers(
      uint32_t slot) override;
  absl::StatusOr<ExternalData> PinGuestBuffers(uint32_t slot,
                                               GuestAccess access) override;
  // PinOwner.
  void OnPinned(uint32_t slot, uint32_t generation) override;

  // The polling thread's half (packet_endpoint.cc).
  bool TakeBatch(uint32_t budget, Afterwards* after);
  bool TakePackets(uint32_t budget, uint32_t* taken);
  bool TakePacket(const ringbuffer::PacketView& view);
  bool TakeCompletion(const ringbuffer::PacketView& view);
  bool HandOutCompletions();
  bool MatchCompletionLocked(Completion& completion)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool is_attached() const { return incoming_.ring().control != nullptr; }
  Slot* AcquireSlot();
  void GrantSlots();
  void ReturnGrantsLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::string_view Unsound(Slot& slot) const;
  absl::Status CheckRooms(const ringbuffer::RingProducer& outgoing,
                          uint32_t channel_id);
  void DetachAnd(bool keep_sends);
  Slot* FreeSlotLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void UseSlot(Slot& slot);
  static void CountExternal(PacketInfo* info);
  void FillSlot(Slot& slot, const ringbuffer::PacketView& view);
  bool HasQuota();

  // Packets given back, and pins (packet_endpoint_waiting.cc).
  void WaitLocked(Slot& slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool DeliverWaiting(uint32_t budget);
  Slot* NextWaiting();
  void DropWaiting();
  void ReportSent();
  Slot* SlotOf(uint32_t index);
  absl::Status FillBuffers(Slot& slot) const;
  // Called before the packet of a slot ends, without the lock.
  void Unpin(uint32_t slot, uint32_t generation);

  // The outgoing half (packet_endpoint_send.cc).
  void ReleaseSlotLocked(Slot& slot, Afterwards* after)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ReplyLocked(const PacketInfo& info, absl::Span<const std::byte> payload)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Publishes, sends what waits, asks for room; nothing while a batch is open.
  void SettleLocked(Afterwards* after) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool WriteQueueLocked(Afterwards* after) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  QueuedPacket& PushQueueLocked(const ringbuffer::PacketHeader& header,
                                absl::Span<const std::byte> extension,
                                absl::Span<const std::byte> payload)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ClearQueueLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ForgetTransactionsLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Whether it fits into the empty ring (while detached: into any) and into
  // its 16-bit lengths.
  static bool Fits(size_t extension_bytes, size_t payload_bytes,
                   uint64_t ring_bytes_max);
  bool FitsLocked(size_t extension_bytes, size_t payload_bytes) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  SendStatus CheckSendLocked(const OutgoingPacket& packet) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  SendStatus SendLocked(const OutgoingPacket& packet, Afterwards* after)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void NoteSentLocked(const ringbuffer::PacketHeader& header, uint64_t tag,
                      bool wants_sent, ReplyRoom* reply, Afterwards* after)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  uint64_t WantedRoomLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void FaultLocked(std::string_view reason) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  static uint64_t IdOf(size_t index, const Transaction& transaction) {
    return (uint64_t{transaction.generation} << 32) | (index + 1);
  }
  bool AllocateTransactionLocked(uint64_t tag, ReplyRoom* reply, uint64_t* id)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Null: no such transaction.  Else what it was, until the next one.
  const Transaction* FreeTransactionLocked(uint64_t id)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool CancelIf(
      absl::FunctionRef<bool(uint64_t tag, const ReplyRoom* reply)> is_it);
  bool CancelQueuedLocked(uint32_t index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Do() follows, without the lock and on any thread: until then neither
  // events nor doorbell may end.
  void LeaveLocked(Afterwards* after) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void AwaitLeaversLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Do(const Afterwards& after);
  // Packets in flight are owed to the peer, by this owner or the next.
  bool owes() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return flows() || state_ == EndpointRunState::kFrozen;
  }
  bool flows() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return state_ == EndpointRunState::kActive ||
           state_ == EndpointRunState::kSuspended;
  }

  uint32_t OutstandingLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return taken_.get() - ended_;
  }
  void CountSentLocked(size_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    ++counters_.packets_sent;
    counters_.bytes_sent += bytes;
  }

  // Looking (packet_endpoint_view.cc).
  EndpointCounters CountersLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  EndpointLoad LoadLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ViewIncomingLocked(size_t packets_max, EndpointView* view) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // Save and restore (packet_endpoint_save.cc).
  void SaveLocked(EndpointState* state, std::vector<PacketInfo>* in_flight)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::string CompareRings(const EndpointState& state);
  absl::Status RestoreIncoming(const EndpointState::Incoming& saved,
                               RestoreBlob restore_blob);
  absl::Status RestoreOutgoingLocked(const EndpointState& state)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const EndpointSide side_;
  EndpointOptions options_;
  const GuestMemory* const memory_;
  Doorbell* const doorbell_;
  EndpointEvents* const events_;
  uint32_t channel_id_ = 0;

  // The polling thread's own.
  RingPair rings_;
  ringbuffer::RingConsumer incoming_;
  // Completions that stand next to each other are looked up together: a lock
  // for some, not for each.
  std::vector<Completion> completions_;
  std::vector<std::byte> completion_bytes_;
  uint32_t bad_completions_ = 0;
  // Slots that may still be taken before what is outstanding must be looked at.
  uint32_t quota_left_ = 0;
  // Free slots of this batch: a lock for some, not for each.
  std::vector<Slot*> granted_;
  uint64_t next_sequence_ = 0;
  bool taking_ = false;      // within Poll(), packets taken and not released
  bool delivering_ = false;  // within Poll(), handing out what waited
  uint32_t delivered_ = 0;   // within the ring's batch
  uint32_t quota_;

  // The polling thread writes these, any thread reads them.
  Relaxed<uint32_t> taken_{0};  // packets, modulo 2^32
  Relaxed<uint64_t> packets_received_{0};
  Relaxed<uint64_t> bytes_received_{0};
  // Written under the lock; the polling thread looks at each packet.
  Relaxed<bool> is_faulted_{false};
  Relaxed<bool> has_waiting_{false};

  mutable absl::Mutex mu_;
  EndpointRunState state_ ABSL_GUARDED_BY(mu_) = EndpointRunState::kDetached;
  ringbuffer::RingProducer outgoing_ ABSL_GUARDED_BY(mu_);
  std::deque<Slot> slots_ ABSL_GUARDED_BY(mu_);
  std::vector<uint32_t> free_slots_ ABSL_GUARDED_BY(mu_);
  uint32_t ended_ ABSL_GUARDED_BY(mu_) = 0;  // of taken_
  bool quota_blocked_ ABSL_GUARDED_BY(mu_) = false;
  // Slots whose packets wait for their receiver, in order of arrival.
  std::vector<uint32_t> waiting_ ABSL_GUARDED_BY(mu_);
  OutgoingQueue queue_ ABSL_GUARDED_BY(mu_);
  std::vector<uint64_t> sent_tags_ ABSL_GUARDED_BY(mu_);  // for OnSent
  std::vector<std::byte> pipe_bytes_ ABSL_GUARDED_BY(mu_);
  // Completions in queue_: on the host they count against the quota like their
  // packets.
  uint32_t queued_replies_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<Transaction> transactions_ ABSL_GUARDED_BY(mu_);
  std::vector<uint32_t> free_transactions_ ABSL_GUARDED_BY(mu_);
  uint32_t awaiting_ ABSL_GUARDED_BY(mu_) = 0;
  // Ring bytes that a refused Send() waits for; 0: none waits.
  uint64_t wanted_room_ ABSL_GUARDED_BY(mu_) = 0;
  uint32_t batches_ ABSL_GUARDED_BY(mu_) = 0;
  bool retired_ ABSL_GUARDED_BY(mu_) = false;
  uint32_t leaving_ ABSL_GUARDED_BY(mu_) = 0;  // threads within Do()
  absl::CondVar left_;
  // But for those above.
  EndpointCounters counters_ ABSL_GUARDED_BY(mu_);
  std::string fault_reason_ ABSL_GUARDED_BY(mu_);
  // Faulted outside Poll(): whoever polls wants to know.
  bool is_fault_news_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_PACKET_ENDPOINT_H_
