// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/virtual_function/msix_state_persist.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ferrybus/savestate/proto_limits.h"
#include "ferrybus/vsp/virtual_function/msix_state.pb.h"

namespace ferrybus::vsp {
namespace {

namespace pb = ::ferrybus::vsp::virtual_function::v1;

constexpr char kWhere[] = "interrupt table state";

absl::Status Corrupt(absl::string_view what) {
  return absl::DataLossError(
      absl::StrCat(kWhere, ": ", what, ": the saved state is corrupt"));
}

uint32_t WordsFor(size_t vectors) {
  return static_cast<uint32_t>((vectors + 63) / 64);
}

absl::Status ParsePending(const pb::MsixTableState& message, size_t vectors,
                          MsixBits* pending) {
  if (message.pending_size() == 0) return absl::OkStatus();
  const uint32_t words = WordsFor(vectors);
  if (static_cast<uint32_t>(message.pending_size()) != words) {
    return Corrupt(absl::StrCat("pending has ", message.pending_size(),
                                " words, must have ", words, ", or none"));
  }
  for (uint32_t i = 0; i < words; ++i) {
    pending->set_word(i, message.pending(static_cast<int>(i)));
  }
  if (*pending == MsixBits()) {
    return Corrupt("pending has words, but no bit is set");
  }
  const uint32_t beyond = pending->Next(static_cast<uint32_t>(vectors));
  if (beyond != kMsixVectorsMax) {
    return Corrupt(absl::StrCat("vector ", beyond,
                                " is pending, must be below ", vectors));
  }
  return absl::OkStatus();
}

}  // namespace

std::string SerializeMsixState(const MsixTableState& state) {
  pb::MsixTableState message;
  message.set_is_enabled(state.is_enabled);
  message.set_is_function_masked(state.is_function_masked);
  for (const MsixEntry& entry : state.entries) {
    pb::MsixEntry* saved = message.add_entries();
    saved->set_address(entry.address);
    saved->set_data(entry.data);
    saved->set_vector_control(entry.vector_control);
  }
  if (!(state.pending == MsixBits())) {
    for (uint32_t i = 0; i < WordsFor(state.entries.size()); ++i) {
      message.add_pending(state.pending.word(i));
    }
  }
  return savestate::SerializeDeterministic(message);
}

absl::StatusOr<MsixTableState> ParseMsixState(
    absl::Span<const std::byte> bytes) {
  savestate::ProtoLimits limits;
  limits.bytes_max = kMsixStateBytesMax;
  limits.fields_max = 4 * kMsixVectorsMax + MsixBits::kWords + 8;
  limits.depth_max = 1;
  pb::MsixTableState message;
  if (absl::Status status =
          savestate::ParseBounded(bytes, limits, &message, kWhere);
      !status.ok()) {
    if (absl::IsInvalidArgument(status)) {
      return absl::DataLossError(status.message());
    }
    return status;
  }
  const auto vectors = static_cast<size_t>(message.entries_size());
  if (vectors < 1 || vectors > kMsixVectorsMax) {
    return Corrupt(absl::StrCat("entries has ", vectors,
                                " elements, must have 1 to ", kMsixVectorsMax));
  }
  MsixTableState state;
  state.is_enabled = message.is_enabled();
  state.is_function_masked = message.is_function_masked();
  state.entries.reserve(vectors);
  for (const pb::MsixEntry& saved : message.entries()) {
    state.entries.push_back(
        {saved.address(), saved.data(), saved.vector_control()});
  }
  if (absl::Status status = ParsePending(message, vectors, &state.pending);
      !status.ok()) {
    return status;
  }
  return state;
}

}  // namespace ferrybus::vsp
