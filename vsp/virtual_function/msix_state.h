// SPDX-License-Identifier: MIT
//
// An MSI-X table as values: one entry, and all that moves to another host.
//
// Everything is in guest form: the addresses are those that the guest wrote.
// Which addresses another host uses in their place is that host's business.
//
// Source: PCI Local Bus 3.0, 6.8.2; an entry has the layout of the documented
// DXGK_INTERRUPT_TABLE_ENTRY (migration_interrupts.h).

#ifndef FERRYBUS_VSP_VIRTUAL_FUNCTION_MSIX_STATE_H_
#define FERRYBUS_VSP_VIRTUAL_FUNCTION_MSIX_STATE_H_

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

namespace ferrybus::vsp {

// The table size field of the capability has 11 bits.
inline constexpr uint32_t kMsixVectorsMax = 2048;

struct MsixEntry {
  static constexpr uint32_t kMasked = 1;  // of vector_control

  uint64_t address = 0;
  uint32_t data = 0;
  uint32_t vector_control = kMasked;

  bool is_masked() const { return (vector_control & kMasked) != 0; }
  friend bool operator==(const MsixEntry&, const MsixEntry&) = default;
};
static_assert(sizeof(MsixEntry) == 16);
static_assert(offsetof(MsixEntry, data) == 8);
static_assert(offsetof(MsixEntry, vector_control) == 12);
static_assert(std::is_trivially_copyable_v<MsixEntry>);
// Guest accesses copy bytes of an entry.
static_assert(std::endian::native == std::endian::little);

// One bit for each vector; those beyond the table's size stay 0.
class MsixBits {
 public:
  static constexpr uint32_t kWords = kMsixVectorsMax / 64;

  bool Test(uint32_t at) const { return (words_[at / 64] & Bit(at)) != 0; }
  void Set(uint32_t at) { words_[at / 64] |= Bit(at); }
  void Clear(uint32_t at) { words_[at / 64] &= ~Bit(at); }
  void SetFirst(uint32_t count) {
    for (uint32_t at = 0; at < count; ++at) Set(at);
  }
  // The first that is set, from `at` on; kMsixVectorsMax: none.
  uint32_t Next(uint32_t at) const {
    if (at >= kMsixVectorsMax) return kMsixVectorsMax;
    uint64_t word = words_[at / 64] & (~uint64_t{0} << (at % 64));
    for (uint32_t i = at / 64;;) {
      if (word != 0) return i * 64 + std::countr_zero(word);
      if (++i == kWords) return kMsixVectorsMax;
      word = words_[i];
    }
  }
  uint64_t word(uint32_t index) const { return words_[index]; }
  void set_word(uint32_t index, uint64_t value) { words_[index] = value; }
  void Add(const MsixBits& other) {
    for (uint32_t i = 0; i < kWords; ++i) words_[i] |= other.words_[i];
  }

  friend bool operator==(const MsixBits&, const MsixBits&) = default;

 private:
  static uint64_t Bit(uint32_t at) { return uint64_t{1} << (at % 64); }

  std::array<uint64_t, kWords> words_ = {};
};

struct MsixTableState {
  bool is_enabled = false;
  bool is_function_masked = false;
  std::vector<MsixEntry> entries;  // as many as the table has
  MsixBits pending;

  friend bool operator==(const MsixTableState&,
                         const MsixTableState&) = default;
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_VIRTUAL_FUNCTION_MSIX_STATE_H_
