// SPDX-License-Identifier: MIT
//
// A machine's state out of KVM and into it again, without a guest: any KVM will
// do.  What a guest notices of it, ./ferry guest-test shows.

#include "ferrybus/examples/hypervisor/machine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "ferrybus/examples/hypervisor/machine_state.h"

namespace ferrybus::hypervisor {
namespace {

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

class MachineTest : public testing::TestWithParam<HypervChoice> {
 protected:
  void SetUp() override {
    if (access("/dev/kvm", R_OK | W_OK) != 0) {
      GTEST_SKIP() << "there is no /dev/kvm: nothing was tested";
    }
    machine_ = Make();
    if (machine_ == nullptr) GTEST_SKIP() << "not with this /dev/kvm";
  }

  static std::unique_ptr<Machine> Make() {
    MachineOptions options;
    options.ram_bytes = kRamBytesMin;
    options.hyperv = GetParam();
    auto machine = Machine::Create(options);
    if (absl::IsUnimplemented(machine.status())) return nullptr;
    EXPECT_TRUE(machine.ok()) << machine.status();
    return machine.ok() ? *std::move(machine) : nullptr;
  }

  std::unique_ptr<Machine> machine_;
};

// promise:P1
TEST_P(MachineTest, StateGoesFromOneToAnother) {
  auto state = machine_->Save();
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_GT(state->vcpus[0].msrs.size(), 10u);
  state->vcpus[1].registers.r15 = 4711;
  state->vcpus[1].synic.message_page = 0x5001;
  state->platform.hyperv.guest_os_id = 8;
  state->platform.serial.scratch = 9;
  state->platform.acpi_events = 3;
  state->platform.cmos_register = 9;
  state->serial_input = "typed";
  const std::string bytes = *SerializeMachineState(*state);

  const std::unique_ptr<Machine> other = Make();
  EXPECT_EQ(other->Description(), machine_->Description());
  const auto parsed = ParseMachineState(AsBytes(bytes), 2);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const absl::Status loaded = other->Load(*parsed);
  ASSERT_TRUE(loaded.ok()) << loaded;
  const auto again = other->Save();
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->vcpus[1].registers.r15, 4711u);
  EXPECT_EQ(again->vcpus[1].synic.message_page, 0x5001u);
  EXPECT_EQ(again->vcpus[1].run_state.mp_state,
            state->vcpus[1].run_state.mp_state);
  EXPECT_EQ(again->platform.hyperv.guest_os_id, 8u);
  EXPECT_EQ(again->platform.serial.scratch, 9);
  EXPECT_EQ(again->platform.acpi_events, 3u);
  EXPECT_EQ(again->platform.cmos_register, 9u);
  EXPECT_EQ(again->serial_input, "typed");
  // The clocks go on from where they stood, and never back.
  EXPECT_GE(again->platform.partition_ns, state->platform.partition_ns);
  EXPECT_GE(again->platform.clock.clock, state->platform.clock.clock);
}

// What KVM does not accept is refused, and not more.
TEST_P(MachineTest, KvmRefusesWhatCannotBe) {
  auto state = machine_->Save();
  ASSERT_TRUE(state.ok()) << state.status();
  state->vcpus[0].run_state.mp_state = 77;
  EXPECT_FALSE(machine_->Load(*state).ok());
  state = Make()->Save();
  state->vcpus[0].special.cr4 = uint64_t{1} << 40;
  EXPECT_THAT(machine_->Load(*state).message(),
              testing::HasSubstr("processor 0: KVM_SET_SREGS"));
}

TEST_P(MachineTest, WhatTheHostWritesIsDirty) {
  KvmDirtyLog& dirty = machine_->dirty_log();
  const auto basis =
      dirty.CreateBasis(KvmDirtyLog::kSegment, {{0, kRamBytesMin}});
  ASSERT_TRUE(basis.ok()) << basis.status();
  ASSERT_TRUE(dirty.StartTracking(*basis).ok());
  const std::string path = testing::TempDir() + "/pages";
  const auto writer = *PageLog::Create(kRamBytesMin / 4096, path);
  dirty.SetDeviceLog(*PageLog::Open(kRamBytesMin / 4096, path));
  writer->Mark(13, 1);
  std::vector<std::byte> bits(kRamBytesMin / 4096 / 8);
  const auto query = [&] {
    EXPECT_TRUE(
        dirty.Query(*basis, {.clear = true}, absl::MakeSpan(bits)).ok());
    return bits[1];
  };
  EXPECT_EQ(query(), std::byte{1 << 5});
  // It may still be written.
  EXPECT_EQ(query(), std::byte{1 << 5});
  dirty.Freeze();
  EXPECT_EQ(query(), std::byte{1 << 5});
  EXPECT_EQ(query(), std::byte{0});
  EXPECT_TRUE(dirty.StopTracking(*basis).ok());
  EXPECT_TRUE(dirty.DestroyBasis(*basis).ok());
}

INSTANTIATE_TEST_SUITE_P(Hyperv, MachineTest,
                         testing::Values(HypervChoice::kKvm,
                                         HypervChoice::kUserspace),
                         [](const auto& param) {
                           return param.param == HypervChoice::kKvm
                                      ? "Kvm"
                                      : "Userspace";
                         });

}  // namespace
}  // namespace ferrybus::hypervisor
