// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/virtual_function/physical_function.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "ferrybus/vsp/virtual_function/accelerator_world.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

using migration::Role;
using Code = absl::StatusCode;

constexpr uint64_t kPartBytes = 64 << 10;
constexpr uint32_t kFunctions = 3;
constexpr uint32_t kShare = 250;  // of each of three: a quarter is free

// A device with functions that have a part of each of two segments, and always
// work to do.
struct Device {
  explicit Device(uint32_t functions = kFunctions)
      : first(kPartBytes * 8),
        second(kPartBytes * 8),
        physical({.segments = {{1, 4096, absl::MakeSpan(first)},
                               {2, 16384, absl::MakeSpan(second)}},
                  .steps_per_period = 1000}) {
    for (uint32_t i = 0; i < functions; ++i) {
      interrupts.push_back(std::make_unique<RecordingHost>(1, 2));
      EXPECT_TRUE(physical.Create(i, Params(i)).ok());
      EXPECT_TRUE(physical.SetResources(i, Resources(i)).ok());
      SetPort(i);
    }
  }
  void SetPort(uint32_t index) {
    (*physical.Find(index))->accelerator().SetPort(&port);
  }
  VirtualFunctionParams Params(uint32_t index) {
    return {.share_steps = kShare,
            .vectors = 2,
            .host = interrupts[index].get(),
            .device = interrupts[index].get()};
  }
  static std::vector<FunctionResource> Resources(uint32_t index) {
    return {{1, index * kPartBytes, kPartBytes},
            {2, index * kPartBytes, kPartBytes}};
  }
  // Keeps it busy for long.
  void Submit(uint32_t index, uint32_t count = 200) {
    accelerator::Command command = {};
    command.op = accelerator::Op::kFill;
    command.target.segment = 1;
    command.size_bytes = kPartBytes;
    command.value = index + 1;
    const auto function = physical.Find(index);
    ASSERT_TRUE(function.ok());
    for (uint32_t i = 0; i < count; ++i) {
      ASSERT_TRUE(
          (*function)->accelerator().Submit(command, 0, [](uint64_t) {}));
    }
  }
  void PowerAll() {
    for (uint32_t i = 0; i < kFunctions; ++i) {
      ASSERT_TRUE(physical.SetPower(i, true).ok());
      Submit(i);
    }
  }
  uint64_t Steps(uint32_t index) { return physical.GetInfo(index)->steps; }

  std::vector<std::byte> first;
  std::vector<std::byte> second;
  NoAnswers port;
  std::vector<std::unique_ptr<RecordingHost>> interrupts;
  PhysicalFunction physical;
};

// -- What there is ------------------------------------------------------------

// doc:VF1
TEST(PhysicalFunctionTest, FunctionsAreCreatedAndDestroyed) {
  Device device;
  PhysicalFunction& its = device.physical;
  EXPECT_EQ(its.Create(0, device.Params(0)).code(), Code::kAlreadyExists);
  EXPECT_EQ(its.Create(64, device.Params(0)).code(), Code::kInvalidArgument);
  VirtualFunctionParams params = device.Params(0);
  params.vectors = 0;
  EXPECT_EQ(its.Create(5, params).code(), Code::kInvalidArgument);
  params.vectors = 2049;
  EXPECT_EQ(its.Create(5, params).code(), Code::kInvalidArgument);
  params = device.Params(0);
  params.host = nullptr;
  EXPECT_EQ(its.Create(5, params).code(), Code::kInvalidArgument);
  params = device.Params(0);
  params.share_steps = 251;
  EXPECT_EQ(its.Create(5, params).code(), Code::kResourceExhausted);
  EXPECT_EQ(its.Destroy(5).code(), Code::kNotFound);
  EXPECT_EQ(its.GetInfo(5).status().code(), Code::kNotFound);
  const FunctionInfo info = *its.GetInfo(1);
  EXPECT_EQ(info.share_steps, kShare);
  EXPECT_EQ(info.resources, Device::Resources(1));
  EXPECT_FALSE(info.is_powered || info.is_paused || info.is_migrating);
  const auto held = *its.Find(1);
  EXPECT_TRUE(its.Destroy(1).ok());
  EXPECT_FALSE(held->accelerator().Submit({}, 0, [](uint64_t) {}));
  // Its time and its memory are free.
  EXPECT_TRUE(its.Create(7, device.Params(0)).ok());
  EXPECT_TRUE(its.SetResources(7, Device::Resources(1)).ok());
}

