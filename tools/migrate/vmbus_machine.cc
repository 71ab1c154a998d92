// SPDX-License-Identifier: MIT

#include "ferrybus/tools/migrate/vmbus_machine.h"

#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "ferrybus/channel/guest_memory.h"
#include "ferrybus/channel/protocols/accelerator.h"
#include "ferrybus/channel/protocols/device_classes.h"
#include "ferrybus/savestate/migration/dirty_bitmap.h"
#include "ferrybus/savestate/steady_clock.h"
#include "ferrybus/tools/migrate/guest_device.h"
#include "ferrybus/tools/migrate/guest_link.h"
#include "ferrybus/tools/migrate/vmbus_parts.h"
#include "ferrybus/vsp/bus.h"
#include "ferrybus/vsp/bus_migratable.h"
#include "ferrybus/vsp/host_port.h"
#include "ferrybus/vsp/storage/deferred_backend.h"
#include "ferrybus/vsp/storage/storage_device.h"
#include "ferrybus/vsp/virtual_function/accelerator.h"
#include "ferrybus/vsp/virtual_function/accelerator_device.h"
#include "ferrybus/vsp/virtual_function/accelerator_migratable.h"
#include "ferrybus/vsp/virtual_function/msix_table.h"

namespace ferrybus::migrate_tool {
namespace {

constexpr uint32_t kVectors = 4;
// Of the accelerator, while its thread holds the machine's lock.
constexpr uint32_t kStepsAtOnce = 256;
constexpr Guid kDiskInstance =
    GuidLiteral("b5a1f7d2-53c4-4f0e-9a53-0d1f8f4ce701");
constexpr Guid kAcceleratorInstance =
    GuidLiteral("b5a1f7d2-53c4-4f0e-9a53-0d1f8f4ce702");

absl::Span<const std::byte> BytesOf(const uint64_t& value) {
  return {reinterpret_cast<const std::byte*>(&value), sizeof(value)};
}

// Memory of another process of this host; as it has none: zeros.
struct SharedParts {
  UniqueFd ram;
  UniqueFd vram;
};

class VmbusMachine final : public Machine,
                           public vsp::BusOwner,
                           public GuestOwner {
 public:
  static absl::StatusOr<std::unique_ptr<VmbusMachine>> Make(
      const VmbusSetup& setup, const std::string& folder,
      const std::string& image_path, bool is_target, SharedParts shared = {});
  ~VmbusMachine() override;

  std::vector<migration::PendingPages*> devices() override;
  absl::Status Start() override;
  void Stop() override;
  std::string Status() const override;

  // GuestOwner.
  absl::StatusOr<bool> PauseGuest() override;
  void ResumeGuest() override;
  void RetireGuest() override;

 private:
  explicit VmbusMachine(VmbusSetup setup) : setup_(std::move(setup)) {}

  absl::Status MakeMemory(SharedParts shared);
  absl::Status MakeParts(const std::string& folder,
                         const std::string& image_path, bool is_target,
                         migration::MemoryOrigin origin);
  absl::Status MakePages(migration::MemoryOrigin origin);
  absl::Status MakeDisk(const std::string& image_path)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EnableInterrupts();
  std::vector<vsp::DeviceOffer> Offers() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void StartThread();
  void RunThread();
  // True: again at once.
  bool Turn();
  uint32_t StepsDue() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Attach() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Wake() { eventfd_write(wake_.get(), 1); }

  // vsp::BusOwner: with the mutex held.
  vsp::Bus* bus() override ABSL_NO_THREAD_SAFETY_ANALYSIS { return bus_.get(); }
  void Serve() override ABSL_NO_THREAD_SAFETY_ANALYSIS;
  absl::Status RestoreBus(absl::Span<const std::byte> saved) override
      ABSL_NO_THREAD_SAFETY_ANALYSIS;
  void DropBus() override ABSL_NO_THREAD_SAFETY_ANALYSIS;

  const VmbusSetup setup_;
  std::string image_path_;
  mutable absl::Mutex mutex_;

  // In the order of their lives.
  std::unique_ptr<MemfdGuestMemory> ram_;
  std::unique_ptr<Vram> vram_;
  CountedInterrupts interrupts_;
  std::unique_ptr<vsp::MsixTable> table_;
  std::unique_ptr<migration::DirtyBitmap> dirty_;
  std::unique_ptr<vsp::Accelerator> accelerator_;
  LateDoorbell doorbell_;
  std::unique_ptr<GuestLink> link_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<vsp::HostPort> port_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<vsp::StorageDevice> disk_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<vsp::AcceleratorDevice> queue_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<vsp::Bus> bus_ ABSL_GUARDED_BY(mutex_);

  std::unique_ptr<GuestDevice> guest_device_;
  std::unique_ptr<vsp::AcceleratorMigratable> accelerator_device_;
  std::unique_ptr<vsp::BusMigratable> bus_device_;
  std::vector<std::unique_ptr<migration::PendingPages>> pages_;

  UniqueFd wake_;
  bool is_running_ ABSL_GUARDED_BY(mutex_) = false;  // takes guests
  absl::Time steps_counted_ ABSL_GUARDED_BY(mutex_);
  double steps_due_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status last_problem_ ABSL_GUARDED_BY(mutex_);
  std::atomic<bool> is_stopping_{false};
  std::thread thread_;
};

// ---- Making one

absl::StatusOr<std::unique_ptr<VmbusMachine>> VmbusMachine::Make(
    const VmbusSetup& setup, const std::string& folder,
    const std::string& image_path, bool is_target, SharedParts shared) {
  auto machine = absl::WrapUnique(new VmbusMachine(setup));
  const migration::MemoryOrigin origin =
      shared.ram.valid() || shared.vram.valid()
          ? migration::MemoryOrigin::kUnknown
          : migration::MemoryOrigin::kZeros;
  absl::Status status = machine->MakeMemory(std::move(shared));
  if (!status.ok()) return status;
  status = machine->MakeParts(folder, image_path, is_target, origin);
  if (!status.ok()) return status;
  machine->StartThread();
  return machine;
}

absl::Status VmbusMachine::MakeMemory(SharedParts shared) {
  auto ram = shared.ram.valid() ? MemfdGuestMemory::Map(std::move(shared.ram))
                                : MemfdGuestMemory::Create(setup_.ram_bytes);
  if (!ram.ok()) return ram.status();
  ram_ = *std::move(ram);
  auto vram = shared.vram.valid()
                  ? Vram::Map(std::move(shared.vram), setup_.vram_bytes)
                  : Vram::Make(setup_.vram_bytes);
  if (!vram.ok()) return vram.status();
  vram_ = *std::move(vram);
  if (!ram_->Translate(0, setup_.ram_bytes).empty()) return absl::OkStatus();
  return absl::FailedPreconditionError("RAM is smaller than the machine's");
}

absl::Status VmbusMachine::MakeParts(const std::string& folder,
                                     const std::string& image_path,
                                     bool is_target,
                                     migration::MemoryOrigin origin) {
  image_path_ = image_path;
  wake_ = UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));

