// SPDX-License-Identifier: MIT
//
// A seal for saved states that travel: a frame with one more section,
// "authentication", whose tag only who has the key can make
// (docs/SAVE_STATE.md).  It shows a changed file, one of another guest and one
// older than the reader allows.  It hides nothing: that takes encryption.
//
// What it is: HMAC-SHA-256 over the frame as it was before it was sealed.
// OpenSeal gives that frame back, so nobody behind it knows of seals; and
// nobody takes a sealed frame by mistake, since CheckKnownSections refuses it.
//
// Keys: 32 bytes or more that nobody can guess, one key for each guest, so that
// the state of one cannot pass for another's.  The id says which key it was; it
// is not secret.
// Counter: a file with a lower one than the reader asks for is refused: replay
// of an authentic older file.  Who seals counts up (a checkpoint's generation,
// the number of moves); who opens remembers the highest it has seen.
//
// Ownership: keys are borrowed and not copied; wiping them is their owner's.
// Thread safety: functions without state.
// Trust: the bytes may be hostile.  Tags are compared in constant time.
// Cost: each byte is hashed once, copied twice, and read twice for its CRC32C.
//
//   SealKey key{"guest-7", secret};
//   absl::StatusOr<std::string> file = Seal(saved, key, generation);
//
//   absl::StatusOr<OpenedSeal> opened = OpenSeal(bytes, {key}, last_seen);
//   vsp::Bus::Restore(opened->frame, ...);

#ifndef FERRYBUS_SAVESTATE_SEAL_H_
#define FERRYBUS_SAVESTATE_SEAL_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/savestate/frame.h"

namespace ferrybus::savestate {

inline constexpr size_t kSealSecretBytesMin = 32;

struct SealKey {
  // 1 to 24 of [A-Za-z0-9._-].
  std::string_view id;
  absl::Span<const std::byte> secret;
};

// What a seal says about itself.  From DescribeSeal: nobody has checked it.
struct SealInfo {
  std::string key_id;
  uint64_t counter = 0;
};

struct OpenedSeal {
  // Authentic, and no more than that: its author may still be wrong.
  std::string frame;
  SealInfo seal;
};

// `frame` with a seal.  InvalidArgument: a bad key.  AlreadyExists: it is
// sealed.  Errors of Frame::Parse and FrameWriter::Finish.
absl::StatusOr<std::string> Seal(absl::Span<const std::byte> frame,
                                 const SealKey& key, uint64_t counter,
                                 const FrameLimits& limits = {});

// The frame in the seal, once all is checked.  In this order:
//   errors of Frame::Parse  the bytes are no whole frame
//   FailedPrecondition      not sealed
//   Unimplemented           a seal that this reader does not know
//   InvalidArgument         a malformed seal, or a bad key among `keys`
//   NotFound                sealed with a key that is not among `keys`
//   Unauthenticated         the tag is wrong: another secret, or a changed file
//   OutOfRange              authentic, but older than `minimum_counter`
absl::StatusOr<OpenedSeal> OpenSeal(absl::Span<const std::byte> file,
                                    absl::Span<const SealKey> keys,
                                    uint64_t minimum_counter,
                                    const FrameLimits& limits = {});

// What the seal of a frame says, for people and to look a key up; without a
// key nothing of it is known to be true.  Errors as OpenSeal up to
// InvalidArgument.
absl::StatusOr<SealInfo> DescribeSeal(const Frame& frame);

}  // namespace ferrybus::savestate

#endif  // FERRYBUS_SAVESTATE_SEAL_H_
