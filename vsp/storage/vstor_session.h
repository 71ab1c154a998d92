// SPDX-License-Identifier: MIT
//
// The host's half of the storage handshake: a pure state machine.
//
//   kStart --BEGIN_INITIALIZATION--> kBegun
//          --QUERY_PROTOCOL_VERSION, one that we speak--> kVersionAgreed
//          --QUERY_PROPERTIES--> kPropertiesSent
//          --END_INITIALIZATION--> kReady
//          --CREATE_SUB_CHANNELS, once, if there are any--> kReady
//
// An operation out of turn, a version that is not ours and anything unknown
// gets an answer with a status other than 0, and changes nothing.
//
// Thread safety: none.  Trust: every field of a request is the guest's.

#ifndef FERRYBUS_VSP_STORAGE_VSTOR_SESSION_H_
#define FERRYBUS_VSP_STORAGE_VSTOR_SESSION_H_

#include <cstdint>

#include "ferrybus/channel/protocols/vstor.h"

namespace ferrybus::vsp {

// Of one disk.
inline constexpr uint16_t kSubChannelsMax = 64;

enum class VstorPhase : uint8_t {
  kStart,
  kBegun,
  kVersionAgreed,
  kPropertiesSent,
  kReady,
};

class VstorSession {
 public:
  // What QUERY_PROPERTIES tells the guest.
  VstorSession(uint32_t max_transfer_bytes, uint16_t sub_channels_max)
      : max_transfer_bytes_(max_transfer_bytes),
        sub_channels_max_(sub_channels_max) {}

  static bool IsSupported(uint16_t version);

  // Answers every operation except SRBs and resets.
  vstor::Packet Answer(const vstor::Packet& request);

  // SRBs and resets are allowed.
  bool ready() const { return phase_ == VstorPhase::kReady; }
  VstorPhase phase() const { return phase_; }
  // 0 before it was agreed on.
  uint16_t version() const { return version_; }
  // How many the guest asked for.
  uint16_t sub_channels() const { return sub_channels_; }

  // A new channel.
  void Reset();
  // REQUIRES: `version` fits `phase` (ParseDeviceState checks it).
  void Restore(VstorPhase phase, uint16_t version, uint16_t sub_channels);

 private:
  bool Advance(VstorPhase from, VstorPhase to);
  uint32_t AgreeOnVersion(const vstor::Packet& request);
  uint32_t CreateSubChannels(const vstor::Packet& request);

  const uint32_t max_transfer_bytes_;
  const uint16_t sub_channels_max_;
  VstorPhase phase_ = VstorPhase::kStart;
  uint16_t version_ = 0;
  uint16_t sub_channels_ = 0;
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_STORAGE_VSTOR_SESSION_H_
