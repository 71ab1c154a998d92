// SPDX-License-Identifier: MIT
//
// Broken endpoints: an adapter around a good one that breaks one behaviour, to
// see that the kit notices, and where.
//
// What it is: each seeded fault changes what passes the edge of an endpoint:
// its messages, signals, saved bytes, or the bytes in the rings right after it
// wrote them.  It works around any adapter.
//
// Ownership: owns the endpoint it is around.  Thread safety: one thread.

#ifndef FERRYBUS_TESTS_CONFORMANCE_FAULTY_ENDPOINT_H_
#define FERRYBUS_TESTS_CONFORMANCE_FAULTY_ENDPOINT_H_

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "ferrybus/tests/conformance/endpoint.h"
#include "ferrybus/tests/conformance/guest_ring.h"

namespace ferrybus::conformance {

// Passes everything on, and knows the rings: what a fault derives from.
class FaultyEndpoint : public Endpoint {
 public:
  FaultyEndpoint(std::unique_ptr<Endpoint> good, const MemfdGuestMemory& ram)
      : good_(std::move(good)), ram_(ram) {}

  absl::Status Start() override { return good_->Start(); }
  void Post(uint32_t connection_id,
            absl::Span<const std::byte> payload) override;
  void Signal(uint32_t channel_id) override { good_->Signal(channel_id); }
  absl::Status Run() override;
  std::vector<Bytes> TakeMessages() override;
  std::vector<uint32_t> TakeSignals() override { return good_->TakeSignals(); }
  absl::StatusOr<std::string> Save() override { return good_->Save(); }
  absl::Status Resume() override { return good_->Resume(); }
  void Kill() override { good_->Kill(); }
  absl::Status Restore(const std::string& saved) override {
    return good_->Restore(saved);
  }
  absl::Status Rescind(uint32_t device) override {
    return good_->Rescind(device);
  }
  absl::Status Offer(uint32_t device) override { return good_->Offer(device); }
  absl::Status Pause(uint32_t device) override { return good_->Pause(device); }
  absl::Status Unpause(uint32_t device) override {
    return good_->Unpause(device);
  }

 protected:
  struct Rings {
    GuestRing out;  // to the host
    GuestRing in;
    bool is_open = false;
    uint32_t out_seen = 0;
    uint32_t in_seen = 0;
  };

  // A message of the guest.  False: the endpoint does not see it.
  virtual bool OnPost(const Bytes& message) {
    (void)message;
    return true;
  }
  // A message of the host; may be changed.  False: it is lost.
  virtual bool OnMessage(Bytes& message) {
    (void)message;
    return true;
  }
  // Before the endpoint runs, for each open channel.
  virtual void BeforeRun(Rings& rings) { (void)rings; }
  // A packet that the host has just written at `at`.
  virtual void OnPacket(Rings& rings, uint32_t at) { (void)rings, (void)at; }
  // After the endpoint ran; `wrote`: there are new packets.
  virtual void AfterRun(uint32_t channel, Rings& rings, bool wrote) {
    (void)channel, (void)rings, (void)wrote;
  }

  Endpoint& good() { return *good_; }
  std::map<uint32_t, Rings>& rings() { return rings_; }
  // The channel that a GPADL was made for; 0: none.
  uint32_t OwnerOf(uint32_t gpadl) const;

 private:
  struct Gpadl {
    uint32_t channel = 0;
    size_t page_count = 0;
    std::vector<uint64_t> pages;
  };

  void Note(absl::Span<const std::byte> message);

  std::unique_ptr<Endpoint> good_;
  const MemfdGuestMemory& ram_;
  std::map<uint32_t, Gpadl> gpadls_;
  std::map<uint32_t, Rings> rings_;  // by channel
};

struct SeededFault {
  const char* name;
  // The rule that is there to find it.
  const char* rule;
  std::unique_ptr<Endpoint> (*make)(std::unique_ptr<Endpoint> good,
                                    const MemfdGuestMemory& ram);
};

absl::Span<const SeededFault> AllFaults();
// Null: there is none of this name.
const SeededFault* FindFault(const std::string& name);
// Endpoints of `make_good`, broken.
EndpointFactory Broken(const SeededFault& fault, EndpointFactory make_good);

}  // namespace ferrybus::conformance

#endif  // FERRYBUS_TESTS_CONFORMANCE_FAULTY_ENDPOINT_H_
