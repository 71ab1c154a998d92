// SPDX-License-Identifier: MIT

#include "ferrybus/examples/demo/client.h"

#include <poll.h>

#include <fstream>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ferrybus/channel/guest_memory.h"
#include "ferrybus/channel/protocols/device_classes.h"
#include "ferrybus/channel/transport/port.h"
#include "ferrybus/examples/demo/report.h"
#include "ferrybus/examples/demo/workload.h"
#include "ferrybus/vsc/bus.h"
#include "ferrybus/vsc/guest_port.h"
#include "ferrybus/vsc/storage/storage_client.h"

namespace ferrybus::demo {
namespace {

constexpr uint64_t kRamBytes = uint64_t{16} << 20;
// Gaps between two completions that are worth remembering.
constexpr int64_t kGapNs = 100'000;
constexpr int64_t kLostAfterNs = int64_t{10} * 1'000'000'000;

Json ExtentsOf(const ImageEntry& file) {
  Json extents = Json::array();
  for (const Extent& extent : file.extents) {
    extents.push_back({extent.offset, extent.bytes});
  }
  return {{"path", file.path},
          {"bytes", file.bytes},
          {"sha256", file.sha256},
          {"extents", extents}};
}

ImageEntry EntryOf(const Json& json) {
  ImageEntry file;
  file.path = json["path"];
  file.bytes = json["bytes"];
  file.sha256 = json["sha256"];
  for (const Json& extent : json["extents"]) {
    file.extents.push_back({extent[0], extent[1]});
  }
  return file;
}

class Client final : public DiskQueue, public vsc::StorageClient::Events {
 public:
  explicit Client(const ClientOptions& options) : options_(options) {}

  absl::Status Connect(Control* control);
  absl::Status Work(Control* control);

 private:
  absl::Status MakeGuest(Control* control);
  void PumpOnce(Control* control);
  absl::Status PumpUntilReady();
  // True: every request was answered.
  bool DrainRequests();
  void SendResult(Control* control, uint64_t lost);

  // DiskQueue.
  bool Submit(DiskOp op, uint32_t slot, uint64_t offset,
              uint32_t bytes) override;
  absl::Span<std::byte> buffer(uint32_t slot) override {
    return pages_->bytes(buffers_[slot]);
  }
  // StorageClient::Events.
  void OnFailed(const absl::Status& status) override { failure_ = status; }
  void OnIoDone(uint64_t cookie, const vsc::StorageIoResult& result) override;

