// SPDX-License-Identifier: MIT

#include "ferrybus/vsc/accelerator/accelerator_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace ferrybus::vsc {
namespace {

using accelerator::Command;
using accelerator::Element;
using accelerator::Op;
using accelerator::Place;
using accelerator::Status;

template <typename T>
std::vector<T> LoadAll(const std::byte* from, uint64_t count) {
  std::vector<T> values(count);
  std::memcpy(values.data(), from, count * sizeof(T));
  return values;
}

template <typename T>
void StoreAll(const std::vector<T>& values, std::byte* to) {
  std::memcpy(to, values.data(), values.size() * sizeof(T));
}

bool IsTransfer(Op op) { return op == Op::kRead || op == Op::kWrite; }

}  // namespace

AcceleratorModel::AcceleratorModel(
    const std::vector<AcceleratorSegmentSize>& segments, uint32_t vectors)
    : vectors_(vectors) {
  for (const AcceleratorSegmentSize& segment : segments) {
    memory_[segment.id].resize(segment.size_bytes);
  }
  ResetRegisters();
}

void AcceleratorModel::ResetRegisters() {
  const uint64_t completed = registers_[accelerator::kCompleted];
  registers_ = {};
  registers_[accelerator::kCompleted] = completed;
  registers_[accelerator::kRandom] = accelerator::kRandomSeed;
}

void AcceleratorModel::Fill(const Command& command) {
  std::vector<uint64_t> words(command.size_bytes / 8);
  uint64_t& random = registers_[accelerator::kRandom];
  for (uint64_t& word : words) {
    if (command.op == Op::kRandomFill) {
      random = accelerator::NextRandom(random);
      word = random;
    } else {
      word = command.value ^ registers_[accelerator::kFillMask];
    }
  }
  StoreAll(words, At(command.target));
}

uint64_t AcceleratorModel::Hash(const Command& command) {
  uint64_t hash = accelerator::kHashSeed;
  for (uint64_t word :
       LoadAll<uint64_t>(At(command.source), command.size_bytes / 8)) {
    hash = accelerator::HashStep(hash, word);
  }
  return hash;
}

void AcceleratorModel::Multiply(const Command& command) {
  const uint64_t rows = command.rows;
  const uint64_t inner = command.inner;
  const uint64_t columns = command.columns;
  const auto a = LoadAll<uint32_t>(At(command.source), rows * inner);
  const auto b = LoadAll<uint32_t>(At(command.source_b), inner * columns);
  std::vector<uint32_t> product(rows * columns);
  for (uint64_t r = 0; r < rows; ++r) {
    for (uint64_t c = 0; c < columns; ++c) {
      uint32_t ints = 0;
      double floats = 0;
      for (uint64_t k = 0; k < inner; ++k) {
        const uint32_t x = a[r * inner + k];
        const uint32_t y = b[k * columns + c];
        float xf;
        float yf;
        std::memcpy(&xf, &x, 4);
        std::memcpy(&yf, &y, 4);
        ints += x * y;
        floats += static_cast<double>(xf) * static_cast<double>(yf);
      }
      const auto rounded = static_cast<float>(floats);
      uint32_t bits;
      std::memcpy(&bits, &rounded, 4);
      if (std::isnan(rounded)) bits = accelerator::kNotANumber;
      product[r * columns + c] =
          command.element == Element::kFloat32 ? bits : ints;
    }
  }
  StoreAll(product, At(command.target));
}

uint64_t AcceleratorModel::Do(const RandomCommand& asked,
                              std::vector<std::byte>* data) {
  const Command& command = asked.command;
  uint64_t written = command.size_bytes;
  switch (command.op) {
    case Op::kQuery:
      data->resize(sizeof(registers_));
      std::memcpy(data->data(), registers_.data(), sizeof(registers_));
      written = 0;
      break;
    case Op::kSetRegister:
      registers_[command.columns] = command.value;
      written = 0;
      break;
    case Op::kFill:
    case Op::kRandomFill:
      Fill(command);
      break;
    case Op::kCopy:
      std::memcpy(At(command.target), At(command.source), command.size_bytes);
      break;
    case Op::kHash:
      return Hash(command);
    case Op::kMultiply:
      Multiply(command);
      written = uint64_t{4} * command.rows * command.columns;
      break;
    case Op::kRead:
      data->assign(At(command.source), At(command.source) + command.size_bytes);
      written = 0;
      break;
    case Op::kWrite:
      std::memcpy(At(command.target), asked.data.data(), command.size_bytes);
      break;
  }
  registers_[accelerator::kWritten] += written;
  return 0;
}

ExpectedReply AcceleratorModel::Execute(const RandomCommand& asked) {
  ExpectedReply expected;
  accelerator::Reply& reply = expected.reply;
  reply.status = asked.status;
  reply.sequence = asked.command.sequence;
  if (asked.status == Status::kOk) {
    reply.value = Do(asked, &expected.data);
  } else {
    ++registers_[accelerator::kFailed];
  }
  if (!asked.has_guest_buffers()) {
    reply.data_bytes = static_cast<uint32_t>(expected.data.size());
  }
  expected.raises = (asked.command.flags & accelerator::kInterrupt) != 0 &&
                    asked.command.vector < vectors_;
  if (expected.raises) ++registers_[accelerator::kInterrupts];
  reply.completed = ++registers_[accelerator::kCompleted];
  uint64_t& accumulator = registers_[accelerator::kAccumulator];
  accumulator = accelerator::Accumulate(accumulator, reply.status,
                                        reply.sequence, reply.value);
  reply.accumulator = accumulator;
  uint64_t& random = registers_[accelerator::kRandom];
  random = accelerator::NextRandom(random);
  reply.random = random;
  return expected;
}

