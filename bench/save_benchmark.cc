// SPDX-License-Identifier: MIT
//
// How long a bus is away when it moves: saved, and restored on a new one, with
// packets in flight on its channels.
//
//   save_restore/<channels>/<packets in flight on each>
//
// Each packet has 64 bytes and a blob of 256 bytes of its device's.  Saving
// begins with Suspend() and ends with the bytes; restoring begins with the
// bytes and ends with Start().  The old bus ends in between, untimed.
//
// Counters, medians unless named otherwise: `ms` and `p99_ms` of both halves
// together; `save_ms`, `restore_ms`; `state_bytes`; `ns_per_packet`;
// `to_protobuf`, the time as a multiple of what it takes to serialise and parse
// the same messages with protobuf alone; `to_memcpy`, of what it takes to copy
// the bytes twice; `save_heap`, `restore_heap`: how much heap was in use at
// most while saving and while restoring, beyond what was before, as a multiple
// of the state.  `restore_heap` has the new bus in it.
//
// All is measured turn by turn in one loop.

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "benchmark/benchmark.h"
#include "ferrybus/ringbuffer/testing/allocation_count.h"
#include "ferrybus/savestate/channel.pb.h"
#include "ferrybus/savestate/connection.pb.h"
#include "ferrybus/savestate/frame.h"
#include "ferrybus/tests/testing/bus_pair.h"

namespace ferrybus::bench {
namespace {

using ringbuffer::testing::AllocatedBytes;
using ringbuffer::testing::AllocatedBytesPeak;
using ringbuffer::testing::ResetPeak;
using ringbuffer::testing::SetCounting;
using testing::BusPair;
using testing::EchoDriver;
using testing::EchoOffer;

constexpr size_t kPayloadBytes = 64;
constexpr size_t kBlobBytes = 256;
constexpr uint32_t kRingDataPages = 4;
// Requests that a ring of that size holds.
constexpr uint32_t kPortion = 64;

void Need(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "save_benchmark: %s\n", what);
  std::abort();
}

// Keeps its packets and moves them with a blob each.
class KeepingDevice final : public vsp::Device {
 public:
  void ProcessPacket(IncomingPacket packet) override {
    held_.push_back(std::move(packet));
  }
  vsp::IncomingPolicy incoming_policy() const override {
    return vsp::IncomingPolicy::kResume;
  }
  savestate::SizeAnswer SavePacket(const PacketInfo& packet,
                                   absl::Span<std::byte> out) override {
    if (out.size() < kBlobBytes) {
      return savestate::SizeAnswer::TooSmall(kBlobBytes);
    }
    std::memset(out.data(), static_cast<int>(packet.transaction_id),
                kBlobBytes);
    return savestate::SizeAnswer::Ok(kBlobBytes);
  }
  absl::Status RestorePacket(IncomingPacket packet,
                             absl::Span<const std::byte> blob) override {
    Need(blob.size() == kBlobBytes &&
             blob.back() == static_cast<std::byte>(packet.transaction_id()),
         "a packet came back with another's blob");
    held_.push_back(std::move(packet));
    return absl::OkStatus();
  }

  size_t held() const { return held_.size(); }
  void AnswerAll() {
    for (IncomingPacket& packet : held_)
      (void)packet.Complete(packet.payload());
    held_.clear();
  }
  // Ends the handles of a bus that was saved.
  void Forget() { held_.clear(); }

