// SPDX-License-Identifier: MIT
//
// Saved buses: restored onto the memory that a real save left, run, and saved
// again.
//
// Input: byte 0 is 0: the rest is a whole file, whose checksums are made right
// first.  Otherwise: edits of the real file, each {u16 offset, u8 xor}, so that
// seeds stay good when the format grows.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "ferrybus/channel/check.h"
#include "ferrybus/savestate/frame_fixup.h"
#include "ferrybus/vsp/bus.h"
#include "ferrybus/vsp/bus_test_util.h"

namespace {

using ferrybus::vsp::AsBytes;
using ferrybus::vsp::Bus;
using ferrybus::vsp::BusOptions;
using ferrybus::vsp::DeviceOffer;
using ferrybus::vsp::LoggingDevice;
using ferrybus::vsp::TestGuest;
using ferrybus::vsp::TestParams;

constexpr uint64_t kRamPages = 32;

// One channel with packets in flight and waiting, one that is idle.
class Scenario {
 public:
  Scenario() : guest_(kRamPages) {
    LoggingDevice first;
    LoggingDevice second;
    Bus bus(BusOptions(), guest_.memory.get(), &guest_.doorbell);
    (void)bus.Offer(TestParams(1), &first);
    (void)bus.Offer(TestParams(2), &second);
    guest_.Connect(bus);
    guest_.Request(guest_.Open(bus, 1), 3);
    guest_.Open(bus, 2).end.endpoint->Suspend();
    guest_.Pump(bus);
    const std::string payload(2000, 'q');
    for (int i = 0; i < 3; ++i) {
      (void)second.channel->Send(ferrybus::vsp::Packet(payload, 5));
    }
    second.channel->Flush();
    bus.Suspend();
    bus.Freeze();
    saved_ = *bus.Save();
    const absl::Span<std::byte> ram =
        guest_.memory->Translate(0, kRamPages * 4096);
    ram_.assign(ram.begin(), ram.end());
    first.held.clear();
  }

  const std::string& saved() const { return saved_; }

  void Restore(const std::string& file) {
    std::copy(ram_.begin(), ram_.end(),
              guest_.memory->Translate(0, kRamPages * 4096).begin());
    LoggingDevice first;
    LoggingDevice second;
    const DeviceOffer devices[] = {{TestParams(1), &first},
                                   {TestParams(2), &second}};
    absl::StatusOr<std::unique_ptr<Bus>> bus =
        Bus::Restore(AsBytes(file), BusOptions(), guest_.memory.get(),
                     &guest_.doorbell, devices);
    if (!bus.ok()) {
      FERRYBUS_CHECK(first.held.empty() && second.held.empty(),
                     "a refused restore left packets behind");
      return;
    }
    FERRYBUS_CHECK((*bus)->Save().ok(), "restored, but cannot be saved");
    (*bus)->Start();
    Run(**bus, {&first, &second});
  }

 private:
  static void Run(Bus& bus, std::initializer_list<LoggingDevice*> devices) {
    for (int i = 0; i < 3; ++i) {
      for (LoggingDevice* device : devices) device->AnswerAll();
      (void)bus.Poll();
      while (bus.has_outgoing()) {
        (void)bus.outgoing_front();
        bus.PopOutgoing();
      }
    }
    for (LoggingDevice* device : devices) device->held.clear();
  }

  TestGuest guest_;
  std::string saved_;
  std::vector<std::byte> ram_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes) {
  static Scenario* const scenario = new Scenario();
  if (size_bytes == 0) return 0;
  std::string file;
  if (data[0] == 0) {
    file.assign(reinterpret_cast<const char*>(data) + 1, size_bytes - 1);
  } else {
    file = scenario->saved();
    for (size_t at = 1; at + 3 <= size_bytes; at += 3) {
      const size_t offset = (data[at] | data[at + 1] << 8) % file.size();
      file[offset] = static_cast<char>(file[offset] ^ data[at + 2]);
    }
  }
  ferrybus::savestate::FixChecksums(&file);
  scenario->Restore(file);
  return 0;
}