  absl::MutexLock lock(&mutex_);
  auto link = GuestLink::Listen(absl::StrCat(folder, "/guest.sock"));
  if (!link.ok()) return link.status();
  link_ = *std::move(link);
  table_ = std::make_unique<vsp::MsixTable>(
      vsp::MsixOptions{.vectors = kVectors}, &interrupts_, &interrupts_);
  dirty_ = std::make_unique<migration::DirtyBitmap>(
      std::vector<migration::DirtySegment>{
          {.id = 1, .size_bytes = setup_.vram_bytes}});
  accelerator_ = std::make_unique<vsp::Accelerator>(
      vsp::AcceleratorOptions{.segments = {{.id = 1,
                                            .memory = vram_->memory(),
                                            .file = vram_->file()}},
                              .on_work = [this] { Wake(); }},
      table_.get(), dirty_.get());
  absl::Status status = MakeDisk(image_path);
  if (!status.ok()) return status;
  queue_ = std::make_unique<vsp::AcceleratorDevice>(accelerator_.get());

  guest_device_ = std::make_unique<GuestDevice>(
      this, VmbusSetupText(setup_), ram_->Translate(0, setup_.ram_bytes),
      ram_->file());
  accelerator_device_ = std::make_unique<vsp::AcceleratorMigratable>(
      vsp::AcceleratorMigratableOptions{},
      vsp::VirtualFunctionParts{.accelerator = accelerator_.get(),
                                .interrupts = table_.get(),
                                .dirty = dirty_.get()});
  vsp::BusMigratableOptions bus_options = {.guest_pages = ram_->page_count(),
                                           .offers = {}};
  for (const vsp::DeviceOffer& offer : Offers()) {
    bus_options.offers.push_back(offer.params);
  }
  bus_device_ =
      std::make_unique<vsp::BusMigratable>("vmbus", bus_options, this, &mutex_);
  status = MakePages(origin);
  if (!status.ok() || is_target) return status;
  bus_ = std::make_unique<vsp::Bus>(vsp::BusOptions(), ram_.get(), &doorbell_);
  for (const vsp::DeviceOffer& offer : Offers()) {
    absl::Status offered = bus_->Offer(offer.params, offer.device).status();
    if (!offered.ok()) return offered;
  }
  EnableInterrupts();
  return table_->Resume();
}

