// SPDX-License-Identifier: MIT

#include "ferrybus/tests/conformance/guest_ring.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace ferrybus::conformance {
namespace {

constexpr uint32_t kPage = 4096;
constexpr std::byte kUnwritten{0xa5};

template <typename T>
T ValueAt(const Bytes& bytes, size_t at) {
  T value{};
  std::memcpy(&value, bytes.data() + at, sizeof(value));
  return value;
}

}  // namespace

GuestRing::GuestRing(const GuestMemory& memory,
                     absl::Span<const uint64_t> pages) {
  for (const uint64_t page : pages) {
    pages_.push_back(memory.Translate(page * kPage, kPage).data());
  }
}

void GuestRing::Initialise() {
  std::memset(pages_[0], 0, kPage);
  for (size_t i = 1; i < pages_.size(); ++i) {
    std::memset(pages_[i], static_cast<int>(kUnwritten), kPage);
  }
}

uint32_t GuestRing::Load(uint32_t word) const {
  return std::atomic_ref(*reinterpret_cast<uint32_t*>(pages_[0] + word))
      .load(std::memory_order_seq_cst);
}

void GuestRing::Store(uint32_t word, uint32_t value) {
  std::atomic_ref(*reinterpret_cast<uint32_t*>(pages_[0] + word))
      .store(value, std::memory_order_seq_cst);
}

void GuestRing::Write(uint32_t at, absl::Span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const size_t count = std::min<size_t>(bytes.size(), kPage - at % kPage);
    std::memcpy(pages_[1 + at / kPage] + at % kPage, bytes.data(), count);
    bytes.remove_prefix(count);
    at = Advance(at, static_cast<uint32_t>(count));
  }
}

Bytes GuestRing::Read(uint32_t at, uint32_t count) const {
  Bytes bytes;
  while (count > 0) {
    const uint32_t step = std::min(count, kPage - at % kPage);
    const std::byte* const from = pages_[1 + at / kPage] + at % kPage;
    bytes.insert(bytes.end(), from, from + step);
    count -= step;
    at = Advance(at, step);
  }
  return bytes;
}

Bytes GuestRing::Snapshot() const {
  Bytes bytes;
  for (const std::byte* const page : pages_) {
    bytes.insert(bytes.end(), page, page + kPage);
  }
  return bytes;
}

Bytes EncodePacket(const RawPacket& packet, uint32_t at) {
  const size_t header = 16 + packet.extension.size();
  const size_t padded = (header + packet.payload.size() + 7) / 8 * 8;
  Bytes bytes(padded + 8);
  const auto put16 = [&bytes](size_t offset, size_t value) {
    const uint16_t narrow = static_cast<uint16_t>(value);
    std::memcpy(bytes.data() + offset, &narrow, sizeof(narrow));
  };
  put16(0, packet.type);
  put16(2, packet.offset8.value_or(header / 8));
  put16(4, packet.length8.value_or(padded / 8));
  put16(6, packet.flags);
  std::memcpy(bytes.data() + 8, &packet.transaction_id, 8);
  std::copy(packet.extension.begin(), packet.extension.end(),
            bytes.begin() + 16);
  std::copy(packet.payload.begin(), packet.payload.end(),
            bytes.begin() + static_cast<ptrdiff_t>(header));
  const uint64_t trailer = (uint64_t{at} << 32) ^ packet.trailer_xor;
  std::memcpy(bytes.data() + padded, &trailer, sizeof(trailer));
  return bytes;
}

bool RingWriter::Write(const RawPacket& packet) {
  const Bytes bytes = EncodePacket(packet, write_);
  const uint32_t size = static_cast<uint32_t>(bytes.size());
  if (!Fits(size)) return false;
  ring_->Write(write_, bytes);
  write_ = ring_->Advance(write_, size);
  return true;
}

bool RingWriter::Publish() {
  const uint32_t before = published_;
  if (write_ == before) return false;
  published_ = write_;
  ring_->Store(kWriteIndex, write_);
  return ring_->Load(kInterruptMask) == 0 && ring_->Load(kReadIndex) == before;
}

std::optional<ReceivedPacket> RingReader::Next(std::string* broken) {
  const uint32_t write = ring_->Load(kWriteIndex);
  if (write >= ring_->data_bytes() || write % 8 != 0) {
    *broken = absl::StrCat("the host's write index is ", write);
    return std::nullopt;
  }
  const uint32_t used = ring_->Used(write, read_);
  if (used == 0) return std::nullopt;
  if (used < 24) {
    *broken = absl::StrCat("the host published ", used, " bytes");
    return std::nullopt;
  }
  const Bytes descriptor = ring_->Read(read_, 16);
  const uint32_t offset = ValueAt<uint16_t>(descriptor, 2) * 8u;
  const uint32_t length = ValueAt<uint16_t>(descriptor, 4) * 8u;
  ReceivedPacket packet;
  packet.type = ValueAt<uint16_t>(descriptor, 0);
  packet.flags = ValueAt<uint16_t>(descriptor, 6);
  packet.transaction_id = ValueAt<uint64_t>(descriptor, 8);
  packet.at = read_;
  const bool is_known =
      packet.type == kInBand || packet.type == kCompletionPacket;
  if (!is_known || offset != 16 || length < offset || length + 8 > used ||
      (packet.flags & ~kWantsCompletion) != 0 ||
      (packet.type == kCompletionPacket && packet.flags != 0)) {
    *broken = absl::StrCat("the host wrote a packet of type ", packet.type,
                           ", flags ", packet.flags, ", offset ", offset,
                           ", length ", length, ", of ", used, " bytes");
    return std::nullopt;
  }
  const Bytes all = ring_->Read(read_, length + 8);
  packet.payload.assign(all.begin() + 16, all.begin() + length);
  packet.trailer = ValueAt<uint64_t>(all, length);
  read_ = ring_->Advance(read_, length + 8);
  return packet;
}

bool RingReader::Release() {
  const uint32_t before = released_;
  if (read_ == before) return false;
  released_ = read_;
  ring_->Store(kReadIndex, read_);
  const uint32_t pending = ring_->Load(kPendingSend);
  const uint32_t write = ring_->Load(kWriteIndex);
  if (pending == 0 || write >= ring_->data_bytes()) return false;
  return ring_->Free(write, before) <= pending &&
         ring_->Free(write, read_) > pending;
}

}  // namespace ferrybus::conformance
