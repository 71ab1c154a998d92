// SPDX-License-Identifier: MIT
//
// Life of an endpoint, and its polling thread's half: packets in.

#include "ferrybus/channel/packet_endpoint.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ferrybus/channel/check.h"
#include "ferrybus/channel/pipe_header.h"
#include "ferrybus/ringbuffer/packet_ranges.h"

namespace ferrybus {

using ringbuffer::PacketType;
using ringbuffer::PacketView;
using ringbuffer::ReadResult;
using ringbuffer::RingFault;
using ringbuffer::RingFaultName;

namespace {

// A batch's free slots and completions are got in portions of so many, a lock
// for each portion.
constexpr uint32_t kGrantMax = 32;
constexpr size_t kCompletionsMax = 32;
constexpr size_t kCompletionBytesMax = 4096;  // the last one may end behind it

}  // namespace

PacketEndpoint::PacketEndpoint(EndpointSide side,
                               const EndpointOptions& options,
                               const GuestMemory* memory, Doorbell* doorbell,
                               EndpointEvents* events)
    : side_(side),
      options_(options),
      memory_(memory),
      doorbell_(doorbell),
      events_(events),
      quota_(options.limits.max_in_flight) {
  FERRYBUS_CHECK(
      options.limits.max_in_flight > 0 && options.limits.max_packet_bytes >= 16,
      "endpoint limits are zero");
}

PacketEndpoint::~PacketEndpoint() {
  FERRYBUS_CHECK(outstanding() == 0, "an IncomingPacket outlived its endpoint");
}

void PacketEndpoint::Retire(std::unique_ptr<PacketEndpoint> endpoint) {
  endpoint->Detach();
  {
    absl::MutexLock lock(&endpoint->mu_);
    endpoint->AwaitLeaversLocked();
    if (endpoint->OutstandingLocked() != 0) {
      endpoint->retired_ = true;
      // Owned by its packets from here on; see Do().
      (void)endpoint.release();
      return;
    }
  }
}

absl::Status PacketEndpoint::Attach(RingPair rings, uint32_t channel_id) {
  FERRYBUS_CHECK(run_state() == EndpointRunState::kDetached,
                 "Attach of an attached endpoint");
  const bool host = side_ == EndpointSide::kHost;
  ringbuffer::RingConsumer incoming(
      (host ? rings.guest_to_host : rings.host_to_guest).view(),
      limits().max_packet_bytes);
  ringbuffer::RingProducer outgoing(
      (host ? rings.host_to_guest : rings.guest_to_host).view());
  if (incoming.fault() != RingFault::kNone ||
      outgoing.fault() != RingFault::kNone) {
    return absl::DataLossError(
        absl::StrCat("channel ", channel_id,
                     ": incoming ring: ", RingFaultName(incoming.fault()),
                     "; outgoing ring: ", RingFaultName(outgoing.fault())));
  }
  const absl::Status rooms = CheckRooms(outgoing, channel_id);
  if (!rooms.ok()) return rooms;
  rings_ = std::move(rings);
  incoming_ = incoming;
  channel_id_ = channel_id;
  bad_completions_ = 0;
  quota_left_ = 0;
  packets_received_.set(0);
  bytes_received_.set(0);
  is_faulted_.set(false);
  absl::MutexLock lock(&mu_);
  outgoing_ = outgoing;
  counters_ = EndpointCounters();
  fault_reason_.clear();
  wanted_room_ = 0;
  quota_blocked_ = false;
  state_ = EndpointRunState::kSuspended;
  return absl::OkStatus();
}

// Whether the ring can hold what was promised to be sent, and what waits.
absl::Status PacketEndpoint::CheckRooms(
    const ringbuffer::RingProducer& outgoing, uint32_t channel_id) {
  const uint64_t ring_max =
      ringbuffer::MaxSendRingBytes(outgoing.ring().data_bytes);
  absl::MutexLock lock(&mu_);
  uint64_t payload = options_.max_payload_bytes;
  bool fits =
      payload == 0 ||
      Fits(0, payload + (options_.is_pipe ? sizeof(PipeHeader) : 0), ring_max);
  for (uint32_t i = 0; fits && i < queue_.size(); ++i) {
    payload = queue_.at(i).payload().size();
    fits = Fits(queue_.at(i).extension_bytes, payload, ring_max);
  }
  if (fits) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "channel ", channel_id, ": an outgoing ring of ",
      outgoing.ring().data_bytes, " data bytes does not hold a packet of ",
      payload, " bytes; the guest must make it larger"));
}