absl::Status VmbusMachine::MakePages(migration::MemoryOrigin origin) {
  for (migration::Migratable* device :
       std::initializer_list<migration::Migratable*>{
           guest_device_.get(), accelerator_device_.get(), bus_device_.get()}) {
    auto pages = migration::PendingPages::Create(device, origin);
    if (!pages.ok()) return pages.status();
    pages_.push_back(*std::move(pages));
  }
  return absl::OkStatus();
}

absl::Status VmbusMachine::MakeDisk(const std::string& image_path) {
  auto backend = vsp::DeferredBackend::Create(image_path, {});
  if (!backend.ok()) return backend.status();
  auto disk = vsp::StorageDevice::Create(*std::move(backend),
                                         {.serial = "ferrybus-migrated"});
  if (!disk.ok()) return disk.status();
  disk_ = *std::move(disk);
  return absl::OkStatus();
}

// What a driver would do through the function's memory.
void VmbusMachine::EnableInterrupts() {
  for (uint32_t vector = 0; vector < kVectors; ++vector) {
    const uint64_t address = 0xfee00000;
    const uint64_t data = 0x40 + vector;  // and unmasked
    const uint64_t offset = uint64_t{vector} * 16;
    (void)table_->WriteTable(offset, BytesOf(address));
    (void)table_->WriteTable(offset + 8, BytesOf(data));
  }
  (void)table_->WriteControl(vsp::MsixTable::kEnable);
}

std::vector<vsp::DeviceOffer> VmbusMachine::Offers() {
  OfferParams disk;
  disk.interface_type = kScsiInterface;
  disk.interface_instance = kDiskInstance;
  OfferParams accelerator;
  accelerator.interface_type = accelerator::kInterface;
  accelerator.interface_instance = kAcceleratorInstance;
  return {{disk, disk_.get()}, {accelerator, queue_.get()}};
}

VmbusMachine::~VmbusMachine() {
  is_stopping_.store(true);
  Wake();
  if (thread_.joinable()) thread_.join();
  pages_.clear();
  absl::MutexLock lock(&mutex_);
  doorbell_.Connect(nullptr);
  bus_ = nullptr;
  queue_ = nullptr;
  disk_ = nullptr;
}

std::vector<migration::PendingPages*> VmbusMachine::devices() {
  std::vector<migration::PendingPages*> devices;
  for (const auto& pages : pages_) devices.push_back(pages.get());
  return devices;
}

absl::Status VmbusMachine::Start() {
  absl::MutexLock lock(&mutex_);
  is_running_ = true;
  Wake();
  return absl::OkStatus();
}

void VmbusMachine::Stop() {
  absl::MutexLock lock(&mutex_);
  is_running_ = false;
  accelerator_->SetHold(vsp::Accelerator::kOverlay, true);
}

std::string VmbusMachine::Status() const {
  absl::MutexLock lock(&mutex_);
  const bool has_guest = link_->has_guest();
  return absl::StrCat(is_running_ ? "running" : "standing",
                      has_guest ? ", with its guest" : ", no guest", ", ",
                      interrupts_.sent(), " interrupts",
                      last_problem_.ok() ? "" : ", ",
                      last_problem_.ok() ? "" : last_problem_.ToString());
}

// ---- The thread

void VmbusMachine::StartThread() {
  thread_ = std::thread([this] { RunThread(); });
}

void VmbusMachine::RunThread() {
  while (!is_stopping_.load()) {
    if (Turn()) continue;
    std::vector<pollfd> fds = {{wake_.get(), POLLIN, 0}};
    {
      absl::MutexLock lock(&mutex_);
      for (int fd : link_->wait_fds()) fds.push_back({fd, POLLIN, 0});
      if (disk_ != nullptr) fds.push_back({disk_->wait_fd(), POLLIN, 0});
      if (bus_ != nullptr) fds.push_back({bus_->wake_fd(), POLLIN, 0});
      if (port_ != nullptr) {
        for (int fd : port_->wait_fds()) fds.push_back({fd, POLLIN, 0});
      }
    }
    // Short where the accelerator's clock has to be looked at, or where a
    // descriptor stays readable while everything is paused.
    poll(fds.data(), fds.size(), 1);
    eventfd_t ignored = 0;
    eventfd_read(wake_.get(), &ignored);
  }
}

