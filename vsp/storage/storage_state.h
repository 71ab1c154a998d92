// SPDX-License-Identifier: MIT
//
// The storage device's saved state as checked plain data, between the live
// device and the bytes of storage_state_persist.h.
//
// Trust: a value that came out of the parser was checked; one filled by hand
// was not.

#ifndef FERRYBUS_VSP_STORAGE_STORAGE_STATE_H_
#define FERRYBUS_VSP_STORAGE_STORAGE_STATE_H_

#include <array>
#include <cstdint>
#include <string>

#include "ferrybus/channel/protocols/scsi.h"
#include "ferrybus/channel/protocols/vstor.h"
#include "ferrybus/vsp/storage/vstor_session.h"

namespace ferrybus::vsp {

// How one SRB ended.
struct SrbResult {
  uint8_t srb_status = vstor::kSrbSuccess;  // without kSrbAutosenseValid
  scsi::Status scsi_status = scsi::Status::kGood;
  bool has_sense = false;
  scsi::Sense sense;
  uint32_t transferred_bytes = 0;

  friend bool operator==(const SrbResult&, const SrbResult&) = default;
};

struct DiskIdentity {
  uint64_t size_bytes = 0;
  uint32_t block_bytes = 0;
  bool read_only = false;
  bool can_discard = false;
  std::string serial;
  std::array<uint8_t, 16> uuid = {};

  friend bool operator==(const DiskIdentity&, const DiskIdentity&) = default;
};

struct StorageDeviceState {
  VstorPhase phase = VstorPhase::kStart;
  uint16_t version = 0;
  uint32_t max_transfer_bytes = 0;
  DiskIdentity disk;
  uint16_t sub_channels = 0;

  friend bool operator==(const StorageDeviceState&,
                         const StorageDeviceState&) = default;
};

struct StoragePacketState {
  // False: execute again.  True: answer with `result`.
  bool done = false;
  SrbResult result;

  friend bool operator==(const StoragePacketState&,
                         const StoragePacketState&) = default;
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_STORAGE_STORAGE_STATE_H_
