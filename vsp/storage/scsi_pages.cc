// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/storage/scsi_pages.h"

#include <algorithm>
#include <cstring>

#include "ferrybus/channel/protocols/scsi.h"
#include "ferrybus/vsp/storage/block_backend.h"

namespace ferrybus::vsp {
namespace {

using scsi::StoreBe16;
using scsi::StoreBe32;
using scsi::StoreBe64;

constexpr char kVendor[] = "FERRYBUS";           // 8 characters
constexpr char kProduct[] = "VIRTUAL DISK    ";  // 16
constexpr char kRevision[] = "1.0 ";             // 4

constexpr uint32_t kBlocksPerPhysicalBlock =
    kPhysicalBlockBytes / kLogicalBlockBytes;

// Pages 0x83 and 0x80 fit even with the longest serial.
static_assert(4 + 4 + 8 + kSerialBytesMax + 4 + 8 <= kScsiDataBytesMax);

void PutText(const char* text, size_t bytes, uint8_t* out) {
  std::memcpy(out, text, bytes);
}

// Ends a vital product data page of `body_bytes` after its 4-byte header.
size_t FinishPage(uint8_t page, size_t body_bytes, uint8_t* out) {
  out[0] = 0x00;  // connected disk
  out[1] = page;
  StoreBe16(static_cast<uint16_t>(body_bytes), out + 2);
  return 4 + body_bytes;
}

// 0x83: the T10 vendor identification with the serial, and a locally assigned
// 8-byte name made of the uuid.
size_t FillIdentification(const DiskModel& disk, uint8_t* out) {
  const size_t serial_bytes = std::min(disk.serial.size(), kSerialBytesMax);
  uint8_t* at = out + 4;
  at[0] = 0x02;  // ASCII
  at[1] = 0x01;  // logical unit, T10 vendor identification
  at[3] = static_cast<uint8_t>(8 + serial_bytes);
  PutText(kVendor, 8, at + 4);
  PutText(disk.serial.data(), serial_bytes, at + 12);
  at += 4 + at[3];
  at[0] = 0x01;  // binary
  at[1] = 0x03;  // logical unit, NAA
  at[3] = 8;
  std::memcpy(at + 4, disk.uuid.data(), 8);
  at[4] = static_cast<uint8_t>(0x30 | (at[4] & 0x0f));  // locally assigned
  at += 4 + at[3];
  return FinishPage(0x83, static_cast<size_t>(at - out) - 4, out);
}

size_t FillBlockLimits(const DiskModel& disk, uint8_t* out) {
  const uint32_t transfer_blocks = disk.max_transfer_bytes / kLogicalBlockBytes;
  out[4] = 0x01;  // WSNZ: WRITE SAME of 0 blocks is refused
  StoreBe16(kBlocksPerPhysicalBlock, out + 6);
  StoreBe32(transfer_blocks, out + 8);
  StoreBe32(transfer_blocks, out + 12);
  if (disk.can_discard) {
    StoreBe32(kDiscardBlocksMax, out + 20);
    StoreBe32(kUnmapDescriptorsMax, out + 24);
    StoreBe32(kBlocksPerPhysicalBlock, out + 28);
    StoreBe32(0x8000'0000, out + 32);  // alignment valid: 0
    StoreBe64(kDiscardBlocksMax, out + 36);
  }
  return FinishPage(0xb0, 0x3c, out);
}

size_t FillProvisioning(const DiskModel& disk, uint8_t* out) {
  if (disk.can_discard) {
    // UNMAP, WRITE SAME (16) with UNMAP, unmapped blocks read as zeroes.
    out[5] = 0x80 | 0x40 | 0x04;
    out[6] = 0x02;  // thin provisioned
  }
  return FinishPage(0xb2, 4, out);
}

}  // namespace

uint64_t DiskModel::block_count() const {
  return size_bytes / kLogicalBlockBytes;
}

size_t FillStandardInquiry(uint8_t* out) {
  out[0] = 0x00;         // connected disk
  out[2] = 0x05;         // SPC-3
  out[3] = 0x10 | 0x02;  // hierarchical LUNs, response format 2
  out[4] = 36 - 5;
  out[7] = 0x02;  // command queueing
  PutText(kVendor, 8, out + 8);
  PutText(kProduct, 16, out + 16);
  PutText(kRevision, 4, out + 32);
  return 36;
}

size_t FillAbsentInquiry(uint8_t* out) {
  const size_t bytes = FillStandardInquiry(out);
  out[0] = 0x7f;  // no device can be here
  return bytes;
}

size_t FillVitalProductData(const DiskModel& disk, uint8_t page, uint8_t* out) {
  static constexpr uint8_t kPages[] = {0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2};
  switch (page) {
    case 0x00:
      std::memcpy(out + 4, kPages, sizeof(kPages));
      return FinishPage(page, sizeof(kPages), out);
    case 0x80: {
      const size_t bytes = std::min(disk.serial.size(), kSerialBytesMax);
      PutText(disk.serial.data(), bytes, out + 4);
      return FinishPage(page, bytes, out);
    }
    case 0x83:
      return FillIdentification(disk, out);
    case 0xb0:
      return FillBlockLimits(disk, out);
    case 0xb1:
      StoreBe16(1, out + 4);  // does not rotate
      return FinishPage(page, 0x3c, out);
    case 0xb2:
      return FillProvisioning(disk, out);
    default:
      return 0;
  }
}

size_t FillModePages(uint8_t page, bool changeable, uint8_t* out) {
  size_t bytes = 0;
  if (page == 0x08 || page == 0x3f) {
    out[bytes] = 0x08;  // caching
    out[bytes + 1] = 0x12;
    if (!changeable) out[bytes + 2] = 0x04;  // write cache enabled
    bytes += 20;
  }
  if (page == 0x0a || page == 0x3f) {
    out[bytes] = 0x0a;  // control
    out[bytes + 1] = 0x0a;
    if (!changeable) out[bytes + 3] = 0x10;  // unrestricted reordering
    bytes += 12;
  }
  return bytes;
}

uint8_t ModeDeviceParameter(const DiskModel& disk) {
  const uint8_t durable_writes = 0x10;  // DPOFUA
  return static_cast<uint8_t>(durable_writes | (disk.read_only ? 0x80 : 0));
}

size_t FillReadCapacity10(const DiskModel& disk, uint8_t* out) {
  // All ones: too large, ask READ CAPACITY (16).
  const uint64_t last = std::min<uint64_t>(disk.block_count() - 1, 0xffff'ffff);
  StoreBe32(static_cast<uint32_t>(last), out);
  StoreBe32(kLogicalBlockBytes, out + 4);
  return 8;
}

size_t FillReadCapacity16(const DiskModel& disk, uint8_t* out) {
  StoreBe64(disk.block_count() - 1, out);
  StoreBe32(kLogicalBlockBytes, out + 8);
  out[13] = 3;  // 2^3 logical blocks in a physical one
  static_assert(kBlocksPerPhysicalBlock == 1 << 3);
  if (disk.can_discard) out[14] = 0x80 | 0x40;  // thin, reads as zeroes
  return 32;
}

}  // namespace ferrybus::vsp
