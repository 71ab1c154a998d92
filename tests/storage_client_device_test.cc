// SPDX-License-Identifier: MIT

// The storage client against the storage device, without a ring between them.

#include <cstring>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "ferrybus/vsc/storage/storage_client.h"
#include "ferrybus/vsp/storage/fake_storage_guest.h"
#include "ferrybus/vsp/storage/memory_backend.h"
#include "ferrybus/vsp/storage/storage_device.h"
#include "gtest/gtest.h"

namespace ferrybus::vsc {
namespace {

constexpr uint64_t kGpaBase = 0x100000;
constexpr size_t kMemoryBytes = 4 << 20;
constexpr size_t kScratchOffset = kMemoryBytes - 8192;

// Hands the client's requests to the device and its answers back.
class JoinedChannel final : public ClientChannel {
 public:
  JoinedChannel(vsp::FakeStorageGuest* guest, vsp::StorageDevice* device,
                size_t room)
      : guest_(guest), device_(device), room_(room) {}

  SendResult Send(const Request& request) override {
    if (in_flight_.size() >= room_) return SendResult::kFull;
    std::vector<iovec> buffers;
    for (const GuestBuffer& buffer : request.buffers) {
      buffers.push_back(
          guest_->Buffer(buffer.gpa - kGpaBase, buffer.byte_count));
    }
    const uint64_t id =
        guest_->Send(*device_, request.payload, std::move(buffers));
    in_flight_.emplace_back(id, request.tag);
    return SendResult::kOk;
  }
  void Flush() override {}
  uint32_t requests_in_flight() const override {
    return static_cast<uint32_t>(in_flight_.size());
  }

  // Runs the device and delivers what it answered.
  void Pump(StorageClient& client) {
    device_->Poll();
    const auto pending = std::exchange(in_flight_, {});
    for (const auto& [id, tag] : pending) {
      if (guest_->answered(id)) {
        client.OnCompletion(tag, guest_->reply(id));
      } else {
        in_flight_.emplace_back(id, tag);
      }
    }
    client.OnRoom();
  }

 private:
  vsp::FakeStorageGuest* const guest_;
  vsp::StorageDevice* const device_;
  const size_t room_;
  std::vector<std::pair<uint64_t, uint64_t>> in_flight_;
};

class StorageClientDeviceTest : public testing::Test,
                                public StorageClient::Events {
 protected:
  StorageClientDeviceTest()
      : disk_(1 << 20),
        memory_(kMemoryBytes),
        guest_(absl::MakeSpan(memory_)),
        device_(*vsp::StorageDevice::Create(
            std::make_unique<vsp::MemoryBackend>(
                &disk_, vsp::MemoryBackendOptions{.queue_depth = 16}),
            {.serial = "joint"})),
        channel_(&guest_, device_.get(), 100) {
    StorageClientOptions options;
    options.scratch = {kGpaBase + kScratchOffset, 8192};
    options.scratch_memory = guest_.at(kScratchOffset);
    client_ = std::make_unique<StorageClient>(this, options);
    EXPECT_TRUE(device_->OnOpened(vsp::FakeStorageGuest::Channel(), {}).ok());
    device_->OnStarted();
    client_->OnOpened(channel_);
    for (int i = 0; i < 20 && !client_->ready(); ++i) channel_.Pump(*client_);
  }

  void OnFailed(const absl::Status& status) override {
    ADD_FAILURE() << status;
  }
  void OnIoDone(uint64_t cookie, const StorageIoResult& result) override {
    EXPECT_EQ(result.status, StorageIoStatus::kOk) << cookie;
    ++done_;
  }
  void Finish() {
    for (int i = 0; i < 1000 && client_->in_flight() > 0; ++i) {
      channel_.Pump(*client_);
    }
    EXPECT_EQ(client_->in_flight(), 0u);
  }

  vsp::MemoryDisk disk_;
  std::vector<std::byte> memory_;
  vsp::FakeStorageGuest guest_;
  std::unique_ptr<vsp::StorageDevice> device_;
  JoinedChannel channel_;
  std::unique_ptr<StorageClient> client_;
  size_t done_ = 0;
};

TEST_F(StorageClientDeviceTest, ClientLearnsWhatTheDeviceIs) {
  ASSERT_TRUE(client_->ready());
  EXPECT_EQ(client_->disk().size_bytes(), disk_.size());
  EXPECT_EQ(client_->disk().block_bytes, 512u);
  EXPECT_EQ(client_->disk().max_transfer_bytes, 1u << 20);
  EXPECT_EQ(client_->disk().max_unmap_bytes, uint64_t{8u << 20} * 512);
  EXPECT_EQ(std::memcmp(&client_->disk().inquiry[8], "FERRYBUS", 8), 0);
  EXPECT_EQ(device_->counters().refused, 0u);
}

TEST_F(StorageClientDeviceTest, FullQueueOfWritesReadsBack) {
  ASSERT_TRUE(client_->ready());
  constexpr size_t kDepth = 256;
  for (size_t i = 0; i < kDepth; ++i) {
    std::memset(guest_.at(i * 4096), static_cast<int>(i), 4096);
    ASSERT_EQ(client_->Write(i * 4096, {{kGpaBase + i * 4096, 4096}}, i),
              StorageStart::kOk);
  }
  EXPECT_EQ(client_->Flush(1), StorageStart::kFull);
  Finish();
  ASSERT_EQ(client_->Flush(1), StorageStart::kOk);
  Finish();
  std::memset(guest_.at(0), 0xcc, kDepth * 4096);
  for (size_t i = 0; i < kDepth; ++i) {
    ASSERT_EQ(client_->Read(i * 4096,
                            {{kGpaBase + i * 4096, 1000},
                             {kGpaBase + i * 4096 + 1000, 3096}},
                            i),
              StorageStart::kOk);
  }
  Finish();
  EXPECT_EQ(done_, 2 * kDepth + 1);
  EXPECT_EQ(std::memcmp(guest_.at(0), disk_.data(), kDepth * 4096), 0);
  EXPECT_EQ(*guest_.at(255 * 4096), std::byte{255});
}

TEST_F(StorageClientDeviceTest, UnmapZeroesItsRange) {
  ASSERT_TRUE(client_->ready());
  std::memset(disk_.data(), 0x55, disk_.size());
  for (uint64_t i = 0; i < 200; ++i) {
    ASSERT_EQ(client_->Unmap(i * 1024, 512, i), StorageStart::kOk);
  }
  Finish();
  for (uint64_t i = 0; i < 200; ++i) {
    ASSERT_EQ(disk_[i * 1024], std::byte{0});
    ASSERT_EQ(disk_[i * 1024 + 512], std::byte{0x55});
  }
}

}  // namespace
}  // namespace ferrybus::vsc
