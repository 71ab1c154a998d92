// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/storage/vstor_session.h"

namespace ferrybus::vsp {

using vstor::Operation;

bool VstorSession::IsSupported(uint16_t version) {
  return version == vstor::kVersionWin10 || version == vstor::kVersionWin8_1 ||
         version == vstor::kVersionWin8;
}

vstor::Packet VstorSession::Answer(const vstor::Packet& request) {
  vstor::Packet answer = {};
  answer.operation = Operation::kCompleteIo;
  answer.status = vstor::kStatusInvalidDeviceState;
  switch (request.operation) {
    case Operation::kBeginInitialization:
      if (Advance(VstorPhase::kStart, VstorPhase::kBegun)) {
        answer.status = vstor::kStatusSuccess;
      }
      break;
    case Operation::kQueryProtocolVersion:
      answer.status = AgreeOnVersion(request);
      break;
    case Operation::kQueryProperties:
      if (Advance(VstorPhase::kVersionAgreed, VstorPhase::kPropertiesSent)) {
        answer.status = vstor::kStatusSuccess;
        vstor::ChannelProperties properties = {};
        properties.max_transfer_bytes = max_transfer_bytes_;
        vstor::SetBody(properties, answer);
      }
      break;
    case Operation::kEndInitialization:
      if (Advance(VstorPhase::kPropertiesSent, VstorPhase::kReady)) {
        answer.status = vstor::kStatusSuccess;
      }
      break;
    case Operation::kCreateMultiChannels:
    case Operation::kFchbaData:
      answer.status = vstor::kStatusNotSupported;
      break;
    default:
      answer.status = vstor::kStatusInvalidParameter;
      break;
  }
  return answer;
}

bool VstorSession::Advance(VstorPhase from, VstorPhase to) {
  if (phase_ != from) return false;
  phase_ = to;
  return true;
}

// The guest tries its versions from the newest down.
uint32_t VstorSession::AgreeOnVersion(const vstor::Packet& request) {
  if (phase_ != VstorPhase::kBegun) return vstor::kStatusInvalidDeviceState;
  const uint16_t version =
      vstor::GetBody<vstor::ProtocolVersion>(request).major_minor;
  if (!IsSupported(version)) return vstor::kStatusRevisionMismatch;
  version_ = version;
  phase_ = VstorPhase::kVersionAgreed;
  return vstor::kStatusSuccess;
}

void VstorSession::Reset() {
  phase_ = VstorPhase::kStart;
  version_ = 0;
}

void VstorSession::Restore(VstorPhase phase, uint16_t version) {
  phase_ = phase;
  version_ = version;
}

}  // namespace ferrybus::vsp
