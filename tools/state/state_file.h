// SPDX-License-Identifier: MIT
//
// The files of the command line tool: a saved state read from a file, a
// checkpoint folder or standard input, and written durably.
//
// A checkpoint folder is only read, without its lock: a process that writes to
// it goes on.
//
// Thread safety: functions without state.
// Trust: files may be hostile.  Reads are bounded by FrameLimits; names are
// shown escaped.

#ifndef FERRYBUS_TOOLS_STATE_STATE_FILE_H_
#define FERRYBUS_TOOLS_STATE_STATE_FILE_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace ferrybus::state_tool {

struct StateFile {
  std::string source;  // where the bytes are from, for people
  std::string bytes;
  // Of a checkpoint folder: the newer generations that were passed over, each
  // with the reason.
  std::vector<std::string> passed_over;
};

// `path` is a file, a checkpoint folder, or "-".  Of a folder the newest
// generation whose frame is whole, as a restore takes it; the newest of all if
// none is.
absl::StatusOr<StateFile> ReadState(const std::string& path);

// A file of at most `bytes_max`, or "-" for standard input.
absl::StatusOr<std::string> ReadBytes(const std::string& path,
                                      size_t bytes_max);

// Mode 0600, fsynced, there whole or not at all; after a crash there may be an
// empty file.  AlreadyExists unless `replace`.
absl::Status WriteState(const std::string& path, const std::string& bytes,
                        bool replace);

}  // namespace ferrybus::state_tool

#endif  // FERRYBUS_TOOLS_STATE_STATE_FILE_H_
