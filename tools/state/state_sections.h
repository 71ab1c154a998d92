// SPDX-License-Identifier: MIT
//
// The sections of a saved bus that this build knows, and how their bodies are
// parsed: in one place for all of the command line tool.
//
// Thread safety: functions without state.
// Trust: bodies may be anything; ParseBounded refuses what is not well-formed.
// Well-formed is all they are then.

#ifndef FERRYBUS_TOOLS_STATE_STATE_SECTIONS_H_
#define FERRYBUS_TOOLS_STATE_STATE_SECTIONS_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/savestate/channel.pb.h"
#include "ferrybus/savestate/connection.pb.h"
#include "ferrybus/savestate/frame.h"
#include "ferrybus/savestate/frame_layout.h"
#include "ferrybus/savestate/proto_limits.h"

namespace ferrybus::state_tool {

inline constexpr std::string_view kConnectionSection = "connection";
inline constexpr std::string_view kChannelSection = "channel";
// Of a sealed file (seal.h).
using savestate::kSealSection;

// vsp::Bus writes the newest versions and reads all from 1 on.
inline constexpr savestate::KnownSection kKnownSections[] = {
    {kConnectionSection, 1},
    {kChannelSection, 1},
    {kSealSection, savestate::kSealVersion},
};

inline const savestate::KnownSection* FindKnown(std::string_view name) {
  for (const savestate::KnownSection& known : kKnownSections) {
    if (known.name == name) return &known;
  }
  return nullptr;
}

// The name is known, and the version is one that this build reads.
inline bool IsReadable(std::string_view name, uint32_t version) {
  const savestate::KnownSection* const known = FindKnown(name);
  return known != nullptr && version >= 1 && version <= known->max_version;
}

inline absl::Span<const std::byte> AsBytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

template <typename Message>
absl::StatusOr<Message> ParseSection(absl::Span<const std::byte> body,
                                     std::string_view name, uint64_t instance) {
  Message message;
  const absl::Status status =
      savestate::ParseBounded(body, savestate::ProtoLimits(), &message,
                              savestate::DescribeSection(name, instance));
  if (!status.ok()) return status;
  return message;
}

using OffersByChannel = std::map<uint64_t, const savestate::v1::OfferState*>;

// Borrows from `connection`.  Of two with one number, which a good file does
// not have, the first.
inline OffersByChannel OffersOf(
    const savestate::v1::ConnectionState& connection) {
  OffersByChannel offers;
  for (const savestate::v1::OfferState& offer : connection.offers()) {
    offers.emplace(offer.channel_id(), &offer);
  }
  return offers;
}

inline const savestate::v1::OfferState* OfferOf(const OffersByChannel& offers,
                                                uint64_t channel) {
  const auto found = offers.find(channel);
  return found == offers.end() ? nullptr : found->second;
}

}  // namespace ferrybus::state_tool

#endif  // FERRYBUS_TOOLS_STATE_STATE_SECTIONS_H_
