// SPDX-License-Identifier: MIT
//
// A virtual function's MSI-X table as its guest sees it: the entries, the
// pending bit array, and the two bits of the capability's control word.
//
// The guest never reaches the device's own table, for the device's whole life:
// where it is mapped, each access is intercepted and comes here.  Reads are
// answered from the shadow.  Writes change the shadow, and go on to the device
// as whole entries, with the host's message in the place of the guest's, when
// the device may use them: not while the vector or the function is masked and
// the device knows; not while the table is paused; once for several writes that
// came meanwhile.  This is what lets interrupts move to a host where the same
// guest address means another one.
//
//   guest access -> MsixTable -> MsixHost::MapMessage
//                             -> MsixDevice::WriteVirtualizedInterrupt
//   device: Raise(vector) -> MsixHost::SendMessage, or a pending bit
//
// Interrupts: a vector that cannot be sent now stays in its pending bit, and is
// sent exactly once when it can be: unmasked, function unmasked and enabled,
// entry accepted by the device, table running.  A device whose hardware sends
// by itself uses Raise() for what it held back when it was paused.
//
// Moving: a new table is paused.
//
//   source:  Pause, Save, ... Retire   (or Resume: nothing was lost)
//   target:  Restore, Rewrite, ... Resume
//
// Retire() is refused if anything changed since Save(): so an interrupt is in
// the state that moved, or is still here, and is never in neither.
//
// PCI's rules for software that a hostile guest breaks: an entry may change
// while it is unmasked.  Each access takes effect as a whole; no message is
// ever made of two states of an entry.
//
// Ownership: host and device outlive the table.
// Thread safety: any call from any thread.  Calls of MapMessage and
// WriteVirtualizedInterrupt come one at a time.  A guest's access returns when
// the device has what was written; so does Pause() for what is under way.
// Trust: offsets, sizes and values are the guest's; vectors the device's.
// Refused accesses change nothing and are counted.
// Cost: a lock for each call; a second one for accesses that reach the device.
// No allocation, but for texts of what is refused.
//
//   MsixTable table({.vectors = 16}, &host, &device);
//   table.Resume();
//   (void)table.WriteTable(offset, bytes);   // a vCPU's exit handler
//   (void)table.Raise(3);                    // a device's thread
//
// Source: PCI Local Bus 3.0, 6.8.2; DxgkDdiWriteVirtualizedInterrupt.

#ifndef FERRYBUS_VSP_VIRTUAL_FUNCTION_MSIX_TABLE_H_
#define FERRYBUS_VSP_VIRTUAL_FUNCTION_MSIX_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "ferrybus/vsp/virtual_function/msix_state.h"

namespace ferrybus::vsp {

// A message is one aligned 32-bit write of `data` to `address`.
struct MsixMessage {
  uint64_t address = 0;
  uint32_t data = 0;

