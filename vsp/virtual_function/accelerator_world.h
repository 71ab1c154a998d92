// SPDX-License-Identifier: MIT
//
// For tests: one host's virtual function with an accelerator and all its parts,
// and a move between two, done by hand as an orchestrator would.
//
//   AcceleratorHost source(1), target(2);
//   source.StartInterrupts();
//   AcceleratorMove move(&source, &target);
//   ASSERT_TRUE(move.Begin().ok());
//   while (...) ASSERT_TRUE(move.CopyDirty(10).ok());   // while it runs
//   ASSERT_TRUE(move.Finish().ok());
//
// One thread.

#ifndef FERRYBUS_VSP_VIRTUAL_FUNCTION_ACCELERATOR_WORLD_H_
#define FERRYBUS_VSP_VIRTUAL_FUNCTION_ACCELERATOR_WORLD_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/savestate/migration/dirty_bitmap.h"
#include "ferrybus/vsp/virtual_function/accelerator.h"
#include "ferrybus/vsp/virtual_function/accelerator_migratable.h"
#include "ferrybus/vsp/virtual_function/config_space.h"
#include "ferrybus/vsp/virtual_function/msix_table.h"
#include "ferrybus/vsp/virtual_function/msix_world.h"

namespace ferrybus::vsp {

inline constexpr uint32_t kWorldVectors = 4;
// By segment: 1 and 2, whose pages differ.
inline constexpr uint64_t kWorldSizes[] = {256 << 10, 128 << 10};
inline constexpr uint64_t kWorldPages[] = {4096, 16384};

struct AcceleratorHostOptions {
  uint32_t vectors = kWorldVectors;
  std::vector<uint64_t> sizes = {kWorldSizes[0], kWorldSizes[1]};
  std::vector<uint64_t> pages = {kWorldPages[0], kWorldPages[1]};
  AcceleratorMigratableOptions migratable;
  // False: a test brings its own.
  bool has_port = true;
};

// For commands whose answers nobody wants.
class NoAnswers final : public AcceleratorPort {
 public:
  bool ReadData(uint64_t, uint64_t, absl::Span<std::byte>) override {
    return false;
  }
  bool WriteData(uint64_t, uint64_t, absl::Span<const std::byte>) override {
    return false;
  }
  void OnDone(uint64_t, const accelerator::Reply&,
              absl::Span<const std::byte>) override {
    ++done;
  }
  uint64_t done = 0;
};

struct AcceleratorHost {
  explicit AcceleratorHost(uint64_t number,
                           const AcceleratorHostOptions& options = {});

  // As a guest's driver would: all vectors set up and unmasked.
  void StartInterrupts();
  void Mask(uint32_t vector, bool is_masked);
  // How many messages of the vector were sent.
  uint64_t SentOf(uint32_t vector) const;
  std::vector<AcceleratorSegment> Segments();
  std::vector<migration::DirtySegment> DirtySegments() const;

  const AcceleratorHostOptions options;
  std::vector<std::vector<std::byte>> memory;
  RecordingHost interrupts;
  MsixTable table;
  migration::DirtyBitmap dirty;
  ConfigSpace config;
  NoAnswers port;
  Accelerator accelerator;
  AcceleratorMigratable migratable;
};

// All bytes that SaveImmutable() or SaveMutable() gives.
absl::StatusOr<std::string> SaveImmutableOf(AcceleratorMigratable& migratable);
absl::StatusOr<std::string> SaveMutableOf(AcceleratorMigratable& migratable);
inline absl::Span<const std::byte> BlobBytes(const std::string& blob) {
  return {reinterpret_cast<const std::byte*>(blob.data()), blob.size()};
}

class AcceleratorMove {
 public:
  AcceleratorMove(AcceleratorHost* source, AcceleratorHost* target)
      : source_(source), target_(target) {}

  // Both prepared, immutable data accepted, every page still to be sent.
  absl::Status Begin();
  // Asks for dirty pages, then sends at most `pages_max`.
  absl::Status CopyDirty(size_t pages_max);
  // From the pause to the target's running.
  absl::Status Finish();
  // The source goes on.
  absl::Status Cancel();

  bool is_target_up_to_date() const { return pending_.empty(); }

 private:
  struct Page {
    uint32_t segment;
    uint64_t number;
    friend auto operator<=>(const Page&, const Page&) = default;
  };

  absl::Status StopTracking();

  AcceleratorHost* const source_;
  AcceleratorHost* const target_;
  std::map<uint32_t, migration::BasisId> bases_;
  std::set<Page> pending_;
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_VIRTUAL_FUNCTION_ACCELERATOR_WORLD_H_
