// SPDX-License-Identifier: MIT

#include "ferrybus/tools/migrate/machine_store.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace ferrybus::migrate_tool {
namespace {

namespace fs = std::filesystem;
using migration::Ownership;
using migration::OwnershipRecord;

constexpr size_t kMachinesMax = 1024;

// What may be the name of a folder.
absl::Status CheckName(const std::string& name) {
  const bool is_good =
      !name.empty() && name.size() <= 64 && name[0] != '.' &&
      std::all_of(name.begin(), name.end(), [](char c) {
        return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' ||
               c == '_' || c == '.';
      });
  if (is_good) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "a machine's name has 1 to 64 letters, digits, '-', '_' and '.', and "
      "does not begin with '.'");
}

absl::Status MakeFolder(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (!error) {
    fs::permissions(path, fs::perms::owner_all, error);
  }
  if (!error) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(path, ": ", error.message()));
}

std::string ReadLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

}  // namespace

// ---- A slot

absl::Status MachineStore::Slot::Open() {
  absl::Status status = MakeFolder(folder_ + "/data");
  if (!status.ok()) return status;
  auto ledger = migration::FileLedger::Open(folder_ + "/ledger");
  if (!ledger.ok()) return ledger.status();
  ledger_ = std::make_unique<migration::LockedLedger>(*std::move(ledger));
  kind_ = ReadLine(folder_ + "/kind");
  return absl::OkStatus();
}

absl::StatusOr<std::vector<migration::Migratable*>>
MachineStore::Slot::CreateDevices(const migration::Hello& hello,
                                  std::vector<int> descriptors,
                                  bool is_recovery) {
  std::vector<UniqueFd> shared;
  shared.reserve(descriptors.size());
  for (int each : descriptors) shared.emplace_back(each);
  MachineKind* kind = nullptr;
  for (MachineKind* each : store_->kinds_) {
    if (each->Takes(hello)) kind = each;
  }
  if (kind == nullptr) {
    return absl::UnimplementedError(
        absl::StrCat("this host has no kind of machine for ", hello.machine));
  }
  absl::MutexLock lock(&store_->mutex_);
  machine_.reset();
  absl::StatusOr<std::unique_ptr<Machine>> machine = kind->CreateTarget(
      folder_ + "/data", hello, std::move(shared), is_recovery);
  if (!machine.ok()) return machine.status();
  machine_ = *std::move(machine);
  kind_ = kind->name();
  std::ofstream(folder_ + "/kind") << kind_ << '\n';
  std::vector<migration::Migratable*> devices;
  for (migration::PendingPages* pages : machine_->devices()) {
    devices.push_back(&pages->device());
  }
  return devices;
}

void MachineStore::Slot::DestroyDevices() {
  absl::MutexLock lock(&store_->mutex_);
  machine_.reset();
}

// ---- The store

MachineStore::MachineStore(const std::string& folder,
                           std::vector<MachineKind*> kinds)
    : folder_(folder), kinds_(std::move(kinds)) {}

MachineStore::~MachineStore() = default;

MachineKind* MachineStore::FindKind(const std::string& kind) const {
  for (MachineKind* each : kinds_) {
    if (each->name() == kind) return each;
  }
  return nullptr;
}

absl::StatusOr<MachineStore::Slot*> MachineStore::FindOrMake(
    const std::string& machine) {
  auto found = slots_.find(machine);
  if (found != slots_.end()) return found->second.get();
  absl::Status status = CheckName(machine);
  if (!status.ok()) return status;
  if (slots_.size() >= kMachinesMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat("at most ", kMachinesMax, " machines"));
  }
  auto slot = std::make_unique<Slot>(this, machine,
                                     absl::StrCat(folder_, "/", machine));
  status = slot->Open();
  if (!status.ok()) {
    return absl::Status(status.code(),
                        absl::StrCat(machine, ": ", status.message()));
  }
  Slot* const made = slot.get();
  slots_[machine] = std::move(slot);
  return made;
}

absl::Status MachineStore::Load(Slot& slot) {
  MachineKind* const kind = FindKind(slot.kind_);
  if (kind == nullptr) {
    return absl::DataLossError(
        absl::StrCat(slot.name_, " is ours, and of unknown kind '", slot.kind_,
                     "': see ", slot.folder_, "/kind"));
  }
  absl::StatusOr<std::unique_ptr<Machine>> machine =
      kind->Attach(slot.name_, slot.folder_ + "/data");
  if (!machine.ok()) return machine.status();
  slot.machine_ = *std::move(machine);
  return slot.machine_->Start();
}

