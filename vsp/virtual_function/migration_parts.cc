// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/virtual_function/migration_parts.h"

#include <array>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "ferrybus/savestate/frame.h"

namespace ferrybus::vsp {
namespace {

using savestate::SectionKind;

struct Names {
  const char* driver;
  const char* umed;
};

// Different ones: no blob is taken for one of the other kind.
Names NamesOf(MigrationPartsKind kind) {
  if (kind == MigrationPartsKind::kImmutable) {
    return {"immutable.driver", "immutable.umed"};
  }
  return {"mutable.driver", "mutable.umed"};
}

savestate::FrameLimits Limits(uint64_t part_bytes_max) {
  savestate::FrameLimits limits;
  limits.sections_max = 16;
  limits.body_bytes_max = part_bytes_max;
  limits.total_bytes_max = 2 * part_bytes_max + 4096;
  return limits;
}

}  // namespace

absl::StatusOr<std::string> WriteMigrationParts(MigrationPartsKind kind,
                                                MigrationParts parts,
                                                uint64_t part_bytes_max) {
  const Names names = NamesOf(kind);
  savestate::FrameWriter writer("ferrybus", Limits(part_bytes_max));
  writer.AddSection(names.driver, 0, kMigrationPartsVersion,
                    SectionKind::kRequired, std::move(parts.driver));
  if (parts.umed.has_value()) {
    writer.AddSection(names.umed, 0, kMigrationPartsVersion,
                      SectionKind::kRequired, std::move(*parts.umed));
  }
  return writer.Finish();
}

absl::StatusOr<MigrationPartViews> ReadMigrationParts(
    MigrationPartsKind kind, absl::Span<const std::byte> bytes,
    uint64_t part_bytes_max) {
  const Names names = NamesOf(kind);
  const auto frame = savestate::Frame::Parse(bytes, Limits(part_bytes_max));
  if (!frame.ok()) return frame.status();
  const std::array<savestate::KnownSection, 2> known = {
      {{names.driver, kMigrationPartsVersion},
       {names.umed, kMigrationPartsVersion}}};
  const auto unknown = savestate::CheckKnownSections(*frame, known);
  if (!unknown.ok()) return unknown.status();
  const savestate::Section* driver = frame->Find(names.driver);
  if (driver == nullptr) {
    return absl::InvalidArgumentError(
        "the data of a function have no part of its driver");
  }
  MigrationPartViews views;
  views.driver = driver->body;
  if (const savestate::Section* umed = frame->Find(names.umed);
      umed != nullptr) {
    views.umed = umed->body;
  }
  return views;
}

}  // namespace ferrybus::vsp
