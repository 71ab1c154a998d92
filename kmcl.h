// SPDX-License-Identifier: MIT
//
// #include "ferrybus/kmcl.h": the channel interface in C; see kmcl/kmcl.h.

#ifndef FERRYBUS_KMCL_H_
#define FERRYBUS_KMCL_H_

#include "ferrybus/kmcl/kmcl.h"  // IWYU pragma: export

#endif  // FERRYBUS_KMCL_H_
