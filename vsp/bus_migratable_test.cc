// SPDX-License-Identifier: MIT
//
// The channels of a bus as a part of a migration, call by call; whole
// migrations are in tests/bus_migration_test.cc.

#include "ferrybus/vsp/bus_migratable.h"

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "ferrybus/vsp/bus_test_util.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

using migration::Role;
using Log = std::vector<std::string>;
using Code = savestate::SizeAnswer::Code;

constexpr absl::StatusCode kRefused = absl::StatusCode::kFailedPrecondition;

// A host with one device, served by hand.
class TestOwner final : public BusOwner {
 public:
  TestOwner(TestGuest* guest, LoggingDevice* device)
      : guest_(guest), device_(device) {}

  void MakeBus() {
    bus_ = std::make_unique<Bus>(BusOptions(), guest_->memory.get(),
                                 &guest_->doorbell);
    ASSERT_TRUE(bus_->Offer(TestParams(1), device_).ok());
  }

  Bus* bus() override { return bus_.get(); }
  void Serve() override {
    ++serves;
    guest_->Pump(*bus_);
  }
  absl::Status RestoreBus(absl::Span<const std::byte> saved) override {
    const DeviceOffer offers[] = {{.params = TestParams(1), .device = device_}};
    auto restored = Bus::Restore(saved, BusOptions(), guest_->memory.get(),
                                 &guest_->doorbell, offers);
    if (!restored.ok()) return restored.status();
    bus_ = *std::move(restored);
    return absl::OkStatus();
  }
  void DropBus() override { bus_.reset(); }

  int serves = 0;

 private:
  TestGuest* const guest_;
  LoggingDevice* const device_;
  std::unique_ptr<Bus> bus_;
};

BusMigratableOptions Options(uint64_t guest_pages,
                             std::vector<OfferParams> offers) {
  return {.guest_pages = guest_pages, .offers = std::move(offers)};
}

class BusMigratableTest : public ::testing::Test {
 protected:
  std::string SaveMutable(BusMigratable& channels) {
    const savestate::SizeAnswer first = channels.SaveMutable({});
    if (first.code != Code::kTooSmall) return "";
    std::string out(*first.bytes, '\0');
    const savestate::SizeAnswer second = channels.SaveMutable(
        {reinterpret_cast<std::byte*>(out.data()), out.size()});
    EXPECT_EQ(second.code, Code::kOk);
    EXPECT_EQ(second.bytes, out.size());
    return out;
  }
  static std::string Immutable(BusMigratable& channels) {
    const savestate::SizeAnswer first = channels.SaveImmutable({});
    EXPECT_EQ(first.code, Code::kTooSmall);
    std::string out(*first.bytes, '\0');
    EXPECT_EQ(channels
                  .SaveImmutable(
                      {reinterpret_cast<std::byte*>(out.data()), out.size()})
                  .code,
              Code::kOk);
    return out;
  }

  TestGuest guest_;
  LoggingDevice device_{IncomingPolicy::kDrain};
  LoggingDevice next_device_{IncomingPolicy::kDrain};
  TestOwner owner_{&guest_, &device_};
  TestOwner next_owner_{&guest_, &next_device_};
  absl::Mutex mutex_;
  BusMigratable source_{"vmbus", Options(256, {TestParams(1)}), &owner_,
                        &mutex_};
  BusMigratable target_{"vmbus", Options(256, {TestParams(1)}), &next_owner_,
                        &mutex_};
};

TEST_F(BusMigratableTest, OnlyASourceHasABus) {
  EXPECT_EQ(source_.Prepare(Role::kSource),
            absl::FailedPreconditionError("there is no bus to move"));
  EXPECT_EQ(source_.Pause().status(),
            absl::FailedPreconditionError("there is no bus to pause"));
  source_.Resume();
  EXPECT_TRUE(target_.Prepare(Role::kTarget).ok());
  owner_.MakeBus();
  EXPECT_TRUE(source_.Prepare(Role::kSource).ok());
  EXPECT_EQ(source_.Prepare(Role::kTarget),
            absl::FailedPreconditionError("a target has a bus already"));
}

