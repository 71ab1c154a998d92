// SPDX-License-Identifier: MIT

#include "ferrybus/examples/hypervisor/console_log.h"

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"

namespace ferrybus::hypervisor {
namespace {

constexpr size_t kLineMax = 4096;
constexpr size_t kComplaintsMax = 20;

// A line with one of these, whatever the case, is a complaint.
constexpr const char* kTrouble[] = {
    "i/o error",     "buffer i/o",       "ext4-fs error", "aborting journal",
    "rejecting i/o", "unchecked msr",    "bug:",          "oops",
    "kernel panic",  "blocked for more", "tag#",          "soft lockup",
    "rcu_sched",     "rcu_preempt",      "warning:",      "call trace",
};
// And so is one of a driver's (hv_...) that also has one of these.
constexpr const char* kDrivers[] = {"hv_", "storvsc", "vmbus", "scsi host"};
constexpr const char* kDriverTrouble[] = {"error",   "fail",    "abort",
                                          "reset",   "timeout", "timed out",
                                          "invalid", "unknown", "unable"};

template <size_t n>
bool ContainsAny(const std::string& line, const char* const (&words)[n]) {
  const std::string lower = absl::AsciiStrToLower(line);
  for (const char* word : words) {
    if (absl::StrContains(lower, word)) return true;
  }
  return false;
}

}  // namespace

void ConsoleLog::Put(char c) {
  const std::lock_guard lock(mutex_);
  if (copy_ != nullptr) {
    std::fputc(c, copy_);
    std::fflush(copy_);
  }
  if (c == '\n') {
    TakeLine();
    line_.clear();
  } else if (line_.size() < kLineMax && c != '\r') {
    line_ += c;
  }
}

void ConsoleLog::TakeLine() {
  // A line of the kernel's may have a time before it, and a shell's prompt.
  if (absl::StrContains(line_, kReadyLine)) {
    is_ready_ = true;
  } else if (const size_t at = line_.find(kResultPrefix);
             at != std::string::npos) {
    const demo::Json json =
        demo::Json::parse(line_.substr(at + sizeof(kResultPrefix) - 1), nullptr,
                          /*allow_exceptions=*/false);
    if (json.is_object()) result_ = json;
  } else if (complaints_.size() < kComplaintsMax &&
             (ContainsAny(line_, kTrouble) ||
              (ContainsAny(line_, kDrivers) &&
               ContainsAny(line_, kDriverTrouble)))) {
    complaints_.push_back(line_);
  }
}

bool ConsoleLog::is_ready() const {
  const std::lock_guard lock(mutex_);
  return is_ready_;
}

demo::Json ConsoleLog::result() const {
  const std::lock_guard lock(mutex_);
  return result_;
}

std::vector<std::string> ConsoleLog::complaints() const {
  const std::lock_guard lock(mutex_);
  return complaints_;
}

}  // namespace ferrybus::hypervisor
