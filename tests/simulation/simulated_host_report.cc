// SPDX-License-Identifier: MIT
//
// A simulated host, for people who look at a failure.

#include "absl/strings/str_cat.h"
#include "ferrybus/tests/simulation/simulated_host.h"

namespace ferrybus::simulation {

std::string SimulatedHost::Describe() const {
  std::string text = absl::StrCat("host ", index_, is_up() ? ": up" : ": down");
  if (bus_ != nullptr) {
    const vsp::InFlightCount count = bus_->in_flight();
    absl::StrAppend(&text, ", bus", Serves() ? " serves" : " stands", ", ",
                    count.incoming, " in flight, ", count.awaiting,
                    " awaited, ", count.queued, " queued");
    for (size_t i = 0; i < kChannelCount; ++i) {
      const Slot& slot = slots_[i];
      if (slot.device == nullptr) continue;
      absl::StrAppend(&text, "\n  channel ", i);
      vsp::ServerChannel* const channel =
          slot.offer.has_value() ? bus_->channel(*slot.offer) : nullptr;
      if (channel == nullptr) {
        absl::StrAppend(&text, ": not offered");
        continue;
      }
      const PacketEndpoint& end = channel->endpoint();
      absl::StrAppend(
          &text, ": id ", end.channel_id(), ", link ",
          static_cast<int>(channel->link()), ", run state ",
          static_cast<int>(end.run_state()), ", ", end.outstanding(),
          " in flight, ", end.awaiting(), " awaited, ", end.queued(), " queued",
          slot.is_rescinded ? ", rescinded" : "", " ", end.fault_reason());
    }
  }
  if (source != nullptr) {
    const migration::MigrationProgress progress = source->progress();
    absl::StrAppend(&text, "\n  source ",
                    migration::SourcePhaseName(progress.phase), " ",
                    progress.status.ToString());
  }
  if (target != nullptr) {
    absl::StrAppend(&text, "\n  target ",
                    migration::TargetPhaseName(target->phase()), " ",
                    target->status().ToString());
  }
  if (undecided_.has_value()) absl::StrAppend(&text, "\n  undecided");
  return text;
}

}  // namespace ferrybus::simulation