 private:
  std::vector<IncomingPacket> held_;
};

// A bus whose channels hold packets in flight.
class LoadedBus {
 public:
  LoadedBus(uint32_t channels, uint32_t in_flight)
      : pair_(1 + uint64_t{channels} * 2 * (kRingDataPages + 1),
              GuestOptions(in_flight), HostOptions(in_flight)),
        devices_(channels),
        drivers_(channels),
        in_flight_(in_flight) {
    for (uint32_t i = 0; i < channels; ++i) {
      offers_.push_back({EchoOffer(i), &devices_[i]});
      Need(pair_.host->Offer(EchoOffer(i), &devices_[i]).ok(), "offer");
      pair_.guest.AddDriver(EchoOffer(i).interface_type, &drivers_[i]);
    }
    pair_.Connect();
    for (EchoDriver& driver : drivers_) {
      while (driver.requests < in_flight) {
        driver.Request(
            absl::MakeSpan(payload_),
            std::min<uint64_t>(kPortion, in_flight - driver.requests));
        pair_.Pump();
      }
    }
  }
  // Each request is answered, once.
  ~LoadedBus() {
    for (KeepingDevice& device : devices_) {
      Need(device.held() == in_flight_, "packets in flight were lost");
      device.AnswerAll();
    }
    pair_.Pump();
    for (const EchoDriver& driver : drivers_) {
      Need(driver.answers == in_flight_ && driver.wrong == 0,
           "not one answer for each request");
    }
  }

  std::string Save() {
    pair_.host->Suspend();
    pair_.host->Freeze();
    absl::StatusOr<std::string> saved = pair_.host->Save();
    Need(saved.ok(), "save");
    return *std::move(saved);
  }
  void EndHost() {
    for (KeepingDevice& device : devices_) device.Forget();
    pair_.host.reset();
  }
  void Restore(const std::string& saved) {
    Need(pair_
             .RestoreHost(absl::MakeConstSpan(
                              reinterpret_cast<const std::byte*>(saved.data()),
                              saved.size()),
                          offers_)
             .ok(),
         "restore");
  }

 private:
  static vsc::BusOptions GuestOptions(uint32_t in_flight) {
    vsc::BusOptions options;
    options.ring_data_pages = kRingDataPages;
    options.endpoint.max_awaiting = in_flight;
    return options;
  }
  static vsp::BusOptions HostOptions(uint32_t in_flight) {
    vsp::BusOptions options;
    options.endpoint.max_in_flight = in_flight;
    options.endpoint.max_queued = in_flight;
    return options;
  }

  std::array<std::byte, kPayloadBytes> payload_ = {};
  BusPair pair_;
  std::vector<KeepingDevice> devices_;
  std::vector<EchoDriver> drivers_;
  std::vector<vsp::DeviceOffer> offers_;
  const uint64_t in_flight_;
};

// The same content as protobuf messages and no more: no frame, no checks.
class PlainProtobuf {
 public:
  explicit PlainProtobuf(const std::string& saved) {
    const auto frame = savestate::Frame::Parse(absl::MakeConstSpan(
        reinterpret_cast<const std::byte*>(saved.data()), saved.size()));
    Need(frame.ok(), "frame");
    for (const savestate::Section& section : frame->sections()) {
      const auto* const data =
          reinterpret_cast<const char*>(section.body.data());
      const int bytes = static_cast<int>(section.body.size());
      if (section.name == "connection") {
        Need(connection_.ParseFromArray(data, bytes), "connection");
      } else {
        channels_.emplace_back();
        Need(channels_.back().ParseFromArray(data, bytes), "channel");
      }
    }
  }

  void SerializeAndParse() const {
    std::vector<std::string> bodies;
    bodies.push_back(connection_.SerializeAsString());
    for (const auto& channel : channels_) {
      bodies.push_back(channel.SerializeAsString());
    }
    savestate::v1::ConnectionState connection;
    Need(connection.ParseFromString(bodies[0]), "connection");
    std::vector<savestate::v1::ChannelState> channels(channels_.size());
    for (size_t i = 0; i < channels.size(); ++i) {
      Need(channels[i].ParseFromString(bodies[i + 1]), "channel");
    }
    benchmark::DoNotOptimize(channels);
  }

 private:
  savestate::v1::ConnectionState connection_;
  std::vector<savestate::v1::ChannelState> channels_;
};

template <typename Action>
double Seconds(Action action) {
  const auto begin = std::chrono::steady_clock::now();
  action();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin)
      .count();
}

