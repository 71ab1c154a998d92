// SPDX-License-Identifier: MIT
//
// An accelerator's memory, and whether a command fits it.
//
// Thread safety: pure functions.
// Trust: the command is the guest's; nothing of it is assumed.

#ifndef FERRYBUS_VSP_VIRTUAL_FUNCTION_ACCELERATOR_MEMORY_H_
#define FERRYBUS_VSP_VIRTUAL_FUNCTION_ACCELERATOR_MEMORY_H_

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "ferrybus/channel/protocols/accelerator.h"

namespace ferrybus::vsp {

inline constexpr size_t kAcceleratorSegmentsMax = 16;

struct AcceleratorSegment {
  uint32_t id = 0;                  // from 1
  uint64_t page_size_bytes = 4096;  // of dirty tracking
  absl::Span<std::byte> memory;     // borrowed
  // What all of it is mapped from, so that another process can; borrowed.
  int file = -1;
};

// Null: there is none.
const AcceleratorSegment* FindSegment(
    absl::Span<const AcceleratorSegment> segments, uint32_t id);

// `size_bytes` from there on; null: not all of it is inside.
std::byte* FindMemory(absl::Span<const AcceleratorSegment> segments,
                      const accelerator::Place& place, uint64_t size_bytes);

// The first reason not to execute `command`, which came with `data_bytes` (or
// room for as many), for a device with `vectors` interrupts.
accelerator::Status CheckCommand(const accelerator::Command& command,
                                 uint64_t data_bytes,
                                 absl::Span<const AcceleratorSegment> segments,
                                 uint32_t vectors);

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_VIRTUAL_FUNCTION_ACCELERATOR_MEMORY_H_
