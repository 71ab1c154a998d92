// SPDX-License-Identifier: MIT

#include "ferrybus/tests/conformance/faulty_endpoint.h"

#include <cstring>
#include <utility>

#include "ferrybus/channel/messages.h"

namespace ferrybus::conformance {
namespace {

template <typename T>
T At(absl::Span<const std::byte> bytes, size_t offset) {
  T value{};
  if (offset + sizeof(T) <= bytes.size()) {
    std::memcpy(&value, bytes.data() + offset, sizeof(T));
  }
  return value;
}

}  // namespace

uint32_t FaultyEndpoint::OwnerOf(uint32_t gpadl) const {
  const auto found = gpadls_.find(gpadl);
  return found == gpadls_.end() ? 0 : found->second.channel;
}

// Keeps up with what the guest builds; only rules that do it right matter.
void FaultyEndpoint::Note(absl::Span<const std::byte> message) {
  const auto add_pages = [&message](Gpadl& gpadl, size_t from) {
    for (; from + 8 <= message.size() && gpadl.pages.size() < gpadl.page_count;
         from += 8) {
      gpadl.pages.push_back(At<uint64_t>(message, from));
    }
  };
  const uint32_t channel = At<uint32_t>(message, 8);
  switch (MessageType{At<uint32_t>(message, 0)}) {
    case MessageType::kGpadlHeader: {
      Gpadl& gpadl = gpadls_[At<uint32_t>(message, 12)];
      if (At<uint16_t>(message, 16) < 8) return;
      gpadl = {channel, (At<uint16_t>(message, 16) - 8u) / 8, {}};
      add_pages(gpadl, 28);
      return;
    }
    case MessageType::kGpadlBody:
      add_pages(gpadls_[At<uint32_t>(message, 12)], 16);
      return;
    case MessageType::kOpenChannel: {
      const std::vector<uint64_t>& pages =
          gpadls_[At<uint32_t>(message, 16)].pages;
      const uint32_t offset = At<uint32_t>(message, 24);
      if (offset < 2 || offset + uint64_t{2} > pages.size()) return;
      for (const uint64_t page : pages) {
        if (page >= ram_.page_count()) return;
      }
      const absl::Span<const uint64_t> all = pages;
      Rings& rings = rings_[channel];
      rings.out = GuestRing(ram_, all.first(offset));
      rings.in = GuestRing(ram_, all.subspan(offset));
      rings.out_seen = rings.out.Load(kReadIndex);
      rings.in_seen = rings.in.Load(kWriteIndex);
      rings.is_open = true;
      return;
    }
    case MessageType::kCloseChannel:
      if (rings_.count(channel) != 0) rings_[channel].is_open = false;
      return;
    case MessageType::kInitiateContact:
    case MessageType::kUnload:
      for (auto& [number, rings] : rings_) rings.is_open = false;
      return;
    default:
      return;
  }
}

void FaultyEndpoint::Post(uint32_t connection_id,
                          absl::Span<const std::byte> payload) {
  if (!OnPost(Bytes(payload.begin(), payload.end()))) return;
  Note(payload);
  good_->Post(connection_id, payload);
}

absl::Status FaultyEndpoint::Run() {
  for (auto& [channel, rings] : rings_) {
    if (rings.is_open) BeforeRun(rings);
  }
  const absl::Status status = good_->Run();
  for (auto& [channel, rings] : rings_) {
    const uint32_t end = rings.in.Load(kWriteIndex);
    bool wrote = false;
    while (rings.is_open && end < rings.in.data_bytes() &&
           rings.in_seen != end) {
      const uint32_t at = rings.in_seen;
      const uint32_t bytes = At<uint16_t>(rings.in.Read(at, 8), 4) * 8u + 8;
      if (bytes > rings.in.Used(end, at)) break;
      OnPacket(rings, at);
      rings.in_seen = rings.in.Advance(at, bytes);
      wrote = true;
    }
    AfterRun(channel, rings, wrote);
    rings.in_seen = rings.in.Load(kWriteIndex);
  }
  return status;
}

std::vector<Bytes> FaultyEndpoint::TakeMessages() {
  std::vector<Bytes> kept;
  for (Bytes& message : good_->TakeMessages()) {
    if (OnMessage(message)) kept.push_back(std::move(message));
  }
  return kept;
}

const SeededFault* FindFault(const std::string& name) {
  for (const SeededFault& fault : AllFaults()) {
    if (fault.name == name) return &fault;
  }
  return nullptr;
}

EndpointFactory Broken(const SeededFault& fault, EndpointFactory make_good) {
  return [&fault, make_good](const MemfdGuestMemory& ram) {
    return fault.make(make_good(ram), ram);
  };
}

}  // namespace ferrybus::conformance
