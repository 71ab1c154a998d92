// SPDX-License-Identifier: MIT
//
// A driver and a user-mode DLL that are written to the documents, for tests:
// they do what is documented, write down how they were called, and can be told
// to break each rule.
//
// Ownership: owns the device's memory; DocumentedMigratable borrows it.
// Thread safety: one thread at a time.

#ifndef FERRYBUS_VSP_VIRTUAL_FUNCTION_DOCUMENTED_DRIVER_H_
#define FERRYBUS_VSP_VIRTUAL_FUNCTION_DOCUMENTED_DRIVER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "ferrybus/vsp/virtual_function/documented_migration_functions.h"
#include "ferrybus/vsp/virtual_function/driver_migration.h"

namespace ferrybus::vsp {

// What a save callback answers to each call, one after the other; then the
// last one again.  Without any, it saves its bytes as documented.
struct SaveScript {
  struct Answer {
    int32_t status = 0;
    int64_t size = -1;  // negative: left as it was
  };
  std::vector<Answer> answers;
  size_t next = 0;
};

// The driver's immutable data: a version, then the firmware's.  Version 2 added
// nothing, so that both are taken; all else is refused.
inline constexpr uint8_t kDriverVersionOld = 1;
inline constexpr uint8_t kDriverVersion = 2;

class DocumentedDriver {
 public:
  struct Basis {
    uint32_t segment = 0;
    std::vector<DXGK_MEMORYRANGE> ranges;
    bool is_tracked = false;
    std::set<uint64_t> dirty;  // pages of the segment
  };

  DocumentedMigrationFunctions functions();

  // The device writes.
  void Write(uint32_t segment, uint64_t offset, uint8_t value);

  std::vector<std::string> calls;
  PVOID adapter = nullptr;  // for events

  UINT caps = 0x4;           // LiveMigration
  UINT32 tracking_caps = 1;  // DirtyBitTrackingSupported
  std::map<uint32_t, uint32_t> page_sizes = {{1, 4096}, {2, 65536}};
  uint64_t scatter_page = 0;
  std::map<uint32_t, std::vector<uint8_t>> memory;

  std::string immutable = {kDriverVersion, 7};
  std::string mutable_state = "registers";
  std::string restored_mutable;
  SaveScript immutable_script;
  SaveScript mutable_script;
  uint8_t firmware = 7;
  bool sends_event = true;
  UINT event_bytes = sizeof(DXGKDDICB_PARTITIONING_EVENT_NOTIFICATION);
  bool is_paused = false;

  NTSTATUS prepare_status = STATUS_SUCCESS;
  NTSTATUS restore_mutable_status = STATUS_SUCCESS;
  NTSTATUS pause_status = STATUS_SUCCESS;
  NTSTATUS transfer_status = STATUS_SUCCESS;
  NTSTATUS tracking_status = STATUS_SUCCESS;  // start, stop and query
  NTSTATUS destroy_status = STATUS_SUCCESS;
  bool gives_handles = true;
  bool writes_beyond = false;
  bool leaves_trailing_bits = false;
  bool answers_queries = true;

  // By handle.
  std::map<void*, std::unique_ptr<Basis>> bases;
  DXGKARG_QUERYDIRTYBITDATA last_query = {};

  NTSTATUS Query(const DXGKARG_QUERYADAPTERINFO& args);
  NTSTATUS SaveData(UINT64* size, BYTE* data, const std::string& state,
                    SaveScript* script);
  NTSTATUS RestoreImmutable(uint64_t size, const BYTE* data);
  NTSTATUS QueryDirty(const DXGKARG_QUERYDIRTYBITDATA& args);
  void SendEvent(const std::string& text);
};

struct DocumentedUmed : IGPUPMigration {
  DocumentedUmed();

  FERRYBUS_UMED_STATE state = {};
  std::vector<std::string>* calls = nullptr;
  int references = 1;
  std::string immutable = "dll";
  std::string mutable_state = "dll state";
  std::string restored;
  std::string restored_mutable;
  SaveScript immutable_script;
  HRESULT restore_result = S_OK;
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_VIRTUAL_FUNCTION_DOCUMENTED_DRIVER_H_
