// SPDX-License-Identifier: MIT
//
// What the guest prints: passed on, and read line by line for results and for
// what a healthy kernel does not say.
//
// Thread safety: any thread.
// Trust: the guest prints what it likes; a line's length is bounded.

#ifndef FERRYBUS_EXAMPLES_HYPERVISOR_CONSOLE_LOG_H_
#define FERRYBUS_EXAMPLES_HYPERVISOR_CONSOLE_LOG_H_

#include <cstdint>
#include <cstdio>
#include <mutex>
#include <string>
#include <vector>

#include "ferrybus/examples/demo/control.h"

namespace ferrybus::hypervisor {

class ConsoleLog {
 public:
  // What the guest says about its own work, in its kernel's log: this and one
  // JSON object.
  static constexpr char kResultPrefix[] = "FERRYBUS-RESULT ";
  static constexpr char kReadyLine[] = "FERRYBUS-READY";

  // `copy` may be null; borrowed.
  explicit ConsoleLog(FILE* copy) : copy_(copy) {}

  void Put(char c);

  // The guest has printed kReadyLine.
  bool is_ready() const;
  demo::Json result() const;  // null: none came
  // Lines of the kernel about I/O errors, aborts, resets, or errors of its
  // drivers for the bus; the first ones.
  std::vector<std::string> complaints() const;

 private:
  void TakeLine();

  FILE* const copy_;
  mutable std::mutex mutex_;
  std::string line_;
  bool is_ready_ = false;
  demo::Json result_;
  std::vector<std::string> complaints_;
};

}  // namespace ferrybus::hypervisor

#endif  // FERRYBUS_EXAMPLES_HYPERVISOR_CONSOLE_LOG_H_
