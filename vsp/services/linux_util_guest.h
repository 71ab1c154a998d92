// SPDX-License-Identifier: MIT
//
// A guest's driver of one integration service, as Linux's hv_utils has them:
// answers in place, with the versions that Linux knows and in its order of
// preference.
//
// What it is: a function from message to answer; the test carries both.
//
// Ownership: plain values.  Thread safety: none.
//
//   LinuxUtilGuest guest(ic::MessageType::kHeartbeat);
//   std::optional<Bytes> answer = guest.Handle(message);

#ifndef FERRYBUS_VSP_SERVICES_LINUX_UTIL_GUEST_H_
#define FERRYBUS_VSP_SERVICES_LINUX_UTIL_GUEST_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "ferrybus/channel/protocols/integration.h"

namespace ferrybus::vsp {

class LinuxUtilGuest {
 public:
  explicit LinuxUtilGuest(ic::MessageType service);

  // Both begin with the one that the guest likes best.
  std::vector<ic::Version> framework_versions;
  std::vector<ic::Version> message_versions;
  // Hibernation is set up; Linux refuses it otherwise.
  bool can_hibernate = false;

  // The answer; without, the guest drops the message: it is too short.
  std::optional<std::vector<std::byte>> Handle(
      absl::Span<const std::byte> bytes);

  // -- What it was told ----------------------------------------------------
  ic::Version framework;
  ic::Version message;
  uint64_t heartbeats = 0;
  std::vector<uint32_t> shutdowns;  // the flags of each that it obeys
  struct Time {
    uint64_t host_time = 0;
    uint64_t reference_time = 0;
    uint8_t flags = 0;
  };
  std::vector<Time> times;
  using Pool = std::vector<std::pair<std::u16string, std::u16string>>;
  std::map<ic::KvpPool, Pool> pools;

 private:
  // Each takes and fills the body; the status of the answer follows.  False:
  // too short.
  bool Negotiate(absl::Span<std::byte> body, ic::Header* header);
  bool Heartbeat(absl::Span<std::byte> bytes);
  bool Shutdown(absl::Span<const std::byte> bytes, uint32_t* status);
  bool TimeSync(absl::Span<const std::byte> bytes);
  bool KeyValue(absl::Span<std::byte> body, uint32_t* status);
  uint32_t Get(absl::Span<std::byte> bytes);
  uint32_t Set(absl::Span<const std::byte> bytes);
  uint32_t Delete(absl::Span<const std::byte> bytes);
  uint32_t Enumerate(absl::Span<std::byte> bytes);

  const ic::MessageType service_;
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_SERVICES_LINUX_UTIL_GUEST_H_
