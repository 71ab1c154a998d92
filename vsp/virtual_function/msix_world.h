// SPDX-License-Identifier: MIT
//
// For tests: a table, its host and its device, beside a model of PCI's rules
// that is written another way: bytes, and one sentence about when a message is
// sent.  Each step is done to both, and everything that can be seen is
// compared.
//
// On host number h the guest's message address a, if it lies in the range of
// interrupts, is a + (h << 32).

#ifndef FERRYBUS_VSP_VIRTUAL_FUNCTION_MSIX_WORLD_H_
#define FERRYBUS_VSP_VIRTUAL_FUNCTION_MSIX_WORLD_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ferrybus/vsp/virtual_function/msix_state.h"
#include "ferrybus/vsp/virtual_function/msix_table.h"

namespace ferrybus::vsp {

inline constexpr uint64_t kInterruptRange = 0xfee00000;  // 1 MiB from here

inline bool IsInterruptAddress(uint64_t address) {
  return address >> 20 == kInterruptRange >> 20;
}

// A host and a device that note what they are told.
class RecordingHost final : public MsixHost, public MsixDevice {
 public:
  RecordingHost(uint64_t number, uint32_t vectors)
      : number_(number), entries(vectors) {}

  uint64_t ToHost(uint64_t address) const { return address + (number_ << 32); }

  absl::StatusOr<MsixMessage> MapMessage(const MsixMessage& guest) override {
    ++maps;
    if (!IsInterruptAddress(guest.address)) {
      return absl::OutOfRangeError("no interrupt is there");
    }
    return MsixMessage{ToHost(guest.address), guest.data};
  }
  void SendMessage(uint32_t vector, const MsixMessage& message) override {
    sent.emplace_back(vector, message);
  }
  absl::Status WriteVirtualizedInterrupt(uint32_t index,
                                         const MsixEntry& entry) override {
    if (!refusal.ok()) return refusal;
    entries[index] = entry;
    writes.emplace_back(index, entry);
    return absl::OkStatus();
  }

 private:
  const uint64_t number_;

 public:
  std::vector<MsixEntry> entries;  // the device's table
  std::vector<std::pair<uint32_t, MsixEntry>> writes;
  std::vector<std::pair<uint32_t, MsixMessage>> sent;
  uint64_t maps = 0;
  absl::Status refusal;  // of the device
};

// The whole of PCI's rules, and what a pause adds.
struct MsixModel {
  explicit MsixModel(uint32_t vectors);

  uint64_t Qword(uint64_t at) const {
    uint64_t value;
    std::memcpy(&value, &table[at], 8);
    return value;
  }
  uint64_t Address(uint32_t v) const { return Qword(v * uint64_t{16}); }
  uint32_t Data(uint32_t v) const {
    return static_cast<uint32_t>(Qword(v * uint64_t{16} + 8));
  }
  bool IsMasked(uint32_t v) const { return (table[v * 16 + 12] & 1) != 0; }
  bool IsSilent() const { return is_paused || !is_enabled || is_masked; }

  void Write(uint64_t offset, uint32_t size, uint64_t value);
  // The vectors whose interrupts go out now.
  std::vector<uint32_t> TakeDue();

  std::vector<uint8_t> table;
  std::vector<uint8_t> pending;  // 0 or 1 for each vector
  bool is_enabled = false;
  bool is_masked = false;  // the function
  bool is_paused = true;
};

struct MsixOp {
  enum class Kind : uint8_t {
    kWrite,    // offset, size, value
    kRead,     // offset, size
    kControl,  // value: the control word
    kRaise,    // offset: the vector
    kWithdraw,
    kPause,
    kResume,
    kMove,  // to another host, by bytes
    kRewrite,
    kReset,
  };
  Kind kind = Kind::kRaise;
  uint64_t offset = 0;
  uint32_t size = 0;
  uint64_t value = 0;
};

class MsixWorld {
 public:
  explicit MsixWorld(uint32_t vectors);

  // Does it without comparing anything.
  void Prepare(const MsixOp& op);
  // "" or what is not as it should be.
  std::string Step(const MsixOp& op);
  // Compares all entries and bits.
  std::string CheckAll();
  const MsixModel& model() const { return model_; }

 private:
  std::string Do(const MsixOp& op);
  std::string Read(const MsixOp& op);
  std::string Move();
  std::string CheckVector(uint32_t vector);
  std::string CheckSent();
  std::string CheckDeviceWrites(MsixOp::Kind kind);

  const uint32_t vectors_;
  MsixModel model_;
  uint64_t host_number_ = 1;
  std::unique_ptr<RecordingHost> host_;
  std::unique_ptr<MsixTable> table_;
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_VIRTUAL_FUNCTION_MSIX_WORLD_H_
