// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/virtual_function/hot_update_messages_persist.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "ferrybus/savestate/proto_limits.h"
#include "ferrybus/vsp/virtual_function/hot_update_handover.pb.h"

namespace ferrybus::vsp {
namespace {

namespace pb = ::ferrybus::vsp::virtual_function::v1;

constexpr char kWhere[] = "hot update message";

absl::Status Parse(absl::Span<const std::byte> bytes,
                   google::protobuf::Message* message) {
  savestate::ProtoLimits limits;
  limits.bytes_max = kHotUpdateMessageBytesMax;
  return savestate::ParseBounded(bytes, limits, message, kWhere);
}

absl::Status Bad(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(kWhere, ": ", what));
}

}  // namespace

std::string SerializeRequest(const HotUpdateRequest& request) {
  pb::HotUpdateRequest message;
  message.set_step(static_cast<pb::HotUpdateRequest::Step>(request.step));
  message.set_memory_bytes(request.memory_bytes);
  if (request.step == HotUpdateStep::kRestore) {
    pb::HotUpdateBlockMessage* block = message.mutable_block();
    for (const auto& [offset, size] : request.segments) {
      block->add_segments(offset);
      block->add_segments(size);
    }
    block->set_copy(request.copy);
    block->set_metadata(request.metadata.data(), request.metadata.size());
  }
  return savestate::SerializeDeterministic(message);
}

absl::Status ParseRequest(absl::Span<const std::byte> bytes,
                          HotUpdateRequest* request) {
  pb::HotUpdateRequest message;
  absl::Status status = Parse(bytes, &message);
  if (!status.ok()) return status;
  if (message.step() < pb::HotUpdateRequest::STEP_BEGIN ||
      message.step() > pb::HotUpdateRequest::STEP_COMPLETE) {
    return Bad(absl::StrCat("step ", message.step()));
  }
  pb::HotUpdateBlockMessage& block = *message.mutable_block();
  if (block.segments_size() % 2 != 0) return Bad("half a segment");
  HotUpdateRequest parsed = {.step = static_cast<HotUpdateStep>(message.step()),
                             .memory_bytes = message.memory_bytes()};
  for (int i = 0; i < block.segments_size(); i += 2) {
    parsed.segments.push_back({block.segments(i), block.segments(i + 1)});
  }
  parsed.copy = std::move(*block.mutable_copy());
  const auto* metadata =
      reinterpret_cast<const std::byte*>(block.metadata().data());
  parsed.metadata.assign(metadata, metadata + block.metadata().size());
  *request = std::move(parsed);
  return absl::OkStatus();
}

std::string SerializeAnswer(const absl::Status& answer) {
  pb::HotUpdateAnswer message;
  message.set_code(static_cast<uint32_t>(answer.code()));
  // Protobuf's strings are UTF-8, and a driver's text may be anything.
  std::string text(answer.message());
  for (char& c : text) {
    if (!absl::ascii_isprint(static_cast<unsigned char>(c))) c = '?';
  }
  message.set_text(text);
  return savestate::SerializeDeterministic(message);
}

absl::Status ParseAnswer(absl::Span<const std::byte> bytes,
                         absl::Status* answer) {
  pb::HotUpdateAnswer message;
  absl::Status status = Parse(bytes, &message);
  if (!status.ok()) return status;
  if (message.code() >
      static_cast<uint32_t>(absl::StatusCode::kUnauthenticated)) {
    return Bad(absl::StrCat("code ", message.code()));
  }
  *answer = absl::Status(static_cast<absl::StatusCode>(message.code()),
                         message.text());
  return absl::OkStatus();
}

}  // namespace ferrybus::vsp