  friend bool operator==(const MsixMessage&, const MsixMessage&) = default;
};

// What interrupts are on this host.
class MsixHost {
 public:
  virtual ~MsixHost() = default;
  // The host's message for the guest's, or why there is none: then the device
  // gets a masked entry, and the vector's interrupts stay pending.  A host
  // whose data is not its own changes the address only.  May block and may
  // raise; must not call the table otherwise.
  virtual absl::StatusOr<MsixMessage> MapMessage(const MsixMessage& guest) = 0;
  // Called with a lock held: must not block and must not call the table.
  virtual void SendMessage(uint32_t vector, const MsixMessage& message) = 0;
};

// The device's own table.
class MsixDevice {
 public:
  virtual ~MsixDevice() = default;
  // Takes over a whole entry, in host form; on a failure the vector stays
  // silent until the guest writes it again, or Rewrite().  The same rules as
  // for MapMessage.
  virtual absl::Status WriteVirtualizedInterrupt(uint32_t index,
                                                 const MsixEntry& entry) = 0;
};

// For bits that are 0 by PCI's rules: bits 1:0 of an address, and what
// `data_bits` leaves out.
enum class MsixReservedBits : uint8_t { kDrop, kRefuse };

struct MsixOptions {
  uint32_t vectors = 1;  // 1 to 2,048
  MsixReservedBits reserved_bits = MsixReservedBits::kDrop;
  uint32_t data_bits = 0xffffffff;
  // The documents' letter: one call for every write of the guest while the
  // table runs, needed or not.
  bool deliver_every_write = false;
};

// What became of a guest's access.  A read that is not kDone gives all ones.
enum class [[nodiscard]] MsixAccess : uint8_t{
    kDone,
    kReadOnly,      // a write to the pending bits: ignored
    kBadSize,       // not 4 or 8 bytes, or not aligned to its size
    kOutside,       // beyond the last entry, or the last pending bits
    kReservedBits,  // refused as configured
    kRetired,
};

enum class [[nodiscard]] MsixRaise : uint8_t{
    kSent, kPending, kNoSuchVector,
    kRetired,  // the interrupt is another owner's to raise
};

struct MsixCounters {
  uint64_t guest_writes = 0;  // taken into the shadow
  uint64_t refused_accesses = 0;
  uint64_t device_writes = 0;
  uint64_t device_refusals = 0;
  uint64_t unmapped_messages = 0;  // of entries that the guest wants to use
  uint64_t messages_sent = 0;
};

class MsixTable {
 public:
  static constexpr uint16_t kEnable = 1 << 15;        // of the control word
  static constexpr uint16_t kFunctionMask = 1 << 14;  // of the control word

  // REQUIRES: options.vectors is 1 to 2,048.
  MsixTable(const MsixOptions& options, MsixHost* host, MsixDevice* device);
  MsixTable(const MsixTable&) = delete;
  MsixTable& operator=(const MsixTable&) = delete;

  uint32_t vectors() const { return options_.vectors; }
  uint64_t table_size_bytes() const { return uint64_t{vectors()} * 16; }
  uint64_t pending_size_bytes() const {
    return uint64_t{(vectors() + 63) / 64} * 8;
  }

  // -- The guest.  Offsets count from where the table, or the array, begins.

  MsixAccess ReadTable(uint64_t offset, absl::Span<std::byte> out);
  MsixAccess WriteTable(uint64_t offset, absl::Span<const std::byte> bytes);
  MsixAccess ReadPending(uint64_t offset, absl::Span<std::byte> out);
  MsixAccess WritePending(uint64_t offset, absl::Span<const std::byte> bytes);
  // The capability's message control word; only its two top bits can be
  // written.  A device that has such a word, too, is told after this when
  // something is enabled, before it when something is masked.
  uint16_t ReadControl() const;
  MsixAccess WriteControl(uint16_t value);
  // The function was reset: all as in the beginning, nothing pending.
  void Reset();

  // -- The device.

  MsixRaise Raise(uint32_t vector);
  // The cause went away: what is still pending is not sent any more.
  void Withdraw(uint32_t vector);

  // -- Whoever moves them.

  // When it returns nothing is sent and the device is not called, until
  // Resume() or Rewrite().  Guest writes and interrupts are still taken.
  void Pause();
  // Delivers what changed, and all entries that the device was never given;
  // then sends what is pending.  FailedPrecondition after Retire().
  absl::Status Resume();
  // FailedPrecondition unless paused.
  absl::StatusOr<MsixTableState> Save();
  // Nothing changed since Save(): Retire() would succeed.
  bool IsAsSaved() const;
  // The state has moved, for good: nothing is taken any more.
  // FailedPrecondition unless it is as it was saved, and paused.
  absl::Status Retire();
  // Takes over a state into a table that is new; an interrupt that was raised
  // before stays pending.  InvalidArgument for another size or impossible
  // bits, FailedPrecondition if not new.  A failure changes nothing.
  absl::Status Restore(const MsixTableState& state);
  // Gives the device every entry, with this host's messages, masked ones, too:
  // what it had is gone.  Also for when the host's messages have changed.
  // After all was tried: Unavailable if the device refused an entry, NotFound
  // if one that is not masked has no message, which a guest can bring about.
  // FailedPrecondition after Retire().
  absl::Status Rewrite();

