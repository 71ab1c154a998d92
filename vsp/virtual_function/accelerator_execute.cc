// SPDX-License-Identifier: MIT

// What each command does, step by step.

#include <algorithm>
#include <cmath>
#include <cstring>

#include "ferrybus/vsp/virtual_function/accelerator.h"

namespace ferrybus::vsp {
namespace {

using accelerator::Command;
using accelerator::Element;
using accelerator::Op;
using accelerator::Place;
using accelerator::Status;

template <typename T>
T Load(const std::byte* from, uint64_t index) {
  T value;
  std::memcpy(&value, from + index * sizeof(T), sizeof(T));
  return value;
}

template <typename T>
void Store(std::byte* to, uint64_t index, T value) {
  std::memcpy(to + index * sizeof(T), &value, sizeof(T));
}

// One element: a row, and a column whose elements are `stride` apart.
uint32_t MultiplyInts(const std::byte* row, const std::byte* column,
                      uint32_t inner, uint32_t stride) {
  uint32_t sum = 0;
  for (uint64_t k = 0; k < inner; ++k) {
    sum += Load<uint32_t>(row, k) * Load<uint32_t>(column, k * stride);
  }
  return sum;
}

// A product of floats is exact in double: there is nothing that a compiler
// could contract to something else.
uint32_t MultiplyFloats(const std::byte* row, const std::byte* column,
                        uint32_t inner, uint32_t stride) {
  double sum = 0;
  for (uint64_t k = 0; k < inner; ++k) {
    sum += static_cast<double>(Load<float>(row, k)) *
           static_cast<double>(Load<float>(column, k * stride));
  }
  const auto rounded = static_cast<float>(sum);
  if (std::isnan(rounded)) return accelerator::kNotANumber;
  uint32_t bits;
  std::memcpy(&bits, &rounded, sizeof(bits));
  return bits;
}

}  // namespace

uint64_t AcceleratorWork(const Command& command) {
  switch (command.op) {
    case Op::kQuery:
    case Op::kSetRegister:
      return 1;
    case Op::kMultiply:
      return uint64_t{command.rows} * command.columns;
    default:
      return command.size_bytes;
  }
}

uint64_t AcceleratorStepWork(const Command& command) {
  if (command.op != Op::kMultiply) return kAcceleratorStepBytes;
  return std::max<uint64_t>(1, kAcceleratorStepProducts / command.inner);
}

void Accelerator::Written(const Place& place, uint64_t begin_bytes,
                          size_t bytes) {
  state_.registers[accelerator::kWritten] += bytes;
  if (dirty_ == nullptr) return;
  dirty_->MarkWritten(place.segment, place.offset_bytes + begin_bytes, bytes);
}

std::byte* Accelerator::At(const Place& place, size_t bytes) {
  Place at = place;
  at.offset_bytes += state_.progress;
  return FindMemory(segments(), at, bytes);
}

void Accelerator::FillStep(const Command& command, size_t bytes) {
  std::byte* const memory = At(command.target, bytes);
  const uint64_t value =
      command.value ^ state_.registers[accelerator::kFillMask];
  for (size_t i = 0; i < bytes / sizeof(value); ++i) Store(memory, i, value);
  Written(command.target, state_.progress, bytes);
}

void Accelerator::RandomFillStep(const Command& command, size_t bytes) {
  std::byte* const memory = At(command.target, bytes);
  uint64_t random = state_.registers[accelerator::kRandom];
  for (size_t i = 0; i < bytes / sizeof(random); ++i) {
    random = accelerator::NextRandom(random);
    Store(memory, i, random);
  }
  state_.registers[accelerator::kRandom] = random;
  Written(command.target, state_.progress, bytes);
}

void Accelerator::HashStep(const Command& command, size_t bytes) {
  const std::byte* const memory = At(command.source, bytes);
  uint64_t hash =
      state_.progress == 0 ? accelerator::kHashSeed : state_.partial_value;
  for (size_t i = 0; i < bytes / sizeof(hash); ++i) {
    hash = accelerator::HashStep(hash, Load<uint64_t>(memory, i));
  }
  state_.partial_value = hash;
}

void Accelerator::CopyStep(const Command& command, size_t bytes) {
  std::memcpy(At(command.target, bytes), At(command.source, bytes), bytes);
  Written(command.target, state_.progress, bytes);
}

bool Accelerator::TransferStep(const Command& command, size_t bytes) {
  const uint64_t ticket = state_.registers[accelerator::kCompleted];
  if (command.op == Op::kRead) {
    if ((command.flags & accelerator::kGuestBuffers) == 0) return true;
    return port_->WriteData(ticket, state_.progress,
                            {At(command.source, bytes), bytes});
  }
  if (!port_->ReadData(ticket, state_.progress,
                       {At(command.target, bytes), bytes})) {
    return false;
  }
  Written(command.target, state_.progress, bytes);
  return true;
}

void Accelerator::MultiplyStep(const Command& command, uint64_t elements) {
  const auto multiply =
      command.element == Element::kFloat32 ? MultiplyFloats : MultiplyInts;
  const auto at = [&](const Place& place, uint64_t index) {
    return FindMemory(segments(), place, 0) + index * sizeof(uint32_t);
  };
  for (uint64_t i = state_.progress; i < state_.progress + elements; ++i) {
    const uint64_t row = i / command.columns;
    const uint32_t element = multiply(at(command.source, row * command.inner),
                                      at(command.source_b, i % command.columns),
                                      command.inner, command.columns);
    Store(at(command.target, 0), i, element);
  }
  Written(command.target, state_.progress * sizeof(uint32_t),
          elements * sizeof(uint32_t));
}

// REQUIRES: the command passed CheckCommand().
Status Accelerator::ExecuteStep(const Command& command, uint64_t work) {
  switch (command.op) {
    case Op::kQuery:
      return Status::kOk;
    case Op::kSetRegister:
      state_.registers[command.columns] = command.value;
      return Status::kOk;
    case Op::kFill:
      FillStep(command, work);
      return Status::kOk;
    case Op::kRandomFill:
      RandomFillStep(command, work);
      return Status::kOk;
    case Op::kCopy:
      CopyStep(command, work);
      return Status::kOk;
    case Op::kHash:
      HashStep(command, work);
      return Status::kOk;
    case Op::kMultiply:
      MultiplyStep(command, work);
      return Status::kOk;
    case Op::kRead:
    case Op::kWrite:
      return TransferStep(command, work) ? Status::kOk : Status::kDataLost;
  }
  return Status::kUnknownOp;
}

}  // namespace ferrybus::vsp
