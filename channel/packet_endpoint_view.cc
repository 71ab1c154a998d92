// SPDX-License-Identifier: MIT
//
// What an endpoint says of itself.

#include <algorithm>

#include "ferrybus/channel/packet_endpoint.h"

namespace ferrybus {

EndpointRunState PacketEndpoint::run_state() const {
  absl::MutexLock lock(&mu_);
  return state_;
}

uint32_t PacketEndpoint::outstanding() const {
  absl::MutexLock lock(&mu_);
  return OutstandingLocked();
}

uint32_t PacketEndpoint::held() const {
  absl::MutexLock lock(&mu_);
  return OutstandingLocked() - static_cast<uint32_t>(waiting_.size());
}

uint32_t PacketEndpoint::awaiting() const {
  absl::MutexLock lock(&mu_);
  return awaiting_;
}

uint32_t PacketEndpoint::queued() const {
  absl::MutexLock lock(&mu_);
  return queue_.size();
}

EndpointCounters PacketEndpoint::counters() const {
  absl::MutexLock lock(&mu_);
  return CountersLocked();
}

EndpointCounters PacketEndpoint::CountersLocked() const {
  EndpointCounters counters = counters_;
  counters.packets_received = packets_received_.get();
  counters.bytes_received = bytes_received_.get();
  return counters;
}

std::string PacketEndpoint::fault_reason() const {
  absl::MutexLock lock(&mu_);
  return fault_reason_;
}

EndpointLoad PacketEndpoint::load() const {
  absl::MutexLock lock(&mu_);
  return LoadLocked();
}

EndpointLoad PacketEndpoint::LoadLocked() const {
  return {CountersLocked(), OutstandingLocked(), awaiting_, queue_.size()};
}

EndpointView PacketEndpoint::View(size_t packets_max) const {
  EndpointView view;
  absl::MutexLock lock(&mu_);
  view.run_state = state_;
  view.fault_reason = fault_reason_;
  view.load = LoadLocked();
  view.incoming_ring = {incoming_.ring().data_bytes, incoming_.position(),
                        incoming_.fault()};
  view.outgoing_ring = {outgoing_.ring().data_bytes, outgoing_.position(),
                        outgoing_.fault()};
  ViewIncomingLocked(packets_max, &view);
  for (uint32_t i = 0; i < queue_.size() && i < packets_max; ++i) {
    const QueuedPacket& packet = queue_.at(i);
    view.queued.push_back({packet.header.type, packet.header.transaction_id,
                           static_cast<uint32_t>(packet.payload().size())});
  }
  for (uint32_t i = 0; i < transactions_.size(); ++i) {
    const Transaction& each = transactions_[i];
    if (!each.awaiting) continue;
    if (view.awaiting.size() == packets_max) break;
    view.awaiting.push_back({IdOf(i, each), each.tag, each.cancelled});
  }
  return view;
}

void PacketEndpoint::ViewIncomingLocked(size_t packets_max,
                                        EndpointView* view) const {
  std::vector<const Slot*> slots;
  for (const Slot& slot : slots_) {
    if (slot.state != SlotState::kFree) slots.push_back(&slot);
  }
  std::sort(slots.begin(), slots.end(), [](const Slot* one, const Slot* two) {
    return one->sequence < two->sequence;
  });
  if (slots.size() > packets_max) slots.resize(packets_max);
  for (const Slot* const slot : slots) {
    const bool is_waiting = std::find(waiting_.begin(), waiting_.end(),
                                      slot->info.slot) != waiting_.end();
    view->incoming.push_back({slot->info.type, slot->info.transaction_id,
                              static_cast<uint32_t>(slot->info.payload.size()),
                              slot->info.external_bytes,
                              slot->info.completion_requested, is_waiting,
                              slot->state == SlotState::kOrphan});
  }
}

}  // namespace ferrybus