// doc:VF1
TEST(PhysicalFunctionTest, ResourcesAreWholePagesOfOneFunction) {
  Device device;
  PhysicalFunction& its = device.physical;
  ASSERT_TRUE(its.Create(9, device.Params(0)).ok());
  EXPECT_EQ(its.SetPower(9, true).code(), Code::kFailedPrecondition);
  EXPECT_EQ(its.PartsOf(9).status().code(), Code::kFailedPrecondition);
  EXPECT_EQ(its.SetResources(8, Device::Resources(5)).code(), Code::kNotFound);
  const std::vector<std::vector<FunctionResource>> wrong = {
      {},
      {{3, 0, 4096}},
      {{1, 5 * kPartBytes, 0}},
      {{1, 5 * kPartBytes + 1, 4096}},
      {{1, 5 * kPartBytes, 4097}},
      {{2, 5 * kPartBytes, 4096}},
      {{1, 8 * kPartBytes, 4096}},
      {{1, 7 * kPartBytes, 2 * kPartBytes}},
      {{1, ~uint64_t{4095}, 8192}},
      {{1, 5 * kPartBytes, 4096}, {1, 6 * kPartBytes, 4096}},
      {{1, 3 * kPartBytes - 4096, 8192}},
  };
  for (const auto& resources : wrong) {
    EXPECT_EQ(its.SetResources(9, resources).code(), Code::kInvalidArgument);
  }
  EXPECT_TRUE(its.SetResources(9, Device::Resources(5)).ok());
  EXPECT_TRUE(its.SetResources(9, {{1, 6 * kPartBytes, 4096}}).ok());
  EXPECT_TRUE(its.SetPower(9, true).ok());
  EXPECT_EQ(its.SetResources(9, Device::Resources(5)).code(),
            Code::kFailedPrecondition);
}

// doc:VF1
TEST(PhysicalFunctionTest, ConfigurationIsReadAndWrittenWithinItsBounds) {
  Device device;
  PhysicalFunction& its = device.physical;
  std::vector<std::byte> all(kConfigBytes);
  ASSERT_TRUE(its.ReadConfig(0, 0, absl::MakeSpan(all)).ok());
  EXPECT_EQ(all[ConfigSpace::kMsixCapability], std::byte{0x11});
  EXPECT_EQ(all[ConfigSpace::kMsixControl], std::byte{1});  // two vectors
  std::vector<std::byte> ones(kConfigBytes, std::byte{0xff});
  for (const auto& [offset, size] : std::vector<std::pair<size_t, size_t>>{
           {0, 0}, {256, 1}, {255, 2}, {257, 1}, {~size_t{0}, 2}, {1, 256}}) {
    std::vector<std::byte> bytes(size);
    EXPECT_EQ(its.ReadConfig(0, offset, absl::MakeSpan(bytes)).code(),
              Code::kInvalidArgument);
    EXPECT_EQ(its.WriteConfig(0, offset, bytes).code(), Code::kInvalidArgument);
  }
  EXPECT_EQ(its.ReadConfig(9, 0, absl::MakeSpan(all)).code(), Code::kNotFound);
  ASSERT_TRUE(its.WriteConfig(0, 0, ones).ok());
  std::vector<std::byte> after(kConfigBytes);
  ASSERT_TRUE(its.ReadConfig(0, 0, absl::MakeSpan(after)).ok());
  EXPECT_EQ(after[0], all[0]);
  EXPECT_EQ(after[ConfigSpace::kCommand], std::byte{0x47});
  EXPECT_EQ(after[ConfigSpace::kInterruptLine], std::byte{0xff});
  EXPECT_EQ(after[ConfigSpace::kMsixControl], std::byte{1});
  EXPECT_EQ(after[ConfigSpace::kMsixControl + 1], std::byte{0xc0});
  EXPECT_EQ((*its.Find(0))->interrupts().ReadControl() >> 14, 3);
  ASSERT_TRUE(its.Reset(0).ok());
  ASSERT_TRUE(its.ReadConfig(0, 0, absl::MakeSpan(after)).ok());
  EXPECT_EQ(after, all);
}