  const ClientOptions& options_;
  DiskImage image_;
  std::unique_ptr<MemfdGuestMemory> memory_;
  std::unique_ptr<vsc::GuestPages> pages_;
  std::unique_ptr<vsc::GuestPort> port_;
  std::unique_ptr<vsc::Bus> bus_;
  std::unique_ptr<vsc::StorageClient> disk_;
  std::unique_ptr<Workload> workload_;
  std::vector<vsc::PageRun> buffers_;
  absl::Status failure_;
  int64_t last_done_ns_ = 0;
  std::vector<Gap> gaps_;
};

absl::Status Client::MakeGuest(Control* control) {
  absl::StatusOr<std::unique_ptr<MemfdGuestMemory>> memory =
      MemfdGuestMemory::Create(kRamBytes);
  if (!memory.ok()) return memory.status();
  memory_ = *std::move(memory);
  pages_ = std::make_unique<vsc::GuestPages>(memory_.get());
  absl::StatusOr<PortPair> port = CreatePort(memory_->file());
  if (!port.ok()) return port.status();
  control->Send({{"event", "port"}});
  const absl::Status sent = SendPort(control->fd(), port->host);
  if (!sent.ok()) return sent;
  absl::StatusOr<std::unique_ptr<vsc::GuestPort>> opened =
      vsc::GuestPort::Open(std::move(port->guest));
  if (!opened.ok()) return opened.status();
  port_ = *std::move(opened);
  return absl::OkStatus();
}

absl::Status Client::Connect(Control* control) {
  image_ = ImageOf(Json::parse(std::ifstream(options_.manifest_path)));
  const absl::Status made = MakeGuest(control);
  if (!made.ok()) return made;
  const absl::StatusOr<vsc::PageRun> scratch = pages_->Allocate(4);
  if (!scratch.ok()) return scratch.status();
  for (uint32_t slot = 0; slot < Workload::kSlots; ++slot) {
    const absl::StatusOr<vsc::PageRun> run =
        pages_->Allocate(Workload::kBufferBytes / 4096);
    if (!run.ok()) return run.status();
    buffers_.push_back(*run);
  }
  bus_ = std::make_unique<vsc::Bus>(vsc::BusOptions(), memory_.get(),
                                    pages_.get(), port_->doorbell());
  disk_ = std::make_unique<vsc::StorageClient>(
      this,
      vsc::StorageClientOptions{
          .queue_depth = Workload::kSlots,
          .scratch = {scratch->gpa(), static_cast<uint32_t>(scratch->bytes())},
          .scratch_memory = pages_->bytes(*scratch).data()});
  bus_->AddDriver(kScsiInterface, disk_.get());
  return absl::OkStatus();
}

// Answers in, new requests out; sleeps when neither is to be had.
void Client::PumpOnce(Control* control) {
  const bool more = port_->Pump(*bus_);
  if (workload_ != nullptr) {
    if (workload_->Fill()) disk_->Publish();
    if (workload_->CheckOne()) return;
  }
  if (more) return;
  pollfd fds[] = {{port_->wait_fds()[0], POLLIN, 0},
                  {port_->wait_fds()[1], POLLIN, 0},
                  {control != nullptr ? control->fd() : -1, POLLIN, 0}};
  poll(fds, 3, 100);
}

absl::Status Client::PumpUntilReady() {
  const absl::Status connecting = bus_->Connect();
  if (!connecting.ok()) return connecting;
  while (!disk_->ready()) {
    PumpOnce(nullptr);
    if (!bus_->status().ok()) return bus_->status();
    if (!failure_.ok()) return failure_;
    if (port_->peer_gone()) return absl::AbortedError("the host is gone");
  }
  return absl::OkStatus();
}

absl::Status Client::Work(Control* control) {
  const absl::Status ready = PumpUntilReady();
  if (!ready.ok()) return ready;
  control->Send({{"event", "running"}});
  workload_ = std::make_unique<Workload>(image_, options_.seed, this);
  pollfd command = {control->fd(), POLLIN, 0};
  while (poll(&command, 1, 0) == 0) {
    PumpOnce(control);
  }
  // Read, since a socket closed with unread bytes takes our answer with it.
  const absl::Status told = control->Receive(absl::Seconds(1)).status();
  if (!told.ok()) return told;
  workload_->Drain();
  if (!DrainRequests()) {
    SendResult(control, workload_->in_flight());
    return absl::OkStatus();
  }
  workload_->ReadAll();
  int64_t deadline = NowNs() + kLostAfterNs;
  uint64_t answered = 0;
  while (!workload_->read_all_done() && NowNs() < deadline) {
    PumpOnce(nullptr);
    if (workload_->result().requests == answered) continue;
    answered = workload_->result().requests;
    deadline = NowNs() + kLostAfterNs;
  }
  SendResult(control, workload_->in_flight());
  return absl::OkStatus();
}

bool Client::DrainRequests() {
  const int64_t deadline = NowNs() + kLostAfterNs;
  while (!workload_->idle() && NowNs() < deadline) {
    PumpOnce(nullptr);
  }
  return workload_->idle();
}

bool Client::Submit(DiskOp op, uint32_t slot, uint64_t offset, uint32_t bytes) {
  const vsc::GuestBuffer buffer = {buffers_[slot].gpa(), bytes};
  vsc::StorageStart started = vsc::StorageStart::kFull;
  switch (op) {
    case DiskOp::kRead:
      started = disk_->Read(offset, {&buffer, 1}, slot);
      break;
    case DiskOp::kWrite:
      started = disk_->Write(offset, {&buffer, 1}, slot);
      break;
    case DiskOp::kFlush:
      started = disk_->Flush(slot);
      break;
  }
  return started == vsc::StorageStart::kOk;
}

void Client::OnIoDone(uint64_t cookie, const vsc::StorageIoResult& result) {
  const int64_t now = NowNs();
  if (last_done_ns_ != 0 && now - last_done_ns_ >= kGapNs) {
    gaps_.push_back({last_done_ns_, now});
  }
  last_done_ns_ = now;
  workload_->OnDone(static_cast<uint32_t>(cookie),
                    result.status == vsc::StorageIoStatus::kOk);
}

void Client::SendResult(Control* control, uint64_t lost) {
  const WorkloadResult& result = workload_->result();
  // Answers that matched no request, wherever they were noticed.
  const uint64_t duplicated = result.doubled + disk_->bad_answers() +
                              bus_->counters(disk_.get()).completions_unmatched;
  const std::string gaps_path = options_.manifest_path + ".gaps";
  std::ofstream gaps(gaps_path);
  for (const Gap& gap : gaps_)
    gaps << gap.begin_ns << " " << gap.end_ns << "\n";
  gaps.close();
  control->Send({{"event", "result"},
                 {"requests", result.requests},
                 {"lost", lost},
                 {"duplicated", duplicated},
                 {"differing", result.differing},
                 {"failed", result.failed},
                 {"verified_bytes", result.verified_bytes},
                 {"file_passes", result.file_passes},
                 {"scratch_sha256", result.scratch_sha256},
                 {"notes", result.notes},
                 {"gaps_path", gaps_path}});
}

}  // namespace

Json ManifestOf(const DiskImage& image) {
  Json files = Json::array();
  for (const ImageEntry& file : image.files) files.push_back(ExtentsOf(file));
  return {{"files", files}, {"scratch", ExtentsOf(image.scratch)}};
}

DiskImage ImageOf(const Json& manifest) {
  DiskImage image;
  for (const Json& file : manifest["files"]) {
    image.files.push_back(EntryOf(file));
  }
  image.scratch = EntryOf(manifest["scratch"]);
  return image;
}

int RunClient(const ClientOptions& options) {
  Control control((UniqueFd(kControlFd)));
  Client client(options);
  absl::Status status = client.Connect(&control);
  if (status.ok()) {
    status = control.Receive(absl::Seconds(30)).status();
  }
  if (status.ok()) status = client.Work(&control);
  if (status.ok()) return 0;
  control.Send({{"event", "failed"}, {"error", status.ToString()}});
  return 1;
}

}  // namespace ferrybus::demo
