// SPDX-License-Identifier: MIT
//
// The states in which the golden files of this folder were saved, and what a
// restored one must be good for.
//
// A golden file is never edited, and an entry here is never changed: files
// that are out in the world look like this.  New ones are added at the end,
// with:
//
//   bazel run //tests/golden:write_golden_buses -- "$PWD/tests/golden/files"
//
// which leaves files that exist alone.
//
// Ownership: a rig owns guest, devices and buses.  Thread safety: none.
//
//   GoldenRig rig(golden);
//   rig.saved();                     // the file, made anew
//   Outcome outcome = rig.Try(bytes);

#ifndef FERRYBUS_TESTS_GOLDEN_GOLDEN_BUS_H_
#define FERRYBUS_TESTS_GOLDEN_GOLDEN_BUS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "ferrybus/savestate/frame.h"
#include "ferrybus/savestate/seal.h"
#include "ferrybus/tests/golden/golden_devices.h"
#include "ferrybus/vsp/bus.h"
#include "ferrybus/vsp/bus_test_util.h"

namespace ferrybus::golden {

// A guest and a host's bus on which a state is brought about.
struct World : vsp::BusObserver {
  explicit World(std::vector<DeviceKind> kinds);
  ~World() override;

  void OnSectionSkipped(std::string_view section, uint64_t instance) override {
    skipped.push_back(savestate::DescribeSection(section, instance));
  }
  // Will answer later.
  bool OnTlConnectRequested(const TlConnectRequest&) override { return true; }

  // A guest's message that its ClientConnection knows nothing of.
  void Post(absl::Span<const std::byte> message);
  // Takes the bus's messages for the guest, for nobody.
  void DropOutgoing(vsp::Bus& from);
  // As Post(), for contact and REQUEST_OFFERS; the answers are dropped.
  void ConnectRaw(ProtocolVersion version, uint32_t features = 0);
  // Suspends, freezes, saves.
  std::string Save();
  // The packets of a closed channel end once nothing can be answered any more:
  // a close that is under way when the bus is saved.
  std::string SaveInTheMiddleOfAClose();

  vsp::TestGuest guest;
  vsp::BusOptions options;
  DeviceSet devices;
  std::unique_ptr<vsp::Bus> bus;
  std::vector<OfferId> offers;
  std::vector<std::string> skipped;  // by restores
};

struct GoldenBus {
  // In files/: files that are there keep their names.
  std::string file_name() const { return "bus_v1_" + name + ".ferry"; }
  friend void PrintTo(const GoldenBus& golden, std::ostream* out) {
    *out << golden.name;
  }

  std::string name;
  std::vector<DeviceKind> kinds;
  // Makes the state, and gives the whole file.
  std::function<std::string(World&)> make;
  // Devices that are not there any more at the restore: by index.
  std::vector<size_t> gone = {};
  bool is_sealed = false;
};

std::vector<GoldenBus> GoldenBuses();

// The key of the sealed ones.
savestate::SealKey GoldenKey();

struct Outcome {
  absl::Status restored;
  // What a restored bus could not do, empty if all is well.
  std::string broken = {};
  // What it saved right after the restore.
  std::string saved = {};
  // The sections that the restore left out.
  std::vector<std::string> skipped = {};
};

class GoldenRig {
 public:
  explicit GoldenRig(const GoldenBus& golden);
  ~GoldenRig();

  const std::string& saved() const { return saved_; }

  // Restores `bytes` with new devices on guest memory as it was at the save.
  // A bus that comes of it is saved again, restored from that, saved to the
  // same bytes, started, run, torn down by the guest and saved once more.
  Outcome Try(const std::string& bytes);

 private:
  absl::StatusOr<std::unique_ptr<vsp::Bus>> Restore(const std::string& bytes,
                                                    DeviceSet& devices);
  std::string TryAgain(const std::string& bytes);
  std::string Use(vsp::Bus& bus, DeviceSet& devices);

  const GoldenBus golden_;
  World world_;
  std::string saved_;
  std::vector<std::byte> ram_;
  // A refused restore leaves devices as they were: they are used again.
  std::unique_ptr<DeviceSet> devices_;
};

}  // namespace ferrybus::golden

#endif  // FERRYBUS_TESTS_GOLDEN_GOLDEN_BUS_H_
