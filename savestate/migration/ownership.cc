// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/migration/ownership.h"

#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "ferrybus/savestate/frame.h"
#include "ferrybus/savestate/migration/migration.pb.h"
#include "ferrybus/savestate/migration/migration_messages.h"
#include "ferrybus/savestate/proto_limits.h"

namespace ferrybus::migration {
namespace {

constexpr char kSection[] = "ownership";

absl::Status Corrupt(absl::string_view what) {
  return absl::DataLossError(absl::StrCat("ownership record: ", what));
}

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

absl::Status Check(const OwnershipRecord& record) {
  const bool has_id = record.state == Ownership::kPrepared ||
                      record.state == Ownership::kHandedOver;
  if (record.migration_id.size() != (has_id ? kIdSizeBytes : 0)) {
    return Corrupt(absl::StrCat("a migration id of ",
                                record.migration_id.size(), " bytes in state ",
                                OwnershipName(record.state)));
  }
  if (record.epoch == 0 && record.state != Ownership::kNone) {
    return Corrupt("epoch 0");
  }
  if (record.messages.empty() == (record.state == Ownership::kPrepared)) {
    return Corrupt(absl::StrCat(record.messages.size(), " messages in state ",
                                OwnershipName(record.state)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::string_view OwnershipName(Ownership ownership) {
  switch (ownership) {
    case Ownership::kNone:
      return "none";
    case Ownership::kOwner:
      return "owner";
    case Ownership::kPrepared:
      return "prepared";
    case Ownership::kHandedOver:
      return "handed over";
  }
  return "unknown";
}

Decision Decide(const OwnershipRecord& record, absl::string_view migration_id,
                absl::string_view running) {
  // First of all: what a failed Store() left behind is no decision while the
  // source still tries to take it back.
  if (migration_id == running) return Decision::kUndecided;
  if (record.state == Ownership::kHandedOver &&
      record.migration_id == migration_id) {
    return Decision::kCommitted;
  }
  // A host that never had the machine, or lost its ledger, knows nothing.
  if (record == OwnershipRecord()) return Decision::kUndecided;
  return Decision::kAborted;
}

std::string SerializeOwnership(const OwnershipRecord& record) {
  v1::OwnershipRecord message;
  message.set_state(static_cast<v1::OwnershipRecord::State>(record.state));
  message.set_epoch(record.epoch);
  message.set_migration_id(record.migration_id);
  message.set_peer(record.peer);
  for (const std::string& bytes : record.messages) {
    message.add_messages(bytes);
  }
  return savestate::SerializeDeterministic(message);
}

absl::StatusOr<OwnershipRecord> ParseOwnership(
    absl::Span<const std::byte> bytes) {
  v1::OwnershipRecord message;
  savestate::ProtoLimits limits;
  limits.bytes_max = uint64_t{512} << 20;
  absl::Status status =
      savestate::ParseBounded(bytes, limits, &message, "ownership record");
  if (!status.ok()) return status;
  if (message.state() < v1::OwnershipRecord::STATE_NONE ||
      message.state() > v1::OwnershipRecord::STATE_HANDED_OVER) {
    return Corrupt(absl::StrCat("state ", message.state()));
  }
  OwnershipRecord record = {.state = static_cast<Ownership>(message.state()),
                            .epoch = message.epoch(),
                            .migration_id = message.migration_id(),
                            .peer = message.peer(),
                            .messages = {}};
  for (std::string& saved : *message.mutable_messages()) {
    record.messages.push_back(std::move(saved));
  }
  status = Check(record);
  if (!status.ok()) return status;
  return record;
}

absl::StatusOr<std::unique_ptr<FileLedger>> FileLedger::Open(
    const std::string& folder, savestate::FileSystem& file_system) {
  auto ledger = absl::WrapUnique(new FileLedger(folder, file_system));
  absl::Status status = ledger->Reopen();
  if (!status.ok()) return status;
  return ledger;
}

absl::Status FileLedger::Reopen() {
  folder_.reset();  // its lock
  absl::StatusOr<savestate::CheckpointFolder> folder =
      savestate::CheckpointFolder::Open(path_, {}, *file_system_);
  if (!folder.ok()) return folder.status();
  folder_ = std::make_unique<savestate::CheckpointFolder>(*std::move(folder));
  return absl::OkStatus();
}

absl::StatusOr<OwnershipRecord> FileLedger::Load() {
  if (folder_ == nullptr) {
    absl::Status status = Reopen();
    if (!status.ok()) return status;
  }
  absl::StatusOr<savestate::LoadedCheckpoint> loaded = folder_->LoadNewest();
  if (absl::IsNotFound(loaded.status())) return OwnershipRecord();
  if (!loaded.ok()) return loaded.status();
  // An older record would be a lie about who owns the machine.
  if (!loaded->refused.empty()) {
    return Corrupt(absl::StrCat("generation ",
                                loaded->refused.front().generation, ": ",
                                loaded->refused.front().reason.message()));
  }
  absl::StatusOr<savestate::Frame> frame =
      savestate::Frame::Parse(AsBytes(loaded->bytes));
  if (!frame.ok()) return frame.status();
  absl::StatusOr<std::vector<savestate::Section>> skipped =
      savestate::CheckKnownSections(*frame, {{.name = kSection}});
  if (!skipped.ok()) return skipped.status();
  const savestate::Section* section = frame->Find(kSection);
  if (section == nullptr) return Corrupt("the section is missing");
  // Here, and not in Store(): a paused machine's clients wait for that.  A
  // migration begins with a Load().
  folder_->RemoveOld();
  return ParseOwnership(section->body);
}

absl::Status FileLedger::Store(const OwnershipRecord& record) {
  absl::Status status = Check(record);
  if (!status.ok()) return status;
  if (folder_ == nullptr) {
    status = Reopen();
    if (!status.ok()) return status;
    // What is written becomes newer than all that is there.
    absl::StatusOr<OwnershipRecord> newest = Load();
    if (!newest.ok()) return newest.status();
  }
  savestate::FrameWriter writer;
  writer.AddSection(kSection, 0, 1, savestate::SectionKind::kRequired,
                    SerializeOwnership(record));
  absl::StatusOr<std::string> bytes = writer.Finish();
  if (!bytes.ok()) return bytes.status();
  absl::StatusOr<uint64_t> generation = folder_->WriteAndKeep(AsBytes(*bytes));
  if (generation.ok()) return absl::OkStatus();
  folder_.reset();  // a failed sync is final for it
  return generation.status();
}

}  // namespace ferrybus::migration
