// SPDX-License-Identifier: MIT

#include "ferrybus/ringbuffer/testing/counting_access.h"

#include <cstring>

namespace ferrybus::ringbuffer::testing {

FetchRecorder::FetchRecorder(const RingView& view, RingRole role)
    : view_(view),
      role_(role),
      touched_in_batch_(view.data_bytes, 0),
      seen_(view.data_bytes) {}

void FetchRecorder::BeginBatch() { ++batch_; }

void FetchRecorder::BeginAttach() {
  attaching_ = true;
  BeginOperation();
  BeginBatch();
}

uint32_t FetchRecorder::loads(uint32_t offset) const {
  const auto found = loads_.find(offset);
  return found == loads_.end() ? 0
                               : static_cast<uint32_t>(found->second.size());
}

uint32_t FetchRecorder::stores(uint32_t offset) const {
  const auto found = stores_.find(offset);
  return found == stores_.end() ? 0 : found->second;
}

std::byte FetchRecorder::Seen(uint64_t index, std::byte otherwise) const {
  const uint64_t at = index % view_.data_bytes;
  return touched_in_batch_[at] == batch_ ? seen_[at] : otherwise;
}

const std::vector<uint32_t>& FetchRecorder::loaded_values(uint32_t offset) {
  return loads_[offset];
}

void FetchRecorder::OnLoad(const uint32_t* word, uint32_t value) {
  const uint32_t offset = ControlOffset(word);
  if (offset >= kPageBytes) return;
  loads_[offset].push_back(value);
  if (offset == own_index_offset()) {
    if (!attaching_) Violation("own index read back");
    attaching_ = false;
    return;
  }
  if (IsOwnWord(offset) || offset == kFeatureBitsOffset) {
    Violation("loads control word @" + std::to_string(offset));
  }
  if (++loads_in_operation_[offset] > 1) {
    Violation("fetches control word @" + std::to_string(offset) +
              " twice in one operation");
  }
}

void FetchRecorder::OnStore(const uint32_t* word) {
  const uint32_t offset = ControlOffset(word);
  if (offset >= kPageBytes) return;
  ++stores_[offset];
  if (!IsOwnWord(offset)) {
    Violation("stores the peer's control word @" + std::to_string(offset));
  }
  if (offset == own_index_offset()) BeginBatch();
}

void FetchRecorder::OnFetch(const std::byte* shared, const void* copy,
                            size_t bytes) {
  if (role_ == RingRole::kProducer) Violation("producer fetches packet bytes");
  if (!InData(shared, bytes)) return;
  Touch(shared, bytes, "fetches");
  bytes_fetched_ += bytes;
  for (size_t i = 0; i < bytes; ++i) {
    std::memcpy(&seen_[(shared - view_.data + i) % view_.data_bytes],
                static_cast<const std::byte*>(copy) + i, 1);
  }
}

void FetchRecorder::OnWrite(const std::byte* shared, size_t bytes) {
  if (role_ == RingRole::kConsumer) Violation("consumer writes packet bytes");
  if (InData(shared, bytes)) Touch(shared, bytes, "stores");
}

bool FetchRecorder::InData(const std::byte* shared, size_t bytes) {
  const uint64_t mapped = 2 * uint64_t{view_.data_bytes};
  if (shared < view_.data || bytes > mapped ||
      static_cast<uint64_t>(shared - view_.data) > mapped - bytes) {
    Violation("touches memory outside the data area");
    return false;
  }
  return true;
}

void FetchRecorder::Violation(const std::string& what) {
  if (violation_.empty()) violation_ = what;
}

uint32_t FetchRecorder::ControlOffset(const uint32_t* word) {
  const auto* const at = reinterpret_cast<const std::byte*>(word);
  if (at < view_.control || at > view_.control + kPageBytes - sizeof(*word)) {
    Violation("touches memory outside the control page");
    return kPageBytes;
  }
  return static_cast<uint32_t>(at - view_.control);
}

uint32_t FetchRecorder::own_index_offset() const {
  return role_ == RingRole::kProducer ? kWriteIndexOffset : kReadIndexOffset;
}

bool FetchRecorder::IsOwnWord(uint32_t offset) const {
  if (role_ == RingRole::kConsumer) {
    return offset == kReadIndexOffset || offset == kInterruptMaskOffset;
  }
  return offset == kWriteIndexOffset || offset == kPendingSendSizeOffset ||
         offset == kFeatureBitsOffset;
}

void FetchRecorder::Touch(const std::byte* shared, size_t bytes,
                          const char* what) {
  for (size_t i = 0; i < bytes; ++i) {
    const size_t at = (shared - view_.data + i) % view_.data_bytes;
    if (touched_in_batch_[at] == batch_) {
      Violation(std::string(what) + " the byte at index " + std::to_string(at) +
                " twice in one batch");
    }
    touched_in_batch_[at] = batch_;
  }
}

}  // namespace ferrybus::ringbuffer::testing
