// SPDX-License-Identifier: MIT

// A hostile host: the client survives any answers and ends every request that
// it started exactly once.
//
// Input: records of u8 control, u8 scratch length, u8 answer length, scratch
// bytes, answer bytes.  Control (mod 8): 1 read, 2 flush, 3 unmap, 4 close and
// open, 5 answer something never sent; before the answer is given.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <vector>

#include "ferrybus/channel/protocols/vstor.h"
#include "ferrybus/vsc/client_channel.h"
#include "ferrybus/vsc/storage/storage_client.h"

namespace {

using namespace ferrybus;       // NOLINT
using namespace ferrybus::vsc;  // NOLINT

class Channel final : public ClientChannel {
 public:
  SendResult Send(const Request& request) override {
    if (tags.size() >= 4) return SendResult::kFull;
    tags.push_back(request.tag);
    return SendResult::kOk;
  }
  void Flush() override {}
  uint32_t requests_in_flight() const override { return 0; }

  std::deque<uint64_t> tags;
};

class User final : public StorageClient::Events {
 public:
  void OnIoDone(uint64_t, const StorageIoResult&) override { ++done; }
  size_t done = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes) {
  std::vector<std::byte> scratch(4096);
  StorageClientOptions options;
  options.queue_depth = 8;
  options.scratch = {0x1000, 4096};
  options.scratch_memory = scratch.data();
  Channel channel;
  User user;
  StorageClient client(&user, options);
  client.OnOpened(channel);
  size_t started = 0;
  absl::Span<const uint8_t> rest(data, size_bytes);
  while (rest.size() >= 3) {
    const uint8_t control = rest[0] % 8;
    const size_t scratch_bytes = rest[1];
    const size_t answer_bytes = rest[2];
    rest.remove_prefix(3);
    const auto fill = rest.subspan(0, scratch_bytes);
    rest.remove_prefix(fill.size());
    const auto bytes = rest.subspan(0, answer_bytes);
    rest.remove_prefix(bytes.size());
    // Exactly as long as the answer, so that reading on is seen.
    const std::vector<std::byte> answer(
        reinterpret_cast<const std::byte*>(bytes.data()),
        reinterpret_cast<const std::byte*>(bytes.data()) + bytes.size());
    StorageStart start = StorageStart::kInvalid;
    if (control == 1) start = client.Read(0, {{0x8000, 4096}}, 0);
    if (control == 2) start = client.Flush(0);
    if (control == 3) start = client.Unmap(0, 512, 0);
    if (start == StorageStart::kOk) ++started;
    if (control == 4) {
      client.OnClosed();
      channel.tags.clear();
      client.OnOpened(channel);
      continue;
    }
    if (control == 5) client.OnCompletion(1000, answer);
    if (!fill.empty()) std::memcpy(scratch.data(), fill.data(), fill.size());
    if (channel.tags.empty()) continue;
    const uint64_t tag = channel.tags.front();
    channel.tags.pop_front();
    client.OnCompletion(tag, answer);
    client.OnRoom();
  }
  client.OnClosed();
  if (user.done != started || client.in_flight() != 0) std::abort();
  return 0;
}
