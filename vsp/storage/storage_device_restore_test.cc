// SPDX-License-Identifier: MIT

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "ferrybus/channel/protocols/scsi.h"
#include "ferrybus/channel/protocols/vstor.h"
#include "ferrybus/savestate/size_negotiation.h"
#include "ferrybus/vsp/storage/fake_storage_guest.h"
#include "ferrybus/vsp/storage/memory_backend.h"
#include "ferrybus/vsp/storage/storage_device.h"
#include "ferrybus/vsp/storage/storage_state.h"
#include "ferrybus/vsp/storage/storage_state_persist.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

using vstor::Operation;

std::vector<uint8_t> Transfer10(uint8_t op, uint32_t block, uint16_t blocks) {
  std::vector<uint8_t> cdb(10);
  cdb[0] = op;
  scsi::StoreBe32(block, &cdb[2]);
  scsi::StoreBe16(blocks, &cdb[7]);
  return cdb;
}

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return absl::MakeConstSpan(reinterpret_cast<const std::byte*>(text.data()),
                             text.size());
}

// One place where the device can run.
struct Site {
  Site(MemoryDisk* disk, absl::Span<std::byte> memory,
       StorageDeviceOptions options, MemoryBackendOptions backend_options = {})
      : guest(memory) {
    auto owned = std::make_unique<MemoryBackend>(disk, backend_options);
    backend = owned.get();
    auto made = StorageDevice::Create(std::move(owned), std::move(options));
    EXPECT_TRUE(made.ok()) << made.status();
    device = *std::move(made);
  }

  // Of a packet in flight at this site, sized as a channel does it.
  absl::StatusOr<std::string> SavePacket(uint64_t id) {
    return savestate::NegotiateSize(
        {}, "packet", [&](absl::Span<std::byte> out) {
          return device->SavePacket(guest.info(id), out);
        });
  }

  // Takes over packet `id` of `source`; returns its id here.
  absl::StatusOr<uint64_t> RestorePacket(const Site& source, uint64_t id,
                                         const std::string& blob) {
    uint64_t here = 0;
    IncomingPacket packet = guest.Adopt(source.guest, id, &here);
    if (absl::Status status =
            device->RestorePacket(std::move(packet), AsBytes(blob));
        !status.ok()) {
      return status;
    }
    return here;
  }

  FakeStorageGuest guest;
  MemoryBackend* backend = nullptr;
  std::unique_ptr<StorageDevice> device;
};

class StorageDeviceRestoreTest : public testing::Test {
 protected:
  StorageDeviceRestoreTest() : disk_(512 * 512), memory_(1 << 20) {
    options_.serial = "DISK-7";
    options_.uuid[3] = 0x42;
  }

  std::unique_ptr<Site> NewSite() {
    return std::make_unique<Site>(&disk_, absl::MakeSpan(memory_), options_);
  }
  std::unique_ptr<Site> NewSource() {
    auto site = NewSite();
    EXPECT_TRUE(site->device->OnOpened(FakeStorageGuest::Channel(), {}).ok());
    site->device->OnStarted();
    EXPECT_TRUE(site->guest.Initialize(*site->device));
    return site;
  }
  absl::Status RestoreDevice(Site& target, const std::string& state) {
    return target.device->OnRestored(FakeStorageGuest::Channel(),
                                     AsBytes(state));
  }

  StorageDeviceOptions options_;
  MemoryDisk disk_;
  std::vector<std::byte> memory_;
};

