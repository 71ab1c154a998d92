// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/virtual_function/accelerator_memory.h"

#include <algorithm>

namespace ferrybus::vsp {
namespace {

using accelerator::Command;
using accelerator::Op;
using accelerator::Place;
using accelerator::Status;

using Segments = absl::Span<const AcceleratorSegment>;

constexpr uint64_t kWordBytes = 8;
constexpr uint64_t kElementBytes = 4;

// REQUIRES: both are inside.
bool Overlaps(const Place& a, uint64_t a_bytes, const Place& b,
              uint64_t b_bytes) {
  return a.segment == b.segment && a.offset_bytes < b.offset_bytes + b_bytes &&
         b.offset_bytes < a.offset_bytes + a_bytes;
}

Status CheckWords(Segments segments, const Place& place, uint64_t size_bytes) {
  if (size_bytes == 0) return Status::kBadSize;
  if (place.offset_bytes % kWordBytes != 0 || size_bytes % kWordBytes != 0) {
    return Status::kMisaligned;
  }
  return FindMemory(segments, place, size_bytes) == nullptr ? Status::kOutside
                                                            : Status::kOk;
}

Status CheckCopy(Segments segments, const Command& command) {
  const uint64_t size = command.size_bytes;
  if (size == 0) return Status::kBadSize;
  if (FindMemory(segments, command.target, size) == nullptr ||
      FindMemory(segments, command.source, size) == nullptr) {
    return Status::kOutside;
  }
  return Overlaps(command.target, size, command.source, size) ? Status::kOverlap
                                                              : Status::kOk;
}

Status CheckMultiply(Segments segments, const Command& command) {
  const auto is_side = [](uint32_t side) {
    return side >= 1 && side <= accelerator::kMatrixSideMax;
  };
  if (command.size_bytes != 0 || !is_side(command.rows) ||
      !is_side(command.inner) || !is_side(command.columns)) {
    return Status::kBadSize;
  }
  if (command.element != accelerator::Element::kInt32 &&
      command.element != accelerator::Element::kFloat32) {
    return Status::kMalformed;
  }
  for (const Place& place :
       {command.target, command.source, command.source_b}) {
    if (place.offset_bytes % kElementBytes != 0) return Status::kMisaligned;
  }
  // Sides are below 2^13: no product overflows.
  const uint64_t target = kElementBytes * command.rows * command.columns;
  const uint64_t source = kElementBytes * command.rows * command.inner;
  const uint64_t source_b = kElementBytes * command.inner * command.columns;
  if (FindMemory(segments, command.target, target) == nullptr ||
      FindMemory(segments, command.source, source) == nullptr ||
      FindMemory(segments, command.source_b, source_b) == nullptr) {
    return Status::kOutside;
  }
  if (Overlaps(command.target, target, command.source, source) ||
      Overlaps(command.target, target, command.source_b, source_b)) {
    return Status::kOverlap;
  }
  return Status::kOk;
}

Status CheckTransfer(Segments segments, const Command& command,
                     uint64_t data_bytes) {
  const bool is_read = command.op == Op::kRead;
  const bool is_inline = (command.flags & accelerator::kGuestBuffers) == 0;
  const uint64_t size = command.size_bytes;
  if (size == 0 || size > (is_inline ? accelerator::kInlineBytesMax
                                     : accelerator::kTransferBytesMax)) {
    return Status::kBadSize;
  }
  if (FindMemory(segments, is_read ? command.source : command.target, size) ==
      nullptr) {
    return Status::kOutside;
  }
  const bool needs_data = !is_read || !is_inline;
  return needs_data && data_bytes < size ? Status::kNoData : Status::kOk;
}

bool HasReservedBits(const Command& command) {
  if (command.reserved != 0 || command.target.reserved != 0 ||
      command.source.reserved != 0 || command.source_b.reserved != 0 ||
      (command.flags & ~accelerator::kFlagsMask) != 0) {
    return true;
  }
  return (command.flags & accelerator::kGuestBuffers) != 0 &&
         command.op != Op::kRead && command.op != Op::kWrite;
}

}  // namespace

const AcceleratorSegment* FindSegment(Segments segments, uint32_t id) {
  const auto* found = std::find_if(
      segments.begin(), segments.end(),
      [&](const AcceleratorSegment& segment) { return segment.id == id; });
  return found == segments.end() ? nullptr : found;
}

std::byte* FindMemory(Segments segments, const Place& place,
                      uint64_t size_bytes) {
  const AcceleratorSegment* segment = FindSegment(segments, place.segment);
  if (segment == nullptr || place.offset_bytes > segment->memory.size() ||
      size_bytes > segment->memory.size() - place.offset_bytes) {
    return nullptr;
  }
  return segment->memory.data() + place.offset_bytes;
}

Status CheckCommand(const Command& command, uint64_t data_bytes,
                    Segments segments, uint32_t vectors) {
  if (HasReservedBits(command)) return Status::kMalformed;
  if ((command.flags & accelerator::kInterrupt) != 0 &&
      command.vector >= vectors) {
    return Status::kBadVector;
  }
  switch (command.op) {
    case Op::kQuery:
      return Status::kOk;
    case Op::kSetRegister:
      return command.columns >= accelerator::kFirstWritable &&
                     command.columns < accelerator::kRegisters
                 ? Status::kOk
                 : Status::kBadRegister;
    case Op::kFill:
    case Op::kRandomFill:
      return CheckWords(segments, command.target, command.size_bytes);
    case Op::kHash:
      return CheckWords(segments, command.source, command.size_bytes);
    case Op::kCopy:
      return CheckCopy(segments, command);
    case Op::kMultiply:
      return CheckMultiply(segments, command);
    case Op::kRead:
    case Op::kWrite:
      return CheckTransfer(segments, command, data_bytes);
  }
  return Status::kUnknownOp;
}

}  // namespace ferrybus::vsp
