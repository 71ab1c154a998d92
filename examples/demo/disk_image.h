// SPDX-License-Identifier: MIT
//
// The demo's disk: an ext4 image made from real files of this machine, and
// what is known about it: which blocks hold which file, and each file's
// SHA-256.
//
// Made with mke2fs -d, mapped with libext2fs, checked with e2fsck.

#ifndef FERRYBUS_EXAMPLES_DEMO_DISK_IMAGE_H_
#define FERRYBUS_EXAMPLES_DEMO_DISK_IMAGE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace ferrybus::demo {

inline constexpr uint32_t kBlockBytes = 4096;

// Disk bytes [offset, offset + bytes), whole blocks.
struct Extent {
  uint64_t offset = 0;
  uint64_t bytes = 0;
};

struct ImageEntry {
  std::string path;  // in the image
  uint64_t bytes = 0;
  std::string sha256;  // hex, of the source
  std::vector<Extent> extents;
};

struct DiskImage {
  std::string path;
  std::vector<ImageEntry> files;
  // One more file, full of zeroes at first, that the demo writes to.
  ImageEntry scratch;
};

struct ImageOptions {
  uint64_t image_bytes = uint64_t{256} << 20;
  uint64_t scratch_bytes = uint64_t{96} << 20;
  uint64_t source_bytes_max = uint64_t{96} << 20;
};

// Makes `folder`/disk.img.
absl::StatusOr<DiskImage> MakeImage(const std::string& folder,
                                    const ImageOptions& options);

// e2fsck -fn; an error carries what it printed.
absl::Status CheckFileSystem(const DiskImage& image);

// The SHA-256 of a file's extents in the image file itself, past every
// channel.
absl::StatusOr<std::string> DigestInImage(const DiskImage& image,
                                          const ImageEntry& file);

// All of them, the scratch file's among them.  DataLoss: which one differs.
absl::Status CheckDigests(const DiskImage& image);

// Where a demo works: `wanted`, which is made if need be, or a new folder if it
// is empty.
absl::StatusOr<std::string> MakeFolder(const std::string& wanted);

}  // namespace ferrybus::demo

#endif  // FERRYBUS_EXAMPLES_DEMO_DISK_IMAGE_H_
