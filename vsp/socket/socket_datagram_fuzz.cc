// SPDX-License-Identifier: MIT

// A socket fed with packets from the input, against what their pipe headers
// say: the bytes read are those of the datagrams, up to the first that cannot
// be, which faults the channel and nothing else.
//
// Input: records of u8 what, u8 length, bytes.  What: bits 0-2 = 0 the bytes
// are a whole packet, header included; 1 a datagram; 2 an empty one; 3 read as
// many bytes as the length says; 4 write them; 5 end our stream; 6 drop what
// comes; 7 the guest stops reading, or goes on.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "ferrybus/channel/pipe_header.h"
#include "ferrybus/vsp/services/pipe_harness.h"
#include "ferrybus/vsp/socket/socket_device.h"

namespace {

using namespace ferrybus;       // NOLINT
using namespace ferrybus::vsp;  // NOLINT

constexpr int kRecordsMax = 64;

class NoEvents final : public SocketStream::Events {};

// What the socket must have understood.
struct Model {
  void Take(absl::Span<const std::byte> payload) {
    absl::Span<const std::byte> data;
    if (is_faulted) return;
    // The ring rounds up: a packet is never as short as it was.
    if (!ParsePipePayload(payload, &data)) {
      is_faulted = true;
    } else if (data.empty()) {
      has_ended = true;
    } else if (has_ended) {
      is_faulted = true;
    } else if (!drops) {
      bytes.insert(bytes.end(), data.begin(), data.end());
    }
  }
  std::vector<std::byte> bytes;  // not read yet
  bool has_ended = false;
  bool is_faulted = false;
  bool drops = false;
};

struct World {
  void Send(std::vector<std::byte> payload) {
    while (payload.size() % 8 != 0) payload.push_back(std::byte{0});
    if (harness.SendRaw(payload)) model.Take(payload);
    harness.Pump();
  }
  void Read(size_t bytes) {
    std::vector<std::byte> room(bytes);
    const size_t got = device.stream().Read(absl::MakeSpan(room));
    if (got > model.bytes.size() ||
        !std::equal(room.begin(), room.begin() + static_cast<ptrdiff_t>(got),
                    model.bytes.begin())) {
      std::abort();
    }
    model.bytes.erase(model.bytes.begin(),
                      model.bytes.begin() + static_cast<ptrdiff_t>(got));
    harness.Pump();
  }
  void Do(uint8_t what, std::vector<std::byte> bytes, size_t length) {
    std::vector<std::byte> payload;
    switch (what % 8) {
      case 0:
        return Send(std::move(bytes));
      case 1:
      case 2:
        if (what % 8 == 2) bytes.clear();
        BuildPipePayload(bytes, &payload);
        return Send(std::move(payload));
      case 3:
        return Read(length);
      case 4:
        (void)device.stream().Write(bytes);
        break;
      case 5:
        device.stream().ShutdownWrite();
        break;
      case 6:
        device.stream().ShutdownRead();
        model.drops = true;
        model.bytes.clear();
        break;
      default:
        is_stopped = !is_stopped;
        harness.StopReading(is_stopped);
    }
    harness.Pump();
  }

  NoEvents events;
  SocketDevice device{&events};
  PipeHarness harness{&device, SocketDevice::Params(Guid{{2}}, Guid{{1}}, true),
                      1};
  Model model;
  bool is_stopped = false;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes) {
  World world;
  size_t at = 0;
  for (int i = 0; i < kRecordsMax && at + 2 <= size_bytes; ++i) {
    const uint8_t what = data[at];
    const size_t length = data[at + 1];
    at += 2;
    const size_t count = what % 8 == 3 ? 0 : std::min(length, size_bytes - at);
    std::vector<std::byte> bytes(count);
    for (size_t k = 0; k < count; ++k) bytes[k] = std::byte{data[at + k]};
    at += count;
    world.Do(what, std::move(bytes), length);
    if (world.device.stream().unread_datagrams() > kSocketUnreadMax ||
        world.harness.channel().endpoint().queued() > 1) {
      std::abort();
    }
  }
  for (int i = 0; i < 100 && world.harness.fault().empty(); ++i) {
    world.Read(4096);
  }
  const bool is_faulted = !world.harness.fault().empty();
  if (is_faulted != world.model.is_faulted) std::abort();
  if (!is_faulted &&
      (!world.model.bytes.empty() ||
       world.device.stream().is_at_end() != world.model.has_ended)) {
    std::abort();
  }
  return 0;
}
