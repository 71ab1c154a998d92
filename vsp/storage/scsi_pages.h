// SPDX-License-Identifier: MIT
//
// What the virtual disk says about itself: INQUIRY and its vital product
// data, MODE SENSE pages, capacity.  Internal to ScsiDisk.
//
// Each function fills `out`, a zeroed buffer of kScsiDataBytesMax bytes, and
// returns the length of the whole answer; the caller cuts it to what the
// initiator allowed.  0 means: no such page.

#ifndef FERRYBUS_VSP_STORAGE_SCSI_PAGES_H_
#define FERRYBUS_VSP_STORAGE_SCSI_PAGES_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace ferrybus::vsp {

// More than the longest answer below.
inline constexpr size_t kScsiDataBytesMax = 256;

// Blocks of one discard or WRITE SAME, 4 GiB: it keeps one command short.
inline constexpr uint32_t kDiscardBlocksMax = 8u << 20;
// Descriptors of one UNMAP.
inline constexpr size_t kUnmapDescriptorsMax = 16;
// Characters of DiskModel::serial.
inline constexpr size_t kSerialBytesMax = 32;

// The disk as the guest sees it.
struct DiskModel {
  uint64_t size_bytes = 0;
  bool read_only = false;
  bool can_discard = false;
  uint32_t max_transfer_bytes = 0;
  // Printable ASCII, at most kSerialBytesMax.
  std::string serial;
  std::array<uint8_t, 16> uuid = {};

  uint64_t block_count() const;
};

size_t FillStandardInquiry(uint8_t* out);
// A LUN that is not there: INQUIRY says so with status GOOD.
size_t FillAbsentInquiry(uint8_t* out);
size_t FillVitalProductData(const DiskModel& disk, uint8_t page, uint8_t* out);
// The mode pages `page` asks for (0x3f: all), without header; `changeable`
// gives the mask of what MODE SELECT could change: nothing.
size_t FillModePages(uint8_t page, bool changeable, uint8_t* out);
uint8_t ModeDeviceParameter(const DiskModel& disk);
size_t FillReadCapacity10(const DiskModel& disk, uint8_t* out);
size_t FillReadCapacity16(const DiskModel& disk, uint8_t* out);

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_STORAGE_SCSI_PAGES_H_
