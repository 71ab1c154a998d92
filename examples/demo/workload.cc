// SPDX-License-Identifier: MIT

#include "ferrybus/examples/demo/workload.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace ferrybus::demo {
namespace {

// Slots that read files; the others work on the scratch file.
constexpr uint32_t kFileSlots = 8;
constexpr uint64_t kMagic = 0x5942535952524546;  // "FERRYSBY"
constexpr size_t kWords = kBlockBytes / sizeof(uint64_t);

uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

}  // namespace

Workload::Workload(const DiskImage& image, uint64_t seed, DiskQueue* queue)
    : image_(image),
      seed_(seed),
      queue_(queue),
      random_(seed),
      slots_(kSlots),
      readers_(kFileSlots),
      versions_(image.scratch.bytes / kBlockBytes),
      locked_(versions_.size()) {
  for (FileReader& reader : readers_) NextFile(&reader);
}

bool Workload::IsFileSlot(uint32_t slot) const { return slot < kFileSlots; }

bool Workload::Fill() {
  if (draining_ && phase_ == Phase::kRandom) return false;
  const uint32_t before = in_flight_;
  for (uint32_t slot = 0; slot < kSlots; ++slot) {
    if (in_flight_ == kDepth) break;
    if (!slots_[slot].busy) StartSlot(slot);
  }
  return in_flight_ > before;
}

void Workload::StartSlot(uint32_t slot) {
  switch (phase_) {
    case Phase::kRandom:
      if (IsFileSlot(slot)) {
        StartFileRead(slot);
      } else {
        StartRandom(slot);
      }
      return;
    case Phase::kFinalScratch:
      StartFinalScratch(slot);
      return;
    case Phase::kFinalFiles:
      if (IsFileSlot(slot) && readers_[slot].file != nullptr) {
        StartFileRead(slot);
      }
      return;
  }
}

bool Workload::Submit(uint32_t slot, DiskOp op, uint64_t offset,
                      uint32_t bytes) {
  if (!queue_->Submit(op, slot, offset, bytes)) return false;
  slots_[slot].busy = true;
  slots_[slot].op = op;
  slots_[slot].bytes = bytes;
  ++in_flight_;
  return true;
}

void Workload::OnDone(uint32_t slot, bool ok) {
  if (slot >= kSlots || !slots_[slot].busy || slots_[slot].answered) {
    ++result_.doubled;
    Note(absl::StrCat("slot ", slot, " was answered again"));
    return;
  }
  slots_[slot].answered = true;
  done_.push_back(slot);
  --in_flight_;
  ++result_.requests;
  if (!ok) {
    ++result_.failed;
    Note(absl::StrCat("a request of slot ", slot, " failed"));
  }
}

bool Workload::CheckOne() {
  if (done_.empty()) return false;
  const uint32_t slot = done_.front();
  done_.pop_front();
  slots_[slot].busy = slots_[slot].answered = false;
  const bool scratch = phase_ == Phase::kFinalScratch ||
                       (phase_ == Phase::kRandom && !IsFileSlot(slot));
  if (scratch) {
    OnScratchDone(slot);
  } else {
    OnFileRead(slot);
  }
  if (phase_ == Phase::kFinalScratch && idle() &&
      next_block_ == versions_.size()) {
    FinishFinalScratch();
  }
  return true;
}

// -- Random work on the scratch file -----------------------------------------

void Workload::StartRandom(uint32_t slot) {
  if (random_() % 256 == 0) {
    slots_[slot].block = 0;
    Submit(slot, DiskOp::kFlush, 0, 0);
    return;
  }
  for (int attempt = 0; attempt < 8; ++attempt) {
    const uint64_t block = random_() % versions_.size();
    uint64_t run = 0;
    const uint64_t offset = ScratchOffset(block, &run);
    uint64_t blocks = std::min<uint64_t>(run, 1 + random_() % 16);
    for (uint64_t i = 0; i < blocks; ++i) {
      if (locked_[block + i]) blocks = i;
    }
    if (blocks == 0) continue;
    const bool write = random_() % 2 == 0;
    if (write) {
      for (uint64_t i = 0; i < blocks; ++i) {
        Stamp(block + i, versions_[block + i] + 1,
              queue_->buffer(slot).data() + i * kBlockBytes);
      }
    }
    slots_[slot].block = block;
    if (!Submit(slot, write ? DiskOp::kWrite : DiskOp::kRead, offset,
                static_cast<uint32_t>(blocks * kBlockBytes))) {
      return;
    }
    for (uint64_t i = 0; i < blocks; ++i) locked_[block + i] = true;
    return;
  }
}

void Workload::OnScratchDone(uint32_t slot) {
  const Slot& done = slots_[slot];
  if (done.op == DiskOp::kFlush) return;
  const std::byte* const data = queue_->buffer(slot).data();
  for (uint64_t i = 0; i < done.bytes / kBlockBytes; ++i) {
    const uint64_t block = done.block + i;
    locked_[block] = false;
    if (done.op == DiskOp::kWrite) {
      ++versions_[block];
    } else if (CheckStamp(block, data + i * kBlockBytes)) {
      result_.verified_bytes += kBlockBytes;
    } else {
      ++result_.differing;
      Note(absl::StrCat("scratch block ", block, " is not version ",
                        versions_[block]));
    }
  }
}

