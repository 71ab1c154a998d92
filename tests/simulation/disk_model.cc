// SPDX-License-Identifier: MIT

#include "ferrybus/tests/simulation/disk_model.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "ferrybus/tests/simulation/random_source.h"

namespace ferrybus::simulation {
namespace {

constexpr size_t kSectorBytes = 512;

void AddTo(std::vector<uint32_t>& set, uint32_t version) {
  if (std::find(set.begin(), set.end(), version) == set.end()) {
    set.push_back(version);
  }
}

}  // namespace

void DiskModel::FillSector(uint64_t sector, uint32_t version, std::byte* out) {
  std::memset(out, 0, kSectorBytes);
  if (version == 0) return;
  for (size_t i = 0; i < kSectorBytes; i += sizeof(uint64_t)) {
    const uint64_t word =
        i == 0 ? uint64_t{version} << 32 | sector : Mix(version, sector + i);
    std::memcpy(out + i, &word, sizeof(word));
  }
}

bool DiskModel::IsFree(uint64_t first, uint64_t count) const {
  if (first + count > sectors_.size()) return false;
  return std::none_of(sectors_.begin() + static_cast<ptrdiff_t>(first),
                      sectors_.begin() + static_cast<ptrdiff_t>(first + count),
                      [](const Sector& sector) { return sector.is_busy; });
}

void DiskModel::BeginWrite(uint64_t first, uint64_t count, uint32_t version,
                           absl::Span<std::byte> out) {
  for (uint64_t i = 0; i < count; ++i) {
    Sector& sector = sectors_[first + i];
    sector.is_busy = sector.is_writing = true;
    sector.writing = version;
    sector.changed = ++clock_;
    if (!out.empty()) {
      FillSector(first + i, version, &out[i * kSectorBytes]);
    }
  }
}

void DiskModel::EndWrite(uint64_t first, uint64_t count, End end) {
  for (uint64_t i = 0; i < count; ++i) {
    Sector& sector = sectors_[first + i];
    sector.is_busy = sector.is_writing = false;
    sector.changed = ++clock_;
    sector.is_unsettled = end == End::kUnknown;
    if (end == End::kUnknown) {
      AddTo(sector.possible, sector.writing);
    } else {
      sector.possible = {sector.writing};
    }
    if (end == End::kDurable) {
      sector.durable = {sector.writing};
    } else {
      AddTo(sector.durable, sector.writing);
    }
  }
}

void DiskModel::EndFlush(uint64_t begun) {
  for (Sector& sector : sectors_) {
    if (sector.changed < begun) sector.durable = sector.possible;
  }
}

void DiskModel::BeginRead(uint64_t first, uint64_t count) {
  for (uint64_t i = 0; i < count; ++i) sectors_[first + i].is_busy = true;
}

void DiskModel::AbandonRead(uint64_t first, uint64_t count) {
  for (uint64_t i = 0; i < count; ++i) sectors_[first + i].is_busy = false;
}

std::string DiskModel::EndRead(uint64_t first,
                               absl::Span<const std::byte> found) {
  std::string wrong;
  for (uint64_t i = 0; i < found.size() / kSectorBytes; ++i) {
    Sector& sector = sectors_[first + i];
    sector.is_busy = sector.is_unsettled = false;
    const std::byte* const at = &found[i * kSectorBytes];
    const auto is_it = [&](uint32_t version) {
      std::array<std::byte, kSectorBytes> expected;
      FillSector(first + i, version, expected.data());
      return std::memcmp(expected.data(), at, kSectorBytes) == 0;
    };
    const auto match =
        std::find_if(sector.possible.begin(), sector.possible.end(), is_it);
    if (match != sector.possible.end()) {
      sector.possible = {*match};
      continue;
    }
    if (!wrong.empty()) continue;
    uint64_t word;
    std::memcpy(&word, at, sizeof(word));
    wrong = absl::StrCat("sector ", first + i, " holds version ", word >> 32,
                         " of sector ", word & 0xffffffff,
                         ", possible are versions ",
                         absl::StrJoin(sector.possible, ", "));
  }
  return wrong;
}

void DiskModel::OnReset(bool is_cleared) {
  for (uint64_t i = 0; i < sectors_.size(); ++i) {
    Sector& sector = sectors_[i];
    if (sector.is_writing) EndWrite(i, 1, End::kUnknown);
    if (sector.is_unsettled && is_cleared) {
      AddTo(sector.possible, 0);
      AddTo(sector.durable, 0);
    }
    sector.is_busy = false;
  }
}

void DiskModel::OnPowerLoss() {
  for (Sector& sector : sectors_) {
    if (sector.is_writing) AddTo(sector.durable, sector.writing);
    sector.is_busy = sector.is_writing = false;
    sector.possible = sector.durable;
  }
}

}  // namespace ferrybus::simulation