void PacketEndpoint::Start() {
  {
    absl::MutexLock lock(&mu_);
    if (state_ != EndpointRunState::kSuspended) return;
    state_ = EndpointRunState::kActive;
  }
  events_->OnWork();
}

void PacketEndpoint::Suspend() {
  absl::MutexLock lock(&mu_);
  if (state_ == EndpointRunState::kActive) {
    state_ = EndpointRunState::kSuspended;
  }
}

void PacketEndpoint::Freeze() {
  Afterwards after;
  {
    absl::MutexLock lock(&mu_);
    if (!flows()) return;
    FERRYBUS_CHECK(!taking_, "Freeze within an event");
    // A batch that is open ends here; what it still stages is queued.
    after.ring = outgoing_.Publish();
    if (after.ring) ++counters_.doorbells_rung;
    state_ = EndpointRunState::kFrozen;
  }
  // From here on the peer's signals must get through: the next owner may
  // find its ring drained and wait for one.
  (void)incoming_.UnmaskSignals();
  Do(after);
}

void PacketEndpoint::Thaw() {
  Afterwards after;
  {
    absl::MutexLock lock(&mu_);
    if (state_ != EndpointRunState::kFrozen) return;
    state_ = EndpointRunState::kActive;
    SettleLocked(&after);
    after.work = true;
  }
  Do(after);
}

void PacketEndpoint::Detach() { DetachAnd(/*keep_sends=*/false); }

void PacketEndpoint::RollBack() { DetachAnd(/*keep_sends=*/true); }

void PacketEndpoint::DetachAnd(bool keep_sends) {
  DropWaiting();
  RingPair closed;
  absl::MutexLock lock(&mu_);
  if (!keep_sends) {
    ClearQueueLocked();
    ForgetTransactionsLocked();
  }
  if (state_ == EndpointRunState::kDetached) return;
  state_ = EndpointRunState::kDetached;
  is_fault_news_ = false;
  ReturnGrantsLocked();
  completions_.clear();
  incoming_ = {};
  outgoing_ = {};
  fault_reason_.clear();
  std::swap(closed, rings_);
  for (Slot& slot : slots_) {
    if (slot.state == SlotState::kInFlight) slot.state = SlotState::kOrphan;
  }
  AwaitLeaversLocked();
}

bool PacketEndpoint::Poll(uint32_t budget) {
  if (taking_) return false;  // within an event of the batch
  bool takes;
  {
    absl::MutexLock lock(&mu_);
    if (!flows()) return false;
    takes = state_ == EndpointRunState::kActive;
    ++batches_;
  }
  Afterwards after;
  bool more = takes && TakeBatch(budget, &after);
  {
    absl::MutexLock lock(&mu_);
    --batches_;
    if (incoming_.fault() != RingFault::kNone) {
      FaultLocked(
          absl::StrCat("incoming ring: ", RingFaultName(incoming_.fault())));
    }
    if (after.ring) ++counters_.doorbells_rung;
    ReturnGrantsLocked();
    SettleLocked(&after);
    if (after.room) wanted_room_ = 0;
    is_fault_news_ = false;  // the caller looks
  }
  // The caller is the one to be woken, and the one to tell.
  more |= std::exchange(after.work, false);
  const bool room = std::exchange(after.room, false);
  Do(after);
  ReportSent();
  if (takes) more |= DeliverWaiting(budget);
  if (room) {
    events_->OnRoom();
    Flush();
  }
  return more;
}

// The ring's batch.  True: there is more in the ring.
bool PacketEndpoint::TakeBatch(uint32_t budget, Afterwards* after) {
  taking_ = true;
  incoming_.MaskSignals();
  uint32_t taken = 0;
  const bool drained = TakePackets(budget, &taken);
  after->ring = incoming_.Release();
  taking_ = false;
  const uint32_t delivered = std::exchange(delivered_, 0);
  if (delivered != 0 && is_attached()) events_->OnBatchEnd(delivered);
  return drained && is_attached() ? incoming_.UnmaskSignals() : taken == budget;
}

