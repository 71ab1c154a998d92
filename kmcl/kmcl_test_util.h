// SPDX-License-Identifier: MIT
//
// A server's and a client's channel of the C interface, on a loopback, and
// what their callbacks write down.
//
// Ownership: End owns its channel; Loopback the parents.
// Thread safety: none.

#ifndef FERRYBUS_KMCL_KMCL_TEST_UTIL_H_
#define FERRYBUS_KMCL_KMCL_TEST_UTIL_H_

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "ferrybus/kmcl/kmcl.h"

namespace ferrybus::kmcl {

inline constexpr GUID kTestType = {
    0x6c7a1f6e, 0x2f7d, 0x4a53, {0x9d, 0x38, 0x0c, 0x1f, 0x5a, 0x7d, 0x0e, 1}};

GUID TestInstance(uint8_t number);

// One end of a channel.  Its callbacks log, then do what they were told.
class End {
 public:
  End(FERRYBUS_PARENT parent, bool is_server, uint8_t instance = 1);
  End(const End&) = delete;
  End& operator=(const End&) = delete;
  // Disables and cleans up.
  ~End();

  // The end behind a handle.
  static End& Of(VMBCHANNEL channel) {
    return *static_cast<End*>(VmbChannelGetPointer(channel));
  }

  void Enable() { ASSERT_SUCCESS(VmbChannelEnable(channel)); }
  static void ASSERT_SUCCESS(NTSTATUS status);
  std::vector<std::string> TakeLog() { return std::exchange(log, {}); }
  // A packet object that logs its completion in `completions`.
  VMBPACKET Packet();
  NTSTATUS Send(const std::string& payload, UINT32 flags = 0);
  // Completes everything that is held with its own bytes.
  void AnswerAll();
  // Holds nothing any more: a peer's closing waits for that.
  void LetGo();

  struct Held {
    VMBPACKETCOMPLETION completion;
    std::string payload;
    UINT32 flags;
  };
  struct Completion {
    NTSTATUS status;
    std::string reply;
    VMBPACKET packet;
    friend bool operator==(const Completion&, const Completion&) = default;
  };

  FERRYBUS_PARENT parent;
  VMBCHANNEL channel = nullptr;
  std::vector<std::string> log;
  std::vector<Held> held;
  std::vector<Completion> completions;
  NTSTATUS open_status = STATUS_SUCCESS;
  bool answers = false;  // at once, with the request's bytes
  std::function<void()> on_opened;
  std::function<void()> on_started;
  std::function<void()> on_post_started;
  std::function<void()> on_suspend;
  std::function<void()> on_closed;
  // Instead of holding the packet.
  std::function<void(const Held&)> on_packet;
};

struct Loopback {
  explicit Loopback(uint64_t ram_bytes = 4 << 20);
  ~Loopback();

  // Until there is nothing to do.
  void Pump(int rounds = 40);

  FERRYBUS_PARENT server = nullptr;
  FERRYBUS_PARENT client = nullptr;
};

}  // namespace ferrybus::kmcl

#endif  // FERRYBUS_KMCL_KMCL_TEST_UTIL_H_
