// SPDX-License-Identifier: MIT

// A service fed with messages from the input: whatever comes, its channel goes
// on, each request ends once, and its state can be saved and taken back.
//
// Input: u8 which service; then records of u8 what, and
//   0: u8 length, payload: a datagram, as it is
//   1: u8 length, bytes: written over the answer that a Linux guest would give
//      to the oldest message, from u8 offset on
//   2: u8 seconds that pass
//   3: u8 which request to make
//   4: save and take back
//   5: close and open again
//   6: the guest stops reading; 7: it reads again

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <vector>

#include "ferrybus/vsp/services/heartbeat_service.h"
#include "ferrybus/vsp/services/kvp_service.h"
#include "ferrybus/vsp/services/linux_util_guest.h"
#include "ferrybus/vsp/services/pipe_harness.h"
#include "ferrybus/vsp/services/shutdown_service.h"
#include "ferrybus/vsp/services/time_sync_service.h"

namespace {

using namespace ferrybus;       // NOLINT
using namespace ferrybus::vsp;  // NOLINT

constexpr int kRecordsMax = 32;

class Reader {
 public:
  Reader(const uint8_t* data, size_t size_bytes)
      : at_(data), end_(data + size_bytes) {}
  bool done() const { return at_ == end_; }
  uint8_t U8() { return done() ? uint8_t{0} : *at_++; }
  std::vector<std::byte> Bytes() {
    std::vector<std::byte> bytes;
    for (size_t count = U8(); bytes.size() < count && !done();) {
      bytes.push_back(std::byte{U8()});
    }
    return bytes;
  }

 private:
  const uint8_t* at_;
  const uint8_t* end_;
};

class FixedTime final : public TimeSource {
 public:
  HostTime Now() override { return {1, 2}; }
};

struct World final : public KvpService::Events, public ShutdownService::Events {
  explicit World(uint8_t which) : driver(ic::MessageType{Type(which)}) {
    if (driver_type == ic::MessageType::kHeartbeat) {
      service = std::make_unique<HeartbeatService>();
    } else if (driver_type == ic::MessageType::kShutdown) {
      auto made = std::make_unique<ShutdownService>(this);
      shutdown = made.get();
      service = std::move(made);
    } else if (driver_type == ic::MessageType::kTimeSync) {
      service = std::make_unique<TimeSyncService>(&time);
    } else {
      auto made = std::make_unique<KvpService>(this);
      kvp = made.get();
      service = std::move(made);
    }
    harness = std::make_unique<PipeHarness>(service.get());
  }

  uint16_t Type(uint8_t which) {
    const auto type = static_cast<uint16_t>(1 + which % 4);
    driver_type = ic::MessageType{type};
    return type;
  }

  void OnKvpDone(uint64_t cookie, const KvpResult&) override { End(cookie); }
  void OnShutdownAnswered(IntegrationOutcome, uint32_t) override { End(0); }
  void End(uint64_t cookie) {
    if (open[cookie]-- != 1) std::abort();
    --open_count;
  }

  void Make(uint8_t which) {
    const uint64_t cookie = kvp != nullptr ? next_cookie++ : 0;
    absl::Status status = absl::UnavailableError("no requests");
    const std::u16string text(which, u'x');
    if (kvp != nullptr) {
      const auto pool = ic::KvpPool{static_cast<uint8_t>(which % 3)};
      status = which % 4 == 0   ? kvp->Get(pool, text, cookie)
               : which % 4 == 1 ? kvp->Set(pool, text, text, cookie)
               : which % 4 == 2 ? kvp->Delete(pool, text, cookie)
                                : kvp->Enumerate(pool, which / 16, cookie);
    } else if (shutdown != nullptr) {
      status = shutdown->Request(
          {.action = ShutdownAction{static_cast<uint8_t>(which % 3)}});
    }
    if (!status.ok()) return;
    ++open[cookie];
    ++open_count;
  }

  void SaveAndTakeBack() {
    const auto saved = service->SaveDevice();
    if (!saved.ok()) std::abort();
    if (service->phase() == IntegrationPhase::kClosed) return;
    if (!service->OnRestored(harness->channel(), AsBytes(*saved)).ok() ||
        *service->SaveDevice() != *saved) {
      std::abort();
    }
    service->OnStarted();
  }

  void SendChangedAnswer(Reader& reader) {
    const size_t offset = reader.U8();
    const std::vector<std::byte> bytes = reader.Bytes();
    if (harness->payloads.empty()) return;
    auto answer = driver.Handle(harness->TakeMessage());
    if (!answer.has_value()) std::abort();
    for (size_t i = 0; i < bytes.size() && offset + i < answer->size(); ++i) {
      (*answer)[offset + i] ^= bytes[i];
    }
    (void)harness->Send(*answer);
  }

  ic::MessageType driver_type{};
  LinuxUtilGuest driver;
  FixedTime time;
  KvpService* kvp = nullptr;
  ShutdownService* shutdown = nullptr;
  std::unique_ptr<IntegrationService> service;
  std::unique_ptr<PipeHarness> harness;
  std::map<uint64_t, int> open;
  size_t open_count = 0;
  uint64_t next_cookie = 1;
  uint64_t now_ns = 0;
};

void Step(Reader& reader, World& world) {
  switch (reader.U8() % 8) {
    case 0:
      (void)world.harness->Send(reader.Bytes());
      break;
    case 1:
      world.SendChangedAnswer(reader);
      break;
    case 2:
      world.now_ns += uint64_t{reader.U8()} * 1'000'000'000;
      world.service->Tick(world.now_ns);
      break;
    case 3:
      world.Make(reader.U8());
      break;
    case 4:
      world.SaveAndTakeBack();
      break;
    case 5:
      world.harness->Close();
      world.harness->Open();
      break;
    case 6:
      world.harness->StopReading(true);
      break;
    default:
      world.harness->StopReading(false);
  }
  world.harness->Pump();
  if (world.harness->fault() != "") std::abort();
  if (world.open_count > 0 && world.service->pending() != world.open_count) {
    std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes) {
  Reader reader(data, size_bytes);
  World world(reader.U8());
  for (int i = 0; i < kRecordsMax && !reader.done(); ++i) Step(reader, world);
  world.harness->Close();
  if (world.open_count != 0 || world.service->pending() != 0) std::abort();
  return 0;
}
