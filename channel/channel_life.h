// SPDX-License-Identifier: MIT
//
// In which state a channel is, and which callback its user gets when.
//
// What it is: two states that do not depend on each other, for either side of
// a channel.  Packets flow while the link is open and the run state is active.
//
//   link:  kDisabled --Enable--> kEnabled --Attach, Opened--> kOpen
//             ^                     ^                           |
//             |                     +--- the user refused ------+
//             +---- Close(kDisabled) ---------------------------+
//                             kClosed <---- Close(kClosed) -----+
//   run:   kPaused <--Pause/Start--> kActive
//
// Order of callbacks:
//   OnOpened, [OnStarted, (packets), OnPostStarted, OnSuspend]*, OnClosed
// OnStarted comes each time that both states say "flow", before any packet;
// what is sent in it is published when it returns.  OnPostStarted runs later,
// from RunPostStarted(), where waiting for an answer is allowed.  After
// OnSuspend no packet is given to the user; completions still reach the peer.
//
// Ownership: borrows the endpoint and the events.
// Thread safety: one thread, the bus's.
// Trust: none needed; the peer moves only the link.
//
// Source: KMCL's channel state model.

#ifndef FERRYBUS_CHANNEL_CHANNEL_LIFE_H_
#define FERRYBUS_CHANNEL_CHANNEL_LIFE_H_

#include <cstdint>

#include "absl/status/status.h"
#include "ferrybus/channel/packet_endpoint.h"
#include "ferrybus/channel/ring_pair.h"

namespace ferrybus {

enum class ChannelLink : uint8_t { kDisabled, kEnabled, kOpen, kClosed };
enum class ChannelRun : uint8_t { kPaused, kActive };

class ChannelLifeEvents {
 public:
  // A failure refuses the opening.
  virtual absl::Status OnLifeOpened() = 0;
  virtual void OnLifeStarted() = 0;
  virtual void OnLifePostStarted() = 0;
  virtual void OnLifeSuspend() = 0;
  virtual void OnLifeClosed() = 0;

 protected:
  ~ChannelLifeEvents() = default;
};

class ChannelLife {
 public:
  ChannelLife(PacketEndpoint* endpoint, ChannelLifeEvents* events,
              ChannelRun run)
      : endpoint_(endpoint), events_(events), run_(run) {}
  ChannelLife(const ChannelLife&) = delete;
  ChannelLife& operator=(const ChannelLife&) = delete;

  ChannelLink link() const { return link_; }
  ChannelRun run() const { return run_; }
  bool is_up() const { return link_ == ChannelLink::kOpen; }
  bool is_started() const { return is_started_; }

  void Enable();

  // The peer opens: the rings are there, nothing flows yet.  Errors as
  // PacketEndpoint::Attach.
  absl::Status Attach(RingPair rings, uint32_t channel_id);
  // Tells the user.  If it refuses, the link is back where it was.
  absl::Status Opened();
  // The opening came to nothing.
  void RollBack();
  // The peer knows that the channel is open: packets flow from here on, if
  // the run state says so.  Nothing if the channel was closed meanwhile.
  void Resume();

  // The user has been told that a saved channel is here again; the endpoint is
  // frozen.
  void Restored() { link_ = ChannelLink::kOpen; }

  // In any link state; remembered until the channel opens.  Not from within a
  // callback.
  void Start();
  // The user has got its OnSuspend when this returns; see IsDrained().
  void Pause();
  // No packet is with the user: a pause is complete.
  bool IsDrained() const { return endpoint_->held() == 0; }

  // Suspends in addition to the run state: for a bus that moves.
  void Hold();
  // Ends Hold(); also thaws a frozen endpoint.
  void Release();

  // The link ends.
  void Close(ChannelLink next);

  // Runs an OnPostStarted that is due; true: there was one.
  bool RunPostStarted();

 private:
  void Settle();
  void Suspend();

  PacketEndpoint* const endpoint_;
  ChannelLifeEvents* const events_;
  ChannelRun run_;
  ChannelLink link_ = ChannelLink::kDisabled;
  bool is_held_ = false;
  bool is_started_ = false;  // the user has been told
  bool is_post_started_due_ = false;
};

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_CHANNEL_LIFE_H_