// True: the ring is drained.  False: the budget or the quota ended first, or
// the endpoint stopped.
bool PacketEndpoint::TakePackets(uint32_t budget, uint32_t* taken) {
  PacketView view;
  while (*taken < budget) {
    if (quota_left_ == 0 && !HasQuota()) break;
    const ReadResult result = incoming_.Next(&view);
    // What completions bring about may have emptied the ring only now.
    if (result == ReadResult::kEmpty) return HandOutCompletions();
    if (result == ReadResult::kCorrupt) break;
    ++*taken;
    const bool go_on = view.type == PacketType::kCompletion
                           ? TakeCompletion(view)
                           : HandOutCompletions() && TakePacket(view);
    // An event may have closed the channel.
    if (!go_on || !is_attached()) return false;
  }
  (void)HandOutCompletions();
  return false;
}

bool PacketEndpoint::HasQuota() {
  absl::MutexLock lock(&mu_);
  // A completion ends that, not a quota that was raised.
  if (quota_blocked_) return false;
  // A guest that does not read could make the host's queue grow.  The guest's
  // side does not count its own: if both waited for the other to read first,
  // neither would.
  const uint64_t replies = side_ == EndpointSide::kHost ? queued_replies_ : 0;
  const uint64_t in_use = OutstandingLocked() + replies;
  quota_left_ = in_use < quota_ ? quota_ - static_cast<uint32_t>(in_use) : 0;
  quota_blocked_ = quota_left_ == 0;
  return !quota_blocked_;
}

void PacketEndpoint::SetQuota(uint32_t quota) {
  FERRYBUS_CHECK(quota > 0, "a quota of no packets");
  quota_ = std::min(quota, limits().max_in_flight);
  quota_left_ = 0;
}

bool PacketEndpoint::TakePacket(const PacketView& view) {
  Slot* const slot = AcquireSlot();
  if (slot == nullptr) return false;
  packets_received_.add(1);
  bytes_received_.add(view.extension.size() + view.payload.size());
  FillSlot(*slot, view);
  const std::string_view unsound = Unsound(*slot);
  if (!unsound.empty()) {
    IncomingPacket(this, &slot->info).Fail(unsound);
    return false;
  }
  // It can be handed out at once.
  if (!has_waiting_.get() && !delivering_ && !options_.wants_blocking) {
    ++delivered_;
    events_->OnPacket(IncomingPacket(this, &slot->info));
    return true;
  }
  absl::MutexLock lock(&mu_);
  WaitLocked(*slot);
  return true;
}

// What is wrong with a packet that was just taken; its info is completed.
std::string_view PacketEndpoint::Unsound(Slot& slot) const {
  PacketInfo& info = slot.info;
  const ringbuffer::RangeResult ranges =
      ringbuffer::CheckRangeList(info.type, info.extension);
  if (ranges != ringbuffer::RangeResult::kOk) return RangeResultName(ranges);
  CountExternal(&info);
  if (options_.max_external_bytes != 0 &&
      info.external_bytes > options_.max_external_bytes) {
    return "more external data than the channel's maximum";
  }
  if (options_.max_external_ranges != 0 &&
      info.external_ranges > options_.max_external_ranges) {
    return "more ranges of external data than the channel's maximum";
  }
  if (!options_.is_pipe) return {};
  info.completion_requested = false;
  if (!info.extension.empty() ||
      !ParsePipePayload(info.payload, &info.payload)) {
    return "not a pipe's datagram";
  }
  return {};
}

// A slot for one more packet; null when the endpoint stopped meanwhile.
PacketEndpoint::Slot* PacketEndpoint::AcquireSlot() {
  if (is_faulted_.get()) return nullptr;
  if (granted_.empty()) GrantSlots();
  Slot* const slot = granted_.back();
  granted_.pop_back();
  if (quota_left_ > 0) --quota_left_;
  UseSlot(*slot);
  return slot;
}

// Free slots of earlier packets, or one more: there are never many more of
// them than packets were in flight.
void PacketEndpoint::GrantSlots() {
  absl::MutexLock lock(&mu_);
  do {
    granted_.push_back(FreeSlotLocked());
  } while (granted_.size() < std::min(quota_left_, kGrantMax) &&
           !free_slots_.empty());
}

void PacketEndpoint::ReturnGrantsLocked() {
  for (; !granted_.empty(); granted_.pop_back()) {
    free_slots_.push_back(granted_.back()->info.slot);
  }
}