double Percentile(std::vector<double> values, double part) {
  const size_t at =
      std::min(values.size() - 1,
               static_cast<size_t>(part * static_cast<double>(values.size())));
  std::nth_element(values.begin(), values.begin() + at, values.end());
  return values[at];
}

void SaveAndRestore(benchmark::State& state, uint32_t channels,
                    uint32_t in_flight) {
  LoadedBus bus(channels, in_flight);
  std::vector<double> save, restore, both, protobuf, copy;
  double save_heap = 0, restore_heap = 0, state_bytes = 0;
  const auto round = [&](bool is_timed) {
    std::string saved;
    ResetPeak();
    int64_t before = AllocatedBytes();
    const double save_time = Seconds([&] { saved = bus.Save(); });
    if (!is_timed) {
      save_heap = static_cast<double>(AllocatedBytesPeak() - before);
    }
    bus.EndHost();
    ResetPeak();
    before = AllocatedBytes();
    const double restore_time = Seconds([&] { bus.Restore(saved); });
    if (!is_timed) {
      restore_heap = static_cast<double>(AllocatedBytesPeak() - before);
    }
    state_bytes = static_cast<double>(saved.size());
    const PlainProtobuf plain(saved);
    const double protobuf_time = Seconds([&] { plain.SerializeAndParse(); });
    std::string there(saved.size(), '\0'), back(saved.size(), '\0');
    const double copy_time = Seconds([&] {
      std::memcpy(there.data(), saved.data(), saved.size());
      benchmark::ClobberMemory();
      std::memcpy(back.data(), there.data(), saved.size());
      benchmark::ClobberMemory();
    });
    if (!is_timed) return;
    save.push_back(save_time);
    restore.push_back(restore_time);
    both.push_back(save_time + restore_time);
    protobuf.push_back(both.back() / protobuf_time);
    copy.push_back(both.back() / copy_time);
  };
  round(false);  // counts the heap, warms up
  SetCounting(false);
  for (auto iteration : state) {
    round(true);
    state.SetIterationTime(both.back());
  }
  SetCounting(true);
  const double median = Percentile(both, 0.5);
  state.counters["ms"] = median * 1e3;
  state.counters["p99_ms"] = Percentile(both, 0.99) * 1e3;
  state.counters["save_ms"] = Percentile(save, 0.5) * 1e3;
  state.counters["restore_ms"] = Percentile(restore, 0.5) * 1e3;
  state.counters["ns_per_packet"] =
      median * 1e9 / (double{1} * channels * in_flight);
  state.counters["state_bytes"] = state_bytes;
  state.counters["to_protobuf"] = Percentile(protobuf, 0.5);
  state.counters["to_memcpy"] = Percentile(copy, 0.5);
  state.counters["save_heap"] = save_heap / state_bytes;
  state.counters["restore_heap"] = restore_heap / state_bytes;
}

void Register(uint32_t channels, uint32_t in_flight) {
  benchmark::RegisterBenchmark(("save_restore/" + std::to_string(channels) +
                                "/" + std::to_string(in_flight))
                                   .c_str(),
                               [channels, in_flight](benchmark::State& state) {
                                 SaveAndRestore(state, channels, in_flight);
                               })
      ->UseManualTime()
      ->Unit(benchmark::kMillisecond);
}

}  // namespace
}  // namespace ferrybus::bench

int main(int argc, char** argv) {
  using ferrybus::bench::Register;
  for (const uint32_t in_flight : {1u, 16u, 256u, 1024u}) {
    Register(1, in_flight);
  }
  for (const uint32_t channels : {16u, 64u, 256u, 977u}) {
    Register(channels, 1024);
  }
  // Debian's Abseil is a debugging build: each lock looks for cycles in a
  // graph that all threads share.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