bool VmbusMachine::Turn() {
  absl::MutexLock lock(&mutex_);
  link_->Poll();
  if (port_ != nullptr && !link_->has_guest()) {
    doorbell_.Connect(nullptr);
    port_ = nullptr;
  }
  if (is_running_ && port_ == nullptr) Attach();
  const uint32_t steps = StepsDue();
  const uint32_t done = accelerator_->Run(steps);
  steps_due_ -= done;
  if (bus_ == nullptr || bus_device_->is_frozen()) return false;
  disk_->Poll();
  const bool more = port_ != nullptr ? port_->Pump(*bus_) : bus_->Poll();
  return more || (done > 0 && done == steps);
}

uint32_t VmbusMachine::StepsDue() {
  if (setup_.steps_per_second == 0) return steps_due_ = 0, kStepsAtOnce;
  const absl::Time now = savestate::SteadyNow();
  const double rate = static_cast<double>(setup_.steps_per_second);
  // What was not used within a tenth of a second is lost.
  steps_due_ =
      std::min(steps_due_ + absl::ToDoubleSeconds(now - steps_counted_) * rate,
               rate / 10);
  steps_counted_ = now;
  return static_cast<uint32_t>(
      std::clamp(steps_due_, 0.0, static_cast<double>(kStepsAtOnce)));
}

void VmbusMachine::Attach() {
  absl::StatusOr<Port> port = link_->Accept(ram_->file());
  if (!port.ok()) return;
  auto opened = vsp::HostPort::Open(*std::move(port));
  if (!opened.ok()) {
    last_problem_ = opened.status();
    return link_->Drop();
  }
  port_ = *std::move(opened);
  doorbell_.Connect(port_->doorbell());
}

// ---- Moving

absl::StatusOr<bool> VmbusMachine::PauseGuest() {
  absl::MutexLock lock(&mutex_);
  is_running_ = false;  // a guest that comes now must wait
  return link_->Pause();
}

void VmbusMachine::ResumeGuest() {
  absl::MutexLock lock(&mutex_);
  is_running_ = true;
  link_->Resume();
  Wake();
}

void VmbusMachine::RetireGuest() {
  absl::MutexLock lock(&mutex_);
  is_running_ = false;
  link_->Drop();
}

void VmbusMachine::Serve() {
  disk_->Poll();
  if (port_ != nullptr) {
    port_->Pump(*bus_);
  } else {
    bus_->Poll();
  }
}

absl::Status VmbusMachine::RestoreBus(absl::Span<const std::byte> saved) {
  auto bus = vsp::Bus::Restore(saved, vsp::BusOptions(), ram_.get(), &doorbell_,
                               Offers());
  if (!bus.ok()) return bus.status();
  bus_ = *std::move(bus);
  return absl::OkStatus();
}

void VmbusMachine::DropBus() {
  doorbell_.Connect(nullptr);
  bus_ = nullptr;
  // Waits for the disk's I/O, and lets go of the image.
  disk_ = nullptr;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Machine>> VmbusKind::CreateNew(
    const std::string&, const std::string& folder,
    const std::map<std::string, std::string>& parameters) {
  absl::StatusOr<VmbusSetup> setup = ParseVmbusSetup(parameters);
  if (!setup.ok()) return setup.status();
  return VmbusMachine::Make(
      *setup, folder, absl::StrCat(images_folder_, "/", setup->image), false);
}

absl::StatusOr<std::unique_ptr<Machine>> VmbusKind::Attach(
    const std::string& machine, const std::string&) {
  return absl::UnavailableError(absl::StrCat(
      machine, ": a vmbus machine's memory ended with its process"));
}

bool VmbusKind::Takes(const migration::Hello& hello) const {
  return hello.devices.size() == 3 && hello.devices[0].name == "guest" &&
         hello.devices[1].name == "accelerator" &&
         hello.devices[2].name == "vmbus";
}

absl::StatusOr<std::unique_ptr<Machine>> VmbusKind::CreateTarget(
    const std::string& folder, const migration::Hello& hello,
    std::vector<UniqueFd> shared, bool is_recovery) {
  if (is_recovery) return Attach(hello.machine, folder);
  absl::StatusOr<VmbusSetup> setup =
      ParseVmbusSetup(hello.devices[0].creation_parameters);
  if (!setup.ok()) return setup.status();
  // In the order of the devices.
  SharedParts parts;
  size_t next = 0;
  for (size_t device : {0, 1}) {
    const auto& segments = hello.devices[device].segments;
    if (segments.size() != 1 || !segments[0].is_shared) continue;
    (device == 0 ? parts.ram : parts.vram) = std::move(shared[next++]);
  }
  return VmbusMachine::Make(*setup, folder,
                            absl::StrCat(images_folder_, "/", setup->image),
                            /*is_target=*/true, std::move(parts));
}

}  // namespace ferrybus::migrate_tool
