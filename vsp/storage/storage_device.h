// SPDX-License-Identifier: MIT
//
// A virtual SCSI disk behind a channel: what a stock Linux guest's hv_storvsc
// drives.
//
// What it is: the storage protocol's server (docs/WIRE_FORMAT.md, "vstor"):
// handshake, one LUN, SRBs in and answers out.  Commands that move no blocks
// are answered at once; the others go to the backend, all of a batch with one
// SubmitBatch(), and are completed by Poll().
//
// Ownership: owns its backend; borrowed by its channel.  Destroying the device
// waits for the I/O that the kernel has, then lets go of the image's lock.
//
// Threading: one thread, the one that calls Bus::Poll() and Poll().
//
// Trust: every field of a packet is checked, each SRB is copied once.  A wrong
// packet gets an answer that says so; nothing a guest sends faults the channel
// or stops the device.
//
// Moving (IncomingPolicy::kResume): a request whose answer the channel does
// not have yet is saved as pending and executed again at the new place, from
// its packet.  All of them may run twice: reads, writes, flushes and discards
// give the same result.  They must not run while the old owner's writes still
// can: open the new backend (its lock is the fence, see image_file.h) before
// the device starts.  Restored requests run at OnStarted(), not before, so
// that a restore that is refused in the middle has done nothing.
//
//   auto device = StorageDevice::Create(std::move(backend),
//                                       {.serial = "disk-0"});
//   bus.Offer(..., device->get());
//   for (;;) {
//     poll({bus fd, (*device)->wait_fd()});
//     (*device)->Poll();
//     bus.Poll(...);
//   }

#ifndef FERRYBUS_VSP_STORAGE_STORAGE_DEVICE_H_
#define FERRYBUS_VSP_STORAGE_STORAGE_DEVICE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/channel/incoming_packet.h"
#include "ferrybus/channel/protocols/vstor.h"
#include "ferrybus/vsp/device.h"
#include "ferrybus/vsp/storage/block_backend.h"
#include "ferrybus/vsp/storage/scsi_disk.h"
#include "ferrybus/vsp/storage/storage_state.h"
#include "ferrybus/vsp/storage/vstor_session.h"

namespace ferrybus::vsp {

struct StorageDeviceOptions {
  // What the guest sees in INQUIRY; part of the disk's identity, which a
  // restore compares.  Printable ASCII, at most kSerialBytesMax.
  std::string serial = {};
  std::array<uint8_t, 16> uuid = {};
  // Of one SRB; whole pages, at most 4 MiB less one page.
  uint32_t max_transfer_bytes = 1u << 20;
  // Packets in flight in one channel; those beyond are answered "busy".  At
  // least the channel's quota.
  uint32_t requests_max = 1024;
  // Further channels to the same disk, which a guest may ask for to use them
  // from several processors; at most kSubChannelsMax.  See SubChannelOffers.
  uint16_t sub_channels_max = 0;
};

class StorageDevice final : public Device {
 public:
  struct Counters {
    uint64_t packets = 0;
    uint64_t refused = 0;    // malformed, out of turn or no room
    uint64_t io_errors = 0;  // the backend failed
    uint64_t reissued = 0;   // executed again after a restore
  };

  // InvalidArgument: an option is outside its bounds.
  static absl::StatusOr<std::unique_ptr<StorageDevice>> Create(
      std::unique_ptr<BlockBackend> backend,
      const StorageDeviceOptions& options);

  ~StorageDevice() override;
  StorageDevice(const StorageDevice&) = delete;
  StorageDevice& operator=(const StorageDevice&) = delete;

  // Readable when Poll() has work.
  int wait_fd() const { return backend_->event_fd(); }
  // Completes the packets whose I/O ended; returns how many I/Os did.
  size_t Poll();

  // The device of a sub-channel, 1 to sub_channels_max.
  Device* sub_channel(uint16_t index) { return &sub_channels_[index - 1]; }
  uint16_t sub_channels_max() const { return options_.sub_channels_max; }
  // How many the guest has asked for and must be offered now.
  uint16_t sub_channels_wanted() const { return session_.sub_channels(); }

  const DiskModel& disk() const { return disk_.model(); }
  VstorPhase phase() const { return session_.phase(); }
  const Counters& counters() const { return counters_; }
  // Packets that the device has not answered.
  size_t in_flight() const { return in_flight_; }

  // -- Device --------------------------------------------------------------
  absl::Status OnOpened(ServerChannel& channel,
                        absl::Span<const std::byte> user_data) override;
  void OnStarted() override { StartChannel(0); }
  void OnClosed() override;
  void ProcessPacket(IncomingPacket packet) override {
    ProcessPacketOf(0, std::move(packet));
  }
  void ProcessingComplete(size_t count) override;
  IncomingPolicy incoming_policy() const override {
    return IncomingPolicy::kResume;
  }
  absl::StatusOr<std::string> SaveDevice() override;
  savestate::SizeAnswer SavePacket(const PacketInfo& packet,
                                   absl::Span<std::byte> out) override {
    return SavePacketOf(0, packet, out);
  }
  absl::Status OnRestored(ServerChannel& channel,
                          absl::Span<const std::byte> state) override;
  absl::Status RestorePacket(IncomingPacket packet,
                             absl::Span<const std::byte> blob) override {
    return RestorePacketOf(0, std::move(packet), blob);
  }