TEST_F(BusMigratableTest, HostsThatDifferAreToldApartByWhatDiffers) {
  const std::string there = Immutable(source_);
  EXPECT_TRUE(target_.RestoreImmutable(AsBytes(there)).ok());
  OfferParams sub = TestParams(1);
  sub.sub_channel_index = 3;
  OfferParams type = TestParams(1);
  type.interface_type.bytes[0] = 0x7d;
  const std::string offer = TestParams(1).interface_type.ToString() + " " +
                            TestParams(1).interface_instance.ToString();
  const struct {
    BusMigratableOptions options;
    std::string text;
  } cases[] = {
      {Options(255, {TestParams(1)}),
       "pages of guest memory: the source has 256, this host has 255"},
      {Options(256, {}), "offer 0: the source has " + offer +
                             " sub-channel 0, this host has none"},
      {Options(256, {TestParams(1), TestParams(2)}),
       "offer 1: the source has none, this host has " +
           TestParams(2).interface_type.ToString() + " " +
           TestParams(2).interface_instance.ToString() + " sub-channel 0"},
      {Options(256, {sub}), "offer 0: the source has " + offer +
                                " sub-channel 0, this host has " + offer +
                                " sub-channel 3"},
      {Options(256, {type}),
       "offer 0: the source has " + offer + " sub-channel 0, this host has " +
           type.interface_type.ToString() + " " +
           type.interface_instance.ToString() + " sub-channel 0"}};
  for (const auto& each : cases) {
    BusMigratable target("vmbus", each.options, &next_owner_, &mutex_);
    EXPECT_EQ(target.RestoreImmutable(AsBytes(there)),
              absl::FailedPreconditionError(each.text));
  }
  EXPECT_FALSE(target_.RestoreImmutable(AsBytes("no such thing")).ok());
}

TEST_F(BusMigratableTest, ItPausesOnceItsDevicesAreDrained) {
  owner_.MakeBus();
  guest_.Connect(*owner_.bus());
  TestGuest::Channel& channel = guest_.Open(*owner_.bus(), 1);
  ASSERT_TRUE(source_.Prepare(Role::kSource).ok());
  EXPECT_EQ(source_.SaveMutable({}).failure.code(), kRefused);
  // Published, and not taken: Pause() takes it.
  guest_.Request(channel, 2);
  (void)device_.TakeLog();
  for (int i = 0; i < 3; ++i) {
    const absl::StatusOr<bool> paused = source_.Pause();
    ASSERT_TRUE(paused.ok());
    EXPECT_FALSE(*paused);
  }
  EXPECT_EQ(owner_.serves, 3);
  EXPECT_EQ(device_.held.size(), 2u);
  EXPECT_EQ(device_.TakeLog(), Log{"suspend"});
  EXPECT_FALSE(source_.is_frozen());
  device_.AnswerAll();
  EXPECT_TRUE(*source_.Pause());
  EXPECT_TRUE(source_.is_frozen());
  EXPECT_FALSE(SaveMutable(source_).empty());
  const int serves = owner_.serves;
  EXPECT_TRUE(*source_.Pause()) << "again";
  EXPECT_EQ(owner_.serves, serves) << "nothing is to be taken any more";
  // And it goes on here.
  source_.Resume();
  EXPECT_FALSE(source_.is_frozen());
  EXPECT_EQ(device_.TakeLog(), Log{"started"});
  EXPECT_EQ(source_.SaveMutable({}).failure.code(), kRefused);
  guest_.Request(channel, 1);
  guest_.Pump(*owner_.bus());
  device_.AnswerAll();
  guest_.Pump(*owner_.bus());
  EXPECT_EQ(guest_.answers(channel), 3u);
  // It undoes its own pause only.
  owner_.bus()->Suspend();
  EXPECT_EQ(device_.TakeLog(), Log{"suspend"});
  source_.Resume();
  EXPECT_TRUE(device_.TakeLog().empty());
  owner_.DropBus();
}

TEST_F(BusMigratableTest, TheTargetGoesOnWhereTheSourceStood) {
  owner_.MakeBus();
  guest_.Connect(*owner_.bus());
  TestGuest::Channel& channel = guest_.Open(*owner_.bus(), 1);
  ASSERT_TRUE(source_.Prepare(Role::kSource).ok());
  ASSERT_TRUE(*source_.Pause());
  const std::string saved = SaveMutable(source_);
  EXPECT_EQ(source_.RestoreMutable(AsBytes(saved)).code(), kRefused)
      << "a source";
  source_.Retire();
  EXPECT_EQ(owner_.bus(), nullptr);
  ASSERT_TRUE(target_.Prepare(Role::kTarget).ok());
  EXPECT_FALSE(target_.RestoreMutable(AsBytes("no such thing")).ok());
  EXPECT_EQ(next_owner_.bus(), nullptr);
  ASSERT_TRUE(target_.RestoreMutable(AsBytes(saved)).ok());
  EXPECT_EQ(target_.RestoreMutable(AsBytes(saved)).code(), kRefused) << "twice";
  EXPECT_EQ(next_device_.TakeLog(), Log{"restored state"});
  target_.Resume();
  EXPECT_EQ(next_device_.TakeLog(), Log{"started"});
  channel.end.doorbell.on_ring = [this] { next_owner_.bus()->Signal(1); };
  guest_.Request(channel, 1);
  guest_.Pump(*next_owner_.bus());
  next_device_.AnswerAll();
  guest_.Pump(*next_owner_.bus());
  EXPECT_EQ(guest_.answers(channel), 1u);
  next_owner_.DropBus();
}

}  // namespace
}  // namespace ferrybus::vsp
