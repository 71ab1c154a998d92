/* SPDX-License-Identifier: MIT
 *
 * The hand-over of a machine between two hosts: the ledgers, the decision, and
 * what each side does when the other one, the link or a disk fails, or when it
 * is killed itself, at any step.
 *
 * Names are those of savestate/migration/migration_source.h,
 * migration_target.h and ownership.h; the rules are docs/decisions/0007.
 *
 * What is modelled: one migration from the pause on.  A Store() that fails
 * leaves the old record or the new one.  A kill takes everything but the
 * ledger; the daemon starts again and goes on from there.  A message can be
 * lost with the link.  A source that has ended answers from its ledger.
 *
 * Checked: the machine never runs on both hosts; when nothing happens any more
 * it runs on one, and nobody waits for what cannot come.
 */

#define KILLS 2
#define STORE_FAILURES 2

/* Ownership, SourcePhase, TargetPhase, messages. */
mtype = { OWNER, HANDED_OVER, NONE, PREPARED };
mtype = { kPausing, kPreparing, kUnsettled, kFinished };
mtype = { kNew, kPrepared, kUndecided, kStarting, kRunning, kFailed };
mtype = { Prepare, Prepared, Commit, Abort };

mtype source_ledger = OWNER;
mtype target_ledger = NONE;
bool source_runs = true;
bool target_runs = false;
mtype source_phase = kPausing;
mtype target_phase = kNew;
bool link_up = true;
byte kills = KILLS;
byte store_failures = STORE_FAILURES;

chan to_target = [2] of { mtype };
chan to_source = [2] of { mtype };

/* Durable, or a failure after which either record may be there. */
inline Store(ledger, record, stored) {
  if
  :: ledger = record; stored = true
  :: store_failures > 0 -> store_failures--; stored = false; ledger = record
  :: store_failures > 0 -> store_failures--; stored = false
  fi
}

inline Send(channel, message) {
  if
  :: link_up -> channel!message
  :: else -> skip
  fi
}

/* MigrationSource::Fail, before the decision. */
inline Fail() {
  source_runs = true;
  Send(to_target, Abort);
  source_phase = kFinished
}

/* How much goes wrong: a fault that could still come must not be what saves a
   side that is stuck. */
init {
  atomic {
    do
    :: kills > 0 -> kills--
    :: break
    od;
    do
    :: store_failures > 0 -> store_failures--
    :: break
    od;
    run Source();
    run Ask();
    run Target();
    run Observer();
    if
    :: run Link()
    :: true
    fi
  }
}

/* Ends, with what is on its way. */
proctype Link() {
  mtype lost;
  atomic {
    link_up = false;
    do
    :: to_target?lost
    :: to_source?lost
    :: empty(to_target) && empty(to_source) -> break
    od
  }
}

proctype Source() {
  bool stored;
end:
  do
  :: atomic { source_phase == kPausing -> /* BeginPause, SendMutable */
       source_runs = false;
       source_phase = kPreparing;
       Send(to_target, Prepare) }
#ifdef WEAKEN_COMMIT_BEFORE_STORE
  :: atomic { source_phase == kPreparing && to_source?[Prepared] ->
       Send(to_target, Commit) }
#endif
  :: atomic { source_phase == kPreparing && to_source?[Prepared] -> /* Commit */
       to_source?Prepared;
       Store(source_ledger, HANDED_OVER, stored);
       if
       :: stored -> source_phase = kFinished; Send(to_target, Commit)
       :: else ->
#ifdef WEAKEN_UNSETTLED_RESUMES
          Fail()
#else
          source_phase = kUnsettled
#endif
       fi }
  :: atomic { source_phase == kUnsettled -> /* PollUnsettled */
       Store(source_ledger, OWNER, stored);
       if
       :: stored -> Fail()
       :: else -> skip
       fi }
  :: atomic { source_phase == kPreparing -> /* cancel, silence, no link */
       Fail() }
  :: atomic { source_phase != kPreparing && nempty(to_source) ->
       to_source?_ }
  :: atomic { source_phase == kPreparing && to_source?[Abort] ->
       to_source?Abort;
       Fail() }
  :: atomic { kills > 0 && source_phase != kFinished -> /* killed, restarted */
       kills--;
       link_up = false;
       source_phase = kFinished;
#ifdef WEAKEN_RESTART_IGNORES_LEDGER
       source_runs = true
#else
       source_runs = (source_ledger == OWNER)
#endif
     }
  od
}