uint64_t Workload::ScratchOffset(uint64_t block, uint64_t* run_blocks) const {
  uint64_t at = block * kBlockBytes;
  for (const Extent& extent : image_.scratch.extents) {
    if (at < extent.bytes) {
      *run_blocks = (extent.bytes - at) / kBlockBytes;
      return extent.offset + at;
    }
    at -= extent.bytes;
  }
  *run_blocks = 0;
  return 0;
}

void Workload::Stamp(uint64_t block, uint64_t version, std::byte* out) const {
  uint64_t words[kWords];
  words[0] = kMagic;
  words[1] = block;
  words[2] = version;
  const uint64_t base = Mix(seed_ ^ Mix(block) ^ Mix(~version));
  for (size_t i = 3; i < kWords; ++i) words[i] = Mix(base + i);
  std::memcpy(out, words, sizeof(words));
}

// What a block must hold.
void Workload::Expected(uint64_t block, std::byte* out) const {
  if (versions_[block] != 0) {
    Stamp(block, versions_[block], out);
    return;
  }
  std::memset(out, 0, kBlockBytes);
  out[0] = std::byte{'x'};  // as the image was made
}

bool Workload::CheckStamp(uint64_t block, const std::byte* data) const {
  std::byte expected[kBlockBytes];
  Expected(block, expected);
  return std::memcmp(expected, data, kBlockBytes) == 0;
}

// -- Reading files from front to back -----------------------------------------

void Workload::NextFile(FileReader* reader) {
  *reader = FileReader();
  if (phase_ == Phase::kFinalFiles && next_file_ >= image_.files.size()) return;
  reader->file = &image_.files[next_file_++ % image_.files.size()];
}

void Workload::StartFileRead(uint32_t slot) {
  const FileReader& reader = readers_[slot];
  const Extent& extent = reader.file->extents[reader.extent];
  const uint64_t bytes =
      std::min<uint64_t>(kBufferBytes, extent.bytes - reader.extent_at);
  Submit(slot, DiskOp::kRead, extent.offset + reader.extent_at,
         static_cast<uint32_t>(bytes));
}

void Workload::OnFileRead(uint32_t slot) {
  FileReader& reader = readers_[slot];
  const uint32_t bytes = slots_[slot].bytes;
  const uint64_t content =
      std::min<uint64_t>(bytes, reader.file->bytes - reader.file_at);
  reader.digest.Add(queue_->buffer(slot).data(), content);
  result_.verified_bytes += content;
  reader.file_at += content;
  reader.extent_at += bytes;
  if (reader.extent_at >= reader.file->extents[reader.extent].bytes) {
    ++reader.extent;
    reader.extent_at = 0;
  }
  if (reader.file_at >= reader.file->bytes) FinishFile(&reader);
}

void Workload::FinishFile(FileReader* reader) {
  const std::string digest = reader->digest.Hex();
  if (digest != reader->file->sha256) {
    ++result_.differing;
    Note(absl::StrCat(reader->file->path, " reads as ", digest, ", expected ",
                      reader->file->sha256));
  }
  if (++files_done_ == image_.files.size()) {
    files_done_ = 0;
    ++result_.file_passes;
    all_read_ = phase_ == Phase::kFinalFiles;
  }
  NextFile(reader);
}

// -- The final reading --------------------------------------------------------

void Workload::ReadAll() {
  phase_ = Phase::kFinalScratch;
  next_block_ = 0;
}

void Workload::StartFinalScratch(uint32_t slot) {
  if (next_block_ == versions_.size()) return;
  uint64_t run = 0;
  const uint64_t offset = ScratchOffset(next_block_, &run);
  const uint64_t blocks = std::min<uint64_t>(run, kBufferBytes / kBlockBytes);
  slots_[slot].block = next_block_;
  if (Submit(slot, DiskOp::kRead, offset,
             static_cast<uint32_t>(blocks * kBlockBytes))) {
    next_block_ += blocks;
  }
}

// What the scratch file must hold now, for whoever looks at it elsewhere.
void Workload::FinishFinalScratch() {
  Digest digest;
  std::byte block[kBlockBytes];
  for (uint64_t i = 0; i < versions_.size(); ++i) {
    Expected(i, block);
    digest.Add(block, sizeof(block));
  }
  result_.scratch_sha256 = digest.Hex();
  phase_ = Phase::kFinalFiles;
  next_file_ = 0;
  files_done_ = 0;
  for (FileReader& reader : readers_) NextFile(&reader);
}

void Workload::Note(std::string text) {
  if (result_.notes.size() < 8) result_.notes.push_back(std::move(text));
}

}  // namespace ferrybus::demo
