// SPDX-License-Identifier: MIT

// The client and the accelerator over a real channel; both of it move.

#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "ferrybus/ringbuffer/testing/test_seed.h"
#include "ferrybus/tests/testing/bus_pair.h"
#include "ferrybus/vsc/accelerator/accelerator_client.h"
#include "ferrybus/vsp/virtual_function/accelerator_device.h"
#include "ferrybus/vsp/virtual_function/accelerator_world.h"
#include "gtest/gtest.h"

namespace ferrybus {
namespace {

using vsp::AcceleratorDevice;
using vsp::AcceleratorHost;
using vsp::AcceleratorMove;

constexpr char kTarget[] = "//tests/accelerator:accelerator_channel_test";
constexpr uint32_t kDepth = 24;
constexpr uint32_t kGuestBytes = 10000;
constexpr uint64_t kGpa = 512 * 4096 + 100;  // not on a page

// Runs only behind a channel.
std::unique_ptr<AcceleratorHost> NewHost(uint64_t number) {
  vsp::AcceleratorHostOptions options;
  options.has_port = false;
  return std::make_unique<AcceleratorHost>(number, options);
}

OfferParams Params(uint8_t instance = 1) {
  OfferParams params;
  params.interface_type = accelerator::kInterface;
  params.interface_instance.bytes[0] = instance;
  return params;
}

// A guest with its client, and the host that it has now.
struct World {
  explicit World(uint64_t seed, uint64_t commands = ~uint64_t{0})
      : pair(1024), host(NewHost(1)), client(Options(seed, commands)) {
    host->StartInterrupts();
    device = std::make_unique<AcceleratorDevice>(&host->accelerator);
    pair.guest.AddDriver(accelerator::kInterface, &client);
  }
  ~World() {
    client.Stop();
    pair.host.reset();
  }

  vsc::AcceleratorClientOptions Options(uint64_t seed, uint64_t commands) {
    vsc::AcceleratorClientOptions options;
    options.seed = seed;
    options.commands = commands;
    options.depth = kDepth;
    options.random.segments = {{1, vsp::kWorldSizes[0]},
                               {2, vsp::kWorldSizes[1]}};
    options.random.vectors = vsp::kWorldVectors;
    options.random.guest_bytes_max = kGuestBytes;
    options.buffers = {kGpa, kDepth * kGuestBytes};
    options.buffer_memory =
        pair.memory->Translate(kGpa, kDepth * kGuestBytes).data();
    options.on_interrupt_due = [this](uint32_t vector) { ++due[vector]; };
    return options;
  }
  void Connect() {
    offer = *pair.host->Offer(Params(), device.get());
    pair.Connect();
  }
  void Run(uint32_t steps) {
    host->accelerator.Run(steps);
    pair.Pump();
  }
  void RunAll() {
    pair.Pump();
    while (host->accelerator.Run(100) > 0) pair.Pump();
    pair.Pump();
  }
  // The bus and the virtual function, to another host.
  absl::Status Move(uint64_t seed) {
    std::mt19937_64 random(seed);
    auto target = NewHost(++hosts);
    AcceleratorMove move(host.get(), target.get());
    if (absl::Status status = move.Begin(); !status.ok()) return status;
    for (uint64_t passes = random() % 6; passes > 0; --passes) {
      if (absl::Status status = move.CopyDirty(random() % 30); !status.ok()) {
        return status;
      }
      Run(static_cast<uint32_t>(random() % 50));
    }
    if (!host->migratable.Pause().ok()) return absl::InternalError("pause");
    pair.host->Suspend();
    pair.host->Freeze();
    const absl::StatusOr<std::string> saved = pair.host->Save();
    if (!saved.ok()) return saved.status();
    auto next = std::make_unique<AcceleratorDevice>(&target->accelerator);
    pair.host.reset();
    const vsp::DeviceOffer offers[] = {{Params(), next.get()}};
    if (absl::Status status = move.Finish(); !status.ok()) return status;
    if (absl::Status status = pair.RestoreHost(Bytes(*saved), offers);
        !status.ok()) {
      return status;
    }
    for (uint32_t i = 0; i < vsp::kWorldVectors; ++i) {
      sent[i] += host->SentOf(i);
    }
    device = std::move(next);
    host = std::move(target);
    return absl::OkStatus();
  }
  static absl::Span<const std::byte> Bytes(const std::string& saved) {
    return {reinterpret_cast<const std::byte*>(saved.data()), saved.size()};
  }

