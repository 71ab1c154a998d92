// SPDX-License-Identifier: MIT
//
// The simulated accelerator: its shape, and what is known of it beside its
// guest's own computation (accelerator_user.h).
//
// Thread safety: none.

#ifndef FERRYBUS_TESTS_SIMULATION_FUNCTION_ORACLE_H_
#define FERRYBUS_TESTS_SIMULATION_FUNCTION_ORACLE_H_

#include <cstddef>
#include <cstdint>

namespace ferrybus::simulation {

inline constexpr uint32_t kFunctionVectors = 4;
// By segment: 1 and 2, whose pages differ.
inline constexpr size_t kFunctionSegments = 2;
inline constexpr uint64_t kFunctionBytes[kFunctionSegments] = {16384, 32768};
inline constexpr uint64_t kFunctionPageBytes[kFunctionSegments] = {4096, 16384};

// Of all owners that the device had since the machine booted.
struct FunctionOracle {
  uint64_t submitted = 0;   // commands that it took
  uint64_t interrupts = 0;  // that reached the guest
  // Of all boots.
  uint64_t next_sequence = 1;
  // Its channel may fault: the guest cleared its ring.
  bool may_fault = false;

  void DeviceIsNew() { submitted = interrupts = 0; }
};

}  // namespace ferrybus::simulation

#endif  // FERRYBUS_TESTS_SIMULATION_FUNCTION_ORACLE_H_
