// SPDX-License-Identifier: MIT

// Any CDB, direction, length and parameter list: the interpreter answers, and
// what it wants done lies on the disk.

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "absl/types/span.h"
#include "ferrybus/vsp/storage/scsi_disk.h"

// Input: u8 model bits, u8 direction, u8 CDB length, u8[4] transfer length,
// then the CDB, then data-out.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes) {
  using namespace ferrybus;       // NOLINT
  using namespace ferrybus::vsp;  // NOLINT
  constexpr size_t kHeaderBytes = 7;
  if (size_bytes < kHeaderBytes) return 0;
  DiskModel model;
  model.size_bytes = (data[0] & 4) != 0 ? uint64_t{1} << 45 : 1 << 20;
  model.read_only = (data[0] & 1) != 0;
  model.can_discard = (data[0] & 2) != 0;
  model.max_transfer_bytes = 1 << 20;
  model.serial = "fuzz";
  const ScsiDisk disk(model);

  absl::Span<const uint8_t> rest(data + kHeaderBytes,
                                 size_bytes - kHeaderBytes);
  ScsiCommand command;
  command.direction = static_cast<DataDirection>(data[1] % 3);
  command.cdb = rest.subspan(0, data[2] % 17);
  rest.remove_prefix(command.cdb.size());
  command.transfer_bytes = scsi::LoadBe32(data + 3);
  command.parameters = rest.subspan(0, ScsiDisk::ParameterBytes(command));

  const ScsiOutcome outcome = disk.Execute(command);
  if (outcome.kind == ScsiOutcome::Kind::kAnswer) {
    if (outcome.data_bytes > outcome.data.size() ||
        outcome.data_bytes > command.transfer_bytes) {
      std::abort();
    }
    return 0;
  }
  for (const ByteRange& range : outcome.ranges()) {
    if (range.length_bytes == 0 || range.length_bytes > model.size_bytes ||
        range.offset_bytes > model.size_bytes - range.length_bytes) {
      std::abort();
    }
    const bool transfers =
        outcome.op == BlockOp::kRead || outcome.op == BlockOp::kWrite;
    if (transfers && range.length_bytes > command.transfer_bytes) std::abort();
    if (model.read_only && outcome.op != BlockOp::kRead) std::abort();
  }
  return 0;
}
