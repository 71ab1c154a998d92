// SPDX-License-Identifier: MIT
//
// What runs in the simulated guest: drivers that number their requests, and
// one that works on a disk and knows what it must find there.
//
// Ownership: borrow context, oracles and guest memory.
// Thread safety: none.

#ifndef FERRYBUS_TESTS_SIMULATION_GUEST_DRIVERS_H_
#define FERRYBUS_TESTS_SIMULATION_GUEST_DRIVERS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "ferrybus/tests/simulation/disk_model.h"
#include "ferrybus/tests/simulation/numbered_device.h"
#include "ferrybus/vsc/bus.h"
#include "ferrybus/vsc/storage/storage_client.h"

namespace ferrybus::simulation {

class NumberedDriver final : public vsc::Driver {
 public:
  NumberedDriver(Context* context, ChannelOracles* oracles)
      : context_(context), oracles_(oracles) {}

  void Ask(uint64_t count);
  void Answer(uint64_t count);
  void Flush() {
    if (channel_ != nullptr) channel_->Flush();
  }
  bool is_open() const { return channel_ != nullptr; }

  // vsc::Driver.
  void OnOpened(vsc::ClientChannel& channel) override;
  void OnCompletion(uint64_t tag, absl::Span<const std::byte> reply) override;
  void OnPacket(IncomingPacket packet) override;
  void OnClosed() override;

 private:
  struct Held {
    IncomingPacket packet;
    RequestName name;
  };

  Context* const context_;
  ChannelOracles* const oracles_;
  vsc::ClientChannel* channel_ = nullptr;
  std::vector<Held> held_;
};

// The disk as all boots of the guest know it.
struct DiskOracle {
  explicit DiskOracle(uint64_t sectors) : model(sectors) {}
  DiskModel model;
  uint32_t next_version = 1;
  uint64_t failed = 0;  // answers that said so
};

class DiskUser final : private vsc::StorageClient::Events {
 public:
  DiskUser(Context* context, DiskOracle* oracle, const GuestMemory* memory,
           vsc::GuestPages* pages);

  vsc::StorageClient& client() { return *client_; }
  bool is_ready() const { return client_->ready(); }
  // As many requests as there are free slots, at most.
  void Ask(uint64_t count);
  // Reads the next part of the disk; true: all of it was begun.
  bool ReadNext(uint64_t* sector);
  size_t busy() const;
  uint64_t bad_answers() const { return client_->bad_answers(); }

 private:
  static constexpr size_t kSlots = 8;
  static constexpr uint64_t kSlotSectors = 16;  // two pages
  enum class Op { kNone, kRead, kWrite, kDurableWrite, kFlush, kUnmap };
  struct Slot {
    Op op = Op::kNone;
    uint64_t first = 0;
    uint64_t count = 0;
    uint64_t flush = 0;
    vsc::PageRun pages;
  };

  // vsc::StorageClient::Events.
  void OnReady(const vsc::StorageClientDisk& disk) override;
  void OnFailed(const absl::Status& status) override;
  void OnIoDone(uint64_t cookie, const vsc::StorageIoResult& result) override;

  bool Start(size_t index, Op op, uint64_t first, uint64_t count);
  void StartRandom(size_t index);
  void EndRead(Slot& slot, bool is_ok);
  std::vector<vsc::GuestBuffer> Buffers(const Slot& slot);
  absl::Span<std::byte> Bytes(const Slot& slot) const;

  Context* const context_;
  DiskOracle* const oracle_;
  vsc::GuestPages* const guest_pages_;
  std::array<Slot, kSlots> slots_;
  std::unique_ptr<vsc::StorageClient> client_;
};

}  // namespace ferrybus::simulation

#endif  // FERRYBUS_TESTS_SIMULATION_GUEST_DRIVERS_H_
