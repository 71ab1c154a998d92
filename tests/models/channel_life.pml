/* SPDX-License-Identifier: MIT
 *
 * The life of a channel at the host, with moves: opened and closed by the
 * peer, started and paused by the device, held, frozen, saved, and thawed or
 * restored elsewhere; packets in the ring, in flight and completed.
 *
 * Names are those of channel/channel_life.h, packet_endpoint.h and vsp/bus.h.
 *
 * What is modelled: one channel, one slot.  The device goes on from its blob
 * (kResume).  The signal page's bit belongs to nobody: an owner that ends may
 * have taken it.
 *
 * Checked: the device's callbacks come in the documented order, no packet
 * comes outside of OnStarted and OnSuspend or while the bus moves; each packet of a channel that stays
 * open is completed once; nothing is left in a ring whose device is active.
 */

#define PACKETS 2
#define MOVES 2

mtype = { kEnabled, kOpen, kClosed };

/* ChannelLife. */
mtype link_ = kEnabled;
bool is_active = true;
bool is_held = false;
bool is_started = false;
bool is_post_started_due = false;
/* PacketEndpoint: the slot holds a packet, whose completion waits there if it
   came while frozen. */
bool frozen = false;
bool suspended = true;
bool slot = false;
bool slot_completed = false;
byte consumed = 0;
/* Shared memory: stays with the port. */
byte sent = 0;
byte completed = 0;
bool bell = false;
/* What the device has been told. */
bool told_open = false;
bool told_started = false;
/* The bus. */
bool moving = false;
byte moves = MOVES;

inline OnOpened() { assert(!told_open); told_open = true }
inline OnStarted() { assert(told_open && !told_started); told_started = true }
inline OnPostStarted() { assert(told_started) }
inline OnSuspend() { assert(told_started); told_started = false }
inline OnClosed() { assert(told_open && !told_started); told_open = false }

inline Settle() {
  if
#ifdef WEAKEN_SETTLE_IGNORES_HOLD
  :: link_ == kOpen && is_active && !is_started && suspended ->
#else
  :: link_ == kOpen && !is_held && is_active && !is_started && suspended ->
#endif
     is_started = true;
     OnStarted();
     is_post_started_due = true;
     suspended = false;
     bell = true /* looks at the ring by itself */
  :: else -> skip
  fi
}

inline Suspend() {
  suspended = true;
#ifndef WEAKEN_POST_STARTED_STAYS_DUE
  is_post_started_due = false;
#endif
  if
#ifdef WEAKEN_SUSPEND_TELLS_AGAIN
  :: true -> is_started = false; OnSuspend()
#else
  :: is_started -> is_started = false; OnSuspend()
  :: else -> skip
#endif
  fi
}

/* Completions that were held in their slots go out. */
inline Thaw() {
  frozen = false;
  if
  :: slot && slot_completed ->
     completed++;
     slot = false;
     slot_completed = false
  :: else -> skip
  fi
}

active proctype Peer() {
  bool may_close;
  if
  :: may_close = true
  :: may_close = false
  fi;
end:
  do
  :: atomic { link_ == kEnabled && !moving -> /* Attach, Opened, Resume */
       link_ = kOpen;
       suspended = true;
       OnOpened();
       Settle() }
  :: atomic { link_ == kOpen && sent < PACKETS -> sent++; bell = true }
  :: atomic { link_ == kOpen && may_close && !moving -> /* Close(kClosed) */
       may_close = false;
       Suspend();
       slot = false; /* Detach */
       slot_completed = false;
       link_ = kClosed;
       OnClosed() }
  od
}

active proctype Device() {
  bool may_pause = true;
end:
  do
  :: atomic { slot && !slot_completed && told_open -> /* Complete */
       if
#ifndef WEAKEN_COMPLETES_WHILE_FROZEN
       :: frozen -> slot_completed = true
#endif
       :: else -> slot = false; completed++
       fi }
  :: atomic { may_pause && is_active && !moving -> /* Pause */
       may_pause = false;
       is_active = false;
       if
       :: link_ == kOpen -> Suspend()
       :: else -> skip
       fi }
  :: atomic { !is_active && !moving -> is_active = true; Settle() } /* Start */
  od
}

/* Bus::Poll: the channels whose bell has rung, then RunPostStarted. */
active proctype Poll() {
end:
  do
  :: atomic { bell && link_ == kOpen && !suspended && !frozen && !slot ->
       bell = false;
       if
       :: consumed < sent ->
          assert(told_started && !is_held);
          consumed++;
          slot = true;
          bell = true /* over its quota: looked at again */
       :: else -> skip
       fi }
  :: atomic { is_post_started_due && !frozen ->
       is_post_started_due = false;
       OnPostStarted() }
  od
}

active proctype Move() {
  bool saved_active, saved_slot, saved_slot_completed;
  byte saved_consumed;
  do
  :: moves > 0 -> moves--
  :: break
  od;
end:
  do
  :: atomic { moves > 0 && !moving && link_ == kOpen -> /* Bus::Suspend */
       moves--;
       moving = true;
       is_held = true; /* Hold */
       Suspend() };
     if
     :: atomic { is_held -> is_active = !is_active; /* a Start or a Pause */
          if
          :: is_active -> Settle()
          :: else -> Suspend()
          fi }
     :: is_held
     fi;
     atomic { is_held -> frozen = true }; /* Bus::Freeze */
     if
     :: atomic { frozen -> /* Bus::Thaw */
          Thaw();
          is_held = false;
          moving = false;
          Settle() }
     :: atomic { frozen -> /* Save */
          saved_active = is_active;
          saved_slot_completed = slot_completed;
          saved_consumed = consumed;
#ifdef WEAKEN_SAVE_WITHOUT_SLOTS
          saved_slot = false
#else
          saved_slot = slot
#endif
        };
        /* Whatever the old owner does until it ends. */
        atomic { frozen -> /* it has ended; Restore */
          bell = false; /* it may have taken the signal */
          told_started = false;
          is_active = saved_active;
          is_started = false;
          is_post_started_due = false;
          suspended = true;
          slot = saved_slot;
          slot_completed = saved_slot && saved_slot_completed;
          consumed = saved_consumed };
        atomic { frozen -> /* Bus::Start: Thaw, a signal in each direction */
          Thaw();
          is_held = false;
          moving = false;
          Settle();
#ifdef WEAKEN_RESTORE_WITHOUT_SIGNAL
          bell = false
#else
          bell = true
#endif
        }
     fi
  od
}

/* When nothing can happen any more. */
active proctype Observer() {
end:
  timeout;
  assert(!moving && is_active);
  assert(link_ == kClosed || (sent == PACKETS && completed == PACKETS))
}

ltl never_twice { [] (completed <= consumed && consumed <= sent) }
