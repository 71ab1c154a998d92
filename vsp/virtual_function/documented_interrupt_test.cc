// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/virtual_function/documented_interrupt.h"

#include <string>
#include <vector>

#include "ferrybus/vsp/virtual_function/msix_test_util.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

// What a driver by the documents was called with.
struct Driver {
  std::vector<DXGKARG_GPUP_WRITE_VIRTUALIZED_MSIX> calls;
  NTSTATUS status = STATUS_SUCCESS;
};

NTSTATUS Callback(PVOID adapter,
                  const DXGKARG_GPUP_WRITE_VIRTUALIZED_MSIX* args) {
  auto* driver = static_cast<Driver*>(adapter);
  driver->calls.push_back(*args);
  return driver->status;
}

// doc:MX14
TEST(DocumentedInterruptTest, DriverGetsFunctionIndexAndWholeEntry) {
  Driver driver;
  DocumentedMsixDevice device(&Callback, &driver, 5);
  RecordingHost host(9, 2048);
  MsixTable table({.vectors = 2048}, &host, &device);
  (void)table.Resume();
  (void)table.WriteControl(MsixTable::kEnable);
  (void)WriteEntry<uint64_t>(table, 2047 * 16, kInterruptRange);
  (void)WriteEntry<uint64_t>(table, 2047 * 16 + 8, 0x33);
  ASSERT_EQ(driver.calls.size(), 1u);
  EXPECT_EQ(driver.calls[0].vfIndex, 5u);
  EXPECT_EQ(driver.calls[0].InterruptTableIndex, 2047);
  EXPECT_EQ(driver.calls[0].WriteValue.MessageAddress,
            host.ToHost(kInterruptRange));
  EXPECT_EQ(driver.calls[0].WriteValue.MessageData, 0x33u);
  EXPECT_EQ(driver.calls[0].WriteValue.VectorControl, 0u);

  driver.status = STATUS_INVALID_PARAMETER;
  EXPECT_EQ(table.Rewrite().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(driver.calls.size(), 2049u);
  EXPECT_THAT(std::string(table.last_failure().message()),
              ::testing::HasSubstr("0xc000000d"));
}

// bad:M1 bad:M2 doc:MX21
TEST(DocumentedInterruptTest, IndexIsSignedAndWithinTheTable) {
  RecordingHost device(1, 16);
  DXGKARG_GPUP_WRITE_VIRTUALIZED_MSIX args = {};
  args.WriteValue = {kInterruptRange, 7, 1};
  for (int index : {-1, -32768, 16, 2047, 2048, 32767}) {
    args.InterruptTableIndex = static_cast<INT16>(index);
    EXPECT_EQ(WriteVirtualizedInterrupt(&device, 16, &args),
              STATUS_INVALID_PARAMETER);
  }
  args.InterruptTableIndex = 15;
  args.WriteValue.MessageAddress = kInterruptRange + 1;
  EXPECT_EQ(WriteVirtualizedInterrupt(&device, 16, &args),
            STATUS_INVALID_PARAMETER);
  EXPECT_TRUE(device.writes.empty());
  args.WriteValue.MessageAddress = kInterruptRange;
  EXPECT_EQ(WriteVirtualizedInterrupt(&device, 16, &args), STATUS_SUCCESS);
  EXPECT_EQ(device.entries[15], (MsixEntry{kInterruptRange, 7, 1}));
  device.refusal = absl::InternalError("no");
  EXPECT_EQ(WriteVirtualizedInterrupt(&device, 16, &args), STATUS_UNSUCCESSFUL);
}

}  // namespace
}  // namespace ferrybus::vsp