/* "What became of this migration?", at the source's host: Decide(), with
   running_id() asked before the record is read. */
proctype Ask() {
  bool running;
  bool stored;
  mtype record;
end:
  do
  :: atomic { target_phase == kUndecided ->
#ifdef WEAKEN_RECORD_BEFORE_RUNNING
       record = source_ledger
#else
       running = (source_phase != kFinished)
#endif
     };
     atomic {
#ifdef WEAKEN_RECORD_BEFORE_RUNNING
       running = (source_phase != kFinished);
#else
       record = source_ledger;
#endif
#ifdef WEAKEN_DECIDE_IGNORES_RUNNING
       running = false;
#endif
       if
       :: running || target_phase != kUndecided -> skip /* asks again */
       :: !running && target_phase == kUndecided && record == HANDED_OVER ->
          target_phase = kStarting /* OnDecision(kCommitted) */
       :: !running && target_phase == kUndecided && record != HANDED_OVER ->
          Store(target_ledger, NONE, stored); /* DiscardPrepared */
          if
          :: stored -> target_phase = kFailed
          :: else -> skip
          fi
       fi }
  od
}

proctype Target() {
  bool stored;
end:
  do
  :: atomic { target_phase == kNew && to_target?[Prepare] ->
       to_target?Prepare;
       Store(target_ledger, PREPARED, stored); /* StorePrepared */
       if
       :: stored -> target_phase = kPrepared; Send(to_source, Prepared)
       :: else -> target_phase = kFailed; Send(to_source, Abort)
       fi }
  :: atomic { target_phase == kPrepared && to_target?[Commit] ->
       to_target?Commit;
       target_phase = kStarting } /* OnDecision(kCommitted) */
  :: atomic { target_phase == kPrepared && to_target?[Abort] ->
       to_target?Abort;
       target_phase = kUndecided }
  :: atomic { target_phase == kPrepared -> /* silence, no link */
#ifdef WEAKEN_SILENCE_ABORTS
       target_ledger = NONE;
       target_phase = kFailed
#else
#ifdef WEAKEN_SILENCE_RUNS
       target_phase = kStarting
#else
       target_phase = kUndecided
#endif
#endif
     }
  :: atomic { target_phase == kStarting -> /* PollStarting */
       Store(target_ledger, OWNER, stored);
       if
       :: stored -> target_runs = true; target_phase = kRunning
       :: else -> skip
       fi }
  :: atomic { target_phase != kPrepared && target_phase != kNew &&
              nempty(to_target) -> to_target?_ }
  :: atomic { target_phase == kNew && to_target?[Abort] -> to_target?Abort }
  :: atomic { kills > 0 && target_phase != kNew -> /* killed; Recover() */
       kills--;
       link_up = false;
#ifdef WEAKEN_RECOVER_DISCARDS
       target_runs = (target_ledger == OWNER);
       target_phase = kFailed
#else
       target_runs = (target_ledger == OWNER);
       if
       :: target_ledger == PREPARED -> target_phase = kUndecided
       :: target_ledger == OWNER -> target_phase = kRunning
       :: else -> target_phase = kFailed
       fi
#endif
     }
  od
}

/* When nothing can happen any more. */
proctype Observer() {
end:
  timeout;
  assert(source_phase == kFinished);
  assert(target_phase != kUndecided && target_phase != kStarting);
  assert(source_runs + target_runs == 1)
}

ltl never_both { [] !(source_runs && target_runs) }
