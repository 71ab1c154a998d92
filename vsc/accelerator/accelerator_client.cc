// SPDX-License-Identifier: MIT

#include "ferrybus/vsc/accelerator/accelerator_client.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace ferrybus::vsc {
namespace {

using accelerator::Op;
using accelerator::Reply;

RandomCommandsOptions RandomOptions(const AcceleratorClientOptions& options) {
  RandomCommandsOptions random = options.random;
  if (options.buffer_memory == nullptr) random.guest_bytes_max = 0;
  return random;
}

template <typename T>
absl::Span<const std::byte> BytesOf(const T& value) {
  return {reinterpret_cast<const std::byte*>(&value), sizeof(value)};
}

}  // namespace

AcceleratorClient::AcceleratorClient(const AcceleratorClientOptions& options)
    : options_(options),
      model_(options.random.segments, options.random.vectors),
      commands_(options.seed, RandomOptions(options)) {
  for (uint32_t slot = options_.depth; slot > 0; --slot) {
    free_slots_.push_back(slot - 1);
  }
}

GuestBuffer AcceleratorClient::BufferOf(uint32_t slot, uint64_t bytes) const {
  return {
      options_.buffers.gpa + uint64_t{slot} * options_.random.guest_bytes_max,
      static_cast<uint32_t>(bytes)};
}

std::byte* AcceleratorClient::BufferMemory(uint32_t slot) const {
  return options_.buffer_memory +
         uint64_t{slot} * options_.random.guest_bytes_max;
}

// -- Sending ------------------------------------------------------------------

void AcceleratorClient::OnOpened(ClientChannel& channel) {
  channel_ = &channel;
}

void AcceleratorClient::Send() {
  if (channel_ == nullptr) return;
  while (SendOne()) {
  }
  channel_->Flush();
}

bool AcceleratorClient::SendOne() {
  if (waiting_.empty()) {
    if (is_stopped_ || free_slots_.empty() ||
        counters_.sent == options_.commands) {
      return false;
    }
    Flight flight;
    flight.tag = next_tag_++;
    flight.slot = free_slots_.back();
    flight.asked = commands_.Next();
    flight.expected = model_.Execute(flight.asked);
    free_slots_.pop_back();
    waiting_.push_back(std::move(flight));
  }
  Flight& flight = waiting_.front();
  std::vector<std::byte> payload(BytesOf(flight.asked.command).begin(),
                                 BytesOf(flight.asked.command).end());
  std::vector<GuestBuffer> buffers;
  if (flight.asked.has_guest_buffers()) {
    const uint64_t bytes = flight.asked.command.size_bytes;
    std::byte* const memory = BufferMemory(flight.slot);
    std::memset(memory, 0xcc, bytes);
    std::copy(flight.asked.data.begin(), flight.asked.data.end(), memory);
    buffers.push_back(BufferOf(flight.slot, bytes));
  } else {
    payload.insert(payload.end(), flight.asked.data.begin(),
                   flight.asked.data.end());
  }
  if (channel_->Send(
          {.payload = payload, .buffers = buffers, .tag = flight.tag}) !=
      SendResult::kOk) {
    return false;
  }
  ++counters_.sent;
  in_flight_.push_back(std::move(flight));
  waiting_.pop_front();
  return true;
}

// -- Answers ------------------------------------------------------------------

std::string AcceleratorClient::Difference(
    const Flight& flight, absl::Span<const std::byte> reply) const {
  const ExpectedReply& expected = flight.expected;
  const bool is_inline = !flight.asked.has_guest_buffers();
  const size_t size = sizeof(Reply) + (is_inline ? expected.data.size() : 0);
  const std::string command =
      absl::StrCat("command ", flight.asked.command.sequence, " (op ",
                   static_cast<uint32_t>(flight.asked.command.op), "): ");
  // A packet is a multiple of 8 bytes.
  if (reply.size() < size || reply.size() > (size + 7) / 8 * 8) {
    return absl::StrCat(command, reply.size(), " bytes, expected ", size);
  }
  Reply got;
  std::memcpy(&got, reply.data(), sizeof(got));
  if (got != expected.reply) {
    return absl::StrCat(
        command, "status ", static_cast<uint32_t>(got.status), ", value ",
        got.value, ", completed ", got.completed, ", accumulator ",
        got.accumulator, ", random ", got.random, "; expected ",
        static_cast<uint32_t>(expected.reply.status), ", ",
        expected.reply.value, ", ", expected.reply.completed, ", ",
        expected.reply.accumulator, ", ", expected.reply.random);
  }
  const std::byte* const data =
      is_inline ? reply.data() + sizeof(Reply) : BufferMemory(flight.slot);
  const auto mismatch =
      std::mismatch(expected.data.begin(), expected.data.end(), data);
  if (mismatch.first == expected.data.end()) return "";
  return absl::StrCat(command, "data differs at byte ",
                      mismatch.first - expected.data.begin());
}

void AcceleratorClient::OnCompletion(uint64_t tag,
                                     absl::Span<const std::byte> reply) {
  const auto found =
      std::find_if(in_flight_.begin(), in_flight_.end(),
                   [&](const Flight& flight) { return flight.tag == tag; });
  if (found == in_flight_.end()) {
    ++counters_.doubled;
    return;
  }
  if (found != in_flight_.begin()) ++counters_.out_of_order;
  ++counters_.answered;
  const std::string difference = Difference(*found, reply);
  if (!difference.empty()) {
    if (counters_.wrong++ == 0) first_difference_ = difference;
  } else if (found->expected.raises && options_.on_interrupt_due) {
    options_.on_interrupt_due(found->asked.command.vector);
  }
  free_slots_.push_back(found->slot);
  in_flight_.erase(found);
  Send();
}

void AcceleratorClient::OnClosed() {
  channel_ = nullptr;
  counters_.lost += in_flight_.size();
  in_flight_.clear();
}

}  // namespace ferrybus::vsc
