// SPDX-License-Identifier: MIT
//
// What moves of an accelerator, as values: its registers and queue; and what
// the other host must be like.  The memory moves by itself.
//
// Plain values.  Trust: one that came out of the parser
// (accelerator_state_persist.h) can still be one that no device had;
// Accelerator::CheckState() says.

#ifndef FERRYBUS_VSP_VIRTUAL_FUNCTION_ACCELERATOR_STATE_H_
#define FERRYBUS_VSP_VIRTUAL_FUNCTION_ACCELERATOR_STATE_H_

#include <array>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "ferrybus/channel/protocols/accelerator.h"
#include "ferrybus/vsp/virtual_function/msix_state.h"

namespace ferrybus::vsp {

struct AcceleratorQueueEntry {
  accelerator::Command command = {};
  uint64_t data_bytes = 0;  // that came with it

  friend bool operator==(const AcceleratorQueueEntry&,
                         const AcceleratorQueueEntry&) = default;
};

using AcceleratorRegisters = std::array<uint64_t, accelerator::kRegisters>;

constexpr AcceleratorRegisters InitialRegisters() {
  AcceleratorRegisters registers = {};
  registers[accelerator::kRandom] = accelerator::kRandomSeed;
  return registers;
}

struct AcceleratorState {
  AcceleratorRegisters registers = InitialRegisters();
  // A command's ticket is kCompleted and its place here.
  std::deque<AcceleratorQueueEntry> queue;
  // Of the first: bytes, or matrix elements, that are done; kHash's value.
  uint64_t progress = 0;
  uint64_t partial_value = 0;
  bool is_powered = true;

  friend bool operator==(const AcceleratorState&,
                         const AcceleratorState&) = default;
};

// All mutable data of a virtual function.
struct VirtualFunctionState {
  AcceleratorState accelerator;
  // None: it has no interrupts.
  std::optional<MsixTableState> interrupts;
  // The configuration space, as ConfigSpace saves it; may be empty.
  std::string config;

  friend bool operator==(const VirtualFunctionState&,
                         const VirtualFunctionState&) = default;
};

struct AcceleratorSegmentShape {
  uint32_t id = 0;
  uint64_t size_bytes = 0;
  uint64_t page_size_bytes = 0;

  friend bool operator==(const AcceleratorSegmentShape&,
                         const AcceleratorSegmentShape&) = default;
};

// What cannot change while the device lives.
struct AcceleratorIdentity {
  std::string hardware_model = "ferrybus accelerator";
  std::string firmware = "1.0";
  uint32_t driver_major = 1;
  uint32_t driver_minor = 0;
  std::string architecture = "64-bit little-endian";
  // Filled in by AcceleratorMigratable.
  uint32_t vectors = 0;
  std::vector<AcceleratorSegmentShape> segments;

  friend bool operator==(const AcceleratorIdentity&,
                         const AcceleratorIdentity&) = default;
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_VIRTUAL_FUNCTION_ACCELERATOR_STATE_H_
