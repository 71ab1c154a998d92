// SPDX-License-Identifier: MIT
//
// Limits of this process: so many descriptors more, or so many pages of address
// space, and not one beyond.
//
// Thread safety: none; the limits count for all threads.
//
//   const int needed = UntilDescriptorsSuffice([&] { return Open(); });

#ifndef FERRYBUS_TESTS_FAULTS_RESOURCE_LIMIT_H_
#define FERRYBUS_TESTS_FAULTS_RESOURCE_LIMIT_H_

#include <sys/resource.h>

#include <cstddef>
#include <set>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

namespace ferrybus::testing {

// The numbers of this process's open descriptors.
std::set<int> OpenDescriptors();

// For its life, exactly `room` more descriptors can be opened.
class DescriptorLimit {
 public:
  explicit DescriptorLimit(size_t room);
  ~DescriptorLimit();
  DescriptorLimit(const DescriptorLimit&) = delete;
  DescriptorLimit& operator=(const DescriptorLimit&) = delete;

 private:
  rlimit before_ = {};
};

// Runs `scenario`, which closes again what it opens, with room for 0, 1, ...
// descriptors, until it succeeds.  Each failure must say that there were too
// many open files, and each run must leave as many descriptors as it found.
// After each one `afterwards` looks, without a limit, at what is left.
// Returns the room that was enough, and prints what was said before.
size_t UntilDescriptorsSuffice(
    const std::string& what, absl::FunctionRef<absl::Status()> scenario,
    absl::FunctionRef<void(const absl::Status&)> afterwards =
        [](const absl::Status&) {});

// The same with pages of address space, which are freed again.  Must run in a
// child (SucceedsInChild): its heap is made so large before that it never asks
// the system for more.
size_t UntilAddressSpaceSuffices(
    const std::string& what, absl::FunctionRef<absl::Status()> scenario,
    absl::FunctionRef<void(const absl::Status&)> afterwards =
        [](const absl::Status&) {});

// False: a sanitizer has taken all the address space.
bool CanLimitAddressSpace();

// False: the undefined behaviour sanitizer needs descriptors of its own, one
// pipe for each type that it sees for the first time.
bool CanLimitDescriptorsOfThreads();

// Runs it in a copy of this process.  True: it came to its end and nothing in
// it failed.
bool SucceedsInChild(absl::FunctionRef<void()> run);

}  // namespace ferrybus::testing

#endif  // FERRYBUS_TESTS_FAULTS_RESOURCE_LIMIT_H_
