// SPDX-License-Identifier: MIT

#include "ferrybus/examples/hypervisor/socket_probe.h"

#include <array>

#include "ferrybus/channel/guid.h"
#include "ferrybus/channel/protocols/hv_sock.h"

namespace ferrybus::hypervisor {
namespace {

constexpr Guid kEndpoint = GuidLiteral("3e1b6c0a-65a5-4d6f-9f43-2a1c5d7e8f90");
constexpr size_t kBytesPerTick = 700;

std::byte ByteAt(uint64_t position) {
  return static_cast<std::byte>(position * 7 + (position >> 8));
}

}  // namespace

vsp::DeviceOffer SocketProbe::Offer() {
  return {vsp::SocketDevice::Params(ServiceOfVsockPort(kGuestPort), kEndpoint,
                                    /*for_guest_accept=*/true),
          &device_};
}

void SocketProbe::Continue(const ProbeState& state) { is_ = state; }

void SocketProbe::Tick() {
  if (!device_.stream().can_write()) return;
  std::array<std::byte, kBytesPerTick> bytes;
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = ByteAt(is_.sent + i);
  is_.sent += device_.stream().Write(bytes);
}

void SocketProbe::OnReadable() {
  std::array<std::byte, 4096> bytes;
  while (const size_t got = device_.stream().Read(absl::MakeSpan(bytes))) {
    for (size_t i = 0; i < got; ++i) {
      if (bytes[i] != ByteAt(is_.received + i)) ++is_.wrong;
    }
    is_.received += got;
  }
  if (is_.received > is_.sent) ++is_.wrong;
}

ProbeState SocketProbe::State() const { return is_; }

}  // namespace ferrybus::hypervisor
