// SPDX-License-Identifier: MIT
//
// What the demo's client does to the disk, and how it knows that nothing went
// wrong.
//
// Two kinds of work at once, 32 requests deep:
// - random reads and writes of 4 to 64 KiB in the scratch file.  Each 4 KiB
//   block carries its number, a version and a filling made from both; a read
//   must find exactly the version last written.
// - every file of the image read from front to back, its SHA-256 compared
//   with the source's.
//
// Thread safety: one thread.  Requests go out through DiskQueue, answers come
// back through OnDone.

#ifndef FERRYBUS_EXAMPLES_DEMO_WORKLOAD_H_
#define FERRYBUS_EXAMPLES_DEMO_WORKLOAD_H_

#include <cstdint>
#include <deque>
#include <random>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "ferrybus/examples/demo/digest.h"
#include "ferrybus/examples/demo/disk_image.h"

namespace ferrybus::demo {

enum class DiskOp { kRead, kWrite, kFlush };

// Where requests go.  `slot` names the request and its buffer.
class DiskQueue {
 public:
  // False: no room now; the workload tries again later.
  virtual bool Submit(DiskOp op, uint32_t slot, uint64_t offset,
                      uint32_t bytes) = 0;
  virtual absl::Span<std::byte> buffer(uint32_t slot) = 0;

 protected:
  ~DiskQueue() = default;
};

struct WorkloadResult {
  uint64_t requests = 0;  // answered
  uint64_t differing = 0;
  uint64_t failed = 0;
  uint64_t doubled = 0;  // answers to requests that were answered already
  uint64_t verified_bytes = 0;
  uint64_t file_passes = 0;  // complete readings of all files
  std::string scratch_sha256;
  std::vector<std::string> notes;  // the first few things that were wrong
};

class Workload {
 public:
  static constexpr uint32_t kDepth = 32;
  // Twice the depth: while answers are being checked, as many requests again
  // are under way.
  static constexpr uint32_t kSlots = 2 * kDepth;
  static constexpr uint32_t kBufferBytes = 64 * 1024;

  Workload(const DiskImage& image, uint64_t seed, DiskQueue* queue);

  // Keeps the queue full until Drain().  True: something was submitted.
  bool Fill();
  void OnDone(uint32_t slot, bool ok);
  // Checks one answer.  False: there is none to check.
  bool CheckOne();

  // No new requests; then, once idle(), ReadAll() reads scratch and files once
  // more.
  void Drain() { draining_ = true; }
  void ReadAll();
  bool idle() const { return in_flight_ == 0 && done_.empty(); }
  bool read_all_done() const { return all_read_; }
  uint32_t in_flight() const { return in_flight_; }

  const WorkloadResult& result() const { return result_; }

 private:
  enum class Phase { kRandom, kFinalScratch, kFinalFiles };
  // Reads one file from front to back, one request at a time.
  struct FileReader {
    const ImageEntry* file = nullptr;
    size_t extent = 0;
    uint64_t extent_at = 0;
    uint64_t file_at = 0;
    Digest digest;
  };
  struct Slot {
    bool busy = false;      // under way, or waiting to be checked
    bool answered = false;  // waiting to be checked
    DiskOp op = DiskOp::kRead;
    uint64_t block = 0;  // first scratch block, for scratch requests
    uint32_t bytes = 0;
  };

  bool IsFileSlot(uint32_t slot) const;
  void StartSlot(uint32_t slot);
  void StartRandom(uint32_t slot);
  void StartFileRead(uint32_t slot);
  void OnFileRead(uint32_t slot);
  void OnScratchDone(uint32_t slot);
  void NextFile(FileReader* reader);
  void FinishFile(FileReader* reader);
  void StartFinalScratch(uint32_t slot);
  void FinishFinalScratch();
  bool Submit(uint32_t slot, DiskOp op, uint64_t offset, uint32_t bytes);
  // The disk offset of a scratch block, and how many follow it in a row.
  uint64_t ScratchOffset(uint64_t block, uint64_t* run_blocks) const;
  void Stamp(uint64_t block, uint64_t version, std::byte* out) const;
  void Expected(uint64_t block, std::byte* out) const;
  bool CheckStamp(uint64_t block, const std::byte* data) const;
  void Note(std::string text);

  const DiskImage& image_;
  const uint64_t seed_;
  DiskQueue* const queue_;
  std::mt19937_64 random_;

  std::vector<Slot> slots_;
  std::vector<FileReader> readers_;
  std::deque<uint32_t> done_;  // slots to be checked
  uint32_t in_flight_ = 0;
  bool draining_ = false;
  bool all_read_ = false;
  Phase phase_ = Phase::kRandom;

  std::vector<uint64_t> versions_;  // last written and acknowledged
  std::vector<bool> locked_;        // a request is under way on the block
  size_t next_file_ = 0;
  uint64_t files_done_ = 0;
  uint64_t next_block_ = 0;  // of the final reading

  WorkloadResult result_;
};

}  // namespace ferrybus::demo

#endif  // FERRYBUS_EXAMPLES_DEMO_WORKLOAD_H_
