// SPDX-License-Identifier: MIT
//
// Models (state_model.h, state_check.h, state_diff.h) as text for people:
// aligned columns, no colours, the wording may change.
//
// Thread safety: functions without state.
// Trust: takes models that this library made; their strings are printable.

#ifndef FERRYBUS_TOOLS_STATE_STATE_TEXT_H_
#define FERRYBUS_TOOLS_STATE_STATE_TEXT_H_

#include <string>
#include <vector>

#include "ferrybus/tools/state/describe.h"

namespace ferrybus::state_tool {

// "yes", "17", the string itself; "name value, name value" of an object.
std::string ValueText(const Json& value);

// Columns as wide as they must be, each row after `indent`.
std::string TableText(const std::vector<std::vector<std::string>>& rows,
                      const std::string& indent);

std::string InspectText(const Json& model);
std::string ValidateText(const Json& model);
std::string DiffText(const Json& model);

}  // namespace ferrybus::state_tool

#endif  // FERRYBUS_TOOLS_STATE_STATE_TEXT_H_
