// SPDX-License-Identifier: MIT

// A whole device fed with packets from the input: every packet is answered
// exactly once, whatever it says and whatever state it meets.
//
// Input: a sequence of records.  u8 control: bit 0 poll the device afterwards,
// bit 1 mapping fails, bit 2 hold I/O, bit 3 fail the next I/O, bit 4 close and
// open again, bit 5 save and restore, bits 6-7 number of buffers; u8 payload
// length; per buffer u16 offset and u16 length; payload.

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ferrybus/channel/protocols/vstor.h"
#include "ferrybus/vsp/storage/fake_storage_guest.h"
#include "ferrybus/vsp/storage/memory_backend.h"
#include "ferrybus/vsp/storage/storage_device.h"

namespace {

using namespace ferrybus;       // NOLINT
using namespace ferrybus::vsp;  // NOLINT

constexpr size_t kPacketsMax = 64;

class Reader {
 public:
  Reader(const uint8_t* data, size_t size_bytes)
      : at_(data), end_(data + size_bytes) {}
  bool done() const { return at_ == end_; }
  uint8_t U8() { return done() ? uint8_t{0} : *at_++; }
  uint16_t U16() {
    const uint8_t low = U8();
    return static_cast<uint16_t>(U8() << 8 | low);
  }
  std::vector<std::byte> Bytes(size_t count) {
    std::vector<std::byte> bytes;
    while (bytes.size() < count && !done()) bytes.push_back(std::byte{U8()});
    return bytes;
  }

 private:
  const uint8_t* at_;
  const uint8_t* end_;
};

struct World {
  World() : disk(64 * 512), memory(1 << 16), guest(absl::MakeSpan(memory)) {
    Open();
  }

  void Open() {
    auto owned = std::make_unique<MemoryBackend>(
        &disk, MemoryBackendOptions{.queue_depth = 4});
    backend = owned.get();
    device = *StorageDevice::Create(std::move(owned), {.requests_max = 16});
  }

  // Moves the device, with all that is in flight, to a new one.
  void Move() {
    const std::string state = *device->SaveDevice();
    std::vector<std::string> blobs;
    std::vector<uint64_t> ids;
    for (uint64_t id : sent) {
      if (guest.answered(id)) continue;
      std::string blob(64, '\0');
      const auto answer = device->SavePacket(
          guest.info(id),
          absl::MakeSpan(reinterpret_cast<std::byte*>(blob.data()),
                         blob.size()));
      if (answer.code != savestate::SizeAnswer::Code::kOk) std::abort();
      blob.resize(*answer.bytes);
      ids.push_back(id);
      blobs.push_back(blob);
    }
    std::unique_ptr<StorageDevice> old = std::move(device);
    Open();
    const auto as_bytes = [](const std::string& text) {
      return absl::MakeConstSpan(
          reinterpret_cast<const std::byte*>(text.data()), text.size());
    };
    if (!device->OnRestored(FakeStorageGuest::Channel(), as_bytes(state))
             .ok()) {
      std::abort();
    }
    std::vector<uint64_t> here;
    for (size_t i = 0; i < ids.size(); ++i) {
      uint64_t id = 0;
      IncomingPacket packet = guest.Adopt(guest, ids[i], &id);
      // Refused only for want of room: the old packets hold slots, too.
      if (!device->RestorePacket(std::move(packet), as_bytes(blobs[i])).ok()) {
        continue;
      }
      here.push_back(id);
    }
    old.reset();
    device->OnStarted();
    sent = here;
  }

  MemoryDisk disk;
  std::vector<std::byte> memory;
  FakeStorageGuest guest;
  MemoryBackend* backend = nullptr;
  std::unique_ptr<StorageDevice> device;
  std::vector<uint64_t> sent;
};

void Step(Reader& reader, World& world) {
  const uint8_t control = reader.U8();
  const uint8_t payload_bytes = reader.U8();
  std::vector<iovec> buffers;
  for (int i = 0; i < control >> 6; ++i) {
    const uint16_t offset = reader.U16();
    const size_t room = world.memory.size() - offset;
    buffers.push_back(
        world.guest.Buffer(offset, std::min<size_t>(reader.U16(), room)));
  }
  world.guest.RefuseMapping((control & 2) != 0);
  world.backend->Hold((control & 4) != 0);
  if ((control & 8) != 0) world.backend->FailNext(EIO);
  world.sent.push_back(world.guest.Send(
      *world.device, reader.Bytes(payload_bytes), std::move(buffers)));
  if ((control & 16) != 0) {
    world.device->OnClosed();
    (void)world.device->OnOpened(FakeStorageGuest::Channel(), {});
  }
  if ((control & 32) != 0) world.Move();
  if ((control & 1) != 0) world.device->Poll();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes) {
  World world;
  // Most inputs should get past the handshake; an odd first byte leaves it out.
  Reader reader(data, size_bytes);
  if ((reader.U8() & 1) == 0 && !world.guest.Initialize(*world.device)) {
    std::abort();
  }
  for (size_t i = 0; i < kPacketsMax && !reader.done(); ++i) {
    Step(reader, world);
  }
  world.backend->Hold(false);
  for (int i = 0; i < 4096 && world.guest.outstanding() > 0; ++i) {
    world.device->Poll();
  }
  if (world.guest.outstanding() != 0 || world.device->in_flight() != 0 ||
      world.guest.failed() != 0) {
    std::abort();
  }
  for (const uint64_t id : world.sent) {
    if (world.guest.answered(id) &&
        world.guest.reply(id).size() != sizeof(vstor::Packet)) {
      std::abort();
    }
  }
  return 0;
}
