// SPDX-License-Identifier: MIT
//
// The channels of a bus and the guest's memory move through the migration's
// two state machines, with requests in flight, again and again: every request
// is answered exactly once.  Between the two owners the guest's memory is
// overwritten, so that only what moved is left of it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "ferrybus/savestate/migration/fake_machine.h"
#include "ferrybus/savestate/migration/migration_source.h"
#include "ferrybus/savestate/migration/migration_target.h"
#include "ferrybus/savestate/migration/shadow_memory.h"
#include "ferrybus/vsp/bus_migratable.h"
#include "ferrybus/vsp/bus_test_util.h"

namespace ferrybus {
namespace {

using ::testing::HasSubstr;

// The guest's memory on one of the hosts.
class GuestRam final : public migration::Migratable {
 public:
  explicit GuestRam(absl::Span<std::byte> memory)
      : memory_(memory), shadow_(1, memory) {}

  std::string name() const override { return "ram"; }
  migration::Capabilities capabilities() const override {
    return {.live_migration = true};
  }
  std::vector<migration::Segment> segments() const override {
    return {{.id = 1, .ranges = {{0, memory_.size()}}}};
  }
  migration::DirtyTracking* dirty_tracking() override { return &shadow_; }
  absl::Status Prepare(migration::Role) override { return absl::OkStatus(); }
  void End() override {}
  savestate::SizeAnswer SaveImmutable(absl::Span<std::byte>) override {
    return savestate::SizeAnswer::Ok(0);
  }
  absl::Status ReadMemory(uint32_t, uint64_t offset,
                          absl::Span<std::byte> out) override {
    return shadow_.Read(offset, out);
  }
  absl::StatusOr<bool> Pause() override { return true; }
  savestate::SizeAnswer SaveMutable(absl::Span<std::byte>) override {
    return savestate::SizeAnswer::Ok(0);
  }
  void Retire() override {}
  absl::Status RestoreImmutable(absl::Span<const std::byte>) override {
    return absl::OkStatus();
  }
  absl::Status WriteMemory(uint32_t, uint64_t offset,
                           absl::Span<const std::byte> data) override {
    return shadow_.Write(offset, data);
  }
  absl::Status RestoreMutable(absl::Span<const std::byte>) override {
    return absl::OkStatus();
  }
  void Resume() override {}

