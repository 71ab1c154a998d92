// SPDX-License-Identifier: MIT

#include "ferrybus/examples/demo/disk_image.h"

#include <ext2fs/ext2fs.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ferrybus/channel/transport/unique_fd.h"
#include "ferrybus/examples/demo/digest.h"
#include "ferrybus/examples/demo/shell.h"

namespace ferrybus::demo {
namespace {

namespace fs = std::filesystem;

constexpr char kScratch[] = "scratch.bin";
constexpr uint64_t kFileBytesMax = uint64_t{8} << 20;
constexpr size_t kFilesMax = 600;

// Copies real files of this machine into `staging`, flat, and digests them.
absl::StatusOr<std::vector<ImageEntry>> Collect(const fs::path& staging,
                                                uint64_t bytes_max) {
  std::vector<ImageEntry> files;
  uint64_t total = 0;
  for (const char* folder :
       {"/usr/bin", "/usr/lib/x86_64-linux-gnu", "/usr/include", "/usr/lib"}) {
    std::error_code error;
    std::vector<fs::path> paths;
    for (const fs::directory_entry& entry :
         fs::directory_iterator(folder, error)) {
      if (entry.is_regular_file(error) && !entry.is_symlink(error)) {
        paths.push_back(entry.path());
      }
    }
    std::sort(paths.begin(), paths.end());
    for (const fs::path& path : paths) {
      const uint64_t bytes = fs::file_size(path, error);
      if (error || bytes == 0 || bytes > kFileBytesMax ||
          total + bytes > bytes_max || files.size() >= kFilesMax) {
        continue;
      }
      std::ifstream in(path, std::ios::binary);
      std::string content((std::istreambuf_iterator<char>(in)),
                          std::istreambuf_iterator<char>());
      const std::string name =
          absl::StrCat(files.size(), "-", path.filename().string());
      std::ofstream out(staging / name, std::ios::binary);
      out.write(content.data(), static_cast<std::streamsize>(content.size()));
      if (!in || !out) continue;
      Digest digest;
      digest.Add(content.data(), content.size());
      files.push_back({"/" + name, content.size(), digest.Hex(), {}});
      total += content.size();
    }
  }
  if (files.empty()) {
    return absl::NotFoundError("no readable files found to put on the disk");
  }
  return files;
}

struct FreeFileSystem {
  void operator()(ext2_filsys file_system) const { ext2fs_free(file_system); }
};
using FileSystem = std::unique_ptr<struct_ext2_filsys, FreeFileSystem>;

absl::Status Ext2Status(const std::string& what, errcode_t error) {
  return absl::InternalError(
      absl::StrCat("libext2fs: ", what, ": ", error_message(error)));
}

int AddBlock(ext2_filsys, blk64_t* block, e2_blkcnt_t, blk64_t, int,
             void* extents_pointer) {
  auto& extents = *static_cast<std::vector<Extent>*>(extents_pointer);
  const uint64_t offset = *block * kBlockBytes;
  if (!extents.empty() &&
      extents.back().offset + extents.back().bytes == offset) {
    extents.back().bytes += kBlockBytes;
  } else {
    extents.push_back({offset, kBlockBytes});
  }
  return 0;
}

absl::Status MapFile(ext2_filsys file_system, ImageEntry* file) {
  ext2_ino_t inode = 0;
  errcode_t error = ext2fs_namei(file_system, EXT2_ROOT_INO, EXT2_ROOT_INO,
                                 file->path.c_str(), &inode);
  if (error != 0) return Ext2Status(file->path, error);
  error = ext2fs_block_iterate3(file_system, inode,
                                BLOCK_FLAG_DATA_ONLY | BLOCK_FLAG_READ_ONLY,
                                nullptr, AddBlock, &file->extents);
  if (error != 0) return Ext2Status(file->path, error);
  return absl::OkStatus();
}

// False for a file with holes: mke2fs -d makes some where the source has
// zeroes, and a hole has no block to read.
bool IsWhole(const ImageEntry& file) {
  uint64_t mapped = 0;
  for (const Extent& extent : file.extents) mapped += extent.bytes;
  return mapped == (file.bytes + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
}

absl::Status MapFiles(DiskImage* image) {
  initialize_ext2_error_table();
  ext2_filsys opened = nullptr;
  const errcode_t error = ext2fs_open(image->path.c_str(), EXT2_FLAG_64BITS, 0,
                                      0, unix_io_manager, &opened);
  if (error != 0) return Ext2Status(image->path, error);
  const FileSystem file_system(opened);
  for (ImageEntry& file : image->files) {
    const absl::Status status = MapFile(opened, &file);
    if (!status.ok()) return status;
  }
  std::erase_if(image->files,
                [](const ImageEntry& file) { return !IsWhole(file); });
  const absl::Status status = MapFile(opened, &image->scratch);
  if (!status.ok()) return status;
  if (image->files.empty() || !IsWhole(image->scratch)) {
    return absl::InternalError("the image's files are not where expected");
  }
  return absl::OkStatus();
}

// Zeroes that are really there: mke2fs -d would leave a hole.
absl::Status MakeScratch(const fs::path& path, uint64_t bytes) {
  std::ofstream out(path, std::ios::binary);
  std::vector<char> block(1 << 20);
  // The first byte of each block keeps it from being a hole; the demo writes
  // every block before it reads one.
  for (size_t i = 0; i < block.size(); i += kBlockBytes) block[i] = 'x';
  for (uint64_t at = 0; at < bytes; at += block.size()) {
    out.write(block.data(), static_cast<std::streamsize>(block.size()));
  }
  out.close();
  if (!out) return absl::InternalError("writing the scratch file failed");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<DiskImage> MakeImage(const std::string& folder,
                                    const ImageOptions& options) {
  const fs::path staging = fs::path(folder) / "files";
  std::error_code error;
  fs::create_directories(staging, error);
  if (error) {
    return absl::InternalError(
        absl::StrCat("cannot make ", staging.string(), ": ", error.message()));
  }
  DiskImage image;
  image.path = (fs::path(folder) / "disk.img").string();
  absl::StatusOr<std::vector<ImageEntry>> files =
      Collect(staging, options.source_bytes_max);
  if (!files.ok()) return files.status();
  image.files = *std::move(files);
  image.scratch = {absl::StrCat("/", kScratch), options.scratch_bytes, "", {}};
  absl::Status status = MakeScratch(staging / kScratch, options.scratch_bytes);
  if (!status.ok()) return status;
  const auto [code, output] =
      Run(absl::StrCat(Tool("mke2fs"), " -q -F -t ext4 -b ", kBlockBytes,
                       " -d '", staging.string(), "' '", image.path, "' ",
                       options.image_bytes / 1024, "k"));
  if (code != 0) {
    return absl::InternalError(absl::StrCat("mke2fs failed: ", output));
  }
  fs::remove_all(staging, error);
  status = MapFiles(&image);
  if (!status.ok()) return status;
  return image;
}

absl::Status CheckFileSystem(const DiskImage& image) {
  const auto [code, output] =
      Run(absl::StrCat(Tool("e2fsck"), " -fn '", image.path, "'"));
  if (code == 0) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat("e2fsck exited with ", code, ": ", output));
}

absl::StatusOr<std::string> DigestInImage(const DiskImage& image,
                                          const ImageEntry& file) {
  const UniqueFd fd(open(image.path.c_str(), O_RDONLY | O_CLOEXEC));
  std::vector<char> buffer(1 << 20);
  Digest digest;
  uint64_t left = file.bytes;
  for (const Extent& extent : file.extents) {
    for (uint64_t at = 0; at < extent.bytes && left > 0;) {
      const uint64_t want =
          std::min({extent.bytes - at, left, uint64_t{buffer.size()}});
      const ssize_t got = pread(fd.get(), buffer.data(), want,
                                static_cast<off_t>(extent.offset + at));
      if (got <= 0) {
        return absl::DataLossError(absl::StrCat(image.path, ": reading at ",
                                                extent.offset + at, " failed"));
      }
      digest.Add(buffer.data(), static_cast<size_t>(got));
      at += static_cast<uint64_t>(got);
      left -= static_cast<uint64_t>(got);
    }
  }
  return digest.Hex();
}

absl::Status CheckDigests(const DiskImage& image) {
  std::vector<const ImageEntry*> all = {&image.scratch};
  for (const ImageEntry& file : image.files) all.push_back(&file);
  for (const ImageEntry* file : all) {
    const absl::StatusOr<std::string> digest = DigestInImage(image, *file);
    if (!digest.ok()) return digest.status();
    if (*digest != file->sha256) {
      return absl::DataLossError(absl::StrCat(file->path, " differs: ", *digest,
                                              ", expected ", file->sha256));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> MakeFolder(const std::string& wanted) {
  if (!wanted.empty()) {
    std::error_code error;
    std::filesystem::create_directories(wanted, error);
    if (error) return absl::InternalError(error.message());
    return wanted;
  }
  const char* const base = getenv("TMPDIR");
  std::string name = absl::StrCat(base != nullptr ? base : "/var/tmp",
                                  "/ferrybus-demo.XXXXXX");
  if (mkdtemp(name.data()) == nullptr) {
    return absl::InternalError(
        absl::StrCat("mkdtemp ", name, ": ", std::strerror(errno)));
  }
  return name;
}

}  // namespace ferrybus::demo
