// SPDX-License-Identifier: MIT

#include "ferrybus/examples/demo/roaming_client.h"

#include <poll.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ferrybus/channel/protocols/accelerator.h"
#include "ferrybus/channel/protocols/device_classes.h"
#include "ferrybus/examples/demo/client.h"
#include "ferrybus/examples/demo/control.h"
#include "ferrybus/examples/demo/roaming_port.h"
#include "ferrybus/examples/demo/workload.h"
#include "ferrybus/vsc/accelerator/accelerator_client.h"
#include "ferrybus/vsc/bus.h"
#include "ferrybus/vsc/guest_pages.h"
#include "ferrybus/vsc/storage/storage_client.h"

namespace ferrybus::demo {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(60);
constexpr int64_t kLostAfterNs = int64_t{20} * 1'000'000'000;
// The accelerator is asked for large pieces of work, so that its memory, not
// its channel, is what the load is about.
constexpr uint64_t kCommandBytesMax = uint64_t{256} << 10;
constexpr uint32_t kCommandDepth = 8;

class RoamingClient final : public DiskQueue,
                            public vsc::StorageClient::Events {
 public:
  explicit RoamingClient(const RoamingClientOptions& options)
      : options_(options) {}

  absl::Status Connect();
  absl::Status Work(Control* control);

 private:
  absl::Status PumpUntilReady();
  void Turn();
  // Until nothing is under way; false: something is lost.
  template <typename Done>
  bool TurnUntil(Done done);
  Json Result() const;

  // DiskQueue.
  bool Submit(DiskOp op, uint32_t slot, uint64_t offset,
              uint32_t bytes) override;
  absl::Span<std::byte> buffer(uint32_t slot) override {
    return pages_->bytes(buffers_[slot]);
  }
  // StorageClient::Events.
  void OnFailed(const absl::Status& status) override { failure_ = status; }
  void OnIoDone(uint64_t cookie, const vsc::StorageIoResult& result) override;

  const RoamingClientOptions& options_;
  DiskImage image_;
  std::unique_ptr<RoamingPort> port_;
  std::unique_ptr<vsc::GuestPages> pages_;
  std::unique_ptr<vsc::Bus> bus_;
  std::unique_ptr<vsc::StorageClient> disk_;
  std::unique_ptr<vsc::AcceleratorClient> accelerator_;
  std::unique_ptr<Workload> workload_;
  std::vector<vsc::PageRun> buffers_;
  absl::Status failure_;
  // What a move is to the client: from the last answer before it to the first
  // after it.
  uint64_t moves_seen_ = 0;
  int64_t last_done_ns_ = 0;
  std::vector<int64_t> pauses_ns_;
};

absl::Status RoamingClient::Connect() {
  image_ = ImageOf(Json::parse(std::ifstream(options_.manifest_path)));
  auto port = RoamingPort::Open(options_.sockets, kPatience);
  if (!port.ok()) return port.status();
  port_ = *std::move(port);
  pages_ = std::make_unique<vsc::GuestPages>(port_->memory());
  const absl::StatusOr<vsc::PageRun> scratch = pages_->Allocate(4);
  if (!scratch.ok()) return scratch.status();
  for (uint32_t slot = 0; slot < Workload::kSlots; ++slot) {
    const absl::StatusOr<vsc::PageRun> run =
        pages_->Allocate(Workload::kBufferBytes / 4096);
    if (!run.ok()) return run.status();
    buffers_.push_back(*run);
  }
  bus_ = std::make_unique<vsc::Bus>(vsc::BusOptions(), port_->memory(),
                                    pages_.get(), port_->doorbell());
  disk_ = std::make_unique<vsc::StorageClient>(
      this,
      vsc::StorageClientOptions{
          .queue_depth = Workload::kSlots,
          .scratch = {scratch->gpa(), static_cast<uint32_t>(scratch->bytes())},
          .scratch_memory = pages_->bytes(*scratch).data()});
  accelerator_ =
      std::make_unique<vsc::AcceleratorClient>(vsc::AcceleratorClientOptions{
          .seed = options_.seed,
          .depth = kCommandDepth,
          .random = {.segments = {{1, options_.vram_bytes}},
                     .vectors = 4,
                     .size_bytes_max = kCommandBytesMax,
                     .guest_bytes_max = 0}});
  bus_->AddDriver(kScsiInterface, disk_.get());
  bus_->AddDriver(accelerator::kInterface, accelerator_.get());
  return PumpUntilReady();
}

absl::Status RoamingClient::PumpUntilReady() {
  const absl::Status connecting = bus_->Connect();
  if (!connecting.ok()) return connecting;
  const int64_t deadline = NowNs() + kLostAfterNs;
  while (!disk_->ready() || accelerator_->counters().answered == 0) {
    Turn();
    if (!bus_->status().ok()) return bus_->status();
    if (!failure_.ok()) return failure_;
    if (NowNs() > deadline) {
      return absl::DeadlineExceededError("the devices do not answer");
    }
  }
  return absl::OkStatus();
}

void RoamingClient::Turn() {
  const bool more = port_->Pump(*bus_);
  if (!port_->stands_still() && workload_ != nullptr) {
    if (workload_->Fill()) disk_->Publish();
    if (workload_->CheckOne()) return;
  }
  if (!more) port_->Wait();
}

template <typename Done>
bool RoamingClient::TurnUntil(Done done) {
  int64_t deadline = NowNs() + kLostAfterNs;
  uint64_t answered = 0;
  while (!done() && NowNs() < deadline) {
    Turn();
    const uint64_t now =
        workload_->result().requests + accelerator_->counters().answered;
    if (now == answered) continue;
    answered = now;
    deadline = NowNs() + kLostAfterNs;
  }
  return done();
}

absl::Status RoamingClient::Work(Control* control) {
  control->Send({{"event", "running"}});
  workload_ = std::make_unique<Workload>(image_, options_.seed, this);
  pollfd command = {control->fd(), POLLIN, 0};
  while (poll(&command, 1, 0) == 0) {
    Turn();
    if (port_->is_lost()) {
      return absl::UnavailableError("the machine was not found again");
    }
  }
  const absl::Status told = control->Receive(absl::Seconds(1)).status();
  if (!told.ok()) return told;
  workload_->Drain();
  accelerator_->Stop();
  if (TurnUntil([&] {
        return workload_->idle() && accelerator_->in_flight() == 0;
      })) {
    workload_->ReadAll();
    TurnUntil([&] { return workload_->read_all_done(); });
  }
  control->Send(Result());
  return absl::OkStatus();
}

bool RoamingClient::Submit(DiskOp op, uint32_t slot, uint64_t offset,
                           uint32_t bytes) {
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

void RoamingClient::OnIoDone(uint64_t cookie,
                             const vsc::StorageIoResult& result) {
  const int64_t now = NowNs();
  if (moves_seen_ != port_->moves()) {
    moves_seen_ = port_->moves();
    pauses_ns_.push_back(now - last_done_ns_);
  }
  last_done_ns_ = now;
  workload_->OnDone(static_cast<uint32_t>(cookie),
                    result.status == vsc::StorageIoStatus::kOk);
}

Json RoamingClient::Result() const {
  const WorkloadResult& disk = workload_->result();
  const vsc::AcceleratorClientCounters& commands = accelerator_->counters();
  return {{"event", "result"},
          {"requests", disk.requests},
          {"lost", workload_->in_flight()},
          {"duplicated", disk.doubled + disk_->bad_answers() +
                             bus_->counters(disk_.get()).completions_unmatched},
          {"differing", disk.differing},
          {"failed", disk.failed},
          {"verified_bytes", disk.verified_bytes},
          {"scratch_sha256", disk.scratch_sha256},
          {"notes", disk.notes},
          {"commands", commands.answered},
          {"commands_lost", commands.lost + accelerator_->in_flight()},
          {"commands_duplicated", commands.doubled},
          {"commands_wrong", commands.wrong + commands.out_of_order},
          {"first_difference", accelerator_->first_difference()},
          {"moves", port_->moves()},
          {"pauses_ns", pauses_ns_}};
}

}  // namespace

int RunRoamingClient(const RoamingClientOptions& options) {
  Control control((UniqueFd(kControlFd)));
  RoamingClient client(options);
  absl::Status status = client.Connect();
  if (status.ok()) status = client.Work(&control);
  if (status.ok()) return 0;
  control.Send({{"event", "failed"}, {"error", status.ToString()}});
  return 1;
}

}  // namespace ferrybus::demo
