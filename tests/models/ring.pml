/* SPDX-License-Identifier: MIT
 *
 * Publish and consume with signals, one ring, one producer, one consumer.
 *
 * What is modelled: the control words, through store buffers that drain in
 * order at any time (x86), with the fences of the code; the bell of either
 * side.  Packets are counted, and room is in packets; indices do not wrap
 * round.  Bytes and the weaker orderings are in tests/interleaving.
 *
 * Names are those of ringbuffer/ring_producer.h, ring_consumer.h, waiting.h.
 *
 * Checked: no invalid end state (somebody sleeps for ever), in order and once
 * (the packet taken is the next one), never more in the ring than fits.  LTL:
 * all packets are taken.
 */

#define PACKETS 4
#define ROOM 2

/* What a store buffer holds: a word and its value. */
#define WRITE 0
#define READ 1
#define MASK 2
#define PENDING 3

byte memory[4];
chan producer_buffer = [4] of { byte, byte };
chan consumer_buffer = [4] of { byte, byte };
bool producer_bell, consumer_bell;
byte taken = 0;

/* Full fence: waits until the own stores are in memory. */
#define FENCE(buffer) empty(buffer)

#ifdef WEAKEN_PUBLISH_FENCE
#define PUBLISH_FENCE true
#else
#define PUBLISH_FENCE FENCE(producer_buffer)
#endif
#ifdef WEAKEN_UNMASK_FENCE
#define UNMASK_FENCE true
#else
#define UNMASK_FENCE FENCE(consumer_buffer)
#endif
#ifdef WEAKEN_RELEASE_FENCE
#define RELEASE_FENCE true
#else
#define RELEASE_FENCE FENCE(consumer_buffer)
#endif
#ifdef WEAKEN_ARM_FENCE
#define ARM_FENCE true
#else
#define ARM_FENCE FENCE(producer_buffer)
#endif

/* A store leaves a buffer. */
active proctype Drain() {
  byte word, value;
end:
  do
  :: atomic { producer_buffer?word, value -> memory[word] = value }
  :: atomic { consumer_buffer?word, value -> memory[word] = value }
  od
}

active proctype Producer() {
  byte written = 0, published = 0, read = 0, before, mask;
  bool armed = false;
  /* Write: room by the index seen last, else RefreshReadIndex. */
again:
  if
  :: written < PACKETS ->
     if
     :: written - read < ROOM -> skip
     :: else -> read = memory[READ]
     fi;
     if
     :: written - read < ROOM ->
        written++;
        /* Publish now, or together with the next one. */
        if
        :: goto publish
        :: written < PACKETS -> goto again
        fi
     :: written - read >= ROOM && written != published -> goto publish
     :: written - read >= ROOM && written == published -> goto wait_for_room
     fi
  :: written == PACKETS && written != published -> goto publish
  :: written == PACKETS && written == published -> goto done
  fi;

publish: /* PublishTo */
  before = published;
  if
  :: armed -> producer_buffer!PENDING, 0; armed = false
  :: else -> skip
  fi;
  published = written;
  producer_buffer!WRITE, published;
  PUBLISH_FENCE;
  mask = memory[MASK];
  if
  :: mask == 0 ->
     read = memory[READ];
     if
     :: read == before -> consumer_bell = true /* doorbell.Signal() */
     :: else -> skip
     fi
  :: else -> skip
  fi;
  goto again;

wait_for_room: /* ArmPendingSend, then sleep */
  producer_buffer!PENDING, 1;
  armed = true;
  ARM_FENCE;
#ifdef WEAKEN_ARM_LOOK
  skip;
#else
  read = memory[READ];
#endif
  if
  :: written - read < ROOM -> skip
  :: else -> producer_bell -> producer_bell = false; read = memory[READ]
  fi;
  goto again;

done:
  skip
}

active proctype Consumer() {
  byte read = 0, published = 0, write = 0, before, pending;
  do
  :: /* Next, until empty */
     write = memory[WRITE];
     assert(write - published <= ROOM);
     do
     :: read < write ->
        assert(read == taken);
        taken++;
        read++;
        if
        :: goto release
        :: true
        fi
     :: read == write -> break
     od;
     if
     :: read != published -> goto release
     :: else -> skip
     fi;
     if
     :: taken == PACKETS -> break
     :: else -> skip
     fi;
     /* UnmaskSignals */
     consumer_buffer!MASK, 0;
     UNMASK_FENCE;
#ifdef WEAKEN_UNMASK_LOOK
     skip;
#else
     write = memory[WRITE];
#endif
     if
     :: read != write -> skip
     :: else -> consumer_bell -> consumer_bell = false
     fi;
     consumer_buffer!MASK, 1; /* MaskSignals */
     goto next;

release: /* Release */
     before = published;
     published = read;
     consumer_buffer!READ, published;
     RELEASE_FENCE;
     pending = memory[PENDING];
     if
     :: pending != 0 ->
#ifndef WEAKEN_RELEASE_STALE_WRITE
        write = memory[WRITE];
#endif
        /* Only the crossing counts.  Free: ROOM - (write - read). */
        if
        :: ROOM - (write - before) < pending &&
           ROOM - (write - published) >= pending -> producer_bell = true
        :: else -> skip
        fi
     :: else -> skip
     fi;
next:
     skip
  od
}

ltl all_are_taken { <> (taken == PACKETS) }
