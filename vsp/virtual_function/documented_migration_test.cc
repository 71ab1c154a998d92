// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/virtual_function/documented_migration.h"

#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "ferrybus/savestate/frame.h"
#include "ferrybus/vsp/virtual_function/documented_driver.h"
#include "ferrybus/vsp/virtual_function/migration_parts.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

using absl::StatusCode;
using migration::Role;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uint64_t kPage = 4096;

absl::Span<const std::byte> Bytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

absl::StatusOr<std::string> Negotiated(
    migration::Migratable& device,
    savestate::SizeAnswer (migration::Migratable::*save)(
        absl::Span<std::byte>)) {
  return savestate::NegotiateSize(
      {.dialect = savestate::SizingDialect::kGpuP}, "blob",
      [&](absl::Span<std::byte> out) { return (device.*save)(out); });
}

absl::StatusOr<std::string> Immutable(migration::Migratable& device) {
  return Negotiated(device, &migration::Migratable::SaveImmutable);
}

absl::StatusOr<std::string> Mutable(migration::Migratable& device) {
  return Negotiated(device, &migration::Migratable::SaveMutable);
}

// A driver with a function of two segments, the first of them in two pieces.
struct Host {
  explicit Host(bool has_umed = false) {
    options.vf_index = 3;
    options.device_luid = {42, 0};
    options.segments = {
        {.id = 1, .ranges = {{8 * kPage, 2 * kPage}, {kPage, 3 * kPage}}},
        {.id = 2, .ranges = {{0, 16 * kPage}}}};
    options.on_triage_event = [this](const TriageEvent& event) {
      events.push_back(event);
    };
    umed.calls = &driver.calls;
    if (has_umed) {
      options.umed = &umed;
      options.umed_state = &umed.state;
    }
  }

  absl::Status Start() {
    auto created = DocumentedMigratable::Create(driver.functions(), options);
    if (!created.ok()) return created.status();
    device = *std::move(created);
    driver.adapter = device->adapter();
    driver.calls.clear();
    return absl::OkStatus();
  }
  DocumentedMigratable& Started(Role role) {
    options.is_running = role == Role::kSource;
    EXPECT_TRUE(Start().ok());
    EXPECT_TRUE(device->Prepare(role).ok());
    driver.calls.clear();
    return *device;
  }

  DocumentedDriver driver;
  DocumentedUmed umed;
  DocumentedMigrationOptions options;
  std::vector<TriageEvent> events;
  std::unique_ptr<DocumentedMigratable> device;
};

std::string Parts(MigrationPartsKind kind, std::string driver,
                  std::optional<std::string> umed = std::nullopt) {
  return *WriteMigrationParts(kind, {std::move(driver), std::move(umed)},
                              1 << 20);
}

std::string ImmutableParts(std::string driver,
                           std::optional<std::string> umed = std::nullopt) {
  return Parts(MigrationPartsKind::kImmutable, std::move(driver),
               std::move(umed));
}

