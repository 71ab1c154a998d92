// SPDX-License-Identifier: MIT
//
// What a channel of the C interface hangs on: a bus, and how to run it.
//
// What it is: the C++ half of FERRYBUS_PARENT.  An embedder that has its own
// buses makes parents here; ferrybus_create_loopback() makes a guest and a
// host within one process.
//
// Ownership: a parent is one reference to a World, which owns or borrows the
// buses; ferrybus_close_parent() ends it.
// Thread safety: one thread for all parents of a World.
//
//   kmcl::World world;
//   world.server = &bus;
//   world.memory = &memory;
//   world.pump = [&] { return port.Pump(bus); };
//   FERRYBUS_PARENT parent = kmcl::MakeParent(std::move(world), true);

#ifndef FERRYBUS_KMCL_PARENT_H_
#define FERRYBUS_KMCL_PARENT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ferrybus/channel/guest_memory.h"
#include "ferrybus/kmcl/kmcl.h"
#include "ferrybus/vsc/bus.h"
#include "ferrybus/vsp/bus.h"

namespace ferrybus::kmcl {

// MMIO windows, handed out one after the other.
struct MmioRange {
  uint64_t next = 0;
  uint64_t end = 0;
};

struct World {
  // Null on the side that is not here.
  vsp::Bus* server = nullptr;
  vsc::Bus* client = nullptr;
  const GuestMemory* memory = nullptr;
  vsc::GuestPages* pages = nullptr;  // the client's
  // Serves by way of these; may be null.
  GuestPins* pins = nullptr;
  // Runs the buses once.  True: call again soon.
  std::function<bool()> pump;
  // Replaces the server's bus by one that goes on where another was saved,
  // and is not started.  May be empty.
  std::function<absl::StatusOr<vsp::Bus*>(absl::Span<const std::byte>)> restore;
  // What the above live in, if anything.
  std::shared_ptr<void> keeps;

  MmioRange server_mmio;
  MmioRange client_mmio;
  std::vector<FerrybusChannel*> channels;
  // Callbacks under way in which nobody may wait.
  int quiet_depth = 0;
};

FERRYBUS_PARENT MakeParent(World world, bool is_server);

// A callback in which nobody may wait.
class QuietScope {
 public:
  explicit QuietScope(World& world) : world_(world) { ++world_.quiet_depth; }
  QuietScope(const QuietScope&) = delete;
  QuietScope& operator=(const QuietScope&) = delete;
  ~QuietScope() { --world_.quiet_depth; }

 private:
  World& world_;
};

// Pumps until `is_done`, or until the time is over (false).
bool PumpUntil(World& world, absl::Time deadline,
               absl::FunctionRef<bool()> is_done);

}  // namespace ferrybus::kmcl

struct FerrybusParent {
  std::shared_ptr<ferrybus::kmcl::World> world;
  bool is_server = false;
};

#endif  // FERRYBUS_KMCL_PARENT_H_
