// SPDX-License-Identifier: MIT
//
// Several threads that share the producer of a ring: the real SharedProducer.
//
// What it is: what a thread does under SharedProducer's lock is one piece to
// the others, so the threads are one actor that chooses who goes on: to claim,
// to fill and commit, or to sleep.  The consumer runs in between of all their
// loads and stores.  The lock itself (brief_lock.h) is not explored.

#ifndef FERRYBUS_TESTS_INTERLEAVING_SHARED_PROGRAM_H_
#define FERRYBUS_TESTS_INTERLEAVING_SHARED_PROGRAM_H_

#include "ferrybus/tests/interleaving/actor.h"
#include "ferrybus/tests/interleaving/explored_access.h"
#include "ferrybus/tests/interleaving/ring_scene.h"

namespace ferrybus::interleaving {

void ProduceShared(const RingScene& scene, const Variant& variant, Actor& actor,
                   ExploredAccess access);

}  // namespace ferrybus::interleaving

#endif  // FERRYBUS_TESTS_INTERLEAVING_SHARED_PROGRAM_H_