  MsixCounters counters() const;
  // Of a delivery that failed; OK: none ever did.
  absl::Status last_failure() const;

 private:
  // What one delivery needs to know.
  struct Delivery {
    uint32_t vector;
    MsixEntry guest;
    MsixEntry given;
    bool is_given_known;
  };
  struct Failures {
    uint32_t unmapped = 0;
    uint32_t refused = 0;
    absl::Status first;
  };

  MsixAccess Refuse(MsixAccess why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(state_mu_);
  MsixAccess Change(uint32_t vector, uint32_t at,
                    absl::Span<const std::byte> bytes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(state_mu_);
  bool IsFunctionOn() const ABSL_SHARED_LOCKS_REQUIRED(state_mu_) {
    return is_enabled_ && !is_function_masked_;
  }
  bool CanSend(uint32_t vector) const ABSL_SHARED_LOCKS_REQUIRED(state_mu_);
  bool MustDeliver(uint32_t vector) const ABSL_SHARED_LOCKS_REQUIRED(state_mu_);
  void Send(uint32_t vector) ABSL_EXCLUSIVE_LOCKS_REQUIRED(state_mu_);
  void SendPending() ABSL_EXCLUSIVE_LOCKS_REQUIRED(state_mu_);
  void MarkAllStale() ABSL_EXCLUSIVE_LOCKS_REQUIRED(state_mu_);
  // From `vector` on; kMsixVectorsMax: none.
  uint32_t NextToDeliver(uint32_t vector) const
      ABSL_SHARED_LOCKS_REQUIRED(state_mu_);
  void DeliverAfterChange() ABSL_LOCKS_EXCLUDED(delivery_mu_, state_mu_);
  // One pass: each entry at most once.
  Failures DeliverPass(bool even_if_paused)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(delivery_mu_)
          ABSL_LOCKS_EXCLUDED(state_mu_);
  std::optional<Delivery> Begin(uint32_t from, bool even_if_paused)
      ABSL_LOCKS_EXCLUDED(state_mu_);
  void Deliver(const Delivery& delivery, Failures* failures)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(delivery_mu_)
          ABSL_LOCKS_EXCLUDED(state_mu_);

  const MsixOptions options_;
  MsixHost* const host_;
  MsixDevice* const device_;

  // Held while the device is called; before state_mu_.
  absl::Mutex delivery_mu_ ABSL_ACQUIRED_BEFORE(state_mu_);

  mutable absl::Mutex state_mu_;
  std::vector<MsixEntry> shadow_ ABSL_GUARDED_BY(state_mu_);  // guest form
  std::vector<MsixEntry> given_ ABSL_GUARDED_BY(state_mu_);   // host form
  MsixBits pending_ ABSL_GUARDED_BY(state_mu_);
  // The device has not got what the shadow says.
  MsixBits stale_ ABSL_GUARDED_BY(state_mu_);
  // What the device has may differ from given_: it must be told.
  MsixBits unknown_ ABSL_GUARDED_BY(state_mu_);
  // Delivered, but the vector cannot be used.
  MsixBits failed_ ABSL_GUARDED_BY(state_mu_);
  bool is_enabled_ ABSL_GUARDED_BY(state_mu_) = false;
  bool is_function_masked_ ABSL_GUARDED_BY(state_mu_) = false;
  bool is_paused_ ABSL_GUARDED_BY(state_mu_) = true;
  bool is_new_ ABSL_GUARDED_BY(state_mu_) = true;
  bool is_saved_ ABSL_GUARDED_BY(state_mu_) = false;  // and nothing changed
  bool is_retired_ ABSL_GUARDED_BY(state_mu_) = false;
  MsixCounters counters_ ABSL_GUARDED_BY(state_mu_);
  absl::Status last_failure_ ABSL_GUARDED_BY(state_mu_);
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_VIRTUAL_FUNCTION_MSIX_TABLE_H_
