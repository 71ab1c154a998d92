// SPDX-License-Identifier: MIT
//
// What an accelerator must answer: a client's own computation of every command,
// on its own copy of the memory; and random commands to ask for.
//
// Written apart from the device: one whole command at a time, without steps.
//
// Thread safety: one thread.
// Cost: the memory of the device a second time; each command once.
//
//   AcceleratorModel model({{1, 1 << 20}, {2, 1 << 18}}, /*vectors=*/4);
//   RandomCommands commands(seed, {.segments = {{1, 1 << 20}}});
//   RandomCommand next = commands.Next();
//   ExpectedReply expected = model.Execute(next);

#ifndef FERRYBUS_VSC_ACCELERATOR_ACCELERATOR_MODEL_H_
#define FERRYBUS_VSC_ACCELERATOR_ACCELERATOR_MODEL_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <random>
#include <vector>

#include "ferrybus/channel/protocols/accelerator.h"

namespace ferrybus::vsc {

struct AcceleratorSegmentSize {
  uint32_t id = 0;
  uint64_t size_bytes = 0;
};

// A command, what comes with it, and what becomes of it.
struct RandomCommand {
  accelerator::Command command = {};
  std::vector<std::byte> data = {};  // of a write
  accelerator::Status status = accelerator::Status::kOk;

  bool has_guest_buffers() const {
    return (command.flags & accelerator::kGuestBuffers) != 0;
  }
};

struct ExpectedReply {
  accelerator::Reply reply = {};
  // Behind the reply, or in the guest's buffers.
  std::vector<std::byte> data;
  bool raises = false;  // the command's vector
};

class AcceleratorModel {
 public:
  AcceleratorModel(const std::vector<AcceleratorSegmentSize>& segments,
                   uint32_t vectors);

  // REQUIRES: the command fits, if it ends with kOk.
  ExpectedReply Execute(const RandomCommand& asked);
  // As the device's reset.
  void ResetRegisters();
  // A device that was used already, as its answer to kQuery shows it.
  void AdoptRegisters(
      const std::array<uint64_t, accelerator::kRegisters>& registers) {
    registers_ = registers;
  }

  const std::vector<std::byte>& memory(uint32_t segment) const {
    return memory_.at(segment);
  }
  const std::array<uint64_t, accelerator::kRegisters>& registers() const {
    return registers_;
  }

 private:
  std::byte* At(const accelerator::Place& place) {
    return memory_.at(place.segment).data() + place.offset_bytes;
  }
  void Fill(const accelerator::Command& command);
  void Multiply(const accelerator::Command& command);
  uint64_t Hash(const accelerator::Command& command);
  // What only commands that end with kOk do; returns the reply's value.
  uint64_t Do(const RandomCommand& asked, std::vector<std::byte>* data);

  const uint32_t vectors_;
  std::map<uint32_t, std::vector<std::byte>> memory_;
  std::array<uint64_t, accelerator::kRegisters> registers_ = {};
};

struct RandomCommandsOptions {
  std::vector<AcceleratorSegmentSize> segments = {};  // at least 64 KiB each
  uint32_t vectors = 1;
  // Of fills, copies and hashes.
  uint64_t size_bytes_max = 16384;
  uint32_t matrix_side_max = 24;
  // Of reads and writes in guest buffers; 0: only inline ones.
  uint32_t guest_bytes_max = 8192;
  // One of so many is wrong; 0: none.
  uint32_t wrong_every = 16;
};

class RandomCommands {
 public:
  RandomCommands(uint64_t seed, const RandomCommandsOptions& options)
      : options_(options), random_(seed) {}

  RandomCommand Next();

 private:
  uint64_t Below(uint64_t limit) { return random_() % limit; }
  // Somewhere with room for `bytes`.
  accelerator::Place AnyPlace(uint64_t bytes, uint64_t alignment);
  // The same, apart from the others.
  accelerator::Place PlaceApartFrom(const accelerator::Place& other,
                                    uint64_t other_bytes, uint64_t bytes,
                                    uint64_t alignment);
  void MakeWords(accelerator::Command* command);
  void MakeMultiply(accelerator::Command* command);
  void MakeTransfer(RandomCommand* next);
  void Spoil(RandomCommand* next);

  const RandomCommandsOptions options_;
  std::mt19937_64 random_;
  uint64_t next_sequence_ = 1;
};

}  // namespace ferrybus::vsc

#endif  // FERRYBUS_VSC_ACCELERATOR_ACCELERATOR_MODEL_H_
