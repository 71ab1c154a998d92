// SPDX-License-Identifier: MIT
//
// savestate/unique_fd.h, by the name that channels and endpoints call it.

#ifndef FERRYBUS_CHANNEL_TRANSPORT_UNIQUE_FD_H_
#define FERRYBUS_CHANNEL_TRANSPORT_UNIQUE_FD_H_

#include "ferrybus/savestate/unique_fd.h"

namespace ferrybus {

using savestate::UniqueFd;

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_TRANSPORT_UNIQUE_FD_H_