 private:
  const absl::Span<std::byte> memory_;
  migration::ShadowMemory shadow_;
};

class BusMigrationTest : public ::testing::Test,
                         public vsp::BusOwner,
                         public migration::TargetHost {
 protected:
  BusMigrationTest() {
    bus_ = NewBus();
    (void)*bus_->Offer(vsp::TestParams(1), device_.get());
    guest_.Connect(*bus_);
    channel_ = &guest_.Open(*bus_, 1);
    ram_ = std::make_unique<GuestRam>(GuestMemory());
    channels_ = Channels(1);
  }

  std::unique_ptr<vsp::Bus> NewBus() {
    return std::make_unique<vsp::Bus>(vsp::BusOptions(), guest_.memory.get(),
                                      &guest_.doorbell);
  }
  absl::Span<std::byte> GuestMemory() {
    return guest_.memory->Translate(0, guest_.memory->page_count() * 4096);
  }
  std::unique_ptr<vsp::BusMigratable> Channels(uint8_t instance) {
    return std::make_unique<vsp::BusMigratable>(
        "vmbus",
        vsp::BusMigratableOptions{.guest_pages = guest_.memory->page_count(),
                                  .offers = {vsp::TestParams(instance)}},
        this, &mutex_);
  }

  // vsp::BusOwner: first the source's, then the target's.
  vsp::Bus* bus() override {
    return is_target_ ? target_bus_.get() : bus_.get();
  }
  void Serve() override { guest_.Pump(*bus()); }
  absl::Status RestoreBus(absl::Span<const std::byte> saved) override {
    // On this host the guest's memory is what came.
    source_memory_.assign(GuestMemory().begin(), GuestMemory().end());
    std::memcpy(GuestMemory().data(), target_memory_.data(),
                target_memory_.size());
    const vsp::DeviceOffer devices[] = {
        {vsp::TestParams(1), next_device_.get()}};
    absl::StatusOr<std::unique_ptr<vsp::Bus>> bus =
        vsp::Bus::Restore(saved, vsp::BusOptions(), guest_.memory.get(),
                          &guest_.doorbell, devices);
    if (!bus.ok()) return bus.status();
    target_bus_ = *std::move(bus);
    return absl::OkStatus();
  }
  void DropBus() override { bus_ = nullptr; }

  // migration::TargetHost.
  absl::StatusOr<std::vector<migration::Migratable*>> CreateDevices(
      const migration::Hello&, std::vector<int>, bool) override {
    target_memory_.assign(GuestMemory().size(), std::byte{0xee});
    target_ram_ = std::make_unique<GuestRam>(absl::MakeSpan(target_memory_));
    target_channels_ = Channels(target_instance_);
    next_device_ = std::make_unique<vsp::LoggingDevice>();
    return std::vector<migration::Migratable*>{target_ram_.get(),
                                               target_channels_.get()};
  }
  void DestroyDevices() override {
    if (target_bus_ != nullptr) {
      target_bus_ = nullptr;
      std::memcpy(GuestMemory().data(), source_memory_.data(),
                  source_memory_.size());
    }
    target_ram_ = nullptr;
    target_channels_ = nullptr;
  }

  // Runs a move while the guest sends requests.
  void Move(int requests_during) {
    absl::Time now = absl::UnixEpoch();
    auto ram = *migration::PendingPages::Create(
        ram_.get(), migration::MemoryOrigin::kUnknown);
    auto channels = *migration::PendingPages::Create(
        channels_.get(), migration::MemoryOrigin::kUnknown);
    migration::PendingPages* const devices[] = {ram.get(), channels.get()};
    source_ledger_.set_record(
        {.state = migration::Ownership::kOwner, .epoch = 1});
    target_ledger_.set_record({});
    migration::MigrationSource source({.machine = "vm",
                                       .migration_id = std::string(16, 'm'),
                                       .peer = "t",
                                       .block_bytes = 16 << 10},
                                      devices, &source_ledger_);
    migration::MigrationTarget target(
        {.machine = "vm", .session = std::string(16, 's'), .peer = "s"}, this,
        &target_ledger_);
    migration::PageEncoder encoder;
    source.Start(now);
    for (int i = 0;
         i < 10000 && !(source.is_finished() && target.is_finished()); ++i) {
      now += absl::Milliseconds(1);
      if (requests_during > 0 &&
          source.progress().phase == migration::SourcePhase::kCopying) {
        --requests_during;
        guest_.Request(*channel_, 1);
        guest_.Pump(*bus_);
        // Some are answered while it moves.
        if (i % 3 == 0 && !device_->held.empty()) Answer(*device_);
      }
      while (auto message = source.TakeMessage()) {
        is_target_ = true;
        target.OnMessage(vsp::AsBytes(message->bytes), {}, now);
        is_target_ = false;
      }
      const auto block = source.TakeBlock(encoder, now);
      if (!block.bytes.empty()) {
        target.OnBlock(vsp::AsBytes(block.bytes), now);
      }
      is_target_ = true;
      target.Poll(now);
      is_target_ = false;
      while (auto message = target.TakeMessage()) {
        source.OnMessage(vsp::AsBytes(*message), now);
      }
      source.Poll(now);
    }
    status_ = source.progress().status;
    moved_ = target.phase() == migration::TargetPhase::kRunning;
    ASSERT_TRUE(source.is_finished())
        << migration::SourcePhaseName(source.progress().phase);
    if (!moved_) return;
    ram = nullptr;
    channels = nullptr;
    bus_ = std::move(target_bus_);
    device_ = std::move(next_device_);
    ram_ = std::make_unique<GuestRam>(GuestMemory());
    channels_ = Channels(1);
    for (auto& [id, channel] : guest_.channels) {
      channel.end.doorbell.on_ring = [this, id = id] { bus_->Signal(id); };
    }
  }

  void Answer(vsp::LoggingDevice& device) {
    IncomingPacket packet = std::move(device.held.front());
    device.held.pop_front();
    const std::vector<std::byte> reply(packet.payload().begin(),
                                       packet.payload().end());
    packet.Complete(reply);
    guest_.Pump(*bus_);
  }

  absl::Mutex mutex_;
  vsp::TestGuest guest_;
  std::unique_ptr<vsp::LoggingDevice> device_ =
      std::make_unique<vsp::LoggingDevice>();
  std::unique_ptr<vsp::LoggingDevice> next_device_;
  std::unique_ptr<vsp::Bus> bus_;
  std::unique_ptr<vsp::Bus> target_bus_;
  vsp::TestGuest::Channel* channel_ = nullptr;
  std::unique_ptr<GuestRam> ram_, target_ram_;
  std::unique_ptr<vsp::BusMigratable> channels_, target_channels_;
  std::vector<std::byte> source_memory_, target_memory_;
  migration::FakeLedger source_ledger_, target_ledger_;
  uint8_t target_instance_ = 1;
  bool is_target_ = false;
  bool moved_ = false;
  absl::Status status_;
};

// promise:P1 doc:MG4
TEST_F(BusMigrationTest, RequestsInFlightMoveAlong) {
  for (int move = 0; move < 10; ++move) {
    guest_.Request(*channel_, 3);
    guest_.Pump(*bus_);
    Move(5);
    ASSERT_TRUE(moved_) << status_;
    EXPECT_EQ(device_->held.size() + guest_.answers(*channel_),
              guest_.next_request);
    EXPECT_GE(device_->held.size(), 3u);
  }
  while (!device_->held.empty()) Answer(*device_);
  EXPECT_EQ(guest_.answers(*channel_), guest_.next_request);
  EXPECT_EQ(guest_.next_request, 80);
}

// bad:S25 bad:T10: what the target does not offer is refused before the pause.
TEST_F(BusMigrationTest, OtherOffersAreRefused) {
  target_instance_ = 2;
  guest_.Request(*channel_, 3);
  guest_.Pump(*bus_);
  Move(5);
  EXPECT_FALSE(moved_);
  EXPECT_THAT(std::string(status_.message()),
              HasSubstr("offer 0: the source has"));
  device_->AnswerAll();
  guest_.Pump(*bus_);
  EXPECT_EQ(guest_.answers(*channel_), 3u);
}

// What a device completes after the pause may have put its data into memory
// that was sent before.  So the other host has that packet in flight, instead
// of an answer without its data.
TEST_F(BusMigrationTest, CompletionAfterThePauseStaysInFlight) {
  guest_.Request(*channel_, 1);
  guest_.Pump(*bus_);
  ASSERT_TRUE(channels_->Prepare(migration::Role::kSource).ok());
  ASSERT_TRUE(*channels_->Pause());
  Answer(*device_);
  const savestate::SizeAnswer size = channels_->SaveMutable({});
  std::vector<std::byte> saved(*size.bytes);
  ASSERT_EQ(channels_->SaveMutable(absl::MakeSpan(saved)).bytes, *size.bytes);

  bus_ = nullptr;
  vsp::LoggingDevice next;
  const vsp::DeviceOffer devices[] = {{vsp::TestParams(1), &next}};
  auto bus = vsp::Bus::Restore(saved, vsp::BusOptions(), guest_.memory.get(),
                               &guest_.doorbell, devices);
  ASSERT_TRUE(bus.ok()) << bus.status();
  EXPECT_EQ(next.held.size(), 1u);
  next.held.clear();
}

// The old owner goes on with what is in flight.
TEST_F(BusMigrationTest, FailureAfterThePause) {
  guest_.Request(*channel_, 3);
  guest_.Pump(*bus_);
  target_ledger_.FailAfter(0, migration::FakeLedger::Failure::kNotStored);
  Move(0);
  EXPECT_FALSE(moved_);
  EXPECT_THAT(std::string(status_.message()),
              HasSubstr("the disk was made to fail"));
  guest_.Request(*channel_, 2);
  guest_.Pump(*bus_);
  device_->AnswerAll();
  guest_.Pump(*bus_);
  EXPECT_EQ(guest_.answers(*channel_), 5u);
}

}  // namespace
}  // namespace ferrybus
