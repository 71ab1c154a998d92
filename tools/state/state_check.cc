// SPDX-License-Identifier: MIT

#include "ferrybus/tools/state/state_check.h"

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/endpoint_persist.h"
#include "ferrybus/channel/server_connection_persist.h"
#include "ferrybus/savestate/frame.h"
#include "ferrybus/savestate/frame_layout.h"
#include "ferrybus/savestate/frame_report.h"
#include "ferrybus/savestate/proto_limits.h"
#include "ferrybus/savestate/seal.h"
#include "ferrybus/tools/state/state_sections.h"
#include "ferrybus/tools/state/wide_limits.h"

namespace ferrybus::state_tool {
namespace {

using savestate::FrameReport;
using savestate::SectionReport;
using savestate::v1::ChannelState;
using savestate::v1::ConnectionState;
using savestate::v1::EndpointState;
using savestate::v1::OfferState;

constexpr char kTakeAnotherCopy[] =
    "take another copy of the file, or an older checkpoint";
constexpr char kSaveAgain[] =
    "no restore takes this: save again at the source, and keep the file for "
    "whoever wrote it";

// Channels with more are only judged as a whole.
constexpr int kPacketsLookedAtMax = 1 << 16;

class Checker {
 public:
  Checker(absl::Span<const std::byte> bytes, const CheckOptions& options)
      : bytes_(bytes),
        options_(options),
        report_(savestate::DescribeHeader(bytes)) {}

  Findings Check();

 private:
  absl::Span<const std::byte> BodyOf(const SectionReport& row) const {
    return bytes_.subspan(row.offset, row.length);
  }
  void Add(const SectionReport& row, bool is_error, std::string problem,
           std::string action) {
    findings_.Add({is_error, row.name, row.instance, row.offset,
                   std::move(problem), std::move(action)});
  }
  void CheckFrame();
  void CheckRow(const SectionReport& row);
  void CheckSeal();
  void CheckConnection(const SectionReport& row);
  void CheckChannel(const SectionReport& row);
  void CheckEndpoint(const SectionReport& row, ChannelState channel);
  void CheckDevice(const SectionReport& row, const ChannelState& channel,
                   const OfferState& offer);
  void CheckTogether();

