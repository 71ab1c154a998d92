// SPDX-License-Identifier: MIT
//
// `demo --migrate --throughput`: how much of a link a migration gets, beside
// what iperf3 gets of it, in turn.
//
// The machine is memory that nobody writes (kind=memory), without compression:
// the link is all there is to measure.
//
// Ownership: none.  Thread safety: one thread.

#ifndef FERRYBUS_EXAMPLES_DEMO_LINK_DEMO_H_
#define FERRYBUS_EXAMPLES_DEMO_LINK_DEMO_H_

#include "absl/status/status.h"
#include "ferrybus/examples/demo/migrate_demo.h"

namespace ferrybus::demo {

// `options.moves` moves, each after a run of iperf3; prints the ratios.
absl::Status RunLinkDemo(const MigrateDemoOptions& options);

}  // namespace ferrybus::demo

#endif  // FERRYBUS_EXAMPLES_DEMO_LINK_DEMO_H_
