// SPDX-License-Identifier: MIT
//
// A driver that was written to the documents, with or without its user-mode
// emulation DLL (UMED), as a Migratable.
//
//   Prepare            DxgkDdiPrepareLiveMigration
//   SaveImmutable      DxgkDdiSaveImmutableMigrationData, SaveImmutableGpup
//   ReadMemory         a transfer LOCAL_TO_SYSTEM
//   Pause, Resume      DxgkDdiSetVirtualFunctionPauseState; Resume() of a
//                      function that was never paused calls nothing
//   SaveMutable        DxgkDdiSaveMutableMigrationData, the UMED's Save
//   RestoreImmutable   DxgkDdiRestoreImmutableMigrationData, which validates,
//                      then RestoreImmutableGpup
//   WriteMemory        a transfer SYSTEM_TO_LOCAL
//   RestoreMutable     DxgkDdiRestoreMutableMigrationData, the UMED's Restore
//   End                DxgkDdiEndLiveMigration
//
// Blobs are frames (migration_parts.h) around what the two save.  Both hosts
// have a UMED, or neither.  A target that cannot take the function over says so
// by a triage event: the driver's, or if that or the UMED gave none, ours.
//
// Ownership: borrows the driver, holds a reference to the UMED.
// Thread safety: as Migratable says; driver's events come on any thread.
// Trust: blobs are the peer's, their frames are checked here; what is in them
// is checked by the driver and the UMED, which get copies.  Their answers are
// checked, their pointers must be good.
//
// Source: as migratable.h; DxgkCbLogEtwEvent, IGPUPMigration.

#ifndef FERRYBUS_VSP_VIRTUAL_FUNCTION_DOCUMENTED_MIGRATION_H_
#define FERRYBUS_VSP_VIRTUAL_FUNCTION_DOCUMENTED_MIGRATION_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "ferrybus/savestate/migration/dirty_tracking.h"
#include "ferrybus/savestate/migration/migratable.h"
#include "ferrybus/savestate/size_negotiation.h"
#include "ferrybus/vsp/virtual_function/documented_capabilities.h"
#include "ferrybus/vsp/virtual_function/documented_dirty_tracking.h"
#include "ferrybus/vsp/virtual_function/documented_migration_functions.h"
#include "ferrybus/vsp/virtual_function/driver_migration.h"
#include "ferrybus/vsp/virtual_function/migration_parts.h"

namespace ferrybus::vsp {

struct TriageEvent {
  DXGKDDICB_PARTITIONING_EVENT_TYPE type =
      DXGKDDICB_PARTITIONING_EVENT_DRIVER_INTERNAL;
  uint32_t partition_id = 0;
  std::string description;  // printable
  std::array<uint64_t, 5> data = {};
};

struct DocumentedMigrationOptions {
  std::string name = "virtual function";
  uint32_t vf_index = 0;
  LUID device_luid = {};
  // Else nothing is asked, and nothing can be done.
  bool is_partitioned = true;
  // The machine that the function is for may hibernate.
  bool needs_hibernation = false;
  // It was started already; a target's never was.
  bool is_running = false;
  // All on the device; the driver says the page sizes.
  std::vector<migration::Segment> segments;
  std::string creation_parameters;
  IGPUPMigration* umed = nullptr;
  FERRYBUS_UMED_STATE* umed_state = nullptr;
  // Of the driver's and of the UMED's part each.
  uint64_t part_bytes_max = uint64_t{16} << 20;
  // On any thread, perhaps in a call of this object.
  std::function<void(const TriageEvent&)> on_triage_event;
  std::function<absl::Status()> rewrite_interrupts;
};

class DocumentedMigratable final : public migration::Migratable {
 public:
  // FailedPrecondition: by the documented rules it does not start, see
  // QueryDocumentedCapabilities(); or the machine may hibernate, and the driver
  // cannot.  InvalidArgument: a callback is missing.
  static absl::StatusOr<std::unique_ptr<DocumentedMigratable>> Create(
      const DocumentedMigrationFunctions& functions,
      DocumentedMigrationOptions options);
  ~DocumentedMigratable() override;

