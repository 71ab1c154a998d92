// SPDX-License-Identifier: MIT
//
// SRBs as Linux's hv_storvsc writes them, and what an answer to one means.
//
// Thread safety: pure functions.
// Trust: an answer is the host's; whatever it says, it is read within bounds.

#ifndef FERRYBUS_VSC_STORAGE_SRB_PACKET_H_
#define FERRYBUS_VSC_STORAGE_SRB_PACKET_H_

#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/types/span.h"
#include "ferrybus/channel/protocols/scsi.h"
#include "ferrybus/channel/protocols/vstor.h"

namespace ferrybus::vsc {

enum class StorageIoStatus : uint8_t {
  kOk,
  // The disk refused or failed it: see `sense`.
  kCheckCondition,
  kBusy,
  kNoDevice,
  // Some other SRB status, or a success that moved too little.
  kHostError,
  // The host's answer breaks the protocol.
  kBadAnswer,
  // The channel closed; whether the request was executed is not known.
  kClosed,
};

struct StorageIoResult {
  StorageIoStatus status = StorageIoStatus::kOk;
  scsi::Sense sense;
  uint8_t srb_status = 0;
  uint32_t transferred_bytes = 0;
};

// An EXECUTE_SRB packet for LUN 0.  REQUIRES: cdb.size() <= kCdbBytesMax.
vstor::Packet MakeSrbPacket(absl::Span<const uint8_t> cdb, uint8_t data_in,
                            uint32_t transfer_bytes);

// A whole packet with operation kCompleteIo, or nothing.
std::optional<vstor::Packet> ReadAnswer(absl::Span<const std::byte> reply);

// How an SRB of `transfer_bytes` ended, by its answer.
StorageIoResult InterpretSrb(const vstor::Packet& answer,
                             uint32_t transfer_bytes);

}  // namespace ferrybus::vsc

#endif  // FERRYBUS_VSC_STORAGE_SRB_PACKET_H_
