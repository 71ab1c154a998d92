// SPDX-License-Identifier: MIT
//
// A guest's storage driver: the handshake of Linux's hv_storvsc, then block
// reads, writes, flushes and unmaps on LUN 0.
//
// What it is: a driver for a channel that offers a SCSI disk.  It keeps up to
// `queue_depth` requests in flight and tells its user how each ended.
//
// Ownership: borrows events and scratch memory; the channel borrows it.  Guest
// memory of a request belongs to the request until OnIoDone.
//
// Thread safety: one thread, the one that calls vsc::Bus::Poll().  Events run
// inside that call and may start requests.
//
// Ordering: requests may complete in any order, each exactly once.  A flush
// covers the writes that had completed when it was started.
//
// Trust: the host may be hostile.  Lengths, statuses and capacities in its
// answers are checked, scratch memory is copied before it is looked at, and an
// answer that cannot be ends its request with kBadAnswer.
//
// Cost: no allocation per request once warm.
//
//   class Reader : public StorageClient::Events {
//     void OnReady(const StorageClientDisk& disk) override {
//       client->Read(0, {{gpa, 4096}}, /*cookie=*/1);
//     }
//     void OnIoDone(uint64_t cookie, const StorageIoResult& result) override;
//   };

#ifndef FERRYBUS_VSC_STORAGE_STORAGE_CLIENT_H_
#define FERRYBUS_VSC_STORAGE_STORAGE_CLIENT_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "ferrybus/channel/protocols/scsi.h"
#include "ferrybus/channel/protocols/vstor.h"
#include "ferrybus/vsc/client_channel.h"
#include "ferrybus/vsc/storage/srb_packet.h"

namespace ferrybus::vsc {

// The disk as the host describes it, checked.
struct StorageClientDisk {
  uint64_t block_count = 0;
  uint32_t block_bytes = 0;
  // Of one read or write.
  uint32_t max_transfer_bytes = 0;
  // 0: the disk does not know UNMAP.
  uint64_t max_unmap_bytes = 0;
  uint16_t protocol_version = 0;
  // 36 bytes of INQUIRY data, as they came.
  std::array<uint8_t, 36> inquiry = {};

  uint64_t size_bytes() const { return block_count * block_bytes; }
};

enum class [[nodiscard]] StorageStart{
    // OnIoDone follows, exactly once.
    kOk,
    // `queue_depth` are in flight; OnRoom follows.
    kFull,
    // Not whole blocks, outside the disk, longer than max_transfer_bytes, or
    // an operation that the disk does not know.
    kInvalid,
    // Before OnReady, or after the channel closed.
    kNotReady,
};

struct StorageClientOptions {
  uint32_t queue_depth = 256;
  // Guest memory for the driver's own use, at least 4096 bytes: `gpa` and the
  // same bytes mapped here.
  GuestBuffer scratch = {};
  std::byte* scratch_memory = nullptr;
};

class StorageClient final : public Driver {
 public:
  class Events {
   public:
    virtual ~Events() = default;
    virtual void OnReady(const StorageClientDisk& disk) { (void)disk; }
    // The handshake failed; the channel is of no use.
    virtual void OnFailed(const absl::Status& status) { (void)status; }
    virtual void OnIoDone(uint64_t cookie, const StorageIoResult& result) = 0;
    // A start that said kFull may be repeated.
    virtual void OnRoom() {}
  };

  // REQUIRES: scratch of at least 4096 bytes, queue_depth >= 1.
  StorageClient(Events* events, const StorageClientOptions& options);
  StorageClient(const StorageClient&) = delete;
  StorageClient& operator=(const StorageClient&) = delete;

  bool ready() const { return step_ == Step::kReady; }
  const StorageClientDisk& disk() const { return disk_; }
  size_t in_flight() const { return entries_.size() - free_.size(); }
  // Answers that matched nothing or could not be.
  uint64_t bad_answers() const { return bad_answers_; }

  // As many bytes as the buffers hold.
  StorageStart Read(uint64_t offset_bytes,
                    absl::Span<const GuestBuffer> buffers, uint64_t cookie);
  // `durable`: on the medium before it is answered (FUA).
  StorageStart Write(uint64_t offset_bytes,
                     absl::Span<const GuestBuffer> buffers, uint64_t cookie,
                     bool durable = false);
  StorageStart Flush(uint64_t cookie);
  // At most 128 at once per 4096 bytes of scratch memory.
  StorageStart Unmap(uint64_t offset_bytes, uint64_t length_bytes,
                     uint64_t cookie);
  // Makes started requests visible to the host; Bus::Poll() does it, too.
  void Publish();

  // -- Driver --------------------------------------------------------------
  void OnOpened(ClientChannel& channel) override;
  void OnCompletion(uint64_t tag, absl::Span<const std::byte> reply) override;
  void OnClosed() override;
  void OnRoom() override;

 private:
  // What the handshake waits for.
  enum class Step {
    kClosed,
    kBegin,
    kVersion,
    kProperties,
    kEnd,
    kInquiry,
    kCapacity,
    kLimits,
    kReady,
    kFailed,
  };

  // The tag of handshake packets; requests use their entry's index.
  static constexpr uint64_t kStepTag = ~uint64_t{0};

  struct Entry {
    bool used = false;
    uint64_t cookie = 0;
    uint32_t transfer_bytes = 0;
    // A success that moved less is none.
    bool must_transfer_all = false;
    int32_t unmap_slot = -1;
    // Kept until the channel has room.
    vstor::Packet packet = {};
    std::vector<GuestBuffer> buffers;
  };

  StorageStart Transfer(scsi::Op op, uint64_t offset_bytes,
                        absl::Span<const GuestBuffer> buffers, uint64_t cookie,
                        bool durable);
  bool InRange(uint64_t offset_bytes, uint64_t length_bytes) const;
  Entry* Acquire(uint64_t cookie);
  StorageStart Start(Entry& entry);
  SendResult Send(const Entry& entry);
  void Release(Entry& entry);
  void Finish(Entry& entry, const StorageIoResult& result);
  void OnIoAnswer(Entry& entry, absl::Span<const std::byte> reply);

  // The handshake (storage_client_handshake.cc).
  void Enter(Step step);
  void SendStep();
  vstor::Packet StepPacket(absl::Span<const GuestBuffer>* buffers);
  void OnStepAnswer(absl::Span<const std::byte> reply);
  void OnStepPacket(const vstor::Packet& answer);
  void OnStepData(const vstor::Packet& answer);
  void TakeInquiry(absl::Span<const uint8_t> data);
  void TakeCapacity(absl::Span<const uint8_t> data);
  void TakeLimits(absl::Span<const uint8_t> data);
  void Fail(const absl::Status& status);

  Events* const events_;
  const StorageClientOptions options_;
  ClientChannel* channel_ = nullptr;
  StorageClientDisk disk_;
  uint64_t bad_answers_ = 0;

  Step step_ = Step::kClosed;
  size_t version_index_ = 0;
  uint32_t step_transfer_bytes_ = 0;
  bool can_unmap_ = false;
  GuestBuffer step_buffer_;
  bool step_in_flight_ = false;

  std::vector<Entry> entries_;
  std::vector<uint32_t> free_;
  std::vector<uint32_t> free_unmap_slots_;
  // Started, but the channel had no room.
  std::deque<uint32_t> waiting_;
  bool user_waits_ = false;
};

}  // namespace ferrybus::vsc

#endif  // FERRYBUS_VSC_STORAGE_STORAGE_CLIENT_H_