// promise:P1
TEST_F(StorageDeviceRestoreTest, PendingRequestsRunAgainAndAnswerOnce) {
  auto source = NewSource();
  source->backend->Hold(true);
  std::memset(source->guest.at(0), 0x31, 4096);
  uint8_t list[24] = {0, 22, 0, 16};
  scsi::StoreBe64(100, &list[8]);
  scsi::StoreBe32(4, &list[16]);
  std::memcpy(source->guest.at(8192), list, sizeof(list));
  std::memset(&disk_[100 * 512], 0x77, 4 * 512);
  std::memset(&disk_[200 * 512], 0x66, 512);

  const std::vector<uint64_t> ids = {
      source->guest.ExecuteSrb(*source->device, Transfer10(0x2a, 8, 8),
                               vstor::kDataOut,
                               {source->guest.Buffer(0, 4096)}),
      source->guest.ExecuteSrb(*source->device, Transfer10(0x28, 200, 1),
                               vstor::kDataIn,
                               {source->guest.Buffer(4096, 512)}),
      source->guest.ExecuteSrb(*source->device, Transfer10(0x35, 0, 0)),
      source->guest.ExecuteSrb(*source->device, Transfer10(0x42, 0, 24),
                               vstor::kDataOut,
                               {source->guest.Buffer(8192, 24)}),
      source->guest.Send(*source->device, FakeStorageGuest::MakeOperation(
                                              Operation::kResetBus))};
  source->device->Poll();
  ASSERT_EQ(source->guest.outstanding(), 5u);

  const auto state = source->device->SaveDevice();
  ASSERT_TRUE(state.ok()) << state.status();
  auto target = NewSite();
  ASSERT_TRUE(RestoreDevice(*target, *state).ok());
  EXPECT_EQ(target->device->phase(), VstorPhase::kReady);
  std::vector<uint64_t> restored;
  for (const uint64_t id : ids) {
    const auto blob = source->SavePacket(id);
    ASSERT_TRUE(blob.ok()) << blob.status();
    const auto here = target->RestorePacket(*source, id, *blob);
    ASSERT_TRUE(here.ok()) << here.status();
    restored.push_back(*here);
  }
  // Nothing runs before the start: the restore may still be refused.
  EXPECT_EQ(target->backend->in_flight(), 0u);
  target->device->Poll();
  EXPECT_EQ(target->guest.outstanding(), 5u);

  target->device->OnStarted();
  EXPECT_EQ(target->backend->submit_calls(), 1u);
  target->device->Poll();
  EXPECT_EQ(target->guest.outstanding(), 0u);
  EXPECT_EQ(target->device->counters().reissued, 5u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(target->guest.SrbReply(restored[i]).srb_status,
              vstor::kSrbSuccess)
        << i;
  }
  EXPECT_EQ(target->guest.Reply(restored[4]).status, 0u);
  EXPECT_EQ(disk_[8 * 512], std::byte{0x31});
  EXPECT_EQ(disk_[100 * 512], std::byte{0});
  EXPECT_EQ(memory_[4096], std::byte{0x66});
  // The source's requests are still its own: an aborted move goes on here.
  source->backend->Hold(false);
  source->device->Poll();
  EXPECT_EQ(source->guest.outstanding(), 0u);
}

// promise:P1
TEST_F(StorageDeviceRestoreTest, FinishedRequestIsAnsweredWithItsSavedResult) {
  auto source = NewSource();
  source->backend->Hold(true);
  const uint64_t id =
      source->guest.ExecuteSrb(*source->device, Transfer10(0x28, 0, 8),
                               vstor::kDataIn, {source->guest.Buffer(0, 4096)});
  StoragePacketState done;
  done.done = true;
  done.result.srb_status = vstor::kSrbError;
  done.result.scsi_status = scsi::Status::kCheckCondition;
  done.result.has_sense = true;
  done.result.sense = scsi::kUnrecoveredReadError;
  done.result.transferred_bytes = 512;
  const std::string blob = SerializePacketState(done);

  auto target = NewSite();
  ASSERT_TRUE(RestoreDevice(*target, *source->device->SaveDevice()).ok());
  const auto here = target->RestorePacket(*source, id, blob);
  ASSERT_TRUE(here.ok()) << here.status();
  // Moved on before it could start: the result moves along.
  EXPECT_EQ(*target->SavePacket(*here), blob);

  target->device->OnStarted();
  ASSERT_TRUE(target->guest.answered(*here));
  const vstor::Srb srb = target->guest.SrbReply(*here);
  EXPECT_EQ(srb.srb_status, vstor::kSrbError | vstor::kSrbAutosenseValid);
  EXPECT_EQ(srb.scsi_status, 0x02);
  EXPECT_EQ(srb.cdb_or_sense[12], scsi::kUnrecoveredReadError.asc);
  EXPECT_EQ(srb.transfer_bytes, 512u);
  EXPECT_EQ(target->backend->in_flight(), 0u);
}

TEST_F(StorageDeviceRestoreTest, EveryHandshakePhaseMovesAndGoesOn) {
  const std::vector<Operation> steps = {
      Operation::kBeginInitialization, Operation::kQueryProtocolVersion,
      Operation::kQueryProperties, Operation::kEndInitialization};
  for (size_t cut = 0; cut <= steps.size(); ++cut) {
    auto site = NewSite();
    ASSERT_TRUE(site->device->OnOpened(FakeStorageGuest::Channel(), {}).ok());
    site->device->OnStarted();
    for (size_t i = 0; i < steps.size(); ++i) {
      if (i == cut) {
        const std::string state = *site->device->SaveDevice();
        site = NewSite();
        ASSERT_TRUE(RestoreDevice(*site, state).ok());
        EXPECT_EQ(*site->device->SaveDevice(), state);
        site->device->OnStarted();
      }
      vstor::Packet packet = FakeStorageGuest::MakeOperation(steps[i]);
      vstor::SetBody(vstor::ProtocolVersion{vstor::kVersionWin10, 0}, packet);
      const uint64_t id = site->guest.Send(*site->device, packet);
      EXPECT_EQ(site->guest.Reply(id).status, 0u) << cut << " " << i;
    }
    EXPECT_EQ(site->device->phase(), VstorPhase::kReady);
  }
}

