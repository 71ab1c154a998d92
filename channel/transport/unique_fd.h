// SPDX-License-Identifier: MIT
//
// A file descriptor with one owner, by the name that channels and endpoints
// call it: savestate/unique_fd.h, which says more.
//
// Ownership: moving hands the descriptor on; Release() gives it up.

#ifndef FERRYBUS_CHANNEL_TRANSPORT_UNIQUE_FD_H_
#define FERRYBUS_CHANNEL_TRANSPORT_UNIQUE_FD_H_

#include "ferrybus/savestate/unique_fd.h"

namespace ferrybus {

using savestate::UniqueFd;

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_TRANSPORT_UNIQUE_FD_H_