// doc:VF1 doc:MG35
TEST(PhysicalFunctionTest, PowerAndPauseAreApartFromEachOther) {
  Device device;
  PhysicalFunction& its = device.physical;
  device.Submit(0);
  EXPECT_EQ(its.RunPeriod(), 0u);
  ASSERT_TRUE(its.SetPause(0, true).ok());
  ASSERT_TRUE(its.SetPower(0, true).ok());
  EXPECT_EQ(its.RunPeriod(), 0u);
  EXPECT_TRUE(its.GetInfo(0)->is_paused);
  // Taken back: its power is what counts again.
  ASSERT_TRUE(its.SetPower(0, false).ok());
  ASSERT_TRUE(its.SetPause(0, false).ok());
  EXPECT_EQ(its.RunPeriod(), 0u);
  ASSERT_TRUE(its.SetPower(0, true).ok());
  EXPECT_EQ(its.RunPeriod(), kShare);
}

// doc:VF1
TEST(PhysicalFunctionTest, AResetEndsCommandsAndKeepsMemory) {
  Device device;
  device.PowerAll();
  device.physical.RunPeriod();
  const std::vector<std::byte> before = device.first;
  ASSERT_TRUE(device.physical.Reset(1).ok());
  EXPECT_EQ(device.physical.RunPeriod(), 2 * kShare);
  EXPECT_EQ(device.first, before);
}

// -- Time ---------------------------------------------------------------------

// doc:MG31 doc:MG17
TEST(PhysicalFunctionTest, AMigrationUsesItsOwnTimeAndTheFreeTime) {
  constexpr int kPeriods = 4;
  std::vector<uint64_t> alone;
  for (bool is_migrating : {false, true}) {
    Device device;
    device.PowerAll();
    AcceleratorMigratable migratable({.name = "vf0"},
                                     *device.physical.PartsOf(0));
    if (is_migrating) {
      ASSERT_TRUE(migratable.Prepare(Role::kSource).ok());
    }
    std::vector<std::byte> memory(kPartBytes);
    for (int period = 0; period < kPeriods; ++period) {
      // More than there is time for: 32 times 16 steps.
      for (int i = 0; is_migrating && i < 32; ++i) {
        ASSERT_TRUE(migratable.ReadMemory(1, 0, absl::MakeSpan(memory)).ok());
      }
      device.physical.RunPeriod();
    }
    const FunctionInfo own = *device.physical.GetInfo(0);
    if (!is_migrating) {
      for (uint32_t i = 0; i < kFunctions; ++i)
        alone.push_back(device.Steps(i));
      EXPECT_EQ(own.paging_steps, 0u);
      continue;
    }
    for (uint32_t i = 1; i < kFunctions; ++i) {
      EXPECT_EQ(device.Steps(i), alone[i]) << i;
    }
    // The free quarter, and half of its own.
    EXPECT_EQ(own.paging_steps, kPeriods * (250u + kShare / 2));
    EXPECT_EQ(own.steps, kPeriods * kShare / 2u);
    EXPECT_EQ(own.paging_debt_steps, 4 * 512u - own.paging_steps);
    // Paused: all of its own.
    ASSERT_TRUE(migratable.Pause().ok());
    device.physical.RunPeriod();
    EXPECT_EQ(device.physical.GetInfo(0)->paging_steps,
              own.paging_steps + 250 + kShare);
    EXPECT_EQ(device.Steps(0), own.steps);
    // Afterwards all is as before.
    migratable.Resume();
    migratable.End();
    device.physical.RunPeriod();
    EXPECT_EQ(device.Steps(0), own.steps + kShare);
    EXPECT_EQ(device.physical.GetInfo(0)->paging_debt_steps, 0u);
  }
}

// doc:MG31
TEST(PhysicalFunctionTest, FunctionsThatMoveShareTheFreeTime) {
  Device device;
  device.PowerAll();
  AcceleratorMigratable first({}, *device.physical.PartsOf(0));
  AcceleratorMigratable second({}, *device.physical.PartsOf(1));
  std::vector<std::byte> memory(kPartBytes);
  for (AcceleratorMigratable* its : {&first, &second}) {
    ASSERT_TRUE(its->Prepare(Role::kSource).ok());
    for (int i = 0; i < 64; ++i) {
      ASSERT_TRUE(its->ReadMemory(1, 0, absl::MakeSpan(memory)).ok());
    }
  }
  device.physical.RunPeriod();
  EXPECT_EQ(device.physical.GetInfo(0)->paging_steps +
                device.physical.GetInfo(1)->paging_steps,
            250u + kShare / 2 + kShare / 2);
  EXPECT_EQ(device.Steps(0) + device.Steps(1), kShare);
  EXPECT_EQ(device.Steps(2), kShare);
}