 private:
  // A sub-channel: packets and nothing else, since the handshake is the
  // primary channel's.
  class SubChannel final : public Device {
   public:
    SubChannel(StorageDevice* device, uint32_t channel)
        : device_(device), channel_(channel) {}
    void OnStarted() override { device_->StartChannel(channel_); }
    void OnClosed() override { device_->CloseChannel(channel_); }
    void ProcessPacket(IncomingPacket packet) override {
      device_->ProcessPacketOf(channel_, std::move(packet));
    }
    void ProcessingComplete(size_t count) override {
      device_->ProcessingComplete(count);
    }
    IncomingPolicy incoming_policy() const override {
      return IncomingPolicy::kResume;
    }
    savestate::SizeAnswer SavePacket(const PacketInfo& packet,
                                     absl::Span<std::byte> out) override {
      return device_->SavePacketOf(channel_, packet, out);
    }
    absl::Status RestorePacket(IncomingPacket packet,
                               absl::Span<const std::byte> blob) override {
      return device_->RestorePacketOf(channel_, std::move(packet), blob);
    }

   private:
    StorageDevice* const device_;
    const uint32_t channel_;
  };

  // One packet in flight; its place in the table is that of its channel (0 is
  // the primary one) and PacketInfo::slot.
  struct Request {
    enum class State : uint8_t {
      kFree,
      kRestored,   // waits for OnStarted()
      kWaiting,    // for room in the backend
      kSubmitted,  // the backend has it
      kResetting,  // waits for the requests before it
    };
    State state = State::kFree;
    // The channel was closed under it: nobody waits for the answer.
    bool abandoned = false;
    IncomingPacket packet;
    uint64_t sequence = 0;
    // Private copy of the request's SRB; becomes the answer.
    vstor::Srb srb = {};
    absl::Span<const iovec> guest_buffers;
    BlockOp op = BlockOp::kRead;
    bool durable = false;
    absl::InlinedVector<ByteRange, 1> ranges;
    size_t next_range = 0;
    // kRestored: the answer, if it was known.
    std::optional<SrbResult> saved_result;
  };

  StorageDevice(std::unique_ptr<BlockBackend> backend,
                const StorageDeviceOptions& options);

  void ProcessPacketOf(uint32_t channel, IncomingPacket packet);
  savestate::SizeAnswer SavePacketOf(uint32_t channel, const PacketInfo& packet,
                                     absl::Span<std::byte> out);
  absl::Status RestorePacketOf(uint32_t channel, IncomingPacket packet,
                               absl::Span<const std::byte> blob);
  void StartChannel(uint32_t channel);
  void CloseChannel(uint32_t channel);
  absl::Span<Request> RequestsOf(uint32_t channel);
  uint32_t IndexOf(const Request& request) const;

  Request* Acquire(uint32_t channel, IncomingPacket& packet);
  // Ends the request: frees its entry and completes its packet.
  void Finish(Request& request, const vstor::Packet& answer);
  void FinishWithStatus(Request& request, uint32_t status);
  void FinishSrb(Request& request, const SrbResult& result);

  void Dispatch(Request& request);
  void ExecuteSrb(Request& request);
  // The first reason not to execute the SRB at all.
  std::optional<SrbResult> CheckSrb(Request& request);
  void AnswerForAbsentLun(Request& request);
  void StartOutcome(Request& request, const ScsiOutcome& outcome);
  void Enqueue(Request& request);
  bool TryEnqueue(Request& request);
  void OnIoDone(uint32_t index, int32_t result);
  void EnqueueWaiting();
  void FinishResets();
  void SubmitEnqueued();
  Request* FindRequest(uint32_t channel, const PacketInfo& packet);
  StorageDeviceState State() const;

  std::unique_ptr<BlockBackend> backend_;
  const StorageDeviceOptions options_;
  const ScsiDisk disk_;
  VstorSession session_;
  Counters counters_;

  std::vector<SubChannel> sub_channels_;
  std::vector<Request> requests_;
  size_t in_flight_ = 0;
  size_t resetting_ = 0;
  uint64_t next_sequence_ = 0;
  bool enqueued_ = false;
  std::deque<uint32_t> waiting_;                 // indices
  std::vector<std::vector<uint32_t>> restored_;  // by channel
  std::vector<iovec> scratch_buffers_;
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_STORAGE_STORAGE_DEVICE_H_
