// SPDX-License-Identifier: MIT

#include "ferrybus/kmcl/parent.h"

#include <cstring>
#include <string>
#include <utility>

#include "absl/time/clock.h"
#include "ferrybus/channel/check.h"
#include "ferrybus/channel/transport/port.h"
#include "ferrybus/kmcl/channel.h"
#include "ferrybus/savestate/steady_clock.h"
#include "ferrybus/vsc/guest_port.h"
#include "ferrybus/vsp/host_port.h"

namespace ferrybus::kmcl {
namespace {

// A guest and its host.  Ends in the opposite order.
struct Loopback {
  std::unique_ptr<MemfdGuestMemory> guest_memory;
  std::unique_ptr<vsc::GuestPages> pages;
  std::unique_ptr<vsc::GuestPort> guest_port;
  std::unique_ptr<vsp::HostPort> host_port;
  std::unique_ptr<vsc::Bus> client;
  std::unique_ptr<vsp::Bus> server;

  absl::Status Create(uint64_t ram_bytes);
  absl::StatusOr<vsp::Bus*> Restore(absl::Span<const std::byte> saved);
  bool Pump() {
    const bool host = host_port->Pump(*server);
    return guest_port->Pump(*client) || host;
  }
};

absl::Status Loopback::Create(uint64_t ram_bytes) {
  auto memory = MemfdGuestMemory::Create(ram_bytes);
  if (!memory.ok()) return memory.status();
  guest_memory = *std::move(memory);
  pages = std::make_unique<vsc::GuestPages>(guest_memory.get());
  auto ports = CreatePort(guest_memory->file());
  if (!ports.ok()) return ports.status();
  auto guest = vsc::GuestPort::Open(std::move(ports->guest));
  if (!guest.ok()) return guest.status();
  guest_port = *std::move(guest);
  auto host = vsp::HostPort::Open(std::move(ports->host));
  if (!host.ok()) return host.status();
  host_port = *std::move(host);
  vsc::BusOptions options;
  options.ring_data_pages = 16;
  client = std::make_unique<vsc::Bus>(options, guest_memory.get(), pages.get(),
                                      guest_port->doorbell());
  server = std::make_unique<vsp::Bus>(vsp::BusOptions(), guest_memory.get(),
                                      host_port->doorbell());
  return client->Connect();
}

absl::StatusOr<vsp::Bus*> Loopback::Restore(absl::Span<const std::byte> saved) {
  auto bus = vsp::Bus::RestoreConnection(saved, {}, guest_memory.get(),
                                         host_port->doorbell());
  if (!bus.ok()) return bus.status();
  server = *std::move(bus);
  return server.get();
}

// The least of what a process waits for before it looks again.
constexpr absl::Duration kNap = absl::Microseconds(50);

}  // namespace

FERRYBUS_PARENT MakeParent(World world, bool is_server) {
  return new FerrybusParent{std::make_shared<World>(std::move(world)),
                            is_server};
}

bool PumpUntil(World& world, absl::Time deadline,
               absl::FunctionRef<bool()> is_done) {
  while (!is_done()) {
    FERRYBUS_CHECK(world.quiet_depth == 0,
                   "a call that waits, within a callback that may not");
    if (world.pump()) continue;
    if (is_done()) break;
    if (savestate::SteadyNow() >= deadline) return false;
    absl::SleepFor(kNap);
  }
  return true;
}

}  // namespace ferrybus::kmcl

using ferrybus::kmcl::Loopback;
using ferrybus::kmcl::MmioRange;
using ferrybus::kmcl::World;

NTSTATUS ferrybus_create_loopback(UINT64 ram_bytes, FERRYBUS_PARENT* server,
                                  FERRYBUS_PARENT* client) {
  auto loopback = std::make_shared<Loopback>();
  if (!loopback->Create(ram_bytes).ok()) return STATUS_INSUFFICIENT_RESOURCES;
  World world;
  world.server = loopback->server.get();
  world.client = loopback->client.get();
  world.memory = loopback->guest_memory.get();
  world.pages = loopback->pages.get();
  world.pump = [its = loopback.get()] { return its->Pump(); };
  world.restore = [its = loopback.get()](absl::Span<const std::byte> saved) {
    return its->Restore(saved);
  };
  world.keeps = std::move(loopback);
  *server = ferrybus::kmcl::MakeParent(std::move(world), true);
  *client = new FerrybusParent{(*server)->world, false};
  return STATUS_SUCCESS;
}

NTSTATUS VmbConvertVmbusHandleToKernelHandle(HANDLE VmbusHandle,
                                             HANDLE* KernelHandle) {
  if (VmbusHandle == nullptr) return STATUS_INVALID_PARAMETER_1;
  *KernelHandle = new FerrybusParent(*VmbusHandle);
  return STATUS_SUCCESS;
}

void ferrybus_close_parent(FERRYBUS_PARENT parent) { delete parent; }

int ferrybus_pump(FERRYBUS_PARENT parent) {
  World& world = *parent->world;
  return world.quiet_depth == 0 && world.pump() ? 1 : 0;
}

PVOID ferrybus_allocate_guest_memory(FERRYBUS_PARENT client, UINT32 bytes) {
  World& world = *client->world;
  if (world.pages == nullptr || bytes == 0) return nullptr;
  const auto run = world.pages->Allocate((uint64_t{bytes} + 4095) / 4096);
  return run.ok() ? world.pages->bytes(*run).data() : nullptr;
}

void ferrybus_free_guest_memory(FERRYBUS_PARENT client, PVOID memory,
                                UINT32 bytes) {
  World& world = *client->world;
  const std::byte* const base = world.memory->Translate(0, 4096).data();
  const auto offset =
      static_cast<uint64_t>(static_cast<const std::byte*>(memory) - base);
  world.pages->Free({offset / 4096, (uint64_t{bytes} + 4095) / 4096});
}

void ferrybus_set_mmio(FERRYBUS_PARENT parent, UINT64 address, UINT64 bytes) {
  World& world = *parent->world;
  MmioRange& range = parent->is_server ? world.server_mmio : world.client_mmio;
  range = {address, address + bytes};
}

NTSTATUS ferrybus_save_parent(FERRYBUS_PARENT server, PVOID buffer,
                              UINT32 bytes, UINT32* needed) {
  World& world = *server->world;
  if (world.server == nullptr) return STATUS_INVALID_PARAMETER_1;
  const std::string saved = world.server->SaveConnection();
  *needed = static_cast<UINT32>(saved.size());
  if (buffer == nullptr || bytes < saved.size()) return STATUS_BUFFER_TOO_SMALL;
  std::memcpy(buffer, saved.data(), saved.size());
  return STATUS_SUCCESS;
}

NTSTATUS ferrybus_restore_parent(FERRYBUS_PARENT server, const void* buffer,
                                 UINT32 bytes) {
  World& world = *server->world;
  if (!world.restore) return STATUS_NOT_SUPPORTED;
  // The old bus ends within; its channels must not look at it any more.
  const auto restored = world.restore(
      absl::MakeConstSpan(static_cast<const std::byte*>(buffer), bytes));
  if (!restored.ok()) return STATUS_INVALID_PARAMETER_2;
  world.server = *restored;
  for (FerrybusChannel* channel : world.channels) channel->OnAbandoned();
  return STATUS_SUCCESS;
}

void ferrybus_start_parent(FERRYBUS_PARENT server) {
  server->world->server->Start();
}