TEST(PhysicalFunctionTest, AFunctionThatMovesIsNotResetOrDestroyed) {
  Device device;
  const VirtualFunctionParts parts = *device.physical.PartsOf(0);
  AcceleratorMigratable migratable({}, parts);
  AcceleratorMigratable again({}, parts);
  ASSERT_TRUE(migratable.Prepare(Role::kTarget).ok());
  EXPECT_EQ(again.Prepare(Role::kSource).code(), Code::kFailedPrecondition);
  EXPECT_TRUE(device.physical.GetInfo(0)->is_migrating);
  EXPECT_EQ(device.physical.Destroy(0).code(), Code::kFailedPrecondition);
  EXPECT_EQ(device.physical.Reset(0).code(), Code::kFailedPrecondition);
  EXPECT_EQ(device.physical.SetResources(0, Device::Resources(5)).code(),
            Code::kFailedPrecondition);
  migratable.End();
  EXPECT_TRUE(device.physical.Destroy(0).ok());
}

// Moves a powered function to another one, perhaps of the same device.
absl::Status MoveFunction(PhysicalFunction& from, uint32_t source_index,
                          PhysicalFunction& to, uint32_t target_index) {
  AcceleratorMigratable source({}, *from.PartsOf(source_index));
  AcceleratorMigratable target({}, *to.PartsOf(target_index));
  absl::Status status = source.Prepare(Role::kSource);
  status.Update(target.Prepare(Role::kTarget));
  const auto identity = SaveImmutableOf(source);
  if (!identity.ok()) return identity.status();
  status.Update(target.RestoreImmutable(BlobBytes(*identity)));
  status.Update(source.Pause().status());
  std::vector<std::byte> page(16384);
  for (uint32_t segment : {1, 2}) {
    for (uint64_t at = 0; at < kPartBytes; at += page.size()) {
      status.Update(source.ReadMemory(segment, at, absl::MakeSpan(page)));
      status.Update(target.WriteMemory(segment, at, page));
    }
  }
  const auto state = SaveMutableOf(source);
  if (!state.ok()) return state.status();
  status.Update(target.RestoreMutable(BlobBytes(*state)));
  status.Update(target.RewriteInterrupts());
  status.Update(source.Confirm());
  if (!status.ok()) return status;
  source.Retire();
  source.End();
  target.End();
  target.Resume();
  return to.SetPower(target_index, true);
}

// doc:MG4 doc:MG34
TEST(PhysicalFunctionTest, OneDeviceIsSourceAndTargetWhileOthersWork) {
  Device left;
  Device right(0);
  for (uint32_t i = 0; i < kFunctions; ++i) {
    right.interrupts.push_back(std::make_unique<RecordingHost>(2, 2));
  }
  left.PowerAll();
  // 0 moves right; meanwhile another comes to the left, in the free quarter.
  left.interrupts.push_back(std::make_unique<RecordingHost>(1, 2));
  ASSERT_TRUE(left.physical.Create(4, left.Params(3)).ok());
  ASSERT_TRUE(left.physical.SetResources(4, Device::Resources(4)).ok());
  left.SetPort(4);
  for (uint32_t i : {0u, 1u}) {
    ASSERT_TRUE(right.physical.Create(i, right.Params(i)).ok());
    ASSERT_TRUE(right.physical.SetResources(i, Device::Resources(i)).ok());
    right.SetPort(i);
  }
  ASSERT_TRUE(right.physical.SetPower(1, true).ok());
  right.Submit(1, 100);
  const auto run = [](PhysicalFunction* device) {
    for (int i = 0; i < 40; ++i) device->RunPeriod();
  };
  std::thread left_engine(run, &left.physical);
  std::thread right_engine(run, &right.physical);
  absl::Status to_the_left;
  std::thread mover(
      [&] { to_the_left = MoveFunction(right.physical, 1, left.physical, 4); });
  const absl::Status to_the_right =
      MoveFunction(left.physical, 0, right.physical, 0);
  mover.join();
  left_engine.join();
  right_engine.join();
  EXPECT_TRUE(to_the_right.ok()) << to_the_right;
  EXPECT_TRUE(to_the_left.ok()) << to_the_left;
  while (left.physical.RunPeriod() + right.physical.RunPeriod() > 0) {
  }
  // Each was done as a whole, here or there.
  EXPECT_EQ(left.Steps(0) + right.Steps(0), 200 * kPartBytes / 4096);
  EXPECT_EQ(right.Steps(1) + left.Steps(4), 100 * kPartBytes / 4096);
  EXPECT_EQ(right.first[0], std::byte{1});
  EXPECT_EQ(left.first[4 * kPartBytes], std::byte{2});
  EXPECT_EQ(left.Steps(2), 200 * kPartBytes / 4096);
}

