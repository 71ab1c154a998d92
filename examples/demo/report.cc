// SPDX-License-Identifier: MIT

#include "ferrybus/examples/demo/report.h"

#include <algorithm>
#include <functional>

#include "absl/strings/str_format.h"

namespace ferrybus::demo {
namespace {

using Value = std::function<double(const MoveRecord&)>;

std::vector<double> Sorted(const std::vector<MoveRecord>& moves,
                           const Value& value) {
  std::vector<double> values;
  for (const MoveRecord& move : moves) values.push_back(value(move));
  std::sort(values.begin(), values.end());
  return values;
}

// The value below which `share` of the sorted values lie; nearest rank.
double Percentile(const std::vector<double>& sorted, double share) {
  if (sorted.empty()) return 0;
  const double rank = share * static_cast<double>(sorted.size());
  const size_t index = static_cast<size_t>(std::max(0.0, rank - 1e-9));
  return sorted[std::min(index, sorted.size() - 1)];
}

double Milliseconds(int64_t nanoseconds) {
  return static_cast<double>(nanoseconds) / 1e6;
}

struct Part {
  const char* name;
  Value milliseconds;
};

std::vector<Part> Parts() {
  return {
      {"pause", [](const MoveRecord& m) { return Milliseconds(m.pause_ns); }},
      {"save",
       [](const MoveRecord& m) {
         return Milliseconds(m.saved_ns - m.begin_ns);
       }},
      {"write",
       [](const MoveRecord& m) {
         return Milliseconds(m.written_ns - m.saved_ns);
       }},
      {"start",
       [](const MoveRecord& m) {
         return Milliseconds(m.start_ns - m.written_ns);
       }},
      {"restore",
       [](const MoveRecord& m) {
         return Milliseconds(m.serving_ns - m.start_ns);
       }},
  };
}

double InFlight(const MoveRecord& move) {
  return static_cast<double>(move.in_flight);
}

}  // namespace

void AssignPauses(const std::vector<Gap>& gaps,
                  std::vector<MoveRecord>* moves) {
  for (MoveRecord& move : *moves) {
    for (const Gap& gap : gaps) {
      if (gap.end_ns < move.begin_ns || gap.begin_ns > move.serving_ns) {
        continue;
      }
      move.pause_ns = std::max(move.pause_ns, gap.end_ns - gap.begin_ns);
    }
  }
}

Json ToJson(const DemoReport& report) {
  const std::vector<double> in_flight = Sorted(report.moves, InFlight);
  Json json = {
      {"requests", report.requests},
      {"moves", report.moves.size()},
      {"in_flight_min", Percentile(in_flight, 0)},
      {"in_flight_median", Percentile(in_flight, 0.5)},
      {"in_flight_max", Percentile(in_flight, 1)},
      {"lost", report.lost},
      {"duplicated", report.duplicated},
      {"differing", report.differing},
      {"failed", report.failed},
      {"verified", report.verified()},
      {"verified_bytes", report.verified_bytes},
      {"files", report.files},
      {"file_passes", report.file_passes},
      {"file_system_ok", report.file_system_ok},
      {"digests_ok", report.digests_ok},
      {"seconds", report.seconds},
      {"seed", report.seed},
      {"killed", report.killed},
      {"engine", report.engine},
  };
  for (const Part& part : Parts()) {
    const std::vector<double> values = Sorted(report.moves, part.milliseconds);
    const std::string name = std::string(part.name) + "_ms_";
    json[name + "p50"] = Percentile(values, 0.5);
    json[name + "p99"] = Percentile(values, 0.99);
  }
  return json;
}

std::string ToText(const DemoReport& report) {
  const std::vector<double> in_flight = Sorted(report.moves, InFlight);
  std::string text = absl::StrFormat(
      "\n  requests    %d in %.1f s (%s)\n"
      "  moves       %d%s; in flight at each: min %.0f, median %.0f, max %.0f\n"
      "  lost        %d\n"
      "  duplicated  %d\n"
      "  differing   %d bytes' blocks, %d requests failed\n"
      "  verified    %.1f MiB through the channel; %d files read %d times\n"
      "  e2fsck      %s\n"
      "  SHA-256     %s\n",
      report.requests, report.seconds, report.engine, report.moves.size(),
      report.killed ? ", each by SIGKILL" : "", Percentile(in_flight, 0),
      Percentile(in_flight, 0.5), Percentile(in_flight, 1), report.lost,
      report.duplicated, report.differing, report.failed,
      static_cast<double>(report.verified_bytes) / (1 << 20), report.files,
      report.file_passes, report.file_system_ok ? "clean" : "FAILED",
      report.digests_ok ? "every file as it was made" : "DIFFERS");
  text += "\n  milliseconds     p50      p99\n";
  for (const Part& part : Parts()) {
    const std::vector<double> values = Sorted(report.moves, part.milliseconds);
    text += absl::StrFormat("    %-8s %9.2f%9.2f\n", part.name,
                            Percentile(values, 0.5), Percentile(values, 0.99));
  }
  return text;
}

}  // namespace ferrybus::demo
