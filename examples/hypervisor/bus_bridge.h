// SPDX-License-Identifier: MIT
//
// Between the guest's processors and the process that serves its devices:
// hypercalls go out through a Port, messages and signals that come in go to
// the SynIC.
//
// What it is: the guest's end of a port, for a guest that is a virtual
// machine.  The serving process may end and be replaced at any moment; what it
// has not taken stays in the port for the next one.
//
// Signals: by HvSignalEvent, which sets the channel's bit in the port.  Where
// KVM takes it instead (DoorbellSwitch), the guest is not left for it, and the
// serving process wakes up without a bit: HostPortOptions::unnamed_signals.
//
// Thread safety: hypercalls from any thread; Run() on one of its own.
// Trust: neither side's: what comes from the guest is passed on as bytes, what
// comes from the port only reaches the guest.

#ifndef FERRYBUS_EXAMPLES_HYPERVISOR_BUS_BRIDGE_H_
#define FERRYBUS_EXAMPLES_HYPERVISOR_BUS_BRIDGE_H_

#include <array>
#include <atomic>
#include <bitset>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/channel/messages.h"
#include "ferrybus/channel/transport/message_socket.h"
#include "ferrybus/channel/transport/port.h"
#include "ferrybus/channel/transport/signal_page.h"
#include "ferrybus/channel/transport/unique_fd.h"
#include "ferrybus/examples/hypervisor/hypercalls.h"
#include "ferrybus/examples/hypervisor/machine_state.h"
#include "ferrybus/examples/hypervisor/synic.h"

namespace ferrybus::hypervisor {

class BusBridge final : public HypercallSink {
 public:
  // Has a write to `event` take the place of the guest's signals of a
  // connection, or no more.  If it cannot, they go on to come.
  using DoorbellSwitch =
      std::function<void(uint32_t connection_id, int event, bool on)>;

  // `port` is the guest's end.  Borrows `synic`.  Without a switch, or where
  // it cannot, signals come by SignalEvent().
  static absl::StatusOr<std::unique_ptr<BusBridge>> Open(
      Port port, Synic* synic, DoorbellSwitch doorbells = nullptr);

  HypercallStatus PostMessage(uint32_t connection_id,
                              absl::Span<const std::byte> payload) override;
  HypercallStatus SignalEvent(uint64_t input) override;
  // How many of either came.
  uint64_t hypercalls() const { return hypercalls_; }

  // Carries what comes in until Stop().
  void Run();
  void Stop();
  // After Stop(): it may run again.
  void Continue();

  // While it does not run, and neither guest nor host does: takes out what
  // neither has taken, once the guest has all it can get.  `host` is the other
  // end of the port.
  PortState Drain(const Port& host);
  // Puts it (back) in.
  void Fill(const PortState& state);

 private:
  BusBridge(Port port, SignalPage signals, Synic* synic,
            DoorbellSwitch doorbells);
  void NoteChannels(absl::Span<const std::byte> message);
  void SetOpen(uint32_t channel_id, bool open);
  void CloseAll();
  // False: the guest has not taken the message before.
  bool DeliverMessages();
  void DeliverSignals();

  Port port_;
  SignalPage signals_;
  SignalSender sender_;
  SignalReceiver receiver_;
  MessageSocket messages_;
  Synic* const synic_;
  const DoorbellSwitch doorbells_;
  UniqueFd stop_event_;
  std::atomic<bool> stopping_ = false;
  std::atomic<uint64_t> hypercalls_ = 0;
  std::mutex send_mutex_;
  // Under send_mutex_.
  std::bitset<kMaxChannelId + 1> open_, has_doorbell_;
  std::deque<SocketMessage> waiting_;  // for their slot
  // Which processor a channel wants to interrupt, by channel number.
  std::array<std::atomic<uint32_t>, kMaxChannelId + 1> target_vps_ = {};
};

}  // namespace ferrybus::hypervisor

#endif  // FERRYBUS_EXAMPLES_HYPERVISOR_BUS_BRIDGE_H_
