// SPDX-License-Identifier: MIT
//
// The adapter: what somebody implements to run the kit on an endpoint of
// theirs.
//
// What it is: the place behind a guest where a host's endpoint (a VSP with its
// bus) runs.  The kit is the guest: it owns guest RAM, posts channel messages,
// rings doorbells and reads the rings; whatever serves it is behind this
// interface, offers the four reference devices of device_protocol.h, and can
// be ended and restored from saved bytes.  Two adapters come with the kit:
// bus_endpoint.h (in process) and process_endpoint.h (a program in any
// language).
//
// What is under way belongs to the place, not to its endpoint: messages that
// were posted and signals that were rung while nothing served are there for
// the next endpoint.
//
// Ownership: the adapter borrows guest RAM, which outlives it.
// Thread safety: the kit calls from one thread.
// Trust: the endpoint may be wrong in every way: what it gives is checked.
// Each rule runs in a process of its own with a deadline, so an adapter may
// also hang or crash.
//
// A method that an endpoint does not have answers Unimplemented: the rules
// that need it are skipped, and reported as such.
//
//   class MyEndpoint final : public ferrybus::conformance::Endpoint { ... };
//   RunOptions options;
//   options.make_endpoint = [](const MemfdGuestMemory& ram) {
//     return std::make_unique<MyEndpoint>(ram);
//   };
//   RunRules(options, ...);

#ifndef FERRYBUS_TESTS_CONFORMANCE_ENDPOINT_H_
#define FERRYBUS_TESTS_CONFORMANCE_ENDPOINT_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/channel/guest_memory.h"

namespace ferrybus::conformance {

using Bytes = std::vector<std::byte>;

class Endpoint {
 public:
  virtual ~Endpoint() = default;

  // An endpoint that has not served before begins.
  virtual absl::Status Start() = 0;

  // -- The guest's side ------------------------------------------------------

  // A channel message of any content and at most 240 bytes, to this message
  // connection (1 or 4).  Taken in order by Run().
  virtual void Post(uint32_t connection_id,
                    absl::Span<const std::byte> payload) = 0;
  // A signal for a channel, which may not exist.
  virtual void Signal(uint32_t channel_id) = 0;
  // Lets the endpoint work until it has nothing left to do: every message and
  // signal so far has been taken, every packet handed to its device, every
  // answer is in the ring or waits for room.  An error: it ended, or did not
  // come to rest.  Nothing happens while the endpoint is saved.
  virtual absl::Status Run() = 0;
  // The endpoint's messages since the last call, in order.
  virtual std::vector<Bytes> TakeMessages() = 0;
  // Channels signalled to the guest since the last call, each once.
  virtual std::vector<uint32_t> TakeSignals() = 0;

  // -- Moving ----------------------------------------------------------------

  // Stops the endpoint and gives its state; until Resume() or Kill() it
  // publishes nothing.  Again while it is stopped: the same moment again.
  virtual absl::StatusOr<std::string> Save() {
    return absl::UnimplementedError("save");
  }
  // After Save(): goes on as if nothing had happened.
  virtual absl::Status Resume() { return absl::UnimplementedError("resume"); }
  // Ends the endpoint at once, without a word to it.
  virtual void Kill() = 0;
  // After Kill(): a new endpoint goes on from saved bytes on the same guest
  // RAM.  An error other than Unimplemented refuses the bytes; nothing has
  // been published then, and another Restore() may follow.
  virtual absl::Status Restore(const std::string& saved) {
    (void)saved;
    return absl::UnimplementedError("restore");
  }

  // -- The host's decisions, by the number of the device
  // -----------------------

  // Takes the offer back; offers it (again), also while a guest is connected.
  virtual absl::Status Rescind(uint32_t device) {
    (void)device;
    return absl::UnimplementedError("rescind");
  }
  virtual absl::Status Offer(uint32_t device) {
    (void)device;
    return absl::UnimplementedError("offer");
  }
  // The device takes no packets until Unpause(); the guest is not told.
  virtual absl::Status Pause(uint32_t device) {
    (void)device;
    return absl::UnimplementedError("pause");
  }
  virtual absl::Status Unpause(uint32_t device) {
    (void)device;
    return absl::UnimplementedError("unpause");
  }
};

using EndpointFactory =
    std::function<std::unique_ptr<Endpoint>(const MemfdGuestMemory& guest_ram)>;

}  // namespace ferrybus::conformance

#endif  // FERRYBUS_TESTS_CONFORMANCE_ENDPOINT_H_
