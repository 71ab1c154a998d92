// SPDX-License-Identifier: MIT

#include "ferrybus/tests/simulation/guest_drivers.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/check.h"

namespace ferrybus::simulation {
namespace {

constexpr uint64_t kSectorBytes = 512;

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

vsc::PageRun Allocate(vsc::GuestPages* pages, uint64_t count) {
  absl::StatusOr<vsc::PageRun> run = pages->Allocate(count);
  FERRYBUS_CHECK(run.ok(), "the guest's memory is too small");
  return *run;
}

}  // namespace

// ---- Numbered

void NumberedDriver::OnOpened(vsc::ClientChannel& channel) {
  channel_ = &channel;
  oracles_->guest.Opened();
}

void NumberedDriver::OnClosed() {
  channel_ = nullptr;
  held_.clear();
  oracles_->guest.Closed();
}

void NumberedDriver::Ask(uint64_t count) {
  while (count-- > 0 && channel_ != nullptr) {
    const RequestName name = oracles_->guest.NextName();
    const std::string payload = oracles_->guest.Payload(name);
    vsc::Request request;
    request.payload = AsBytes(payload);
    request.tag = name.tag();
    request.wants_completion = !context_->random.OneIn(5);
    request.may_queue = context_->random.OneIn(3);
    if (channel_->Send(request) != vsc::SendResult::kOk) break;
    oracles_->guest.Sent(request.wants_completion);
  }
  if (context_->random.OneIn(2)) Flush();
}

void NumberedDriver::OnCompletion(uint64_t tag,
                                  absl::Span<const std::byte> reply) {
  oracles_->guest.Answered(tag, reply);
}

void NumberedDriver::OnPacket(IncomingPacket packet) {
  const RequestName name = oracles_->host.Delivered(packet.payload());
  if (context_->random.OneIn(2)) {
    (void)packet.Complete(AsBytes(oracles_->host.Reply(name)));
  } else {
    held_.push_back({std::move(packet), name});
  }
}

void NumberedDriver::Answer(uint64_t count) {
  while (count-- > 0 && !held_.empty()) {
    std::swap(held_[context_->random.Below(held_.size())], held_.back());
    Held held = std::move(held_.back());
    held_.pop_back();
    (void)held.packet.Complete(AsBytes(oracles_->host.Reply(held.name)));
  }
}

// ---- The disk

DiskUser::DiskUser(Context* context, DiskOracle* oracle,
                   const GuestMemory* memory, vsc::GuestPages* pages)
    : context_(context), oracle_(oracle), guest_pages_(pages) {
  for (Slot& slot : slots_) slot.pages = Allocate(pages, 2);
  const vsc::PageRun scratch = Allocate(pages, 1);
  vsc::StorageClientOptions options;
  options.queue_depth = kSlots;
  options.scratch = {scratch.gpa(), 4096};
  options.scratch_memory = memory->Translate(scratch.gpa(), 4096).data();
  client_ = std::make_unique<vsc::StorageClient>(
      static_cast<vsc::StorageClient::Events*>(this), options);
}

absl::Span<std::byte> DiskUser::Bytes(const Slot& slot) const {
  return guest_pages_->bytes(slot.pages).first(slot.count * kSectorBytes);
}

// In one or two pieces.
std::vector<vsc::GuestBuffer> DiskUser::Buffers(const Slot& slot) {
  const auto bytes = static_cast<uint32_t>(slot.count * kSectorBytes);
  if (bytes <= 512 || context_->random.OneIn(2)) {
    return {{slot.pages.gpa(), bytes}};
  }
  const auto first =
      static_cast<uint32_t>(context_->random.Below(slot.count - 1) + 1) * 512;
  return {{slot.pages.gpa(), first}, {slot.pages.gpa() + first, bytes - first}};
}

size_t DiskUser::busy() const {
  return static_cast<size_t>(
      std::count_if(slots_.begin(), slots_.end(),
                    [](const Slot& slot) { return slot.op != Op::kNone; }));
}

void DiskUser::Ask(uint64_t count) {
  for (size_t i = 0; i < kSlots && count > 0 && is_ready(); ++i) {
    if (slots_[i].op != Op::kNone) continue;
    StartRandom(i);
    --count;
  }
  if (context_->random.OneIn(2)) client_->Publish();
}

void DiskUser::StartRandom(size_t index) {
  static constexpr Op kOps[] = {Op::kRead,  Op::kRead,         Op::kWrite,
                                Op::kWrite, Op::kDurableWrite, Op::kFlush,
                                Op::kUnmap, Op::kWrite};
  Random& random = context_->random;
  const Op op = kOps[random.Below(std::size(kOps))];
  const uint64_t first = random.Below(oracle_->model.sectors());
  const uint64_t count = random.Between(1, kSlotSectors);
  (void)Start(index, op, first, count);
}

bool DiskUser::Start(size_t index, Op op, uint64_t first, uint64_t count) {
  Slot& slot = slots_[index];
  DiskModel& model = oracle_->model;
  if (op != Op::kFlush && !model.IsFree(first, count)) return false;
  slot.op = op;
  slot.first = first;
  slot.count = count;
  const uint64_t offset = first * kSectorBytes;
  vsc::StorageStart start = vsc::StorageStart::kNotReady;
  switch (op) {
    case Op::kRead:
      model.BeginRead(first, count);
      std::memset(Bytes(slot).data(), 0xdd, Bytes(slot).size());
      start = client_->Read(offset, Buffers(slot), index);
      break;
    case Op::kWrite:
    case Op::kDurableWrite:
      model.BeginWrite(first, count, oracle_->next_version++, Bytes(slot));
      start =
          client_->Write(offset, Buffers(slot), index, op == Op::kDurableWrite);
      break;
    case Op::kUnmap:
      model.BeginWrite(first, count, 0, {});
      start = client_->Unmap(offset, count * kSectorBytes, index);
      break;
    case Op::kFlush:
      slot.flush = model.BeginFlush();
      start = client_->Flush(index);
      break;
    case Op::kNone:
      break;
  }
  if (start == vsc::StorageStart::kOk) return true;
  context_->Fail("disk", absl::StrCat("the client refused a request: ",
                                      static_cast<int>(start)));
  return false;
}

bool DiskUser::ReadNext(uint64_t* sector) {
  for (size_t i = 0; i < kSlots; ++i) {
    if (slots_[i].op != Op::kNone) continue;
    if (*sector >= oracle_->model.sectors()) return true;
    const uint64_t count =
        std::min(kSlotSectors, oracle_->model.sectors() - *sector);
    if (!Start(i, Op::kRead, *sector, count)) return false;
    *sector += count;
  }
  return false;
}

void DiskUser::OnReady(const vsc::StorageClientDisk& disk) {
  if (disk.size_bytes() != oracle_->model.sectors() * kSectorBytes) {
    context_->Fail("disk", "the disk has another size");
  }
}

void DiskUser::OnFailed(const absl::Status& status) {
  context_->Fail("disk", absl::StrCat("the handshake failed: ",
                                      std::string(status.message())));
}

void DiskUser::EndRead(Slot& slot, bool is_ok) {
  DiskModel& model = oracle_->model;
  if (!is_ok) return model.AbandonRead(slot.first, slot.count);
  const std::string wrong = model.EndRead(slot.first, Bytes(slot));
  if (!wrong.empty()) context_->Fail("wrong-data", wrong);
}

void DiskUser::OnIoDone(uint64_t cookie, const vsc::StorageIoResult& result) {
  Slot& slot = slots_[cookie];
  context_->trace.Add(cookie << 8 | static_cast<uint64_t>(result.status));
  ++context_->totals.disk_requests;
  const bool is_ok = result.status == vsc::StorageIoStatus::kOk;
  if (!is_ok && result.status != vsc::StorageIoStatus::kClosed &&
      ++oracle_->failed > context_->image_errors) {
    context_->Fail("disk", absl::StrCat("a request failed, and no I/O did: ",
                                        static_cast<int>(result.status)));
  }
  using End = DiskModel::End;
  switch (std::exchange(slot.op, Op::kNone)) {
    case Op::kNone:
      return context_->Fail("disk", "a request of the disk ended twice");
    case Op::kRead:
      return EndRead(slot, is_ok);
    case Op::kWrite:
    case Op::kUnmap:
      return oracle_->model.EndWrite(slot.first, slot.count,
                                     is_ok ? End::kOk : End::kUnknown);
    case Op::kDurableWrite:
      return oracle_->model.EndWrite(slot.first, slot.count,
                                     is_ok ? End::kDurable : End::kUnknown);
    case Op::kFlush:
      if (is_ok) oracle_->model.EndFlush(slot.flush);
      return;
  }
}

}  // namespace ferrybus::simulation
