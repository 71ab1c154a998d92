// SPDX-License-Identifier: MIT
//
// Tools of this machine that the demo uses: run to their end, with what they
// printed.
//
// Thread safety: functions without state.  Trust: the demo's own commands.

#ifndef FERRYBUS_EXAMPLES_DEMO_SHELL_H_
#define FERRYBUS_EXAMPLES_DEMO_SHELL_H_

#include <string>
#include <utility>

namespace ferrybus::demo {

// Exit code, and both of its outputs.
std::pair<int, std::string> Run(const std::string& command);

// Its path in /usr/sbin or /sbin, which an ordinary user's PATH may lack.
std::string Tool(const std::string& name);

}  // namespace ferrybus::demo

#endif  // FERRYBUS_EXAMPLES_DEMO_SHELL_H_