  const absl::Span<const std::byte> bytes_;
  const CheckOptions options_;
  const FrameReport report_;
  Findings findings_;
  ConnectionState connection_;
  bool has_connection_ = false;
  OffersByChannel offers_;
};

Findings Checker::Check() {
  CheckFrame();
  for (const SectionReport& row : report_.sections) {
    if (row.name == kConnectionSection) CheckConnection(row);
  }
  for (const SectionReport& row : report_.sections) CheckRow(row);
  CheckTogether();
  return std::move(findings_);
}

void Checker::CheckFrame() {
  if (report_.verdict.ok()) return CheckSeal();
  const bool is_newer =
      report_.verdict.code() == absl::StatusCode::kUnimplemented;
  findings_.Add({true, "", 0, 0, Escaped(report_.verdict),
                 is_newer ? "use a newer build" : kTakeAnotherCopy});
  for (const SectionReport& row : report_.sections) {
    if (row.body == SectionReport::Body::kDamaged) {
      Add(row, true, "the body's checksum is wrong", kTakeAnotherCopy);
    } else if (row.body == SectionReport::Body::kMissing) {
      Add(row, true,
          absl::StrCat("the body ends at byte ", row.offset + row.length,
                       ", the file at byte ", report_.file_bytes),
          kTakeAnotherCopy);
    }
  }
}

void Checker::CheckSeal() {
  const auto frame = savestate::Frame::Parse(bytes_);
  if (!frame.ok() || frame->Find(kSealSection) == nullptr) return;
  const auto seal = savestate::DescribeSeal(*frame);
  if (!seal.ok()) {
    findings_.Add({true, std::string(kSealSection), 0, 0,
                   Escaped(seal.status()), kTakeAnotherCopy});
    return;
  }
  findings_.Add({false, std::string(kSealSection), 0, 0,
                 absl::StrCat("sealed with key \"", Escaped(seal->key_id),
                              "\", counter ", seal->counter),
                 "validate --key-file checks the seal; whoever restores opens "
                 "it first"});
}

void Checker::CheckRow(const SectionReport& row) {
  const savestate::KnownSection* const known = FindKnown(row.name);
  if (known == nullptr) {
    const bool required = (row.flags & savestate::kSectionFlagRequired) != 0;
    Add(row, required,
        required ? "a required section that this build does not know"
                 : "a section that this build does not know; it is optional, "
                   "and a restore skips it",
        required ? "restore with the build that wrote it, or a newer one"
                 : "nothing, if its writer agrees");
    return;
  }
  if (row.body != SectionReport::Body::kGood) return;
  if (!IsReadable(row.name, row.version)) {
    Add(row, true,
        absl::StrCat("section version ", row.version,
                     ", this build reads 1 to ", known->max_version),
        "use a newer build");
    return;
  }
  if (row.name == kChannelSection) CheckChannel(row);
}

void Checker::CheckConnection(const SectionReport& row) {
  if (row.body != SectionReport::Body::kGood || has_connection_ ||
      !IsReadable(row.name, row.version)) {
    return;
  }
  absl::StatusOr<ConnectionState> parsed =
      ParseSection<ConnectionState>(BodyOf(row), row.name, row.instance);
  if (!parsed.ok()) {
    Add(row, true, Escaped(parsed.status()), kSaveAgain);
    return;
  }
  connection_ = *std::move(parsed);
  has_connection_ = true;
  offers_ = OffersOf(connection_);
  const absl::Status status =
      ParseServerConnection(BodyOf(row), WideConnectionOptions(connection_))
          .status();
  if (!status.ok()) Add(row, true, Escaped(status), kSaveAgain);
}

void Checker::CheckChannel(const SectionReport& row) {
  absl::StatusOr<ChannelState> parsed =
      ParseSection<ChannelState>(BodyOf(row), row.name, row.instance);
  if (!parsed.ok()) {
    Add(row, true, Escaped(parsed.status()), kSaveAgain);
    return;
  }
  const OfferState* const offer = OfferOf(offers_, row.instance);
  if (offer != nullptr) CheckDevice(row, *parsed, *offer);
  const std::string where = savestate::DescribeSection(row.name, row.instance);
  const absl::Status status =
      ParseChannelSnapshot(BodyOf(row), WideEndpointLimits(), where).status();
  if (status.ok()) return;
  const size_t count = findings_.error_count();
  CheckEndpoint(row, *std::move(parsed));
  if (findings_.error_count() == count) {
    Add(row, true, Escaped(status), kSaveAgain);
  }
}

// What ParseChannelSnapshot says of a channel that has these packets only.
absl::Status CheckPart(const ChannelState& part) {
  return ParseChannelSnapshot(AsBytes(savestate::SerializeDeterministic(part)),
                              WideEndpointLimits(), "packet")
      .status();
}

// Each packet on its own, between the rings of its channel; then all that were
// good together.
void Checker::CheckEndpoint(const SectionReport& row, ChannelState channel) {
  const EndpointState all = std::move(*channel.mutable_endpoint());
  if (all.incoming_size() + all.queued_size() + all.awaiting_size() >
      kPacketsLookedAtMax) {
    return;
  }
  ChannelState part;
  EndpointState& endpoint = *part.mutable_endpoint();
  *endpoint.mutable_incoming_ring() = all.incoming_ring();
  *endpoint.mutable_outgoing_ring() = all.outgoing_ring();
  ChannelState good = part;
  if (!CheckPart(part).ok()) return;  // the rings themselves
  const auto check_list = [&](const char* list, const auto& packets,
                              auto* in_part, auto* in_good) {
    for (int i = 0; i < packets.size(); ++i) {
      *in_part->Add() = packets[i];
      const absl::Status status = CheckPart(part);
      in_part->Clear();
      if (status.ok()) {
        *in_good->Add() = packets[i];
        continue;
      }
      Add(row, true,
          absl::StrCat(list, " packet ", i, ", transaction ",
                       packets[i].transaction_id(), ": ", Escaped(status)),
          kSaveAgain);
    }
  };
  EndpointState& rest = *good.mutable_endpoint();
  check_list("incoming", all.incoming(), endpoint.mutable_incoming(),
             rest.mutable_incoming());
  check_list("queued", all.queued(), endpoint.mutable_queued(),
             rest.mutable_queued());
  check_list("awaiting", all.awaiting(), endpoint.mutable_awaiting(),
             rest.mutable_awaiting());
  const absl::Status status = CheckPart(good);
  if (!status.ok()) Add(row, true, Escaped(status), kSaveAgain);
}

void Checker::CheckDevice(const SectionReport& row, const ChannelState& channel,
                          const OfferState& offer) {
  const DeviceKind kind = KindOf(offer);
  if (options_.has_opaque_devices || kind == DeviceKind::kUnknown) return;
  const std::string action =
      "restore with the device that wrote it, or save again; if that is none "
      "of this library's, validate with --opaque-devices";
  const absl::Status state = CheckDeviceState(kind, channel.device_state());
  if (!state.ok()) {
    Add(row, true, absl::StrCat("device state: ", Escaped(state)), action);
  }
  int index = 0;
  for (const auto& packet : channel.endpoint().incoming()) {
    const int at = index++;
    if (packet.device_blob().empty()) continue;
    const absl::Status blob = CheckPacketBlob(kind, packet.device_blob());
    if (blob.ok()) continue;
    Add(row, true,
        absl::StrCat("incoming packet ", at, ", transaction ",
                     packet.transaction_id(), ": ", Escaped(blob)),
        action);
  }
}

// The connection and the channels' sections belong to each other.
void Checker::CheckTogether() {
  if (!report_.verdict.ok()) return;
  if (!has_connection_) {
    for (const SectionReport& row : report_.sections) {
      if (row.name == kConnectionSection) return;  // said already
    }
    findings_.Add({true, std::string(kConnectionSection), 0, 0,
                   "the file has no such section",
                   "this is no saved bus: ask whoever wrote it"});
    return;
  }
  std::set<uint64_t> sections;
  for (const SectionReport& row : report_.sections) {
    if (row.name != kChannelSection) continue;
    sections.insert(row.instance);
    const OfferState* const offer = OfferOf(offers_, row.instance);
    if (offer != nullptr && offer->state() == OfferState::STATE_OPEN) continue;
    Add(row, true,
        offer == nullptr ? "no offer of the connection has this channel number"
                         : "the connection says that this channel is not open",
        kSaveAgain);
  }
  for (const auto& [channel, offer] : offers_) {
    if (offer->state() != OfferState::STATE_OPEN ||
        sections.contains(channel)) {
      continue;
    }
    findings_.Add({true, std::string(kChannelSection), channel, 0,
                   "the section is missing, but the channel is open",
                   "a bus saved without its channels is restored piece by "
                   "piece; else save again"});
  }
}

}  // namespace

void Findings::Add(Finding finding) {
  if (finding.is_error) ++error_count_;
  if (list_.size() >= kFindingsMax) {
    ++rest_;
    return;
  }
  list_.push_back(std::move(finding));
}

Findings CheckState(absl::Span<const std::byte> bytes,
                    const CheckOptions& options) {
  return Checker(bytes, options).Check();
}

Json ToJson(const Findings& findings, size_t list_max) {
  Json listed = Json::array();
  for (const Finding& finding : findings.list()) {
    if (listed.size() == list_max) break;
    listed.push_back({{"severity", finding.is_error ? "error" : "note"},
                      {"section", finding.section},
                      {"instance", finding.instance},
                      {"offset", finding.offset},
                      {"problem", finding.problem},
                      {"action", finding.action}});
  }
  const size_t count = findings.list().size() + findings.rest();
  const size_t rest = count - listed.size();
  return {{"valid", findings.ok()},
          {"errors", findings.error_count()},
          {"findings",
           {{"count", count}, {"listed", std::move(listed)}, {"rest", rest}}}};
}

}  // namespace ferrybus::state_tool
