// SPDX-License-Identifier: MIT

// A whole device fed with packets from the input: every one is answered exactly
// once, in order, whatever it says, and memory outside of the segments stays.
//
// Input: a sequence of records.  u8 control: bits 0-2 what happens afterwards
// (run, move, reset, close, power), bit 3 guest buffers, bit 4 short packet;
// u8 steps; then a Command, with 16-bit numbers in the place of its longer ones
// unless bit 5 is set; u8 data bytes.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "ferrybus/ringbuffer/testing/fuzz_input.h"
#include "ferrybus/vsp/storage/fake_storage_guest.h"
#include "ferrybus/vsp/virtual_function/accelerator_device.h"
#include "ferrybus/vsp/virtual_function/accelerator_world.h"

namespace {

using namespace ferrybus;       // NOLINT
using namespace ferrybus::vsp;  // NOLINT
using ringbuffer::testing::FuzzInput;
using ringbuffer::testing::TakeByte;
using ringbuffer::testing::TakeShort;

constexpr size_t kPacketsMax = 48;
constexpr size_t kGuestBytes = 1 << 16;

AcceleratorHostOptions SmallHost() {
  AcceleratorHostOptions options;
  options.sizes = {4 * 4096, 4 * 4096};
  options.pages = {4096, 8192};
  options.has_port = false;
  return options;
}

struct World {
  World() : memory(kGuestBytes), guest(absl::MakeSpan(memory)) {
    NewHost();
    host->StartInterrupts();
    device->OnStarted();
  }

  void NewHost() {
    host = std::make_unique<AcceleratorHost>(1, SmallHost());
    device = std::make_unique<AcceleratorDevice>(&host->accelerator);
  }

  // Packets, queue and memory, to another host.
  void Move() {
    std::unique_ptr<AcceleratorHost> old_host = std::move(host);
    std::unique_ptr<AcceleratorDevice> old_device = std::move(device);
    NewHost();
    AcceleratorMove move(old_host.get(), host.get());
    if (!move.Begin().ok()) std::abort();
    old_host->accelerator.SetHold(Accelerator::kMigration, true);
    for (uint64_t& id : sent) {
      if (guest.answered(id)) continue;
      std::byte blob[8];
      const auto answer =
          old_device->SavePacket(guest.info(id), absl::MakeSpan(blob));
      if (answer.code != savestate::SizeAnswer::Code::kOk) std::abort();
      uint64_t again = 0;
      IncomingPacket packet = guest.Adopt(guest, id, &again);
      if (!device->RestorePacket(std::move(packet), blob).ok()) std::abort();
      moved.push_back(id);
      id = again;
    }
    if (!move.Finish().ok()) std::abort();
    device->OnStarted();
    if (device->not_executed() != 0) std::abort();
    graves.push_back(std::move(old_device));
    old_hosts.push_back(std::move(old_host));
  }

  void Close() {
    device->OnClosed();
    sent.clear();
    device->OnStarted();
  }

  std::vector<std::byte> memory;
  FakeStorageGuest guest;
  std::unique_ptr<AcceleratorHost> host;
  std::unique_ptr<AcceleratorDevice> device;
  std::vector<std::unique_ptr<AcceleratorHost>> old_hosts;
  std::vector<std::unique_ptr<AcceleratorDevice>> graves;
  std::vector<uint64_t> sent;
  std::vector<uint64_t> moved;
};

accelerator::Place TakePlace(FuzzInput* input) {
  accelerator::Place place = {};
  place.segment = TakeByte(input);
  place.offset_bytes = TakeShort(input);
  return place;
}

accelerator::Command TakeCommand(FuzzInput* input, bool is_raw) {
  accelerator::Command command = {};
  if (is_raw) {
    auto* bytes = reinterpret_cast<uint8_t*>(&command);
    for (size_t i = 0; i < sizeof(command); ++i) bytes[i] = TakeByte(input);
    return command;
  }
  command.op = static_cast<accelerator::Op>(TakeByte(input) % 12);
  command.flags = TakeByte(input) % 8;
  command.vector = TakeByte(input) % 8;
  command.element = static_cast<accelerator::Element>(TakeByte(input) % 3);
  command.target = TakePlace(input);
  command.source = TakePlace(input);
  command.source_b = TakePlace(input);
  command.size_bytes = TakeShort(input);
  command.value = TakeShort(input);
  command.rows = TakeByte(input);
  command.inner = TakeByte(input);
  command.columns = TakeByte(input);
  return command;
}

void Send(World& world, uint8_t control, FuzzInput* input) {
  const accelerator::Command command = TakeCommand(input, (control & 32) != 0);
  std::vector<std::byte> payload(sizeof(command) + TakeByte(input) * 8);
  std::memcpy(payload.data(), &command, sizeof(command));
  if ((control & 16) != 0) payload.resize(TakeByte(input) % 96);
  std::vector<iovec> buffers;
  if ((control & 8) != 0) {
    for (int i = 0; i < 2; ++i) {
      buffers.push_back(
          world.guest.Buffer(TakeShort(input) / 2, TakeShort(input) / 2));
    }
  }
  world.sent.push_back(
      world.guest.Send(*world.device, payload, std::move(buffers)));
}

void Afterwards(World& world, uint8_t what, uint32_t steps) {
  if (what <= 2) world.host->accelerator.Run(steps % 16);
  if (what == 3) world.Move();
  if (what == 4) world.host->accelerator.Reset();
  if (what == 5 && steps % 4 == 0) world.Close();
  if (what == 6) world.host->accelerator.SetPower(steps % 2 == 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes) {
  FuzzInput input(data, size_bytes);
  World world;
  for (size_t i = 0; i < kPacketsMax && !input.empty(); ++i) {
    const uint8_t control = TakeByte(&input);
    const uint32_t steps = TakeByte(&input);
    Send(world, control, &input);
    Afterwards(world, control % 8, steps);
  }
  world.host->accelerator.SetPower(true);
  while (world.host->accelerator.Run(1000) > 0) {
  }
  for (uint64_t id : world.sent) {
    if (!world.guest.answered(id)) std::abort();
  }
  if (world.device->in_flight() != 0 || world.guest.failed() != 0) std::abort();
  // What moved is another's to answer.
  for (uint64_t id : world.moved) {
    if (world.guest.answered(id)) std::abort();
  }
  return 0;
}