  uint64_t due[vsp::kWorldVectors] = {};
  uint64_t sent[vsp::kWorldVectors] = {};
  uint64_t hosts = 1;
  testing::BusPair pair;
  std::unique_ptr<AcceleratorHost> host;
  std::unique_ptr<AcceleratorDevice> device;
  vsc::AcceleratorClient client;
  OfferId offer{};
};

// promise:P1
TEST(AcceleratorChannelTest, RandomCommandsAreAnsweredAsTheClientComputes) {
  World world(ringbuffer::testing::TestSeed(
                  kTarget,
                  "AcceleratorChannelTest."
                  "RandomCommandsAreAnsweredAsTheClientComputes"),
              2000);
  world.Connect();
  world.RunAll();
  EXPECT_TRUE(world.client.is_done());
  EXPECT_TRUE(world.client.is_clean()) << world.client.first_difference();
  EXPECT_EQ(world.client.counters().answered, 2000u);
  for (uint32_t i = 0; i < vsp::kWorldVectors; ++i) {
    EXPECT_EQ(world.host->SentOf(i), world.due[i]);
    EXPECT_GT(world.due[i], 0u);
  }
}

// promise:P1 bad:M6
TEST(AcceleratorChannelTest, NothingIsLostWhenBusAndFunctionMove) {
  const uint64_t seed = ringbuffer::testing::TestSeed(
      kTarget, "AcceleratorChannelTest.NothingIsLostWhenBusAndFunctionMove");
  std::mt19937_64 random(seed);
  World world(seed);
  world.Connect();
  for (int i = 0; i < 100; ++i) {
    for (uint64_t runs = random() % 5; runs > 0; --runs) {
      world.Run(static_cast<uint32_t>(random() % 30));
    }
    const absl::Status status = world.Move(random());
    ASSERT_TRUE(status.ok()) << status;
    ASSERT_TRUE(world.client.is_clean()) << world.client.first_difference();
  }
  world.client.Stop();
  world.RunAll();
  EXPECT_EQ(world.client.in_flight(), 0u);
  EXPECT_TRUE(world.client.is_clean()) << world.client.first_difference();
  EXPECT_GT(world.client.counters().answered, 1000u);
  EXPECT_EQ(world.device->not_executed(), 0u);
  for (uint32_t i = 0; i < vsp::kWorldVectors; ++i) {
    EXPECT_EQ(world.sent[i] + world.host->SentOf(i), world.due[i]);
  }
}

TEST(AcceleratorChannelTest, ABusIsNotSavedWhileItsCommandsRun) {
  World world(1);
  world.Connect();
  ASSERT_GT(world.client.in_flight(), 0u);
  world.pair.host->Suspend();
  world.pair.host->Freeze();
  EXPECT_EQ(world.pair.host->Save().status().code(),
            absl::StatusCode::kFailedPrecondition);
  world.pair.host->Thaw();
  world.client.Stop();
  world.RunAll();
}

// What was completed while the bus was frozen is in its state.
TEST(AcceleratorChannelTest, AnswersOfAFrozenBusAreSaved) {
  World world(3, 40);
  world.Connect();
  world.pair.host->Suspend();
  world.pair.host->Freeze();
  world.host->accelerator.Run(30);
  const absl::Status status = world.Move(5);
  ASSERT_TRUE(status.ok()) << status;
  world.RunAll();
  EXPECT_TRUE(world.client.is_done());
  EXPECT_TRUE(world.client.is_clean()) << world.client.first_difference();
}

// Packets of another time: answered, not left for ever.
TEST(AcceleratorChannelTest, PacketsWhoseCommandsAreUnknownAreAnswered) {
  World world(4, 10);
  world.Connect();
  ASSERT_EQ(world.client.in_flight(), 10u);
  world.host->accelerator.SetHold(vsp::Accelerator::kMigration, true);
  world.pair.host->Suspend();
  world.pair.host->Freeze();
  const std::string saved = *world.pair.host->Save();
  world.pair.host.reset();
  const auto other = NewHost(2);
  AcceleratorDevice device(&other->accelerator);
  const vsp::DeviceOffer offers[] = {{Params(), &device}};
  ASSERT_TRUE(world.pair.RestoreHost(World::Bytes(saved), offers).ok());
  world.pair.Pump();
  EXPECT_EQ(device.not_executed(), 10u);
  EXPECT_EQ(device.in_flight(), 0u);
  EXPECT_EQ(world.client.counters().wrong, 10u);
  world.pair.host.reset();
}

TEST(AcceleratorChannelTest, AChannelThatClosesLeavesNothingBehind) {
  World world(5, 10);
  world.Connect();
  ASSERT_EQ(world.device->in_flight(), 10u);
  ASSERT_TRUE(world.pair.host->Rescind(world.offer).ok());
  world.pair.Pump();
  EXPECT_EQ(world.client.counters().lost, 10u);
  EXPECT_EQ(world.device->in_flight(), 0u);
  world.RunAll();
  EXPECT_FALSE(world.host->accelerator.has_work());
}

// Writes down only that it is there.
class Visitor final : public vsc::Driver {
 public:
  void OnOpened(vsc::ClientChannel& opened) override {
    channel = &opened;
    ++opens;
  }
  void OnClosed() override {
    channel = nullptr;
    ++closes;
  }
  void OnCompletion(uint64_t, absl::Span<const std::byte> reply) override {
    ++answers;
    EXPECT_GE(reply.size(), sizeof(accelerator::Reply));
  }
  void Ask() {
    accelerator::Command query = {};
    query.op = accelerator::Op::kQuery;
    std::vector<std::byte> payload(sizeof(query));
    std::memcpy(payload.data(), &query, sizeof(query));
    ASSERT_EQ(channel->Send({.payload = payload, .buffers = {}, .tag = 1}),
              vsc::SendResult::kOk);
    channel->Flush();
  }
  vsc::ClientChannel* channel = nullptr;
  int opens = 0;
  int closes = 0;
  int answers = 0;
};

// doc:MG37
TEST(AcceleratorChannelTest, ABusGivenAgainGetsANewChannel) {
  const auto host = NewHost(1);
  Visitor on_first;
  Visitor on_second;
  Visitor again;
  testing::BusPair first(256);
  testing::BusPair second(256);
  first.guest.AddDriver(accelerator::kInterface, &on_first);
  second.guest.AddDriver(accelerator::kInterface, &on_second);
  vsp::AcceleratorChannel channel(&host->accelerator);
  EXPECT_EQ(channel.SetBus(nullptr, Params()).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(channel.device(), nullptr);
  ASSERT_TRUE(channel.SetBus(first.host.get(), Params()).ok());
  EXPECT_TRUE(channel.is_settled());
  first.Connect();
  second.Connect();
  on_first.Ask();
  first.Pump();
  ASSERT_EQ(host->accelerator.Run(10), 1u);
  first.Pump();
  EXPECT_EQ(on_first.answers, 1);
  on_first.Ask();
  first.Pump();

  ASSERT_TRUE(channel.SetBus(second.host.get(), Params()).ok());
  EXPECT_FALSE(channel.is_settled());
  first.Pump();
  second.Pump();
  EXPECT_TRUE(channel.is_settled());
  EXPECT_EQ(on_first.closes, 1);
  EXPECT_EQ(on_second.opens, 1);
  // The old one's command goes nowhere, the new one's home.
  on_second.Ask();
  second.Pump();
  ASSERT_EQ(host->accelerator.Run(10), 2u);
  first.Pump();
  second.Pump();
  EXPECT_EQ(on_first.answers, 1);
  EXPECT_EQ(on_second.answers, 1);

  // The same bus once more.
  ASSERT_TRUE(channel.SetBus(second.host.get(), Params(2)).ok());
  second.Pump();
  EXPECT_EQ(on_second.closes, 1);
  second.guest.RemoveDriver(&on_second);
  second.guest.AddDriver(accelerator::kInterface, &again);
  second.Pump();
  ASSERT_EQ(again.opens, 1);
  again.Ask();
  second.Pump();
  ASSERT_EQ(host->accelerator.Run(10), 1u);
  second.Pump();
  EXPECT_EQ(again.answers, 1);
}

}  // namespace
}  // namespace ferrybus
