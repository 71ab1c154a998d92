// SPDX-License-Identifier: MIT
//
// Whose time it is that a virtual function's memory is moved in.
//
// Ownership: whoever moves the function borrows it.
// Thread safety: all methods, from any thread.

#ifndef FERRYBUS_VSP_VIRTUAL_FUNCTION_PAGING_BUDGET_H_
#define FERRYBUS_VSP_VIRTUAL_FUNCTION_PAGING_BUDGET_H_

#include <cstdint>

#include "absl/status/status.h"

namespace ferrybus::vsp {

class PagingBudget {
 public:
  virtual ~PagingBudget() = default;
  // A migration of the function begins.  A failure ends it.
  virtual absl::Status BeginPaging() = 0;
  // So much of its memory was read or written by it.
  virtual void ChargePaging(uint64_t bytes) = 0;
  virtual void EndPaging() = 0;
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_VIRTUAL_FUNCTION_PAGING_BUDGET_H_
