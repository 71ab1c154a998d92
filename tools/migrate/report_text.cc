// SPDX-License-Identifier: MIT

#include "ferrybus/tools/migrate/report_text.h"

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "ferrybus/tools/migrate/sizes.h"

namespace ferrybus::migrate_tool {
namespace {

using migration::v1::MigrationReport;

std::string Milliseconds(int64_t microseconds) {
  if (microseconds < 0) return "unknown";
  return absl::StrFormat("%.1f ms", static_cast<double>(microseconds) / 1000);
}

int64_t PauseMicroseconds(const MigrationReport& report) {
  return report.pause_stop_us() + report.pause_memory_us() +
         report.pause_state_us() + report.pause_decide_us() +
         report.pause_start_us();
}

std::string RoleName(const MigrationReport& report) {
  return report.role() == MigrationReport::ROLE_TARGET ? "target" : "source";
}

}  // namespace

std::string Escaped(absl::string_view text) {
  return absl::CHexEscape(text.substr(0, 8192));
}

Json ReportJson(const MigrationReport& report) {
  Json json = {{"id", absl::BytesToHexString(report.migration_id())},
               {"machine", Escaped(report.machine())},
               {"role", RoleName(report)},
               {"peer", Escaped(report.peer())},
               {"phase", Escaped(report.phase())},
               {"finished", report.is_finished()},
               {"handed_over", report.is_handed_over()},
               {"code", report.code()},
               {"reason", Escaped(report.reason())}};
  if (report.role() != MigrationReport::ROLE_SOURCE) return json;
  json["pass"] = report.pass();
  json["memory_bytes"] = report.memory_bytes();
  json["pending_bytes"] = report.pending_bytes();
  json["pages_sent"] = report.pages_sent();
  json["plain_bytes_sent"] = report.plain_bytes_sent();
  json["wire_bytes_sent"] = report.wire_bytes_sent();
  json["bandwidth_bytes_per_second"] = report.bandwidth_bytes_per_second();
  json["dirty_bytes_per_second"] = report.dirty_bytes_per_second();
  json["expected_pause_us"] = report.expected_pause_us();
  json["converging"] = report.is_converging();
  json["elapsed_us"] = report.elapsed_us();
  json["pause_us"] = {
      {"total", PauseMicroseconds(report)}, {"stop", report.pause_stop_us()},
      {"memory", report.pause_memory_us()}, {"state", report.pause_state_us()},
      {"decide", report.pause_decide_us()}, {"start", report.pause_start_us()}};
  return json;
}

Json MachineJson(const v1::MachineState& machine) {
  return {{"name", Escaped(machine.name())},
          {"kind", Escaped(machine.kind())},
          {"ownership", Escaped(machine.ownership())},
          {"epoch", machine.epoch()},
          {"peer", Escaped(machine.peer())},
          {"phase", Escaped(machine.phase())},
          {"reason", Escaped(machine.reason())},
          {"status", Escaped(machine.status())}};
}

std::string ProgressLine(const MigrationReport& report) {
  if (report.role() != MigrationReport::ROLE_SOURCE) {
    return absl::StrCat(Escaped(report.machine()), ": ",
                        Escaped(report.phase()));
  }
  return absl::StrCat(
      Escaped(report.machine()), ": ", Escaped(report.phase()), ", pass ",
      report.pass(), ", sent ",
      SizeText(static_cast<double>(report.plain_bytes_sent())), ", left ",
      SizeText(static_cast<double>(report.pending_bytes())), ", ",
      SizeText(report.bandwidth_bytes_per_second()), "/s, dirty ",
      SizeText(report.dirty_bytes_per_second()), "/s, pause would be ",
      Milliseconds(report.expected_pause_us()),
      report.is_converging() ? "" : ", NOT CONVERGING");
}

std::string Summary(const MigrationReport& report) {
  const std::string machine = Escaped(report.machine());
  std::string text;
  if (report.role() == MigrationReport::ROLE_TARGET) {
    text = absl::StrCat(machine, ": ", Escaped(report.phase()), " here, from ",
                        Escaped(report.peer()), "\n");
  } else if (report.is_handed_over()) {
    text = absl::StrCat(
        machine, ": moved to ", Escaped(report.peer()), " in ",
        Milliseconds(report.elapsed_us()), ", ", report.pass(), " passes, ",
        SizeText(static_cast<double>(report.plain_bytes_sent())), " as ",
        SizeText(static_cast<double>(report.wire_bytes_sent())), "\n",
        "  paused ", Milliseconds(PauseMicroseconds(report)), ": stop ",
        Milliseconds(report.pause_stop_us()), ", memory ",
        Milliseconds(report.pause_memory_us()), ", state ",
        Milliseconds(report.pause_state_us()), ", decide ",
        Milliseconds(report.pause_decide_us()), ", start ",
        Milliseconds(report.pause_start_us()), "\n");
  } else {
    text =
        absl::StrCat(machine, ": ",
                     report.is_finished() ? "did not move, and goes on where "
                                            "it was"
                                          : Escaped(report.phase()),
                     "\n");
  }
  if (!report.reason().empty()) {
    absl::StrAppend(&text, "  ", Escaped(report.reason()), "\n");
  }
  return text;
}

std::string MachineLine(const v1::MachineState& machine) {
  std::string text = absl::StrFormat(
      "%-16s %-8s %-12s epoch %d", Escaped(machine.name()),
      Escaped(machine.kind()), Escaped(machine.ownership()), machine.epoch());
  if (!machine.phase().empty()) {
    absl::StrAppend(&text, "  ", absl::AsciiStrToUpper(machine.phase()));
  }
  if (!machine.peer().empty()) {
    absl::StrAppend(&text, "  peer ", Escaped(machine.peer()));
  }
  if (!machine.status().empty()) {
    absl::StrAppend(&text, "  ", Escaped(machine.status()));
  }
  if (!machine.reason().empty()) {
    absl::StrAppend(&text, "\n    ", Escaped(machine.reason()));
  }
  return text + "\n";
}

}  // namespace ferrybus::migrate_tool