absl::StatusOr<std::vector<std::string>> MachineStore::LoadAll() {
  absl::Status status = MakeFolder(folder_);
  if (!status.ok()) return status;
  std::vector<std::string> prepared;
  std::error_code error;
  absl::MutexLock lock(&mutex_);
  for (const fs::directory_entry& entry :
       fs::directory_iterator(folder_, error)) {
    const std::string name = entry.path().filename();
    if (!entry.is_directory() || !CheckName(name).ok()) continue;
    absl::StatusOr<Slot*> slot = FindOrMake(name);
    if (!slot.ok()) return slot.status();
    absl::StatusOr<OwnershipRecord> record = (*slot)->ledger_->Load();
    if (!record.ok()) return record.status();
    if (record->state == Ownership::kPrepared) prepared.push_back(name);
    if (record->state != Ownership::kOwner) continue;
    status = Load(**slot);
    if (!status.ok()) return status;
  }
  if (error) {
    return absl::InternalError(absl::StrCat(folder_, ": ", error.message()));
  }
  return prepared;
}

absl::Status MachineStore::Create(
    const std::string& machine, const std::string& kind,
    const std::map<std::string, std::string>& parameters) {
  MachineKind* const found = FindKind(kind);
  if (found == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(machine, ": there is no kind '", kind, "'"));
  }
  absl::MutexLock lock(&mutex_);
  absl::StatusOr<Slot*> slot = FindOrMake(machine);
  if (!slot.ok()) return slot.status();
  absl::StatusOr<OwnershipRecord> record = (*slot)->ledger_->Load();
  if (!record.ok()) return record.status();
  if (record->epoch != 0) return absl::OkStatus();  // it has a history
  absl::StatusOr<std::unique_ptr<Machine>> made =
      found->CreateNew(machine, (*slot)->folder_ + "/data", parameters);
  if (!made.ok()) return made.status();
  (*slot)->kind_ = kind;
  std::ofstream((*slot)->folder_ + "/kind") << kind << '\n';
  absl::Status status = (*slot)->ledger_->Store({.state = Ownership::kOwner,
                                                 .epoch = 1,
                                                 .migration_id = {},
                                                 .peer = {},
                                                 .messages = {}});
  if (!status.ok()) return status;
  (*slot)->machine_ = *std::move(made);
  return (*slot)->machine_->Start();
}

void MachineStore::StopAll() {
  absl::MutexLock lock(&mutex_);
  for (auto& [unused, slot] : slots_) {
    if (slot->machine_ != nullptr) slot->machine_->Stop();
  }
}

absl::StatusOr<MachineStore::Departure> MachineStore::BeginDeparture(
    const std::string& machine) {
  absl::MutexLock lock(&mutex_);
  auto found = slots_.find(machine);
  if (found == slots_.end() || found->second->machine_ == nullptr) {
    return absl::NotFoundError(
        absl::StrCat("machine '", machine, "' does not run here"));
  }
  Slot& slot = *found->second;
  if (slot.is_moving_) {
    return absl::FailedPreconditionError(
        absl::StrCat(machine, " is in another migration already"));
  }
  slot.is_moving_ = true;
  return Departure{.devices = slot.machine_->devices(),
                   .ledger = slot.ledger_.get()};
}

void MachineStore::EndDeparture(const std::string& machine, bool is_gone) {
  absl::MutexLock lock(&mutex_);
  Slot& slot = *slots_[machine];
  slot.is_moving_ = false;
  if (is_gone) slot.machine_.reset();
}

std::vector<MachineStore::Entry> MachineStore::List() {
  absl::MutexLock lock(&mutex_);
  std::vector<Entry> entries;
  for (auto& [name, slot] : slots_) {
    Entry entry = {
        .name = name, .kind = slot->kind_, .record = {}, .status = {}};
    absl::StatusOr<OwnershipRecord> record = slot->ledger_->Load();
    if (record.ok()) {
      entry.record = *std::move(record);
    } else {
      entry.status = std::string(record.status().message());
    }
    if (slot->machine_ != nullptr) entry.status = slot->machine_->Status();
    entries.push_back(std::move(entry));
  }
  return entries;
}

// ---- MachineRegistry

absl::StatusOr<migration::MachineRegistry::Arrival> MachineStore::BeginArrival(
    const std::string& machine) {
  absl::MutexLock lock(&mutex_);
  absl::StatusOr<Slot*> slot = FindOrMake(machine);
  if (!slot.ok()) return slot.status();
  if ((*slot)->is_moving_ || (*slot)->machine_ != nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat(machine, " is at this host already"));
  }
  (*slot)->is_moving_ = true;
  return Arrival{.host = *slot, .ledger = (*slot)->ledger_.get()};
}

void MachineStore::EndArrival(const std::string& machine, bool /*is_running*/) {
  absl::MutexLock lock(&mutex_);
  slots_[machine]->is_moving_ = false;
}

absl::StatusOr<migration::OwnershipLedger*> MachineStore::FindLedger(
    const std::string& machine) {
  absl::MutexLock lock(&mutex_);
  auto found = slots_.find(machine);
  if (found != slots_.end()) return found->second->ledger_.get();
  return absl::NotFoundError(
      absl::StrCat("this host knows no machine '", machine, "'"));
}

}  // namespace ferrybus::migrate_tool
