// SPDX-License-Identifier: MIT
//
// Saved states of a machine: what is read back, and what is refused.

#include "ferrybus/examples/hypervisor/machine_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "ferrybus/savestate/frame.h"

namespace ferrybus::hypervisor {
namespace {

using ::testing::HasSubstr;

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

MachineState SomeMachine() {
  MachineState state;
  state.platform.partition_ns = 12345;
  state.platform.serial.scratch = 7;
  state.interrupt_controllers[2].chip.ioapic.base_address = 0xfec00000;
  state.serial_input = "ls";
  state.vcpus.resize(2);
  state.vcpus[1].registers.rip = 0xffffffff81000000;
  state.vcpus[1].synic.sints[2] = 0xf3;
  state.vcpus[1].msrs.push_back(
      {.index = SavedMsrs()[0], .reserved = 0, .data = 99});
  return state;
}

SocketMessage Message(uint32_t size) {
  SocketMessage message = {};
  message.size = size;
  message.bytes[0] = std::byte{1};
  return message;
}

ChannelsState SomeChannels() {
  ChannelsState state;
  state.bus = "a bus";
  state.probe = {.is_open = 1, .sent = 5, .received = 4, .wrong = 0};
  state.port.to_guest = {Message(240)};
  state.port.to_host = {Message(8), Message(16)};
  state.port.signals = {1, 2047};
  state.port.target_vps = {{.channel_id = 3, .vp = 1}};
  return state;
}

// The frame with one section's body changed.
template <typename Change>
std::string WithSection(const std::string& bytes, std::string_view name,
                        uint64_t instance, Change change) {
  const auto frame = savestate::Frame::Parse(AsBytes(bytes));
  savestate::FrameWriter writer;
  for (const savestate::Section& section : frame->sections()) {
    std::string body(reinterpret_cast<const char*>(section.body.data()),
                     section.body.size());
    if (section.name == name && section.instance == instance) change(&body);
    writer.AddSection(std::string(section.name), section.instance,
                      section.version, section.kind, std::move(body));
  }
  return *writer.Finish();
}

// promise:P1
TEST(MachineStateTest, ComesBack) {
  const std::string bytes = *SerializeMachineState(SomeMachine());
  const auto state = ParseMachineState(AsBytes(bytes), 2);
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_EQ(state->platform.partition_ns, 12345);
  EXPECT_EQ(state->platform.serial.scratch, 7);
  EXPECT_EQ(state->interrupt_controllers[2].chip.ioapic.base_address,
            0xfec00000);
  EXPECT_EQ(state->serial_input, "ls");
  EXPECT_EQ(state->vcpus[0].registers.rip, 0);
  EXPECT_EQ(state->vcpus[1].registers.rip, 0xffffffff81000000);
  EXPECT_EQ(state->vcpus[1].synic.sints[2], 0xf3);
  ASSERT_EQ(state->vcpus[1].msrs.size(), 1);
  EXPECT_EQ(state->vcpus[1].msrs[0].data, 99);
  EXPECT_EQ(*SerializeMachineState(*state), bytes);
}

TEST(MachineStateTest, ChannelsComeBack) {
  const std::string bytes = *SerializeChannelsState(SomeChannels());
  const auto state = ParseChannelsState(AsBytes(bytes));
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_EQ(state->bus, "a bus");
  EXPECT_EQ(state->probe.received, 4);
  ASSERT_EQ(state->port.to_host.size(), 2);
  EXPECT_EQ(state->port.to_host[1].payload().size(), 16);
  EXPECT_EQ(state->port.signals[1], 2047);
  EXPECT_EQ(state->port.target_vps[0].vp, 1);
  EXPECT_EQ(*SerializeChannelsState(*state), bytes);
}

TEST(MachineStateTest, OtherNumberOfProcessorsIsRefused) {
  const std::string bytes = *SerializeMachineState(SomeMachine());
  EXPECT_THAT(ParseMachineState(AsBytes(bytes), 1).status().message(),
              HasSubstr("sections"));
  EXPECT_THAT(ParseMachineState(AsBytes(bytes), 3).status().message(),
              HasSubstr("cpu.run-state"));
}

TEST(MachineStateTest, OtherSizesAreRefused) {
  const std::string bytes = *SerializeMachineState(SomeMachine());
  for (const char* name :
       {"cpu.registers", "cpu.xsave", "cpu.msrs", "cpu.lapic", "cpu.synic"}) {
    const std::string longer = WithSection(
        bytes, name, 1, [](std::string* body) { body->push_back('x'); });
    EXPECT_TRUE(
        absl::IsDataLoss(ParseMachineState(AsBytes(longer), 2).status()))
        << name;
  }
  const std::string input =
      WithSection(bytes, "serial.input", 0,
                  [](std::string* body) { body->resize(4097, 'x'); });
  EXPECT_TRUE(absl::IsDataLoss(ParseMachineState(AsBytes(input), 2).status()));
}

// A register that is not among those that a machine saves could be any of the
// host's.
TEST(MachineStateTest, StrangeRegistersAreRefused) {
  MachineState state = SomeMachine();
  state.vcpus[0].msrs.push_back({.index = 0x1d9, .reserved = 0, .data = 1});
  const std::string bytes = *SerializeMachineState(state);
  EXPECT_THAT(ParseMachineState(AsBytes(bytes), 2).status().message(),
              HasSubstr("register"));
}

TEST(MachineStateTest, ImpossibleChannelsAreRefused) {
  ChannelsState state = SomeChannels();
  state.port.signals = {2048};
  EXPECT_THAT(
      ParseChannelsState(AsBytes(*SerializeChannelsState(state))).status(),
      testing::Property(&absl::Status::message, HasSubstr("channel")));
  state = SomeChannels();
  state.port.target_vps = {{.channel_id = 2048, .vp = 0}};
  EXPECT_FALSE(
      ParseChannelsState(AsBytes(*SerializeChannelsState(state))).ok());
  state = SomeChannels();
  state.port.to_guest[0].size = 241;
  EXPECT_THAT(
      ParseChannelsState(AsBytes(*SerializeChannelsState(state))).status(),
      testing::Property(&absl::Status::message, HasSubstr("too long")));
}

}  // namespace
}  // namespace ferrybus::hypervisor
