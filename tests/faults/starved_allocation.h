// SPDX-License-Identifier: MIT
//
// Whoever links this can have allocations fail, as when a limit on memory is
// reached.

#ifndef FERRYBUS_TESTS_FAULTS_STARVED_ALLOCATION_H_
#define FERRYBUS_TESTS_FAULTS_STARVED_ALLOCATION_H_

namespace ferrybus::testing {

// Every allocation from now on.
void StarveAllocation();
// Those of this thread: calls `at_failure` instead, which does not return.
void StarveThread(void (*at_failure)());

}  // namespace ferrybus::testing

#endif  // FERRYBUS_TESTS_FAULTS_STARVED_ALLOCATION_H_
