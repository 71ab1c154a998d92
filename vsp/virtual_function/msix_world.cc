// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/virtual_function/msix_world.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "ferrybus/vsp/virtual_function/msix_state_persist.h"

namespace ferrybus::vsp {
namespace {

using Kind = MsixOp::Kind;

bool IsAccess(uint64_t offset, uint32_t size, uint64_t region_bytes) {
  return (size == 4 || size == 8) && offset % size == 0 &&
         offset < region_bytes;
}

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

}  // namespace

MsixModel::MsixModel(uint32_t vectors)
    : table(vectors * size_t{16}), pending(vectors) {
  for (uint32_t v = 0; v < vectors; ++v) table[v * 16 + 12] = 1;
}

void MsixModel::Write(uint64_t offset, uint32_t size, uint64_t value) {
  if (!IsAccess(offset, size, table.size())) return;
  std::memcpy(&table[offset], &value, size);
  table[offset / 16 * 16] &= 0xfc;
}

std::vector<uint32_t> MsixModel::TakeDue() {
  std::vector<uint32_t> due;
  for (uint32_t v = 0; v < pending.size() && !IsSilent(); ++v) {
    if (pending[v] == 0 || IsMasked(v)) continue;
    if (!IsInterruptAddress(Address(v))) continue;
    pending[v] = 0;
    due.push_back(v);
  }
  return due;
}

MsixWorld::MsixWorld(uint32_t vectors)
    : vectors_(vectors),
      model_(vectors),
      host_(std::make_unique<RecordingHost>(host_number_, vectors)),
      table_(std::make_unique<MsixTable>(MsixOptions{.vectors = vectors},
                                         host_.get(), host_.get())) {}

void MsixWorld::Prepare(const MsixOp& op) {
  (void)Do(op);
  (void)model_.TakeDue();
}

std::string MsixWorld::Step(const MsixOp& op) {
  host_->writes.clear();
  host_->sent.clear();
  std::string wrong = Do(op);
  if (wrong.empty()) wrong = CheckSent();
  if (wrong.empty()) wrong = CheckDeviceWrites(op.kind);
  if (!wrong.empty()) return wrong;
  if (op.kind == Kind::kWrite) {
    const uint64_t vector = op.offset / 16;
    return vector < vectors_ ? CheckVector(static_cast<uint32_t>(vector)) : "";
  }
  if (op.kind == Kind::kRaise || op.kind == Kind::kWithdraw) {
    return op.offset < vectors_ ? CheckVector(static_cast<uint32_t>(op.offset))
                                : "";
  }
  if (op.kind == Kind::kRead) return "";
  // A look at a large table takes longer than everything else together.
  return vectors_ <= 8 || op.kind == Kind::kMove ? CheckAll() : "";
}

std::string MsixWorld::Do(const MsixOp& op) {
  const auto vector = static_cast<uint32_t>(std::min<uint64_t>(op.offset, ~0u));
  switch (op.kind) {
    case Kind::kWrite: {
      const bool is_good = IsAccess(op.offset, op.size, model_.table.size());
      const std::vector<std::byte> bytes = [&] {
        std::vector<std::byte> all(std::max<size_t>(op.size, 8));
        std::memcpy(all.data(), &op.value, 8);
        all.resize(op.size);
        return all;
      }();
      const MsixAccess access = table_->WriteTable(op.offset, bytes);
      if ((access == MsixAccess::kDone) != is_good) return "write's result";
      model_.Write(op.offset, op.size, op.value);
      return "";
    }
    case Kind::kRead:
      return Read(op);
    case Kind::kControl:
      (void)table_->WriteControl(static_cast<uint16_t>(op.value));
      model_.is_enabled = (op.value & 0x8000) != 0;
      model_.is_masked = (op.value & 0x4000) != 0;
      return "";
    case Kind::kRaise: {
      const MsixRaise raised = table_->Raise(vector);
      if (vector >= vectors_) {
        return raised == MsixRaise::kNoSuchVector ? "" : "raise's result";
      }
      model_.pending[vector] = 1;
      return "";
    }
    case Kind::kWithdraw:
      table_->Withdraw(vector);
      if (vector < vectors_) model_.pending[vector] = 0;
      return "";
    case Kind::kPause:
      table_->Pause();
      model_.is_paused = true;
      return "";
    case Kind::kResume:
      model_.is_paused = false;
      return table_->Resume().ok() ? "" : "resume failed";
    case Kind::kMove:
      return Move();
    case Kind::kRewrite:
      (void)table_->Rewrite();
      return host_->writes.size() == vectors_ ? "" : "not all rewritten";
    case Kind::kReset: {
      table_->Reset();
      const bool is_paused = model_.is_paused;
      model_ = MsixModel(vectors_);
      model_.is_paused = is_paused;
      return "";
    }
  }
  return "no such step";
}

std::string MsixWorld::Read(const MsixOp& op) {
  std::vector<std::byte> bytes(op.size, std::byte{0x5a});
  const MsixAccess access = table_->ReadTable(op.offset, absl::MakeSpan(bytes));
  if (!IsAccess(op.offset, op.size, model_.table.size())) {
    if (access == MsixAccess::kDone) return "bad read was answered";
    for (std::byte byte : bytes) {
      if (byte != std::byte{0xff}) return "bad read gives other than ones";
    }
    return "";
  }
  if (access != MsixAccess::kDone) return "read refused";
  return std::memcmp(bytes.data(), &model_.table[op.offset], op.size) == 0
             ? ""
             : "read";
}

std::string MsixWorld::Move() {
  table_->Pause();
  const auto saved = table_->Save();
  if (!saved.ok()) return "save";
  const std::string bytes = SerializeMsixState(*saved);
  const auto parsed = ParseMsixState(AsBytes(bytes));
  if (!parsed.ok() || SerializeMsixState(*parsed) != bytes) return "bytes";

  auto host = std::make_unique<RecordingHost>(++host_number_, vectors_);
  // What another function left there.
  for (MsixEntry& entry : host->entries) entry = {1, 2, 0};
  auto table = std::make_unique<MsixTable>(MsixOptions{.vectors = vectors_},
                                           host.get(), host.get());
  if (!table->Restore(*parsed).ok()) return "restore";
  bool is_mapped = true;
  for (uint32_t v = 0; v < vectors_; ++v) {
    is_mapped = is_mapped &&
                (model_.IsMasked(v) || IsInterruptAddress(model_.Address(v)));
  }
  if (table->Rewrite().ok() != is_mapped) return "rewrite's result";
  if (host->writes.size() != vectors_) return "not all rewritten";
  const auto again = table->Save();
  if (!again.ok() || SerializeMsixState(*again) != bytes) return "saved again";
  if (!host_->sent.empty() || !table_->Retire().ok()) return "retire";
  if (!host_->writes.empty()) return "the source's device was called";
  table_ = std::move(table);
  host_ = std::move(host);
  if (!model_.is_paused && !table_->Resume().ok()) return "resume";
  return "";
}

std::string MsixWorld::CheckSent() {
  std::vector<uint32_t> sent;
  for (const auto& [vector, message] : host_->sent) {
    sent.push_back(vector);
    const MsixMessage wanted = {host_->ToHost(model_.Address(vector)),
                                model_.Data(vector)};
    if (!(message == wanted)) return absl::StrCat("message of ", vector);
  }
  std::sort(sent.begin(), sent.end());
  return sent == model_.TakeDue() ? "" : "vectors sent";
}

// The device is called only if it must be, once for an entry.
std::string MsixWorld::CheckDeviceWrites(Kind kind) {
  if (kind == Kind::kMove || kind == Kind::kRewrite) return "";
  if (host_->writes.empty()) return "";
  if (model_.IsSilent()) return "device called for nothing";
  std::vector<uint32_t> written;
  for (const auto& [vector, entry] : host_->writes) written.push_back(vector);
  std::sort(written.begin(), written.end());
  const auto twice = std::adjacent_find(written.begin(), written.end());
  return twice == written.end() ? "" : "device called twice";
}

std::string MsixWorld::CheckVector(uint32_t v) {
  for (uint32_t half = 0; half < 2; ++half) {
    const MsixOp read = {Kind::kRead, v * uint64_t{16} + half * uint64_t{8}, 8,
                         0};
    if (std::string wrong = Read(read); !wrong.empty()) return wrong;
  }
  uint64_t word = 0;
  const auto bytes = absl::MakeSpan(reinterpret_cast<std::byte*>(&word), 8);
  if (table_->ReadPending(v / 64 * uint64_t{8}, bytes) != MsixAccess::kDone)
    return "PBA";
  if ((word >> (v % 64) & 1) != model_.pending[v]) return "pending bit";
  if (model_.IsSilent()) return "";
  const MsixEntry& entry = host_->entries[v];
  if (model_.IsMasked(v) || !IsInterruptAddress(model_.Address(v))) {
    return entry.is_masked() ? "" : "device's entry is not masked";
  }
  const uint64_t rest = model_.Qword(v * uint64_t{16} + 8);
  const MsixEntry wanted = {host_->ToHost(model_.Address(v)),
                            static_cast<uint32_t>(rest),
                            static_cast<uint32_t>(rest >> 32)};
  return entry == wanted ? "" : "device's entry";
}

std::string MsixWorld::CheckAll() {
  const uint32_t control = (vectors_ - 1) | (model_.is_enabled ? 0x8000u : 0) |
                           (model_.is_masked ? 0x4000u : 0);
  if (table_->ReadControl() != control) return "control word";
  for (uint32_t v = 0; v < vectors_; ++v) {
    if (std::string wrong = CheckVector(v); !wrong.empty()) {
      return absl::StrCat("vector ", v, ": ", wrong);
    }
  }
  return "";
}

}  // namespace ferrybus::vsp
