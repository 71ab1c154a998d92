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
        properties.max_channels = sub_channels_max_;
        if (sub_channels_max_ > 0) {
          properties.flags = vstor::kPropertyMultiChannel;
        }
        vstor::SetBody(properties, answer);
      }
      break;
    case Operation::kEndInitialization:
      if (Advance(VstorPhase::kPropertiesSent, VstorPhase::kReady)) {
        answer.status = vstor::kStatusSuccess;
      }
      break;
    case Operation::kCreateMultiChannels:
      answer.status = CreateSubChannels(request);
      break;
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

uint32_t VstorSession::CreateSubChannels(const vstor::Packet& request) {
  if (sub_channels_max_ == 0) return vstor::kStatusNotSupported;
  if (!ready() || sub_channels_ != 0) return vstor::kStatusInvalidDeviceState;
  const uint16_t count =
      vstor::GetBody<vstor::SubChannelRequest>(request).count;
  if (count == 0 || count > sub_channels_max_) {
    return vstor::kStatusInvalidParameter;
  }
  sub_channels_ = count;
  return vstor::kStatusSuccess;
}

void VstorSession::Reset() { Restore(VstorPhase::kStart, 0, 0); }

void VstorSession::Restore(VstorPhase phase, uint16_t version,
                           uint16_t sub_channels) {
  phase_ = phase;
  version_ = version;
  sub_channels_ = sub_channels;
}

}  // namespace ferrybus::vsp