// doc:MG2 doc:MG1
TEST(DocumentedMigrationTest, LiveMigrationNeedsTrackingOfAllMemory) {
  Host host;
  host.driver.tracking_caps = 0;
  EXPECT_THAT(host.Start().message(), HasSubstr("without dirty tracking"));
  host.driver.tracking_caps = 2;  // performant, and not supported
  EXPECT_EQ(host.Start().code(), StatusCode::kFailedPrecondition);
  host.driver.tracking_caps = 3;
  EXPECT_TRUE(host.Start().ok());
  EXPECT_TRUE(host.device->capabilities().live_migration);
  EXPECT_TRUE(host.device->capabilities().performant_tracking);

  host.driver.page_sizes.erase(2);
  EXPECT_THAT(host.Start().message(), HasSubstr("segment 2 has none"));
  host.driver.caps = 0;
  EXPECT_TRUE(host.Start().ok());
  EXPECT_FALSE(host.device->capabilities().live_migration);
  EXPECT_EQ(host.device->Prepare(Role::kSource).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_THAT(host.driver.calls, IsEmpty());
}

// doc:MG3 doc:DT1
TEST(DocumentedMigrationTest, AsksOnlyWhatTheDocumentsAllow) {
  Host host;
  ASSERT_TRUE(
      DocumentedMigratable::Create(host.driver.functions(), host.options).ok());
  EXPECT_THAT(host.driver.calls, ElementsAre("query 30 0", "query 39 0",
                                             "query 40 1", "query 40 2"));
  host.driver.calls.clear();
  host.driver.caps = 0;
  host.driver.tracking_caps = 0;
  ASSERT_TRUE(
      DocumentedMigratable::Create(host.driver.functions(), host.options).ok());
  EXPECT_THAT(host.driver.calls, ElementsAre("query 30 0", "query 39 0"));
  host.driver.calls.clear();
  host.options.is_partitioned = false;
  ASSERT_TRUE(
      DocumentedMigratable::Create(host.driver.functions(), host.options).ok());
  EXPECT_THAT(host.driver.calls, IsEmpty());
}

// doc:DT1 doc:DT10
TEST(DocumentedMigrationTest, TakesThePageSizesOfTheDriver) {
  Host host;
  ASSERT_TRUE(host.Start().ok());
  EXPECT_EQ(host.device->segments()[0].page_size_bytes, 4096u);
  EXPECT_EQ(host.device->segments()[1].page_size_bytes, 65536u);
  for (uint32_t page : {0, 2048, 4097, 131072}) {  // the last: not its ranges
    host.driver.page_sizes[2] = page;
    EXPECT_EQ(host.Start().code(), StatusCode::kFailedPrecondition) << page;
  }
}

// doc:MG36
TEST(DocumentedMigrationTest, ScatteredReserveIsInPagesOfItsOwn) {
  Host host;
  host.driver.caps = 0xC;
  host.driver.scatter_page = kPage;
  EXPECT_TRUE(host.Start().ok());
  host.driver.scatter_page = 2 * kPage;
  EXPECT_THAT(host.Start().message(), HasSubstr("not reserved in pages"));
}

// doc:MG1
TEST(DocumentedMigrationTest, MachineThatHibernatesNeedsADriverThatCan) {
  Host host;
  host.options.needs_hibernation = true;
  EXPECT_THAT(host.Start().message(), HasSubstr("Hibernation"));
  host.driver.caps = 0x5;
  EXPECT_TRUE(host.Start().ok());
}

// doc:MG5 doc:MG17
TEST(DocumentedMigrationTest, PrepareAndEndComeInPairs) {
  Host host;
  host.options.is_running = true;
  ASSERT_TRUE(host.Start().ok());
  DocumentedMigratable& device = *host.device;
  host.driver.prepare_status = STATUS_INSUFFICIENT_RESOURCES;
  EXPECT_EQ(device.Prepare(Role::kSource).code(),
            StatusCode::kResourceExhausted);
  device.End();  // it did not begin
  EXPECT_THAT(host.driver.calls, ElementsAre("prepare source 3"));
  host.driver.prepare_status = STATUS_SUCCESS;
  EXPECT_EQ(device.Prepare(Role::kTarget).code(),
            StatusCode::kFailedPrecondition);  // it runs
  EXPECT_TRUE(device.Prepare(Role::kSource).ok());
  EXPECT_EQ(device.Prepare(Role::kSource).code(),
            StatusCode::kFailedPrecondition);
  device.End();
  device.End();
  EXPECT_THAT(host.driver.calls,
              ElementsAre("prepare source 3", "prepare source 3", "end 3"));
  host.driver.prepare_status = STATUS_PENDING;
  EXPECT_EQ(device.Prepare(Role::kSource).code(), StatusCode::kInternal);
}

// doc:MG6 doc:MG8
TEST(DocumentedMigrationTest, ImmutableDataAreAskedForTwiceAndKept) {
  Host host(true);
  DocumentedMigratable& device = host.Started(Role::kSource);
  const auto blob = Immutable(device);
  ASSERT_TRUE(blob.ok()) << blob.status();
  EXPECT_THAT(host.driver.calls,
              ElementsAre("save immutable 3 0", "save immutable 3 2",
                          "umed save 42 0", "umed save 42 3"));
  EXPECT_EQ(*blob, ImmutableParts(host.driver.immutable, "dll"));
  host.driver.immutable[1] = 9;  // which it must not
  EXPECT_EQ(*Immutable(device), *blob);
  EXPECT_EQ(host.driver.calls.size(), 4u);
}

// doc:MG6 doc:MG16
TEST(DocumentedMigrationTest, SavesOnlyAsAPreparedSource) {
  Host host;
  ASSERT_TRUE(host.Start().ok());
  EXPECT_EQ(Immutable(*host.device).status().code(),
            StatusCode::kFailedPrecondition);
  EXPECT_TRUE(host.device->Prepare(Role::kTarget).ok());
  EXPECT_EQ(Immutable(*host.device).status().code(),
            StatusCode::kFailedPrecondition);
  EXPECT_EQ(Mutable(*host.device).status().code(),
            StatusCode::kFailedPrecondition);
}

// The cases of the size negotiation, as a driver by the documents meets them.
// doc:MG6
TEST(DocumentedMigrationTest, SizesOfImmutableData) {
  struct Case {
    std::vector<SaveScript::Answer> answers;
    StatusCode code;
    size_t size;
  };
  const std::vector<Case> cases = {
      {{{0, 8}, {0, 8}}, StatusCode::kOk, 8},
      {{{0, 8}, {0, -1}}, StatusCode::kOk, 8},
      {{{0, 8}, {0, 5}}, StatusCode::kOk, 5},
      {{{STATUS_BUFFER_TOO_SMALL, 8}, {0, 8}}, StatusCode::kOk, 8},
      {{{0, -1}}, StatusCode::kOk, 0},
      {{{0, 8}, {0, 9}}, StatusCode::kInvalidArgument, 0},
      {{{0, 8}, {STATUS_BUFFER_TOO_SMALL, 9}}, StatusCode::kAborted, 0},
      {{{STATUS_UNSUCCESSFUL, 8}}, StatusCode::kInternal, 0},
      {{{STATUS_PENDING, 8}}, StatusCode::kInvalidArgument, 0},
      {{{0, int64_t{1} << 40}}, StatusCode::kResourceExhausted, 0}};
  for (size_t i = 0; i < cases.size(); ++i) {
    Host host;
    host.driver.immutable_script.answers = cases[i].answers;
    const auto blob = Immutable(host.Started(Role::kSource));
    ASSERT_EQ(blob.status().code(), cases[i].code) << i << blob.status();
    if (!blob.ok()) continue;
    const auto parts = ReadMigrationParts(MigrationPartsKind::kImmutable,
                                          Bytes(*blob), 1 << 20);
    EXPECT_EQ(parts->driver.size(), cases[i].size) << i;
  }
}

// doc:MG8
TEST(DocumentedMigrationTest, SizesOfTheUserModePart) {
  Host host(true);
  host.umed.immutable_script.answers = {{E_INVALIDARG, 8}, {S_OK, 8}};
  EXPECT_TRUE(Immutable(host.Started(Role::kSource)).ok());
  host.umed.immutable_script = {{{E_OUTOFMEMORY, 0}}, 0};
  EXPECT_EQ(Immutable(host.Started(Role::kSource)).status().code(),
            StatusCode::kResourceExhausted);
  host.umed.immutable_script = {{{1, 8}}, 0};  // S_FALSE
  EXPECT_EQ(Immutable(host.Started(Role::kSource)).status().code(),
            StatusCode::kInvalidArgument);
}

// doc:MG16 doc:MG14 doc:MG35
TEST(DocumentedMigrationTest, MutableDataAreSavedOnlyWhilePaused) {
  Host host;
  DocumentedMigratable& device = host.Started(Role::kSource);
  EXPECT_EQ(Mutable(device).status().code(), StatusCode::kFailedPrecondition);
  host.driver.pause_status = STATUS_UNSUCCESSFUL;
  EXPECT_FALSE(device.Pause().ok());
  EXPECT_EQ(Mutable(device).status().code(), StatusCode::kFailedPrecondition);
  host.driver.pause_status = STATUS_SUCCESS;
  host.driver.calls.clear();
  EXPECT_TRUE(device.Pause().value());
  EXPECT_TRUE(device.Pause().value());
  EXPECT_EQ(*Mutable(device), Parts(MigrationPartsKind::kMutable, "registers"));
  // Again, as it is then.
  host.driver.mutable_state = "others";
  EXPECT_EQ(*Mutable(device), Parts(MigrationPartsKind::kMutable, "others"));
  EXPECT_THAT(host.driver.calls,
              ElementsAre("pause 3", "save mutable 3 0", "save mutable 3 9",
                          "save mutable 3 0", "save mutable 3 6"));
  host.driver.calls.clear();
  device.Resume();
  device.Resume();
  EXPECT_EQ(Mutable(device).status().code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(host.driver.calls, ElementsAre("go on 3"));
}

// doc:MG16
TEST(DocumentedMigrationTest, MutableDataMayGrow) {
  Host host;
  DocumentedMigratable& device = host.Started(Role::kSource);
  EXPECT_TRUE(device.Pause().ok());
  host.driver.mutable_script.answers = {
      {0, 8}, {STATUS_BUFFER_TOO_SMALL, 9}, {0, 9}};
  EXPECT_TRUE(Mutable(device).ok());
  host.driver.mutable_script = {{{0, 8},
                                 {STATUS_BUFFER_TOO_SMALL, 9},
                                 {STATUS_BUFFER_TOO_SMALL, 10},
                                 {STATUS_BUFFER_TOO_SMALL, 11}},
                                0};
  EXPECT_EQ(Mutable(device).status().code(), StatusCode::kAborted);
}

// doc:MG20 doc:MG24 doc:MG32 doc:MG33
TEST(DocumentedMigrationTest, MovesBothPartsDriverFirst) {
  Host source(true);
  Host target(true);
  DocumentedMigratable& from = source.Started(Role::kSource);
  const std::string immutable = *Immutable(from);
  EXPECT_TRUE(from.Pause().ok());
  const std::string state = *Mutable(from);
  target.driver.immutable = "";
  DocumentedMigratable& to = target.Started(Role::kTarget);
  EXPECT_EQ(to.RestoreMutable(Bytes(state)).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_TRUE(to.RestoreImmutable(Bytes(immutable)).ok());
  EXPECT_EQ(to.RestoreImmutable(Bytes(immutable)).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_TRUE(to.RestoreMutable(Bytes(state)).ok());
  EXPECT_EQ(to.RestoreMutable(Bytes(state)).code(),
            StatusCode::kFailedPrecondition);
  to.End();
  to.Resume();
  EXPECT_THAT(
      target.driver.calls,
      ElementsAre("restore immutable 3 2", "umed restore 42 3",
                  "restore mutable 3 9", "umed restore mutable 42 9", "end 3"));
  EXPECT_EQ(target.driver.restored_mutable, "registers");
  EXPECT_EQ(target.umed.restored, "dll");
  EXPECT_EQ(target.umed.restored_mutable, "dll state");
  EXPECT_THAT(target.events, IsEmpty());
}

// doc:MG20 doc:MG24
TEST(DocumentedMigrationTest, RestoresOnlyAPreparedTargetThatNeverRan) {
  Host host;
  const std::string blob = ImmutableParts(host.driver.immutable);
  ASSERT_TRUE(host.Start().ok());
  EXPECT_EQ(host.device->RestoreImmutable(Bytes(blob)).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_TRUE(host.device->Prepare(Role::kTarget).ok());
  host.device->Resume();  // powered on too early
  EXPECT_EQ(host.device->RestoreImmutable(Bytes(blob)).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_EQ(Host().Started(Role::kSource).RestoreImmutable(Bytes(blob)).code(),
            StatusCode::kFailedPrecondition);
}

// doc:MG20 doc:MG24
TEST(DocumentedMigrationTest, NothingIsRestoredByOneCall) {
  Host host;
  host.driver.immutable = "";
  DocumentedMigratable& device = host.Started(Role::kTarget);
  EXPECT_TRUE(device.RestoreImmutable(Bytes(ImmutableParts(""))).ok());
  const std::string state = Parts(MigrationPartsKind::kMutable, "");
  EXPECT_TRUE(device.RestoreMutable(Bytes(state)).ok());
  EXPECT_THAT(host.driver.calls, ElementsAre("restore immutable 3 0 null",
                                             "restore mutable 3 0 null"));
}

// doc:MG21
TEST(DocumentedMigrationTest, MismatchIsAnEventWithFieldAndBothValues) {
  Host host(true);
  DocumentedMigratable& device = host.Started(Role::kTarget);
  const std::string blob = ImmutableParts({kDriverVersion, 8}, "dll");
  const absl::Status status = device.RestoreImmutable(Bytes(blob));
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("c0000024: firmware: source 8, here 7"));
  ASSERT_EQ(host.events.size(), 1u);
  EXPECT_EQ(host.events[0].type, DXGKDDICB_PARTITIONING_EVENT_DRIVER_INTERNAL);
  EXPECT_EQ(host.events[0].partition_id, 5u);
  EXPECT_EQ(host.events[0].description, "firmware: source 8, here 7");
  EXPECT_EQ(host.events[0].data[0], 11u);
  EXPECT_EQ(host.events[0].data[4], 55u);
  // The UMED was not asked, and nothing goes on from here.
  EXPECT_THAT(host.driver.calls, ElementsAre("restore immutable 3 2"));
  EXPECT_EQ(device.RestoreImmutable(Bytes(blob)).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_EQ(device.RestoreMutable({}).code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(host.driver.calls.size(), 1u);
  device.End();
}

// doc:MG21 doc:MG33
TEST(DocumentedMigrationTest, MismatchWithoutAnEventGetsOneOfOurs) {
  Host silent;
  silent.driver.sends_event = false;
  EXPECT_FALSE(silent.Started(Role::kTarget)
                   .RestoreImmutable(Bytes(ImmutableParts("??")))
                   .ok());
  ASSERT_EQ(silent.events.size(), 1u);
  EXPECT_THAT(silent.events[0].description, HasSubstr("c0000024"));
  EXPECT_EQ(silent.events[0].partition_id, 3u);

  Host host(true);
  host.umed.restore_result = E_INVALIDARG;
  EXPECT_EQ(
      host.Started(Role::kTarget)
          .RestoreImmutable(Bytes(ImmutableParts(host.driver.immutable, "dll")))
          .code(),
      StatusCode::kInvalidArgument);
  ASSERT_EQ(host.events.size(), 1u);
  EXPECT_THAT(host.events[0].description, HasSubstr("80070057"));
}

// doc:MG22
TEST(DocumentedMigrationTest, DriversBlobOlderIsTakenNewerAndUnknownAreNot) {
  for (const int version : {1, 2, 3, 0, 255}) {
    Host host;
    const std::string data = {static_cast<char>(version), 7};
    const absl::Status status =
        host.Started(Role::kTarget)
            .RestoreImmutable(Bytes(ImmutableParts(data)));
    const bool is_known = version == 1 || version == 2;
    EXPECT_EQ(status.ok(), is_known) << status;
    if (is_known) continue;
    EXPECT_THAT(std::string(status.message()), HasSubstr("version: source"));
  }
}

std::string Framed(const std::string& name, uint32_t version,
                   savestate::SectionKind kind) {
  savestate::FrameWriter writer;
  writer.AddSection("immutable.driver", 0, 1, savestate::SectionKind::kRequired,
                    {kDriverVersion, 7});
  if (name == "immutable.driver") writer = savestate::FrameWriter();
  writer.AddSection(name, 0, version, kind, {kDriverVersion, 7});
  return *writer.Finish();
}

// doc:MG22
TEST(DocumentedMigrationTest, FrameNewerOrUnknownIsRefusedByName) {
  const auto restore = [](const std::string& blob) {
    Host host;
    const absl::Status status =
        host.Started(Role::kTarget).RestoreImmutable(Bytes(blob));
    EXPECT_EQ(host.driver.calls.empty(), !status.ok());
    EXPECT_EQ(host.events.empty(), status.ok());
    return status;
  };
  using savestate::SectionKind;
  EXPECT_TRUE(
      restore(Framed("immutable.driver", 1, SectionKind::kRequired)).ok());
  EXPECT_TRUE(restore(Framed("later", 1, SectionKind::kOptional)).ok());
  EXPECT_EQ(
      restore(Framed("immutable.driver", 2, SectionKind::kRequired)).code(),
      StatusCode::kUnimplemented);
  const absl::Status later =
      restore(Framed("later", 1, SectionKind::kRequired));
  EXPECT_EQ(later.code(), StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(later.message()), HasSubstr("later"));
  // Data of the other kind, none, and of a source with another UMED.
  EXPECT_FALSE(restore(Parts(MigrationPartsKind::kMutable, "x")).ok());
  EXPECT_FALSE(restore("").ok());
  EXPECT_FALSE(restore(*savestate::FrameWriter().Finish()).ok());
  EXPECT_THAT(
      std::string(
          restore(ImmutableParts({kDriverVersion, 7}, "dll")).message()),
      HasSubstr("this host has none"));
}

// doc:MG22
TEST(DocumentedMigrationTest, DamagedBlobNeverReachesTheDriver) {
  const std::string blob = ImmutableParts({kDriverVersion, 7}, "dll");
  for (size_t i = 0; i < blob.size(); ++i) {
    for (const bool cut : {false, true}) {
      std::string damaged = cut ? blob.substr(0, i) : blob;
      if (!cut) damaged[i] = static_cast<char>(damaged[i] ^ 0x10);
      Host host(true);
      const absl::Status status =
          host.Started(Role::kTarget).RestoreImmutable(Bytes(damaged));
      EXPECT_FALSE(status.ok()) << i;
      EXPECT_THAT(host.driver.calls, IsEmpty()) << i;
    }
  }
}

// doc:MG12
TEST(DocumentedMigrationTest, MemoryIsTransferredInPieces) {
  Host host;
  DocumentedMigratable& device = host.Started(Role::kSource);
  std::vector<std::byte> data(3 * kPage);
  for (size_t i = 0; i < data.size(); ++i) data[i] = std::byte(i / 7);
  EXPECT_TRUE(device.WriteMemory(1, kPage, data).ok());
  EXPECT_THAT(host.driver.calls,
              ElementsAre("in 3 1 36864 4096", "in 3 1 4096 8192"));
  std::vector<std::byte> read(3 * kPage);
  EXPECT_TRUE(device.ReadMemory(1, kPage, absl::MakeSpan(read)).ok());
  EXPECT_EQ(read, data);
  EXPECT_EQ(host.driver.calls[3], "out 3 1 4096 8192");
  host.driver.calls.clear();
  EXPECT_TRUE(device.ReadMemory(1, 5 * kPage, {}).ok());
  for (const auto& [segment, offset] :
       std::vector<std::pair<uint32_t, uint64_t>>{
           {1, 3 * kPage}, {1, ~uint64_t{0}}, {3, 0}, {0, 0}}) {
    EXPECT_EQ(device.ReadMemory(segment, offset, absl::MakeSpan(read)).code(),
              StatusCode::kOutOfRange);
    EXPECT_EQ(device.WriteMemory(segment, offset, read).code(),
              StatusCode::kOutOfRange);
  }
  EXPECT_THAT(host.driver.calls, IsEmpty());
  host.driver.transfer_status = STATUS_DEVICE_REMOVED;
  EXPECT_EQ(device.ReadMemory(1, 0, absl::MakeSpan(read)).code(),
            StatusCode::kUnavailable);
}

TEST(DocumentedMigrationTest, SourceGoesOnAfterACancelAndNotAfterRetiring) {
  Host host;
  DocumentedMigratable& device = host.Started(Role::kSource);
  EXPECT_TRUE(device.Pause().ok());
  device.Resume();
  device.End();
  EXPECT_FALSE(host.driver.is_paused);
  EXPECT_TRUE(device.Prepare(Role::kSource).ok());
  EXPECT_TRUE(device.Pause().ok());
  device.Retire();
  device.Resume();
  device.End();
  EXPECT_TRUE(host.driver.is_paused);
  EXPECT_EQ(device.Prepare(Role::kSource).code(),
            StatusCode::kFailedPrecondition);
}

// doc:MG38
TEST(DocumentedMigrationTest, EventsHaveASizeRuleAndAName) {
  Host host;
  ASSERT_TRUE(host.Start().ok());
  const auto send = [&](UINT bytes) {
    host.events.clear();
    host.driver.event_bytes = bytes;
    host.driver.SendEvent("text \t\x7f" + std::string(200, 'z'));
    return host.events.size();
  };
  // From outside of our calls.
  EXPECT_EQ(send(256), 1u);
  EXPECT_EQ(host.events[0].description,
            "text ??" + std::string(FERRYBUS_TRIAGE_DESCRIPTION_MAX - 7, 'z'));
  EXPECT_EQ(send(257), 0u);
  EXPECT_EQ(send(255), 0u);
  EXPECT_EQ(send(0), 0u);
  GUID other = GUID_DXGKDDI_AZURE_TRIAGE_EVENT;
  other.Data4[7] ^= 1;
  DXGKDDICB_PARTITIONING_EVENT_NOTIFICATION event = {};
  event.hAdapter = host.device->adapter();
  DxgkCbLogEtwEvent(&other, 0, sizeof(event), &event);
  event.hAdapter = nullptr;
  DxgkCbLogEtwEvent(&GUID_DxgkAzureTriageEvent, 0, sizeof(event), &event);
  EXPECT_THAT(host.events, IsEmpty());
  // From within one, any size.
  host.driver.event_bytes = 300;
  EXPECT_TRUE(host.device->Prepare(Role::kTarget).ok());
  EXPECT_FALSE(host.device->RestoreImmutable(Bytes(ImmutableParts("12"))).ok());
  ASSERT_EQ(host.events.size(), 1u);
  EXPECT_THAT(host.events[0].description, HasSubstr("version: source 49"));
}

// doc:MG8
TEST(DocumentedMigrationTest, HoldsAReferenceToTheUserModePart) {
  Host host(true);
  ASSERT_TRUE(host.Start().ok());
  EXPECT_EQ(host.umed.references, 2);
  host.device.reset();
  EXPECT_EQ(host.umed.references, 1);
}

TEST(DocumentedMigrationTest, RefusesATableWithHoles) {
  Host host;
  DocumentedMigrationFunctions no_end = host.driver.functions();
  no_end.end = nullptr;
  DocumentedMigrationFunctions no_stop = host.driver.functions();
  no_stop.stop_dirty_tracking = nullptr;
  for (const DocumentedMigrationFunctions& table : {no_end, no_stop}) {
    EXPECT_EQ(DocumentedMigratable::Create(table, host.options).status().code(),
              StatusCode::kInvalidArgument);
  }
}

// doc:MG4 doc:MG34
TEST(DocumentedMigrationTest, FunctionsMoveAtOnceInBothDirections) {
  const auto move = [] {
    for (int i = 0; i < 200; ++i) {
      Host source(true);
      Host target(true);
      DocumentedMigratable& from = source.Started(Role::kSource);
      DocumentedMigratable& to = target.Started(Role::kTarget);
      EXPECT_TRUE(to.RestoreImmutable(Bytes(*Immutable(from))).ok());
      EXPECT_TRUE(from.Pause().ok());
      EXPECT_TRUE(to.RestoreMutable(Bytes(*Mutable(from))).ok());
      EXPECT_EQ(target.driver.restored_mutable, "registers");
    }
  };
  std::thread other(move);
  move();
  other.join();
}

}  // namespace
}  // namespace ferrybus::vsp
