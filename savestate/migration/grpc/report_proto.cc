// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/migration/grpc/report_proto.h"

#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/time/time.h"

namespace ferrybus::migration {
namespace {

constexpr size_t kReasonSizeMax = 4096;

// Protobuf's strings are UTF-8, and a reason may quote anything.
std::string Printable(absl::string_view text) {
  std::string printable(text.substr(0, kReasonSizeMax));
  for (char& c : printable) {
    if (!absl::ascii_isprint(static_cast<unsigned char>(c))) c = '?';
  }
  return printable;
}

void WriteProgress(const MigrationProgress& progress,
                   v1::MigrationReport* proto) {
  proto->set_pass(progress.pass);
  proto->set_memory_bytes(progress.memory_bytes);
  proto->set_pending_bytes(progress.pending_bytes);
  proto->set_pages_sent(progress.pages_sent);
  proto->set_plain_bytes_sent(progress.plain_bytes_sent);
  proto->set_wire_bytes_sent(progress.wire_bytes_sent);
  proto->set_bandwidth_bytes_per_second(progress.bandwidth_bytes_per_second);
  proto->set_dirty_bytes_per_second(progress.dirty_bytes_per_second);
  proto->set_expected_pause_us(
      progress.expected_pause == absl::InfiniteDuration()
          ? -1
          : absl::ToInt64Microseconds(progress.expected_pause));
  proto->set_is_converging(progress.is_converging);
  proto->set_elapsed_us(absl::ToInt64Microseconds(progress.elapsed));
  const PauseTimes& pause = progress.pause;
  proto->set_pause_stop_us(absl::ToInt64Microseconds(pause.stop));
  proto->set_pause_memory_us(absl::ToInt64Microseconds(pause.memory));
  proto->set_pause_state_us(absl::ToInt64Microseconds(pause.state));
  proto->set_pause_decide_us(absl::ToInt64Microseconds(pause.decide));
  proto->set_pause_start_us(absl::ToInt64Microseconds(pause.start));
}

}  // namespace

v1::MigrationReport ReportToProto(const MigrationReport& report) {
  v1::MigrationReport proto;
  const bool is_source = report.role == MigrationRole::kSource;
  proto.set_migration_id(report.migration_id);
  proto.set_machine(report.machine);
  proto.set_peer(report.peer);
  proto.set_role(is_source ? v1::MigrationReport::ROLE_SOURCE
                           : v1::MigrationReport::ROLE_TARGET);
  proto.set_phase(report.phase);
  proto.set_is_finished(report.is_finished);
  proto.set_code(static_cast<uint32_t>(report.status.code()));
  proto.set_reason(Printable(report.status.message()));
  proto.set_is_handed_over(report.is_handed_over);
  if (is_source) WriteProgress(report.progress, &proto);
  return proto;
}

}  // namespace ferrybus::migration
