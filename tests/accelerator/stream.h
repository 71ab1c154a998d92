// SPDX-License-Identifier: MIT
//
// For tests: random commands straight into accelerators, without a channel,
// each answer compared with the model's.  What a guest has in flight stays with
// it while the accelerator moves.
//
// One thread.

#ifndef FERRYBUS_TESTS_ACCELERATOR_STREAM_H_
#define FERRYBUS_TESTS_ACCELERATOR_STREAM_H_

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "ferrybus/vsc/accelerator/accelerator_model.h"
#include "ferrybus/vsp/virtual_function/accelerator.h"
#include "ferrybus/vsp/virtual_function/accelerator_world.h"

namespace ferrybus::testing {

class AcceleratorStream final : public vsp::AcceleratorPort {
 public:
  explicit AcceleratorStream(uint64_t seed)
      : commands_(seed, Options()), model(Options().segments, kVectors) {}

  static vsc::RandomCommandsOptions Options() {
    vsc::RandomCommandsOptions options;
    options.segments = {{1, vsp::kWorldSizes[0]}, {2, vsp::kWorldSizes[1]}};
    options.vectors = kVectors;
    return options;
  }

  // False: the queue is full.
  bool Submit(vsp::Accelerator& accelerator, const vsc::RandomCommand& asked) {
    const uint64_t bytes = asked.command.op == accelerator::Op::kRead
                               ? asked.command.size_bytes
                               : asked.data.size();
    return accelerator.Submit(asked.command, bytes, [&](uint64_t ticket) {
      Flight& flight = flights_[ticket];
      flight.asked = asked;
      flight.expected = model.Execute(asked);
      flight.buffer.resize(bytes);
    });
  }
  bool SubmitNext(vsp::Accelerator& accelerator) {
    return Submit(accelerator, commands_.Next());
  }

  bool ReadData(uint64_t ticket, uint64_t offset,
                absl::Span<std::byte> out) override {
    const auto& data = flights_.at(ticket).asked.data;
    if (offset + out.size() > data.size()) return false;
    std::copy_n(data.begin() + static_cast<ptrdiff_t>(offset), out.size(),
                out.begin());
    return true;
  }
  bool WriteData(uint64_t ticket, uint64_t offset,
                 absl::Span<const std::byte> data) override {
    auto& buffer = flights_.at(ticket).buffer;
    if (offset + data.size() > buffer.size()) return false;
    std::copy(data.begin(), data.end(),
              buffer.begin() + static_cast<ptrdiff_t>(offset));
    return true;
  }
  void OnDone(uint64_t ticket, const accelerator::Reply& reply,
              absl::Span<const std::byte> data) override {
    const auto found = flights_.find(ticket);
    if (found == flights_.end()) {
      Note(absl::StrCat("command ", ticket, " was done twice"));
      return;
    }
    Flight flight = found->second;
    flights_.erase(found);
    ++done;
    if (ticket != next_ticket_++) Note(absl::StrCat(ticket, " out of order"));
    if (reply != flight.expected.reply) {
      Note(absl::StrCat("reply to ", ticket, " (op ",
                        static_cast<uint32_t>(flight.asked.command.op), ")"));
    }
    if (!flight.asked.has_guest_buffers()) {
      flight.buffer.assign(data.begin(), data.end());
    }
    if (flight.expected.data.size() > flight.buffer.size() ||
        !std::equal(flight.expected.data.begin(), flight.expected.data.end(),
                    flight.buffer.begin())) {
      Note(absl::StrCat("data of ", ticket));
    }
    if (flight.expected.raises) ++raised[flight.asked.command.vector];
  }

  // "" or where an accelerator that has nothing to do differs from the model.
  std::string CheckHost(vsp::AcceleratorHost& host) const {
    if (!difference.empty()) return difference;
    if (!flights_.empty()) return "a command was not answered";
    for (uint32_t i = 0; i < host.memory.size(); ++i) {
      const auto& expected = model.memory(i + 1);
      const auto mismatch = std::mismatch(expected.begin(), expected.end(),
                                          host.memory[i].begin());
      if (mismatch.first != expected.end()) {
        return absl::StrCat("segment ", i + 1, " differs at ",
                            mismatch.first - expected.begin());
      }
    }
    return "";
  }
  size_t in_flight() const { return flights_.size(); }

 private:
  static constexpr uint32_t kVectors = vsp::kWorldVectors;

  struct Flight {
    vsc::RandomCommand asked;
    vsc::ExpectedReply expected;
    std::vector<std::byte> buffer;
  };

  void Note(const std::string& what) {
    if (difference.empty()) difference = what;
  }

  vsc::RandomCommands commands_;
  std::map<uint64_t, Flight> flights_;
  uint64_t next_ticket_ = 0;

 public:
  vsc::AcceleratorModel model;
  std::string difference;  // the first
  uint64_t done = 0;
  std::array<uint64_t, vsp::kWorldVectors> raised = {};
};

}  // namespace ferrybus::testing

#endif  // FERRYBUS_TESTS_ACCELERATOR_STREAM_H_
