// SPDX-License-Identifier: MIT

#include "ferrybus/tools/state/state_upgrade.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "ferrybus/savestate/frame.h"
#include "ferrybus/savestate/proto_limits.h"
#include "ferrybus/tools/state/state_diff.h"
#include "ferrybus/tools/state/state_sections.h"

namespace ferrybus::state_tool {
namespace {

using savestate::Frame;
using savestate::Section;

absl::Status CheckIsUpgradable(absl::Span<const std::byte> bytes,
                               const Frame& frame,
                               const CheckOptions& options) {
  const Findings findings = CheckState(bytes, options);
  for (const Finding& finding : findings.list()) {
    if (!finding.is_error) continue;
    return absl::FailedPreconditionError(absl::StrCat(
        findings.error_count(), " errors, `state validate` lists them; first: ",
        finding.section.empty()
            ? std::string("file")
            : savestate::DescribeSection(finding.section, finding.instance),
        ": ", finding.problem));
  }
  if (frame.Find(kSealSection) != nullptr) {
    return absl::FailedPreconditionError(
        "the file is sealed, and a changed file would not fit its seal: open "
        "the seal, upgrade, and seal again");
  }
  return absl::OkStatus();
}

template <typename Message>
absl::StatusOr<std::string> Reserialised(const Section& section) {
  const auto message =
      ParseSection<Message>(section.body, section.name, section.instance);
  if (!message.ok()) return message.status();
  return savestate::SerializeDeterministic(*message);
}

absl::StatusOr<std::string> NewestBody(const Section& section) {
  if (section.name == kConnectionSection) {
    return Reserialised<savestate::v1::ConnectionState>(section);
  }
  if (section.name == kChannelSection) {
    return Reserialised<savestate::v1::ChannelState>(section);
  }
  return std::string(reinterpret_cast<const char*>(section.body.data()),
                     section.body.size());
}

}  // namespace

absl::StatusOr<UpgradedState> UpgradeState(absl::Span<const std::byte> bytes,
                                           const CheckOptions& options) {
  const absl::StatusOr<Frame> frame = Frame::Parse(bytes);
  if (!frame.ok()) return frame.status();
  const absl::Status status = CheckIsUpgradable(bytes, *frame, options);
  if (!status.ok()) return status;
  UpgradedState upgraded;
  savestate::FrameWriter writer{std::string(frame->producer())};
  for (const Section& section : frame->sections()) {
    absl::StatusOr<std::string> body = NewestBody(section);
    if (!body.ok()) return body.status();
    const savestate::KnownSection* const known = FindKnown(section.name);
    const std::string name =
        savestate::DescribeSection(section.name, section.instance);
    uint32_t version = section.version;
    if (known == nullptr) {
      upgraded.notes.push_back(
          absl::StrCat(name, ": not known to this build, copied"));
    } else if (version != known->max_version) {
      upgraded.notes.push_back(absl::StrCat(name, ": version ", version, " to ",
                                            known->max_version));
      version = known->max_version;
    }
    writer.AddSection(std::string(section.name), section.instance, version,
                      section.kind, *std::move(body));
  }
  absl::StatusOr<std::string> file = writer.Finish();
  if (!file.ok()) return file.status();
  upgraded.file = *std::move(file);
  // All versions are 1 so far, so the two must say the same.
  const absl::StatusOr<Json> difference =
      DiffStates(bytes, AsBytes(upgraded.file), 1);
  if (!difference.ok() || !difference->at("same").get<bool>()) {
    return absl::InternalError(
        "the new file does not say what the old one says; nothing is written");
  }
  return upgraded;
}

}  // namespace ferrybus::state_tool
