// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/virtual_function/hot_update_test_util.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace ferrybus::vsp {

void DeviceMemory::Number() {
  const absl::Span<std::byte> all = bytes();
  for (size_t i = 0; i < all.size(); ++i) {
    all[i] = static_cast<std::byte>(i / kHotUpdatePageBytes * 31 + i % 251);
  }
}

std::vector<std::byte> ToBytes(const std::string& text) {
  const auto* first = reinterpret_cast<const std::byte*>(text.data());
  return {first, first + text.size()};
}

std::string ToText(absl::Span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::vector<std::byte> Joined(const HotUpdateBlock& block) {
  std::vector<std::byte> all;
  for (absl::Span<const std::byte> segment : block.segments) {
    all.insert(all.end(), segment.begin(), segment.end());
  }
  return all;
}

TestDriver::TestDriver(DeviceMemory* memory, DriverBoard* board,
                       DriverPlan plan)
    : memory_(memory), board_(board), plan_(std::move(plan)) {
  ++board_->alive;
}

TestDriver::~TestDriver() {
  SetRunning(false);
  --board_->alive;
  board_->calls.push_back(plan_.name + ":destroyed");
}

absl::Status TestDriver::Call(const std::string& what) {
  board_->calls.push_back(absl::StrCat(plan_.name, ":", what));
  auto at = std::find_if(counts_.begin(), counts_.end(),
                         [&](const auto& c) { return c.first == what; });
  if (at == counts_.end()) at = counts_.insert(at, {what, 0});
  const size_t before = at->second++;
  return plan_.on_call ? plan_.on_call(what, before) : absl::OkStatus();
}

void TestDriver::SetRunning(bool is_running) {
  board_->running += int{is_running} - int{is_running_};
  board_->running_max = std::max(board_->running_max, board_->running);
  is_running_ = is_running;
}

absl::Status TestDriver::SaveFunction(int function, HotUpdateBlocks& blocks) {
  const uint64_t page = function * uint64_t{4};
  const auto metadata = [&](const char* kind) {
    return ToBytes(absl::StrCat(plan_.version, " ", function, " ", kind));
  };
  const HotUpdateRange ranges[] = {{page, 1}, {page + 1, 1}};
  if (absl::Status s = blocks.SaveRanges(ranges, metadata("ranges")); !s.ok()) {
    return s;
  }
  if (absl::Status s = Call("saved block"); !s.ok()) return s;
  const uint64_t pages[] = {page + 3, page + 2};
  if (absl::Status s = blocks.SavePageList(
          {pages, 100, 2 * kHotUpdatePageBytes - 200}, metadata("list"));
      !s.ok()) {
    return s;
  }
  if (absl::Status s = Call("saved block"); !s.ok()) return s;
  const auto* registers =
      reinterpret_cast<const std::byte*>(&registers_[function]);
  if (absl::Status s = blocks.SaveBuffer({registers, 8}, metadata("buffer"));
      !s.ok()) {
    return s;
  }
  return Call("saved block");
}

absl::Status TestDriver::Save(HotUpdateBlocks& blocks) {
  SetRunning(false);
  if (absl::Status s = Call("save"); !s.ok()) return s;
  for (int function = 0; function < kTestFunctions; ++function) {
    if (absl::Status s = SaveFunction(function, blocks); !s.ok()) return s;
  }
  return absl::OkStatus();
}

void TestDriver::CancelUpdate() {
  Call("cancel").IgnoreError();
  SetRunning(true);
}

absl::Status TestDriver::Restore(HotUpdateBlock block) {
  if (absl::Status s = Call("restore"); !s.ok()) return s;
  const std::vector<std::string> words =
      absl::StrSplit(ToText(block.metadata), ' ');
  int version = 0;
  int function = 0;
  if (words.size() != 3 || !absl::SimpleAtoi(words[0], &version) ||
      !absl::SimpleAtoi(words[1], &function) ||
      function != static_cast<int>(restored_ / 3)) {
    return absl::DataLossError("metadata");
  }
  if (version > plan_.version_max) {
    return absl::UnimplementedError(absl::StrCat("state of version ", version,
                                                 ", this driver reads up to ",
                                                 plan_.version_max));
  }
  const uint64_t page = function * uint64_t{4};
  const std::byte* base = memory_->bytes().data() + page * kHotUpdatePageBytes;
  const bool is_buffer = words[2] == "buffer";
  if (is_buffer) {
    std::memcpy(&registers_[function], Joined(block).data(), 8);
  } else if (block.copy != nullptr || block.segments.size() != 2 ||
             block.segments[0].data() !=
                 base +
                     (words[2] == "list" ? 3 * kHotUpdatePageBytes + 100 : 0)) {
    return absl::DataLossError("not in place");
  }
  ++restored_;
  return absl::OkStatus();
}

absl::Status TestDriver::Start() {
  if (absl::Status s = Call("start"); !s.ok()) return s;
  if (restored_ != kTestBlocks) return absl::DataLossError("blocks");
  SetRunning(true);
  return absl::OkStatus();
}

void TestDriver::RestoreComplete() { Call("complete").IgnoreError(); }

uint64_t TestDriver::Command(int function, uint64_t value) {
  if (!is_running_) return 0;
  // A sum that needs all of: the register, and a word in one of four pages.
  const uint64_t count = ++registers_[function];
  std::byte* word = memory_->bytes().data() +
                    (function * uint64_t{4} + count % 4) * kHotUpdatePageBytes +
                    200;
  uint64_t sum = 0;
  std::memcpy(&sum, word, 8);
  sum += value;
  std::memcpy(word, &sum, 8);
  return sum * 1000 + count;
}

std::string TestClient::CommandAll(TestDriver& driver) {
  for (int i = 0; i < kTestFunctions * 5; ++i) {
    const int function = i % kTestFunctions;
    const uint64_t value = next_++;
    const uint64_t count = ++counts_[function];
    uint64_t& sum = sums_[function][count % 4];
    sum += value;
    const uint64_t found = driver.Command(function, value);
    if (found != sum * 1000 + count) {
      return absl::StrCat(driver.name(), ": function ", function, " gave ",
                          found, " instead of ", sum * 1000 + count);
    }
  }
  return "";
}

}  // namespace ferrybus::vsp
