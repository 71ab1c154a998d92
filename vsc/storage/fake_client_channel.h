// SPDX-License-Identifier: MIT
//
// A channel that keeps what the storage client sent, for its tests.
//
// Answers nothing by itself: the test takes a request out and completes it.
// Thread safety: none.

#ifndef FERRYBUS_VSC_STORAGE_FAKE_CLIENT_CHANNEL_H_
#define FERRYBUS_VSC_STORAGE_FAKE_CLIENT_CHANNEL_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <vector>

#include "ferrybus/channel/protocols/vstor.h"
#include "ferrybus/vsc/client_channel.h"
#include "gtest/gtest.h"

namespace ferrybus::vsc {

class FakeClientChannel final : public ClientChannel {
 public:
  struct Sent {
    vstor::Packet packet;
    std::vector<GuestBuffer> buffers;
    uint64_t tag;
  };

  SendResult Send(const Request& request) override {
    if (result != SendResult::kOk) return result;
    if (sent.size() >= room) return SendResult::kFull;
    Sent& entry = sent.emplace_back();
    EXPECT_EQ(request.payload.size(), sizeof(entry.packet));
    EXPECT_TRUE(request.wants_completion);
    std::memcpy(&entry.packet, request.payload.data(), sizeof(entry.packet));
    entry.buffers.assign(request.buffers.begin(), request.buffers.end());
    entry.tag = request.tag;
    return SendResult::kOk;
  }
  void Flush() override { ++flushes; }
  uint32_t requests_in_flight() const override {
    return static_cast<uint32_t>(sent.size());
  }

  SendResult result = SendResult::kOk;
  size_t room = 1000;
  int flushes = 0;
  std::deque<Sent> sent;
};

}  // namespace ferrybus::vsc

#endif  // FERRYBUS_VSC_STORAGE_FAKE_CLIENT_CHANNEL_H_
