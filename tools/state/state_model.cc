// SPDX-License-Identifier: MIT

#include "ferrybus/tools/state/state_model.h"

#include <string>
#include <utility>
#include <vector>

#include "ferrybus/savestate/frame.h"
#include "ferrybus/savestate/frame_layout.h"
#include "ferrybus/savestate/frame_report.h"
#include "ferrybus/savestate/seal.h"
#include "ferrybus/tools/state/state_sections.h"

namespace ferrybus::state_tool {
namespace {

using savestate::FrameReport;
using savestate::SectionReport;
using savestate::v1::ChannelState;
using savestate::v1::ConnectionState;

const char* NameOf(SectionReport::Body body) {
  switch (body) {
    case SectionReport::Body::kGood:
      return "good";
    case SectionReport::Body::kDamaged:
      return "damaged";
    case SectionReport::Body::kMissing:
      return "missing";
    case SectionReport::Body::kUnchecked:
      return "overlapping";
  }
  return "unknown";
}

Json DescribeFrame(const FrameReport& report) {
  Json frame = {{"file_bytes", report.file_bytes},
                {"accepted", report.verdict.ok()},
                {"problem", Escaped(report.verdict.ToString())}};
  if (report.verdict.ok()) frame["problem"] = "";
  if (!report.has_header) return frame;
  frame["magic_ok"] = report.magic_ok;
  frame["frame_version"] = report.frame_version;
  frame["header_bytes"] = report.header_bytes;
  frame["section_count"] = report.section_count;
  frame["flags"] = Hex(report.flags);
  frame["total_bytes"] = report.total_bytes;
  frame["producer"] = report.producer;
  frame["header_crc_ok"] = report.header_crc_ok;
  frame["table_crc_ok"] = report.table_crc_ok;
  return frame;
}

Json DescribeRow(const SectionReport& row) {
  return {{"section", row.name},
          {"instance", row.instance},
          {"version", row.version},
          {"required", (row.flags & savestate::kSectionFlagRequired) != 0},
          {"known", FindKnown(row.name) != nullptr},
          {"readable", IsReadable(row.name, row.version)},
          {"offset", row.offset},
          {"bytes", row.length},
          {"body", NameOf(row.body)}};
}

// Why a row's body is not decoded; empty if it can be tried.
std::string Obstacle(const SectionReport& row) {
  if (row.body != SectionReport::Body::kGood) {
    return std::string("not decoded: the body is ") + NameOf(row.body);
  }
  if (!IsReadable(row.name, row.version)) {
    return "not decoded: section version " + std::to_string(row.version) +
           ", this build reads 1 to " +
           std::to_string(FindKnown(row.name)->max_version);
  }
  return std::string();
}

class Model {
 public:
  Model(absl::Span<const std::byte> bytes, const ModelOptions& options)
      : bytes_(bytes),
        report_(savestate::DescribeHeader(bytes)),
        budget_(options) {}

  Json Describe();

 private:
  absl::Span<const std::byte> BodyOf(const SectionReport& row) const {
    return bytes_.subspan(row.offset, row.length);
  }
  Json DescribeSealOf() const;
  Json Connection();
  Json Channel(const SectionReport& row, const OffersByChannel& offers);
  Json Channels();

  const absl::Span<const std::byte> bytes_;
  const FrameReport report_;
  Budget budget_;
  ConnectionState connection_;  // empty if it is not readable
};

Json Model::DescribeSealOf() const {
  const absl::StatusOr<savestate::Frame> frame =
      savestate::Frame::Parse(bytes_);
  if (!frame.ok() || frame->Find(kSealSection) == nullptr) return nullptr;
  const absl::StatusOr<savestate::SealInfo> seal =
      savestate::DescribeSeal(*frame);
  if (!seal.ok()) return {{"problem", Escaped(seal.status())}};
  return {{"algorithm", "HMAC-SHA-256"},
          {"key_id", Escaped(seal->key_id)},
          {"counter", seal->counter}};
}

Json Model::Connection() {
  for (const SectionReport& row : report_.sections) {
    if (row.name != kConnectionSection) continue;
    std::string problem = Obstacle(row);
    if (problem.empty()) {
      absl::StatusOr<ConnectionState> parsed =
          ParseSection<ConnectionState>(BodyOf(row), row.name, row.instance);
      if (parsed.ok()) {
        connection_ = *std::move(parsed);
        return DescribeConnection(connection_, budget_);
      }
      problem = Escaped(parsed.status());
    }
    return {{"problem", problem}};
  }
  return nullptr;
}

Json Model::Channel(const SectionReport& row, const OffersByChannel& offers) {
  std::string problem = Obstacle(row);
  if (problem.empty()) {
    const absl::StatusOr<ChannelState> parsed =
        ParseSection<ChannelState>(BodyOf(row), row.name, row.instance);
    if (parsed.ok()) {
      return DescribeChannel(row.instance, *parsed,
                             OfferOf(offers, row.instance), budget_);
    }
    problem = Escaped(parsed.status());
  }
  return {{"channel", row.instance}, {"problem", problem}};
}

Json Model::Channels() {
  const OffersByChannel offers = OffersOf(connection_);
  std::vector<const SectionReport*> rows;
  for (const SectionReport& row : report_.sections) {
    if (row.name == kChannelSection) rows.push_back(&row);
  }
  return budget_.Listed(
      rows, [&](const SectionReport* row) { return Channel(*row, offers); });
}

Json Model::Describe() {
  Json model;
  model["frame"] = DescribeFrame(report_);
  model["seal"] = DescribeSealOf();
  model["connection"] = Connection();
  model["channels"] = Channels();
  model["sections"] = budget_.Listed(report_.sections, DescribeRow);
  return model;
}

}  // namespace

Json DescribeState(absl::Span<const std::byte> bytes,
                   const ModelOptions& options) {
  return Model(bytes, options).Describe();
}

std::string ToJsonText(const Json& model) {
  return model.dump(2, ' ', /*ensure_ascii=*/true,
                    Json::error_handler_t::replace) +
         "\n";
}

}  // namespace ferrybus::state_tool
