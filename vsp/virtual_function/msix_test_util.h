// SPDX-License-Identifier: MIT
//
// For tests: a table with a host and a device that record, and short names for
// what guests do.  One thread.
//
//   MsixFixture f(4);
//   f.Start();        // as a driver would
//   (void)f.table.Raise(3);
//   EXPECT_THAT(f.TakeSent(), ElementsAre(3));

#ifndef FERRYBUS_VSP_VIRTUAL_FUNCTION_MSIX_TEST_UTIL_H_
#define FERRYBUS_VSP_VIRTUAL_FUNCTION_MSIX_TEST_UTIL_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "ferrybus/vsp/virtual_function/msix_table.h"
#include "ferrybus/vsp/virtual_function/msix_world.h"

namespace ferrybus::vsp {

template <typename T>
MsixAccess WriteEntry(MsixTable& table, uint64_t offset, T value) {
  return table.WriteTable(
      offset, absl::MakeConstSpan(reinterpret_cast<const std::byte*>(&value),
                                  sizeof(value)));
}

inline uint64_t ReadEntry(MsixTable& table, uint64_t offset) {
  uint64_t value = 0;
  (void)table.ReadTable(
      offset, absl::MakeSpan(reinterpret_cast<std::byte*>(&value), 8));
  return value;
}

inline uint64_t ReadPendingWord(MsixTable& table, uint64_t offset) {
  uint64_t value = 0;
  (void)table.ReadPending(
      offset, absl::MakeSpan(reinterpret_cast<std::byte*>(&value), 8));
  return value;
}

struct MsixFixture {
  static uint64_t AddressOf(uint32_t vector) {
    return kInterruptRange + uint64_t{vector} * 16;
  }
  static uint32_t DataOf(uint32_t vector) { return 0x40 + vector; }

  explicit MsixFixture(const MsixOptions& options, uint64_t host_number = 1)
      : host(host_number, options.vectors), table(options, &host, &host) {}
  explicit MsixFixture(uint32_t vectors, uint64_t host_number = 1)
      : MsixFixture(MsixOptions{.vectors = vectors}, host_number) {}

  void Mask(uint32_t vector, bool is_masked = true) {
    (void)WriteEntry<uint32_t>(table, vector * 16 + 12, is_masked ? 1 : 0);
  }
  void Unmask(uint32_t vector) { Mask(vector, false); }
  void Enable() { (void)table.WriteControl(MsixTable::kEnable); }

  // As a driver starts: every entry set up and unmasked, function enabled.
  void Start() {
    (void)table.Resume();
    for (uint32_t i = 0; i < table.vectors(); ++i) {
      (void)WriteEntry<uint64_t>(table, i * 16, AddressOf(i));
      (void)WriteEntry<uint32_t>(table, i * 16 + 8, DataOf(i));
      Unmask(i);
    }
    Enable();
    host.writes.clear();
  }

  std::vector<uint32_t> TakeSent() {
    std::vector<uint32_t> vectors;
    for (const auto& [vector, message] : host.sent) vectors.push_back(vector);
    host.sent.clear();
    return vectors;
  }

  RecordingHost host;
  MsixTable table;
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_VIRTUAL_FUNCTION_MSIX_TEST_UTIL_H_
