// SPDX-License-Identifier: MIT
//
// A device with some virtual functions, drivers for it in several versions,
// and a client that knows what the device must answer.
//
// Ownership: memory and board outlive the drivers.
// Thread safety: one thread at a time.

#ifndef FERRYBUS_VSP_VIRTUAL_FUNCTION_HOT_UPDATE_TEST_UTIL_H_
#define FERRYBUS_VSP_VIRTUAL_FUNCTION_HOT_UPDATE_TEST_UTIL_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "ferrybus/vsp/virtual_function/hot_update.h"
#include "ferrybus/vsp/virtual_function/hot_update_blocks.h"

namespace ferrybus::vsp {

// Zeroed pages.
class DeviceMemory {
 public:
  explicit DeviceMemory(size_t pages)
      : pages_(pages), storage_(std::make_unique<HotUpdatePage[]>(pages)) {}

  absl::Span<std::byte> bytes() const {
    return absl::MakeSpan(reinterpret_cast<std::byte*>(storage_.get()),
                          pages_ * kHotUpdatePageBytes);
  }
  // Fills each page with a pattern of its own.
  void Number();
  std::vector<std::byte> Copy() const {
    return {bytes().begin(), bytes().end()};
  }

 private:
  size_t pages_;
  std::unique_ptr<HotUpdatePage[]> storage_;
};

std::vector<std::byte> ToBytes(const std::string& text);
std::string ToText(absl::Span<const std::byte> bytes);
// All segments of a block in one.
std::vector<std::byte> Joined(const HotUpdateBlock& block);

inline constexpr int kTestFunctions = 3;
inline constexpr size_t kTestPages = kTestFunctions * size_t{4};
inline constexpr size_t kTestBlocks = kTestFunctions * size_t{3};

// What is seen of the drivers from outside.
struct DriverBoard {
  int alive = 0;
  int running = 0;
  int running_max = 0;
  std::vector<std::string> calls;
};

struct DriverPlan {
  std::string name = "old";
  int version = 1;      // that it writes
  int version_max = 1;  // that it reads
  bool can_hot_update = true;
  // With "save", "saved block", "restore", "start", ... and how many of these
  // came before; what it returns is the call's result if it is not OK.
  std::function<absl::Status(const std::string&, size_t)> on_call = nullptr;
};

// Each function has four pages and a register; a command writes to a page and
// counts in the register.
class TestDriver final : public HotUpdateDriver {
 public:
  TestDriver(DeviceMemory* memory, DriverBoard* board, DriverPlan plan);
  ~TestDriver() override;

  bool CanHotUpdate() const override { return plan_.can_hot_update; }
  absl::Status Save(HotUpdateBlocks& blocks) override;
  void CancelUpdate() override;
  absl::Status Restore(HotUpdateBlock block) override;
  absl::Status Start() override;
  void RestoreComplete() override;

  // The first driver of a device: it runs without a restore.
  void Begin() { SetRunning(true); }
  // 0: it does not run.
  uint64_t Command(int function, uint64_t value);
  const std::string& name() const { return plan_.name; }

 private:
  absl::Status Call(const std::string& what);
  void SetRunning(bool is_running);
  absl::Status SaveFunction(int function, HotUpdateBlocks& blocks);

  DeviceMemory* const memory_;
  DriverBoard* const board_;
  const DriverPlan plan_;
  std::vector<std::pair<std::string, size_t>> counts_;
  std::array<uint64_t, kTestFunctions> registers_{};
  size_t restored_ = 0;
  bool is_running_ = false;
};

// The client: what it was answered is what it computed.
class TestClient {
 public:
  // Empty, or what was wrong.
  std::string CommandAll(TestDriver& driver);

 private:
  std::array<std::array<uint64_t, 4>, kTestFunctions> sums_{};
  std::array<uint64_t, kTestFunctions> counts_{};
  uint64_t next_ = 1;
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_VIRTUAL_FUNCTION_HOT_UPDATE_TEST_UTIL_H_