// -- A scattered reserve ------------------------------------------------------

// Memory with a file, and two functions.
struct ScatteredDevice {
  static constexpr uint64_t kBytes = 16 * kPartBytes;

  explicit ScatteredDevice(uint64_t scatter_page_bytes = kPartBytes)
      : file(memfd_create("test", MFD_CLOEXEC)) {
    EXPECT_EQ(ftruncate(file, kBytes), 0);
    void* const mapped =
        mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    EXPECT_NE(mapped, MAP_FAILED);
    memory = {static_cast<std::byte*>(mapped), kBytes};
    physical = std::make_unique<PhysicalFunction>(PhysicalFunctionOptions{
        .segments = {{1, 4096, memory, file},
                     {2, 4096, absl::MakeSpan(without_file)}},
        .scatter_page_bytes = scatter_page_bytes});
    for (uint32_t i : {0, 1}) {
      EXPECT_TRUE(physical
                      ->Create(i, {.share_steps = 300,
                                   .vectors = 2,
                                   .host = &interrupts,
                                   .device = &interrupts})
                      .ok());
    }
  }
  ~ScatteredDevice() {
    physical = nullptr;
    munmap(memory.data(), memory.size());
    close(file);
  }

  // Executes a fill of all that a function has.
  void Fill(uint32_t index, uint64_t size_bytes, uint64_t value) {
    const auto function = *physical->Find(index);
    function->accelerator().SetPort(&port);
    accelerator::Command command = {};
    command.op = accelerator::Op::kFill;
    command.target.segment = 1;
    command.size_bytes = size_bytes;
    command.value = value;
    ASSERT_TRUE(function->accelerator().Submit(command, 0, [](uint64_t) {}));
    while (function->accelerator().Run(1000) > 0) {
    }
  }
  uint64_t ValueAt(uint64_t part) const {
    uint64_t value = 0;
    std::memcpy(&value, &memory[part * kPartBytes + 8], sizeof(value));
    return value;
  }

  const int file;
  absl::Span<std::byte> memory;
  std::vector<std::byte> without_file = std::vector<std::byte>(2 * kPartBytes);
  NoAnswers port;
  RecordingHost interrupts{1, 2};
  std::unique_ptr<PhysicalFunction> physical;
};

FunctionResource PartOf(uint64_t part, uint64_t parts = 1) {
  return {1, part * kPartBytes, parts * kPartBytes};
}

// doc:MG36
TEST(ScatteredReserveTest, FunctionSeesItsPiecesAsOne) {
  ScatteredDevice device;
  ASSERT_TRUE(
      device.physical->SetResources(0, {PartOf(9), PartOf(2, 2), PartOf(15)})
          .ok());
  ASSERT_TRUE(device.physical->SetResources(1, {PartOf(10), PartOf(0)}).ok());
  for (uint32_t i : {0, 1}) {
    ASSERT_TRUE(device.physical->SetPower(i, true).ok());
  }
  const AcceleratorSegment& segment =
      (*device.physical->Find(0))->accelerator().segments()[0];
  EXPECT_EQ(segment.memory.size(), 4 * kPartBytes);
  device.Fill(0, 4 * kPartBytes, 77);
  device.Fill(1, 2 * kPartBytes, 88);
  for (uint64_t part = 0; part < 16; ++part) {
    const bool is_first = part == 9 || part == 2 || part == 3 || part == 15;
    const bool is_second = part == 10 || part == 0;
    EXPECT_EQ(device.ValueAt(part), is_first    ? 77u
                                    : is_second ? 88u
                                                : 0u)
        << part;
  }
  // In the order in which they were given.
  segment.memory[0] = std::byte{1};
  segment.memory[kPartBytes] = std::byte{2};
  segment.memory[3 * kPartBytes] = std::byte{3};
  EXPECT_EQ(device.memory[9 * kPartBytes], std::byte{1});
  EXPECT_EQ(device.memory[2 * kPartBytes], std::byte{2});
  EXPECT_EQ(device.memory[15 * kPartBytes], std::byte{3});
}

