// SPDX-License-Identifier: MIT

#include "ferrybus/tests/testing/counted_traffic.h"

#include <cstring>
#include <string>
#include <utility>

namespace ferrybus::testing {
namespace {

uint64_t NumberIn(absl::Span<const std::byte> bytes) {
  uint64_t number = ~uint64_t{0};
  if (bytes.size() >= 8) std::memcpy(&number, bytes.data(), 8);
  return number;
}

std::string Numbered(uint64_t number, size_t more_bytes) {
  std::string text(8 + more_bytes, 'x');
  std::memcpy(text.data(), &number, 8);
  return text;
}

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

}  // namespace

void AnswerLedger::Answer(uint64_t number) {
  if (number < asked() && answers_[number]++ == 0) {
    ++answered_;
  } else {
    ++doubled_;
  }
}

// ---- The host's side

absl::Status PiledDevice::OnOpened(vsp::ServerChannel& channel,
                                   absl::Span<const std::byte>) {
  channel_ = &channel;
  return absl::OkStatus();
}

absl::Status PiledDevice::OnRestored(vsp::ServerChannel& channel,
                                     absl::Span<const std::byte>) {
  channel_ = &channel;
  return absl::OkStatus();
}

void PiledDevice::ProcessPacket(IncomingPacket packet) {
  const std::lock_guard<std::mutex> lock(mutex_);
  held_.push_back(std::move(packet));
}

void PiledDevice::OnCompletion(uint64_t tag,
                               absl::Span<const std::byte> reply) {
  ledger_->Answer(NumberIn(reply) == tag ? tag : ~uint64_t{0});
}

savestate::SizeAnswer PiledDevice::SavePacket(const PacketInfo& packet,
                                              absl::Span<std::byte> out) {
  if (policy_ != vsp::IncomingPolicy::kResume) {
    return savestate::SizeAnswer::Ok(0);
  }
  if (out.size() < 8) return savestate::SizeAnswer::TooSmall(8);
  std::memcpy(out.data(), packet.payload.data(), 8);
  return savestate::SizeAnswer::Ok(8);
}

absl::Status PiledDevice::RestorePacket(IncomingPacket packet,
                                        absl::Span<const std::byte> blob) {
  const bool is_due = policy_ == vsp::IncomingPolicy::kResume;
  if (is_due && NumberIn(blob) != NumberIn(packet.payload())) {
    return absl::DataLossError("the blob of another packet");
  }
  ProcessPacket(std::move(packet));
  return absl::OkStatus();
}

bool PiledDevice::SendRequest(size_t more_bytes) {
  const std::string payload = Numbered(ledger_->asked(), more_bytes);
  OutgoingPacket packet;
  packet.payload = AsBytes(payload);
  packet.wants_completion = true;
  packet.tag = ledger_->asked();
  if (channel_ == nullptr || channel_->Send(packet) != SendStatus::kOk) {
    return false;
  }
  ledger_->Ask();
  return true;
}

void PiledDevice::Flush() {
  if (channel_ != nullptr) channel_->Flush();
}

bool PiledDevice::AnswerOne(std::mt19937_64& random) {
  IncomingPacket packet;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (held_.empty()) return false;
    std::swap(held_[random() % held_.size()], held_.back());
    packet = std::move(held_.back());
    held_.pop_back();
  }
  const std::string reply =
      Numbered(NumberIn(packet.payload()), random() % 700);
  packet.Complete(AsBytes(reply));
  return true;
}

// ---- The guest's side

void EchoDriver::OnCompletion(uint64_t tag, absl::Span<const std::byte> reply) {
  ledger_->Answer(NumberIn(reply) == tag ? tag : ~uint64_t{0});
}

void EchoDriver::OnPacket(IncomingPacket packet) {
  packet.Complete(packet.payload());
}

bool EchoDriver::SendRequest(size_t more_bytes) {
  const std::string payload = Numbered(ledger_->asked(), more_bytes);
  vsc::Request request;
  request.payload = AsBytes(payload);
  request.tag = ledger_->asked();
  if (channel_ == nullptr || channel_->Send(request) != vsc::SendResult::kOk) {
    return false;
  }
  ledger_->Ask();
  return true;
}

void EchoDriver::Flush() {
  if (channel_ != nullptr) channel_->Flush();
}

}  // namespace ferrybus::testing