TEST_F(StorageDeviceRestoreTest, AnotherDiskIsRefusedWithBothValues) {
  const std::string state = *NewSource()->device->SaveDevice();
  const auto refusal = [&](Site& site) {
    const absl::Status status = RestoreDevice(site, state);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(site.device->phase(), VstorPhase::kStart);
    return std::string(status.message());
  };
  const auto has = [](const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
  };

  MemoryDisk larger(disk_.size() + 512);
  Site other_size(&larger, absl::MakeSpan(memory_), options_);
  const std::string size_text = refusal(other_size);
  EXPECT_TRUE(has(size_text, "262144") && has(size_text, "262656"))
      << size_text;

  Site read_only(&disk_, absl::MakeSpan(memory_), options_,
                 {.read_only = true});
  EXPECT_TRUE(has(refusal(read_only), "read-only"));
  Site no_discard(&disk_, absl::MakeSpan(memory_), options_,
                  {.can_discard = false});
  EXPECT_TRUE(has(refusal(no_discard), "discard"));

  StorageDeviceOptions options = options_;
  options.serial = "DISK-8";
  Site other_serial(&disk_, absl::MakeSpan(memory_), options);
  const std::string serial_text = refusal(other_serial);
  EXPECT_TRUE(has(serial_text, "DISK-7") && has(serial_text, "DISK-8"));

  options = options_;
  options.uuid[0] = 1;
  Site other_uuid(&disk_, absl::MakeSpan(memory_), options);
  EXPECT_TRUE(has(refusal(other_uuid), "uuid was 00000042"));

  options = options_;
  options.max_transfer_bytes = 65536;
  Site smaller_transfers(&disk_, absl::MakeSpan(memory_), options);
  const std::string transfer_text = refusal(smaller_transfers);
  EXPECT_TRUE(has(transfer_text, "1048576") && has(transfer_text, "65536"));
}

TEST_F(StorageDeviceRestoreTest, CorruptBlobsAreRefused) {
  auto source = NewSource();
  source->backend->Hold(true);
  const uint64_t read =
      source->guest.ExecuteSrb(*source->device, Transfer10(0x28, 0, 8),
                               vstor::kDataIn, {source->guest.Buffer(0, 4096)});
  const uint64_t reset = source->guest.Send(
      *source->device, FakeStorageGuest::MakeOperation(Operation::kResetBus));
  auto target = NewSite();
  const auto code = [&](uint64_t id, const std::string& blob) {
    return target->RestorePacket(*source, id, blob).status().code();
  };
  EXPECT_EQ(code(read, ""), absl::StatusCode::kDataLoss);
  EXPECT_EQ(code(read, "\xff\xff"), absl::StatusCode::kDataLoss);
  // More bytes than the request asked for; a result for what has none.
  StoragePacketState done;
  done.done = true;
  done.result.transferred_bytes = 4097;
  EXPECT_EQ(code(read, SerializePacketState(done)),
            absl::StatusCode::kDataLoss);
  done.result.transferred_bytes = 0;
  EXPECT_EQ(code(reset, SerializePacketState(done)),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(target->device->in_flight(), 0u);
  EXPECT_EQ(code(read, SerializePacketState(done)), absl::StatusCode::kOk);

  EXPECT_EQ(RestoreDevice(*target, "").code(), absl::StatusCode::kDataLoss);
}

TEST_F(StorageDeviceRestoreTest, RestoreBeyondTheTableIsRefused) {
  auto source = NewSource();
  source->backend->Hold(true);
  std::vector<uint64_t> ids;
  for (int i = 0; i < 2; ++i) {
    ids.push_back(
        source->guest.ExecuteSrb(*source->device, Transfer10(0x35, 0, 0)));
  }
  options_.requests_max = 1;
  auto target = NewSite();
  EXPECT_TRUE(
      target->RestorePacket(*source, ids[0], *source->SavePacket(ids[0])).ok());
  EXPECT_EQ(target->RestorePacket(*source, ids[1], *source->SavePacket(ids[1]))
                .status()
                .code(),
            absl::StatusCode::kResourceExhausted);
}

TEST_F(StorageDeviceRestoreTest, PacketThatTheDeviceDoesNotHaveIsNotSaved) {
  auto source = NewSource();
  const uint64_t id =
      source->guest.ExecuteSrb(*source->device, std::vector<uint8_t>(6));
  EXPECT_FALSE(source->SavePacket(id).ok());
}

// A device that restores and closes without ever having started.
TEST_F(StorageDeviceRestoreTest, ClosedBeforeItStartedRunsNothing) {
  auto source = NewSource();
  source->backend->Hold(true);
  const uint64_t id =
      source->guest.ExecuteSrb(*source->device, Transfer10(0x35, 0, 0));
  auto target = NewSite();
  ASSERT_TRUE(RestoreDevice(*target, *source->device->SaveDevice()).ok());
  ASSERT_TRUE(target->RestorePacket(*source, id, *source->SavePacket(id)).ok());
  target->device->OnClosed();
  EXPECT_EQ(target->guest.outstanding(), 0u);
  target->device->OnStarted();
  EXPECT_EQ(target->backend->in_flight(), 0u);
}

}  // namespace
}  // namespace ferrybus::vsp
