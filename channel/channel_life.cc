// SPDX-License-Identifier: MIT

#include "ferrybus/channel/channel_life.h"

#include <utility>

namespace ferrybus {

void ChannelLife::Enable() {
  if (link_ != ChannelLink::kOpen) link_ = ChannelLink::kEnabled;
}

absl::Status ChannelLife::Attach(RingPair rings, uint32_t channel_id) {
  const absl::Status status = endpoint_->Attach(std::move(rings), channel_id);
  // The user may send, and may still refuse: nothing is published.
  if (status.ok()) endpoint_->Freeze();
  return status;
}

absl::Status ChannelLife::Opened() {
  const ChannelLink before = std::exchange(link_, ChannelLink::kOpen);
  const absl::Status status = events_->OnLifeOpened();
  if (!status.ok() && is_up()) {
    link_ = before;
    RollBack();
  }
  return status;
}

void ChannelLife::RollBack() { endpoint_->RollBack(); }

void ChannelLife::Resume() {
  if (!is_up()) return;
  endpoint_->Thaw();
  if (!is_started_) endpoint_->Suspend();
  Settle();
}

// Starts if everything says so.
void ChannelLife::Settle() {
  if (!is_up() || is_held_ || run_ == ChannelRun::kPaused || is_started_ ||
      endpoint_->run_state() != EndpointRunState::kSuspended) {
    return;
  }
  is_started_ = true;
  {
    const PacketEndpoint::BatchScope quiet(*endpoint_);
    events_->OnLifeStarted();
  }
  // It may have closed or paused the channel.
  if (!is_started_) return;
  is_post_started_due_ = true;
  endpoint_->Start();
}

void ChannelLife::Suspend() {
  endpoint_->Suspend();
  is_post_started_due_ = false;
  if (std::exchange(is_started_, false)) events_->OnLifeSuspend();
}

void ChannelLife::Start() {
  run_ = ChannelRun::kActive;
  Settle();
}

void ChannelLife::Pause() {
  run_ = ChannelRun::kPaused;
  if (is_up()) Suspend();
}

void ChannelLife::Hold() {
  is_held_ = true;
  if (is_up()) Suspend();
}

void ChannelLife::Release() {
  is_held_ = false;
  Resume();
}

void ChannelLife::Close(ChannelLink next) {
  if (is_up()) {
    Suspend();
    endpoint_->Detach();
    link_ = next;
    events_->OnLifeClosed();
    return;
  }
  endpoint_->Detach();
  link_ = next;
}

bool ChannelLife::RunPostStarted() {
  if (!std::exchange(is_post_started_due_, false)) return false;
  events_->OnLifePostStarted();
  return true;
}

}  // namespace ferrybus
