// SPDX-License-Identifier: MIT
//
// How a migration goes, for people and for programs.
//
// Ownership: none.  Thread safety: pure functions.
// Trust: reports are a peer's: what is printed of them is escaped.

#ifndef FERRYBUS_TOOLS_MIGRATE_REPORT_TEXT_H_
#define FERRYBUS_TOOLS_MIGRATE_REPORT_TEXT_H_

#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/string_view.h"
#include "ferrybus/savestate/migration/grpc/transport.pb.h"
#include "ferrybus/tools/migrate/control.pb.h"

namespace ferrybus::migrate_tool {

using Json = nlohmann::ordered_json;

std::string Escaped(absl::string_view text);

Json ReportJson(const migration::v1::MigrationReport& report);
Json MachineJson(const v1::MachineState& machine);

// One line while it is under way; several at the end.
std::string ProgressLine(const migration::v1::MigrationReport& report);
std::string Summary(const migration::v1::MigrationReport& report);
std::string MachineLine(const v1::MachineState& machine);

}  // namespace ferrybus::migrate_tool

#endif  // FERRYBUS_TOOLS_MIGRATE_REPORT_TEXT_H_
