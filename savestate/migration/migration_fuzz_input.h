// SPDX-License-Identifier: MIT
//
// What happens to one side of a migration, as a fuzzer writes it down: events,
// each a byte that tells its kind, two bytes of size, and so many bytes.
//
// Thread safety: pure functions.

#ifndef FERRYBUS_SAVESTATE_MIGRATION_MIGRATION_FUZZ_INPUT_H_
#define FERRYBUS_SAVESTATE_MIGRATION_MIGRATION_FUZZ_INPUT_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace ferrybus::migration {

inline constexpr char kFuzzMachine[] = "machine";
inline constexpr char kFuzzMigrationId[] = "a migration's id";
inline constexpr char kFuzzSession[] = "a session's own.";
inline constexpr uint64_t kFuzzPages = 6;

struct FuzzEvent {
  enum Kind : uint8_t {
    kMessage,
    kBlock,
    kTime,  // passes
    kDisconnect,
    kCancel,
    kDecision,  // what the source's host says
    kRequest,   // of the machine's client
    kKinds,
  };
  Kind kind = kMessage;
  absl::Span<const std::byte> bytes;
};

// The next event; cut off where the input is.
inline std::optional<FuzzEvent> NextEvent(absl::Span<const std::byte>* input) {
  if (input->size() < 3) return std::nullopt;
  FuzzEvent event;
  event.kind = static_cast<FuzzEvent::Kind>(static_cast<uint8_t>((*input)[0]) %
                                            FuzzEvent::kKinds);
  const size_t size =
      static_cast<size_t>((*input)[1]) | static_cast<size_t>((*input)[2]) << 8;
  input->remove_prefix(3);
  event.bytes = input->subspan(0, std::min(size, input->size()));
  input->remove_prefix(event.bytes.size());
  return event;
}

inline void AppendEvent(FuzzEvent::Kind kind, absl::string_view bytes,
                        std::string* out) {
  out->push_back(static_cast<char>(kind));
  out->push_back(static_cast<char>(bytes.size() & 0xff));
  out->push_back(static_cast<char>(bytes.size() >> 8));
  out->append(bytes.data(), bytes.size());
}

}  // namespace ferrybus::migration

#endif  // FERRYBUS_SAVESTATE_MIGRATION_MIGRATION_FUZZ_INPUT_H_
