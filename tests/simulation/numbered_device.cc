// SPDX-License-Identifier: MIT

#include "ferrybus/tests/simulation/numbered_device.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace ferrybus::simulation {
namespace {

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

uint64_t TagIn(absl::Span<const std::byte> bytes) {
  uint64_t tag = ~uint64_t{0};
  if (bytes.size() >= sizeof(tag)) {
    std::memcpy(&tag, bytes.data(), sizeof(tag));
  }
  return tag;
}

savestate::SizeAnswer GiveTag(uint64_t tag, absl::Span<std::byte> out) {
  if (out.size() < sizeof(tag)) {
    return savestate::SizeAnswer::TooSmall(sizeof(tag));
  }
  std::memcpy(out.data(), &tag, sizeof(tag));
  return savestate::SizeAnswer::Ok(sizeof(tag));
}

}  // namespace

absl::Status NumberedDevice::OnOpened(vsp::ServerChannel& channel,
                                      absl::Span<const std::byte>) {
  channel_ = &channel;
  oracles_->host.Opened();
  return absl::OkStatus();
}

void NumberedDevice::OnStarted() {
  if (!std::exchange(is_restored_, false)) return;
  oracles_->guest.OwnerChanged();
  for (const Held& held : held_) oracles_->guest.Restored(held.name);
}

void NumberedDevice::OnClosed() {
  channel_ = nullptr;
  // A restore that was refused closes nothing but the new owner.
  if (!std::exchange(is_restored_, false)) oracles_->host.Closed();
}

void NumberedDevice::ProcessPacket(IncomingPacket packet) {
  const RequestName name = oracles_->guest.Delivered(packet.payload());
  const uint64_t what = context_->random.Below(16);
  if (what == 0 && !packet.may_block()) {
    oracles_->guest.Deferred(name);
    return packet.Defer();
  }
  if (what < 5) return Complete(std::move(packet), name);
  held_.push_back({std::move(packet), name});
}

void NumberedDevice::Complete(IncomingPacket packet, RequestName name) {
  (void)packet.Complete(AsBytes(oracles_->guest.Reply(name)));
}

void NumberedDevice::Answer(uint64_t count) {
  while (count-- > 0 && !held_.empty()) {
    std::swap(held_[context_->random.Below(held_.size())], held_.back());
    Held held = std::move(held_.back());
    held_.pop_back();
    Complete(std::move(held.packet), held.name);
  }
  if (channel_ != nullptr) channel_->Flush();
}

void NumberedDevice::Ask(uint64_t count) {
  while (count-- > 0 && channel_ != nullptr) {
    const RequestName name = oracles_->host.NextName();
    const std::string payload = oracles_->host.Payload(name);
    OutgoingPacket packet;
    packet.payload = AsBytes(payload);
    packet.wants_completion = !context_->random.OneIn(4);
    packet.tag = name.tag();
    if (channel_->Send(packet) != SendStatus::kOk) break;
    oracles_->host.Sent(packet.wants_completion);
  }
  if (channel_ != nullptr && context_->random.OneIn(2)) channel_->Flush();
}

void NumberedDevice::OnCompletion(uint64_t tag,
                                  absl::Span<const std::byte> reply) {
  oracles_->host.Answered(tag, reply);
}

// ---- Moving

savestate::SizeAnswer NumberedDevice::SavePacket(const PacketInfo& packet,
                                                 absl::Span<std::byte> out) {
  if (oracles_->policy != vsp::IncomingPolicy::kResume) {
    return savestate::SizeAnswer::Ok(0);
  }
  return GiveTag(TagIn(packet.payload), out);
}

savestate::SizeAnswer NumberedDevice::SaveAwaiting(uint64_t tag,
                                                   absl::Span<std::byte> out) {
  return GiveTag(tag, out);
}

absl::Status NumberedDevice::OnRestored(vsp::ServerChannel& channel,
                                        absl::Span<const std::byte> state) {
  channel_ = &channel;
  is_restored_ = true;
  if (absl::string_view(reinterpret_cast<const char*>(state.data()),
                        state.size()) != "numbered") {
    context_->Fail("wrong-state", "a device got another state than it saved");
  }
  // Now, or at a packet.
  return context_->random.OneIn(2) ? absl::OkStatus() : MaybeRefuse();
}

absl::Status NumberedDevice::MaybeRefuse() {
  if (!std::exchange(oracles_->refuses_restore, false)) return absl::OkStatus();
  context_->Happened(Fault::kRestoreRefused);
  held_.clear();
  return absl::UnavailableError("the device was made to refuse");
}

absl::Status NumberedDevice::RestoreAwaiting(uint64_t tag,
                                             absl::Span<const std::byte> blob) {
  if (TagIn(blob) != tag) {
    context_->Fail("wrong-state", absl::StrCat("awaiting packet ", tag,
                                               " came with another's blob"));
  }
  return absl::OkStatus();
}

absl::Status NumberedDevice::RestorePacket(IncomingPacket packet,
                                           absl::Span<const std::byte> blob) {
  const RequestName name = RequestName::FromTag(TagIn(packet.payload()));
  if (oracles_->policy == vsp::IncomingPolicy::kResume &&
      TagIn(blob) != TagIn(packet.payload())) {
    context_->Fail("wrong-state", absl::StrCat("packet ", name.number,
                                               " came with another's blob"));
  }
  // It may never start, and then nothing is promised.
  held_.push_back({std::move(packet), name});
  return MaybeRefuse();
}

}  // namespace ferrybus::simulation
