// SPDX-License-Identifier: MIT
//
// Ids that nobody has used before, nor can guess: of migrations, sessions and
// tickets.
//
// Ownership: none.  Thread safety: a pure function.

#ifndef FERRYBUS_SAVESTATE_MIGRATION_HOST_RANDOM_ID_H_
#define FERRYBUS_SAVESTATE_MIGRATION_HOST_RANDOM_ID_H_

#include <sys/random.h>

#include <cstdlib>
#include <string>

#include "ferrybus/savestate/migration/migration_messages.h"

namespace ferrybus::migration {

inline std::string NewRandomId() {
  std::string id(kIdSizeBytes, '\0');
  // So few bytes come whole; a system without random numbers is not one to
  // move machines on.
  if (getrandom(id.data(), id.size(), 0) != static_cast<ssize_t>(id.size())) {
    std::abort();
  }
  return id;
}

}  // namespace ferrybus::migration

#endif  // FERRYBUS_SAVESTATE_MIGRATION_HOST_RANDOM_ID_H_
