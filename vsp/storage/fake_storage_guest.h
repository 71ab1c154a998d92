// SPDX-License-Identifier: MIT
//
// A guest and its channel in one object, for tests of a storage device: it
// hands packets to the device and keeps the answers.
//
// Guest memory is one arena that the test owns, so that it can move along when
// a device is restored behind another FakeStorageGuest.
//
//   std::vector<std::byte> memory(65536);
//   FakeStorageGuest guest(memory);
//   guest.Initialize(device);
//   uint64_t id = guest.ExecuteSrb(device, cdb, vstor::kDataIn,
//                                  {guest.Buffer(0, 4096)});
//   device.Poll();
//   EXPECT_EQ(guest.SrbReply(id).srb_status, vstor::kSrbSuccess);

#ifndef FERRYBUS_VSP_STORAGE_FAKE_STORAGE_GUEST_H_
#define FERRYBUS_VSP_STORAGE_FAKE_STORAGE_GUEST_H_

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/types/span.h"
#include "ferrybus/channel/incoming_packet.h"
#include "ferrybus/channel/protocols/vstor.h"
#include "ferrybus/vsp/device.h"

namespace ferrybus::vsp {

class FakeStorageGuest final : public IncomingPacketOwner {
 public:
  // Borrows `memory`.
  explicit FakeStorageGuest(absl::Span<std::byte> memory) : memory_(memory) {}
  FakeStorageGuest(const FakeStorageGuest&) = delete;
  FakeStorageGuest& operator=(const FakeStorageGuest&) = delete;

  // For the device callbacks that name their channel.
  static ServerChannel& Channel();

  // Guest memory at `offset`, which must lie inside.
  iovec Buffer(size_t offset, size_t bytes);
  std::byte* at(size_t offset) { return memory_.data() + offset; }

  // -- Sending: one packet, one batch.  Returns the packet's id. -----------
  uint64_t Send(Device& device, absl::Span<const std::byte> payload,
                std::vector<iovec> buffers = {});
  uint64_t Send(Device& device, const vstor::Packet& packet,
                std::vector<iovec> buffers = {});
  uint64_t ExecuteSrb(Device& device, absl::Span<const uint8_t> cdb,
                      uint8_t data_in = vstor::kDataNone,
                      std::vector<iovec> buffers = {});
  // The whole handshake.  False if a step was refused.
  bool Initialize(Device& device);

  static vstor::Packet MakeSrb(absl::Span<const uint8_t> cdb, uint8_t data_in,
                               uint32_t transfer_bytes);
  static vstor::Packet MakeOperation(vstor::Operation operation);

  // Guest buffers of all further packets lie outside guest memory.
  void RefuseMapping(bool refuse) { refuse_mapping_ = refuse; }
  // While on, packets sent join one batch; turning it off ends the batch.
  void HoldBatch(Device* device);
  void EndBatch();

  // -- Answers -------------------------------------------------------------
  bool answered(uint64_t id) const { return packets_[id].answered; }
  const std::vector<std::byte>& reply(uint64_t id) const {
    return packets_[id].reply;
  }
  // REQUIRES: answered with a whole packet (else a packet of 0xff).
  vstor::Packet Reply(uint64_t id) const;
  vstor::Srb SrbReply(uint64_t id) const;
  size_t outstanding() const { return outstanding_; }
  // Handles that ended without an answer, and packets the device faulted.
  size_t dropped() const { return dropped_; }
  size_t failed() const { return failed_; }

  // -- Moving --------------------------------------------------------------
  const PacketInfo& info(uint64_t id) const { return packets_[id].info; }
  // The same packet, in flight again behind this guest; `id` is its id here.
  IncomingPacket Adopt(const FakeStorageGuest& from, uint64_t from_id,
                       uint64_t* id);

  // -- IncomingPacketOwner -------------------------------------------------
  CompleteResult CompletePacket(uint32_t slot, uint32_t generation,
                                absl::Span<const std::byte> payload) override;
  void DropPacket(uint32_t slot, uint32_t generation) override;
  void FailPacket(uint32_t slot, uint32_t generation,
                  std::string_view reason) override;
  absl::StatusOr<absl::Span<const iovec>> MapGuestBuffers(
      uint32_t slot) override;

 private:
  struct Packet {
    PacketInfo info;
    std::vector<std::byte> payload;
    std::vector<iovec> buffers;
    std::vector<std::byte> reply;
    bool in_flight = false;
    bool answered = false;
  };

  IncomingPacket NewPacket(absl::Span<const std::byte> payload,
                           std::vector<iovec> buffers, uint64_t* id);
  Packet* End(uint32_t slot, uint32_t generation);

  const absl::Span<std::byte> memory_;
  std::deque<Packet> packets_;      // by id
  std::vector<uint64_t> slot_ids_;  // the packet in each slot
  std::vector<uint32_t> free_slots_;
  bool refuse_mapping_ = false;
  Device* batch_device_ = nullptr;
  size_t batch_packets_ = 0;
  size_t outstanding_ = 0;
  size_t dropped_ = 0;
  size_t failed_ = 0;
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_STORAGE_FAKE_STORAGE_GUEST_H_