  // For the events of the driver.
  PVOID adapter() { return this; }
  // What DxgkCbLogEtwEvent does.
  void LogEvent(const GUID& guid, size_t size_bytes, const void* buffer);

  std::string name() const override { return options_.name; }
  migration::Capabilities capabilities() const override;
  std::vector<migration::Segment> segments() const override {
    return caps_.segments;
  }
  migration::DirtyTracking* dirty_tracking() override {
    return caps_.dirty_tracking ? &tracking_ : nullptr;
  }
  std::string CreationParameters() const override {
    return options_.creation_parameters;
  }

  absl::Status Prepare(migration::Role role) override;
  void End() override;
  savestate::SizeAnswer SaveImmutable(absl::Span<std::byte> out) override;
  absl::Status ReadMemory(uint32_t segment, uint64_t offset_bytes,
                          absl::Span<std::byte> out) override;
  absl::StatusOr<bool> Pause() override;
  savestate::SizeAnswer SaveMutable(absl::Span<std::byte> out) override;
  void Retire() override { is_retired_ = true; }
  absl::Status RestoreImmutable(absl::Span<const std::byte> data) override;
  absl::Status WriteMemory(uint32_t segment, uint64_t offset_bytes,
                           absl::Span<const std::byte> data) override;
  absl::Status RestoreMutable(absl::Span<const std::byte> data) override;
  absl::Status RewriteInterrupts() override;
  void Resume() override;

 private:
  DocumentedMigratable(const DocumentedMigrationFunctions& functions,
                       DocumentedMigrationOptions options,
                       DocumentedCapabilities caps);

  absl::Status CheckRole(migration::Role role, bool must_be_paused) const;
  // Answers the first call of two with all of the work, the second one from
  // `blob`.
  savestate::SizeAnswer Answer(absl::Span<std::byte> out,
                               std::optional<std::string>* blob,
                               bool is_immutable);
  absl::StatusOr<std::string> Save(bool is_immutable);
  absl::StatusOr<std::string> SaveDriverPart(bool is_immutable);
  absl::StatusOr<std::string> SaveUmedPart(bool is_immutable);
  absl::Status RestoreParts(bool is_immutable,
                            absl::Span<const std::byte> data);
  absl::Status RestoreDriverPart(bool is_immutable, std::vector<BYTE> data);
  absl::Status RestoreUmedPart(bool is_immutable, std::vector<BYTE> data);
  bool HasUmed(bool is_immutable) const;
  absl::Status SetPauseState(bool pause);
  absl::Status Transfer(uint32_t segment, uint64_t offset_bytes,
                        std::byte* memory, uint64_t size_bytes,
                        DXGK_MEMORY_TRANSFER_DIRECTION direction);
  void Emit(const TriageEvent& event) ABSL_LOCKS_EXCLUDED(event_mutex_);
  // `status` with the driver's last event as the reason; emits one if there
  // was none since `events_before`.
  absl::Status WithEvent(uint64_t events_before, absl::Status status);
  uint64_t EventCount() const ABSL_LOCKS_EXCLUDED(event_mutex_);

  const DocumentedMigrationFunctions functions_;
  const DocumentedMigrationOptions options_;
  const DocumentedCapabilities caps_;
  DocumentedDirtyTracking tracking_;

  std::optional<migration::Role> role_;  // between Prepare() and End()
  bool is_running_ = false;
  bool is_pause_set_ = false;
  bool is_retired_ = false;
  // A target's, in this migration.
  enum class Restored { kNothing, kFailed, kImmutable, kMutable };
  Restored restored_ = Restored::kNothing;
  std::optional<std::string> immutable_;
  std::optional<std::string> mutable_;

  mutable absl::Mutex event_mutex_;
  uint64_t event_count_ ABSL_GUARDED_BY(event_mutex_) = 0;
  std::string last_event_ ABSL_GUARDED_BY(event_mutex_);
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_VIRTUAL_FUNCTION_DOCUMENTED_MIGRATION_H_