PacketEndpoint::Slot* PacketEndpoint::FreeSlotLocked() {
  if (free_slots_.empty()) {
    free_slots_.push_back(static_cast<uint32_t>(slots_.size()));
    slots_.emplace_back();
    slots_.back().info.slot = free_slots_.back();
  }
  Slot* const slot = &slots_[free_slots_.back()];
  free_slots_.pop_back();
  return slot;
}

void PacketEndpoint::UseSlot(Slot& slot) {
  slot.state = SlotState::kInFlight;
  slot.sequence = next_sequence_++;
  taken_.add(1);
}

// What a GPA-direct packet's ranges add up to.  They may still be unsound.
void PacketEndpoint::CountExternal(PacketInfo* info) {
  info->external_bytes = 0;
  info->external_ranges = 0;
  if (info->type != PacketType::kDataUsingGpaDirect) return;
  (void)ringbuffer::ForEachGpaRange(info->extension,
                                    [&](const ringbuffer::GpaRange& range) {
                                      info->external_bytes += range.byte_count;
                                      ++info->external_ranges;
                                      return true;
                                    });
}

void PacketEndpoint::FillSlot(Slot& slot, const PacketView& view) {
  const uint32_t extension = view.extension.size();
  slot.bytes.resize(size_t{extension} + view.payload.size());
  const absl::Span<std::byte> bytes = absl::MakeSpan(slot.bytes);
  view.extension.CopyTo(bytes.first(extension));
  view.payload.CopyTo(bytes.subspan(extension));
  slot.info.type = view.type;
  slot.info.completion_requested = view.completion_requested;
  slot.info.transaction_id = view.transaction_id;
  slot.info.extension = bytes.first(extension);
  slot.info.payload = bytes.subspan(extension);
  slot.info.may_block = false;
}

// -- Completions -------------------------------------------------------------

bool PacketEndpoint::TakeCompletion(const PacketView& view) {
  const uint32_t bytes = view.payload.size();
  const size_t offset = completion_bytes_.size();
  completion_bytes_.resize(offset + bytes);
  view.payload.CopyTo(absl::MakeSpan(completion_bytes_).subspan(offset));
  completions_.push_back(
      {view.transaction_id, static_cast<uint32_t>(offset), bytes});
  bytes_received_.add(bytes);
  const bool go_on = completions_.size() < kCompletionsMax &&
                     completion_bytes_.size() < kCompletionBytesMax;
  return go_on || HandOutCompletions();
}

// False: the endpoint stopped.
bool PacketEndpoint::HandOutCompletions() {
  if (completions_.empty()) return true;
  bool go_on = true;
  {
    absl::MutexLock lock(&mu_);
    for (size_t i = 0; i < completions_.size() && go_on; ++i) {
      go_on = MatchCompletionLocked(completions_[i]);
    }
  }
  // An event may close the channel, and with it forget what follows.
  for (size_t i = 0; i < completions_.size(); ++i) {
    const Completion& each = completions_[i];
    if (!each.is_told) continue;
    events_->OnCompletion(each.tag, absl::MakeConstSpan(completion_bytes_)
                                        .subspan(each.offset, each.bytes));
  }
  completions_.clear();
  completion_bytes_.clear();
  return go_on && is_attached();
}

// False: one answer too many that answers nothing.
bool PacketEndpoint::MatchCompletionLocked(Completion& completion) {
  const Transaction* const found =
      FreeTransactionLocked(completion.transaction_id);
  if (found == nullptr) {
    // Stray answers are tolerated up to a number: a peer may have been
    // rebooted under them.
    ++counters_.completions_unmatched;
    if (++bad_completions_ <= limits().max_bad_completions) return true;
    FaultLocked(absl::StrCat("completion of transaction ",
                             completion.transaction_id, " answers nothing; ",
                             bad_completions_, " such completions came"));
    return false;
  }
  ++counters_.completions_received;
  if (found->cancelled) return true;
  if (found->reply != nullptr) {
    ReplyRoom& reply = *found->reply;
    reply.bytes = completion.bytes;
    std::copy_n(completion_bytes_.begin() + completion.offset,
                std::min(reply.bytes, reply.room.size()), reply.room.begin());
    reply.state = ReplyRoom::State::kDone;
    return true;
  }
  completion.tag = found->tag;
  completion.is_told = true;
  return true;
}

}  // namespace ferrybus
