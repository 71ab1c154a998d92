// SPDX-License-Identifier: MIT
//
// The guest's end of one channel: requests out, completions back.
//
// What it is: a ring pair, a table of transactions and the driver that asked
// for them.  Made by vsc::Bus when an offer is opened.
//
// Ownership: the bus owns the channel; the channel borrows the driver.
//
// Thread safety: one thread, the one that calls Bus::Poll().
//
// Ordering: requests reach the server in the order sent.  Completions come in
// any order, each exactly once per request.
//
// Trust: the host may be hostile.  A completion that answers nothing is
// counted and ignored; a broken ring faults the channel, after which every
// send says kClosed and the driver's OnClosed runs.
//
// Cost: no allocation per request once the table is warm.  A send copies the
// payload into the ring; it is visible to the server at the next Flush(),
// which the bus also does when it polls the channel: within callbacks nobody
// else needs to.
//
//   channel.Send({.payload = srb, .buffers = ranges, .tag = index});
//   ...
//   void OnCompletion(uint64_t tag, absl::Span<const std::byte> reply) ...

#ifndef FERRYBUS_VSC_CLIENT_CHANNEL_H_
#define FERRYBUS_VSC_CLIENT_CHANNEL_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "ferrybus/channel/gpadl_handle.h"
#include "ferrybus/channel/incoming_packet.h"

namespace ferrybus::vsc {

class ClientChannel;

// What runs on top of a channel in the guest.  Callbacks run inside
// Bus::Poll(); they may send.
class Driver {
 public:
  virtual ~Driver() = default;
  // The channel is open; `channel` stays valid until OnClosed.  It may call
  // Bus::Poll() and HandleMessage() to wait for a GPADL.
  virtual void OnOpened(ClientChannel& channel) = 0;
  // The answer to the request sent with `tag`; `reply` is a private copy,
  // valid during the call.
  virtual void OnCompletion(uint64_t tag,
                            absl::Span<const std::byte> reply) = 0;
  // Packets flow when this returns: after OnOpened, and after each Start().
  virtual void OnStarted() {}
  // Packets flow.  Runs outside of any batch and message, so that it may call
  // Bus::Poll() to wait for an answer.
  virtual void OnPostStarted() {}
  // No OnPacket from here on, until OnStarted.
  virtual void OnSuspend() {}
  // A packet that the server sent on its own.
  virtual void OnPacket(IncomingPacket packet) { packet.Complete(); }
  // A batch of `count` >= 1 OnPacket calls ended.
  virtual void ProcessingComplete(size_t count) { (void)count; }
  // The request sent with `tag` and `wants_sent` is in the ring.
  virtual void OnSent(uint64_t tag) { (void)tag; }
  // The offer was found, but its channel could not be opened.
  virtual void OnOpenFailed(const absl::Status& status) { (void)status; }
  // The server knows the buffer; or it refused, and the handle is dead.
  virtual void OnGpadlCreated(GpadlHandle gpadl, bool accepted) {
    (void)gpadl, (void)accepted;
  }
  // The server has let go of it.
  virtual void OnGpadlDeleted(GpadlHandle gpadl) { (void)gpadl; }
  // No more callbacks follow.  Requests without an answer get none.
  virtual void OnClosed() {}
  // A send that said kFull may succeed now.
  virtual void OnRoom() {}
};

// Guest memory for one request: contiguous guest-physical bytes.
struct GuestBuffer {
  uint64_t gpa = 0;
  uint32_t byte_count = 0;
};

struct Request {
  absl::Span<const std::byte> payload;
  // Not empty: sent as a GPA-direct packet, one range per buffer.
  absl::Span<const GuestBuffer> buffers;
  // Not empty, instead of buffers: one range of whole pages, in this order.
  absl::Span<const uint64_t> page_numbers = {};
  // Comes back in OnCompletion; not seen by the server.
  uint64_t tag = 0;
  // False: the server sends no completion and OnCompletion does not run.
  bool wants_completion = true;
  // On a full ring the request waits in order, instead of kFull.
  bool may_queue = false;
  // OnSent(tag) follows when it is in the ring.
  bool wants_sent = false;
};

enum class SendResult {
  kOk,
  // The ring or the transaction table is full; OnRoom will be called.
  kFull,
  kTooLarge,
  kClosed,
  kNotSupported,  // a pipe has no completions and no external data
};

class ClientChannel {
 public:
  virtual ~ClientChannel() = default;
  [[nodiscard]] virtual SendResult Send(const Request& request) = 0;
  // Publishes what was sent and signals the server if the protocol asks so.
  virtual void Flush() = 0;
  virtual uint32_t requests_in_flight() const = 0;
};

}  // namespace ferrybus::vsc

#endif  // FERRYBUS_VSC_CLIENT_CHANNEL_H_