// -- Random commands ----------------------------------------------------------

Place RandomCommands::AnyPlace(uint64_t bytes, uint64_t alignment) {
  const AcceleratorSegmentSize& segment =
      options_.segments[Below(options_.segments.size())];
  const uint64_t places = (segment.size_bytes - bytes) / alignment + 1;
  return {segment.id, 0, Below(places) * alignment};
}

Place RandomCommands::PlaceApartFrom(const Place& other, uint64_t other_bytes,
                                     uint64_t bytes, uint64_t alignment) {
  for (;;) {
    const Place place = AnyPlace(bytes, alignment);
    if (place.segment != other.segment ||
        place.offset_bytes + bytes <= other.offset_bytes ||
        other.offset_bytes + other_bytes <= place.offset_bytes) {
      return place;
    }
  }
}

void RandomCommands::MakeWords(Command* command) {
  const uint64_t size = 8 * (1 + Below(options_.size_bytes_max / 8));
  command->size_bytes = size;
  command->value = random_();
  command->source = AnyPlace(size, 8);
  if (command->op == Op::kHash) return;
  command->target = PlaceApartFrom(command->source, size, size, 8);
  if (command->op != Op::kCopy) command->source = {};
}

void RandomCommands::MakeMultiply(Command* command) {
  command->element = Below(2) == 0 ? Element::kInt32 : Element::kFloat32;
  const auto side = [&] {
    return static_cast<uint32_t>(1 + Below(options_.matrix_side_max));
  };
  command->rows = side();
  command->inner = side();
  command->columns = side();
  const uint64_t target = uint64_t{4} * command->rows * command->columns;
  command->target = AnyPlace(target, 4);
  command->source = PlaceApartFrom(
      command->target, target, uint64_t{4} * command->rows * command->inner, 4);
  command->source_b =
      PlaceApartFrom(command->target, target,
                     uint64_t{4} * command->inner * command->columns, 4);
}

void RandomCommands::MakeTransfer(RandomCommand* next) {
  Command& command = next->command;
  const bool is_inline = options_.guest_bytes_max == 0 || Below(2) == 0;
  if (!is_inline) command.flags |= accelerator::kGuestBuffers;
  command.size_bytes = 1 + Below(is_inline ? accelerator::kInlineBytesMax
                                           : options_.guest_bytes_max);
  Place& place = command.op == Op::kRead ? command.source : command.target;
  place = AnyPlace(command.size_bytes, 1);
  if (command.op == Op::kRead) return;
  next->data.resize(command.size_bytes);
  for (std::byte& byte : next->data) byte = static_cast<std::byte>(random_());
}

// Makes it wrong; it keeps what comes with it.
void RandomCommands::Spoil(RandomCommand* next) {
  Command& command = next->command;
  switch (Below(5)) {
    case 0:
      command.op = static_cast<Op>(100 + Below(100));
      command.flags = 0;
      next->data.clear();
      next->status = Status::kUnknownOp;
      return;
    case 1:
      command.reserved = 7;
      next->status = Status::kMalformed;
      return;
    case 2:
      command.flags |= accelerator::kInterrupt;
      command.vector = static_cast<uint16_t>(options_.vectors + Below(60000));
      next->status = Status::kBadVector;
      return;
    case 3:
      command = {};
      command.op = Op::kSetRegister;
      command.columns = static_cast<uint32_t>(Below(8));
      next->status = Status::kBadRegister;
      break;
    default:
      command = {};
      command.op = Op::kHash;
      command.source = {options_.segments[0].id, 0,
                        options_.segments[0].size_bytes - 8 * Below(2)};
      command.size_bytes = Below(2) == 0 ? 16 : ~uint64_t{7};
      next->status = Status::kOutside;
      break;
  }
  next->data.clear();
  command.sequence = next_sequence_ - 1;
}

RandomCommand RandomCommands::Next() {
  RandomCommand next;
  Command& command = next.command;
  command.sequence = next_sequence_++;
  command.op = static_cast<Op>(1 + Below(9));
  if (Below(2) == 0) {
    command.flags = accelerator::kInterrupt;
    command.vector = static_cast<uint16_t>(Below(options_.vectors));
  }
  if (command.op == Op::kSetRegister) {
    command.value = random_();
    command.columns = static_cast<uint32_t>(
        accelerator::kFirstWritable +
        Below(accelerator::kRegisters - accelerator::kFirstWritable));
  } else if (command.op == Op::kMultiply) {
    MakeMultiply(&command);
  } else if (IsTransfer(command.op)) {
    MakeTransfer(&next);
  } else if (command.op != Op::kQuery) {
    MakeWords(&command);
  }
  if (options_.wrong_every != 0 && Below(options_.wrong_every) == 0) {
    Spoil(&next);
  }
  return next;
}

}  // namespace ferrybus::vsc