// A move sends the pages as the function has them, wherever they lie.
// doc:MG36 doc:MG12
TEST(ScatteredReserveTest, MovesIntoAnotherScatter) {
  ScatteredDevice from;
  ScatteredDevice to;
  ASSERT_TRUE(
      from.physical->SetResources(0, {PartOf(9), PartOf(2), PartOf(5)}).ok());
  ASSERT_TRUE(to.physical->SetResources(0, {PartOf(1, 2), PartOf(14)}).ok());
  AcceleratorMigratable source({}, *from.physical->PartsOf(0));
  AcceleratorMigratable target({}, *to.physical->PartsOf(0));
  EXPECT_EQ(source.segments()[0].ranges, target.segments()[0].ranges);
  for (uint64_t part : {9, 2, 5}) {
    from.memory[part * kPartBytes + 100] = std::byte(part);
  }
  ASSERT_TRUE(source.Prepare(Role::kSource).ok());
  ASSERT_TRUE(target.Prepare(Role::kTarget).ok());
  std::vector<std::byte> bytes(3 * kPartBytes);
  ASSERT_TRUE(source.ReadMemory(1, 0, absl::MakeSpan(bytes)).ok());
  std::vector<std::byte> identity(4096);
  const auto size = source.SaveImmutable(absl::MakeSpan(identity));
  identity.resize(size.bytes.value_or(0));
  ASSERT_TRUE(target.RestoreImmutable(identity).ok());
  ASSERT_TRUE(target.WriteMemory(1, 0, bytes).ok());
  EXPECT_EQ(to.memory[1 * kPartBytes + 100], std::byte{9});
  EXPECT_EQ(to.memory[2 * kPartBytes + 100], std::byte{2});
  EXPECT_EQ(to.memory[14 * kPartBytes + 100], std::byte{5});
  source.End();
  target.End();
}

// doc:MG36
TEST(ScatteredReserveTest, WrongPartsAreRefused) {
  ScatteredDevice device;
  PhysicalFunction& its = *device.physical;
  const auto set = [&](std::vector<FunctionResource> parts) {
    return its.SetResources(0, parts).code();
  };
  EXPECT_EQ(set({PartOf(1, 2), PartOf(2)}), Code::kInvalidArgument);
  EXPECT_EQ(set({PartOf(1), PartOf(1)}), Code::kInvalidArgument);
  EXPECT_EQ(set({PartOf(1), PartOf(16)}), Code::kInvalidArgument);
  EXPECT_EQ(set({{1, 4096, kPartBytes}}), Code::kInvalidArgument);
  EXPECT_EQ(set({{1, 0, kPartBytes}, {1, kPartBytes, 4096}}),
            Code::kInvalidArgument);
  EXPECT_EQ(set({{2, 0, kPartBytes}, {2, kPartBytes, kPartBytes}}),
            Code::kFailedPrecondition);
  EXPECT_EQ(set({PartOf(1), PartOf(3)}), Code::kOk);
  EXPECT_EQ(its.SetResources(1, {PartOf(2), PartOf(3)}).code(),
            Code::kInvalidArgument);
  EXPECT_EQ(its.SetResources(1, {PartOf(2), PartOf(4)}).code(), Code::kOk);
  ScatteredDevice whole(/*scatter_page_bytes=*/0);
  EXPECT_EQ(whole.physical->SetResources(0, {PartOf(1), PartOf(3)}).code(),
            Code::kInvalidArgument);
}

}  // namespace
}  // namespace ferrybus::vsp
