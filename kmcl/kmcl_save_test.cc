// SPDX-License-Identifier: MIT
//
// Save and restore of a server's packets by the C interface.

#include <algorithm>
#include <cstring>
#include <memory>

#include "ferrybus/kmcl/kmcl_test_util.h"
#include "gtest/gtest.h"

namespace ferrybus::kmcl {
namespace {

using Log = std::vector<std::string>;

constexpr UINT32 kWait = VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION;

// What the callbacks saw; they have no other place.
struct Calls {
  Log log;
  uint32_t blob_bytes = 5;
  NTSTATUS save_status = STATUS_BUFFER_TOO_SMALL;
  NTSTATUS restore_status = STATUS_SUCCESS;
  bool restores = true;
  Log blobs;
} calls;

NTSTATUS SavePacket(VMBCHANNEL, VMBPACKET packet, PVOID buffer, UINT32 size,
                    UINT32* needed) {
  calls.log.push_back("save " + std::to_string(size));
  EXPECT_NE(packet, nullptr);
  if (calls.blob_bytes == 0) {
    *needed = 0;
    return STATUS_SUCCESS;
  }
  if (size < calls.blob_bytes) {
    EXPECT_EQ(buffer, nullptr);
    *needed = calls.blob_bytes;
    return calls.save_status;
  }
  std::memset(buffer, 'b', calls.blob_bytes);
  return STATUS_SUCCESS;
}

NTSTATUS RestorePacket(VMBCHANNEL channel, PVOID library, UINT32 library_bytes,
                       PVOID save, UINT32 save_bytes) {
  calls.blobs.push_back(
      save == nullptr
          ? "none"
          : std::string(static_cast<const char*>(save), save_bytes));
  if (!calls.restores) return calls.restore_status;
  const VMBPACKET packet = End::Of(channel).Packet();
  const NTSTATUS status = VmbPacketRestore(packet, library, library_bytes);
  if (!NT_SUCCESS(status)) VmbPacketFree(packet);
  const VMBPACKET second = End::Of(channel).Packet();
  EXPECT_FALSE(NT_SUCCESS(VmbPacketRestore(second, library, library_bytes)))
      << "the same packet twice";
  VmbPacketFree(second);
  return NT_SUCCESS(status) ? calls.restore_status : status;
}

class KmclSaveTest : public ::testing::Test {
 protected:
  KmclSaveTest() {
    calls = Calls();
    server_ = MakeServer();
    server_->Enable();
    VmbChannelStart(server_->channel);
    client_.answers = true;
    EXPECT_EQ(VmbClientChannelInitSetRingBufferPageCount(client_.channel, 2, 2),
              STATUS_SUCCESS);
    EXPECT_EQ(VmbChannelInitSetMaximumPacketSize(client_.channel, 2000),
              STATUS_SUCCESS);
    EXPECT_EQ(VmbChannelInitSetMaximumExternalData(client_.channel, 4096, 1),
              STATUS_SUCCESS);
    client_.Enable();
    loopback_.Pump();
  }
  void TearDown() override {
    if (is_restoring_) Start();
    client_.LetGo();
    server_->LetGo();
  }
  std::unique_ptr<End> MakeServer() {
    auto server = std::make_unique<End>(loopback_.server, true);
    EXPECT_EQ(VmbServerChannelInitSetFlags(server->channel, server_flags_),
              STATUS_SUCCESS);
    EXPECT_EQ(VmbServerChannelInitSetSaveRestorePacketCallbacks(
                  server->channel, SavePacket, RestorePacket),
              STATUS_SUCCESS);
    EXPECT_EQ(VmbChannelInitSetMaximumPacketSize(server->channel, 2000),
              STATUS_SUCCESS);
    return server;
  }
  static std::string Payload(int number) {
    return std::to_string(100 + number) + std::string(1997, 'p');
  }
  // The guest stops; some packets are in the ring, some do not fit.
  void SendSome(int count) {
    VmbChannelPause(client_.channel);
    for (int i = 0; i < count; ++i) {
      EXPECT_EQ(server_->Send(Payload(i), i == 0 || i == count - 1 ? kWait : 0),
                STATUS_SUCCESS);
    }
    VmbChannelPause(server_->channel);
  }
  // The pieces of a save with a buffer that grows as it must.
  std::vector<std::string> Save(UINT32 first_bytes) {
    std::vector<std::string> pieces;
    EXPECT_EQ(VmbChannelSaveBegin(server_->channel), STATUS_SUCCESS);
    std::string buffer(first_bytes, '\0');
    while (true) {
      UINT32 filled = 0;
      UINT32 required = 0;
      const NTSTATUS status = VmbChannelSaveContinue(
          server_->channel, buffer.data(), static_cast<UINT32>(buffer.size()),
          &filled, &required);
      if (filled != 0) pieces.push_back(buffer.substr(0, filled));
      if (status == STATUS_SUCCESS) {
        EXPECT_EQ(required, 0u);
        break;
      }
      EXPECT_EQ(status,
                filled == 0 ? STATUS_BUFFER_TOO_SMALL : STATUS_BUFFER_OVERFLOW);
      EXPECT_GT(required, 0u);
      if (required == 0) break;
      if (required > buffer.size()) buffer.resize(required);
    }
    VmbChannelSaveEnd(server_->channel);
    return pieces;
  }
  static std::string Join(const std::vector<std::string>& pieces) {
    std::string all;
    for (const std::string& each : pieces) all += each;
    return all;
  }
  // The bus, and a new channel, in place of the old ones.
  void Move() {
    UINT32 needed = 0;
    ASSERT_EQ(ferrybus_save_parent(loopback_.server, nullptr, 0, &needed),
              STATUS_BUFFER_TOO_SMALL);
    std::string saved(needed, '\0');
    ASSERT_EQ(
        ferrybus_save_parent(loopback_.server, saved.data(), needed, &needed),
        STATUS_SUCCESS);
    ASSERT_EQ(ferrybus_restore_parent(loopback_.server, saved.data(), needed),
              STATUS_SUCCESS);
    server_.reset();
    server_ = MakeServer();
    server_->Enable();
    is_restoring_ = true;
  }
  void Start() {
    ferrybus_start_parent(loopback_.server);
    is_restoring_ = false;
  }
  NTSTATUS Restore(std::string piece) {
    return VmbChannelRestoreFromBuffer(server_->channel, piece.data(),
                                       static_cast<UINT32>(piece.size()));
  }

  Loopback loopback_;
  End client_{loopback_.client, false};
  std::unique_ptr<End> server_;
  UINT32 server_flags_ = 0;
  bool is_restoring_ = false;
};

// doc:SR1 doc:SR4 doc:SR18 doc:KC14
TEST_F(KmclSaveTest, SaveIsBegunContinuedAndEnded) {
  UINT32 filled = 1;
  UINT32 required = 1;
  char buffer[8];
  EXPECT_EQ(
      VmbChannelSaveContinue(server_->channel, buffer, 8, &filled, &required),
      STATUS_INVALID_DEVICE_STATE);
  EXPECT_EQ(VmbChannelSaveBegin(server_->channel), STATUS_INVALID_DEVICE_STATE)
      << "it is active";
  EXPECT_EQ(VmbChannelSaveBegin(client_.channel), STATUS_INVALID_PARAMETER_1);
  SendSome(3);
  EXPECT_EQ(VmbChannelSaveBegin(server_->channel), STATUS_SUCCESS);
  EXPECT_EQ(VmbChannelSaveBegin(server_->channel), STATUS_INVALID_DEVICE_STATE)
      << "twice";
  VmbChannelSaveEnd(server_->channel);
  VmbChannelSaveEnd(server_->channel);
  EXPECT_EQ(
      VmbChannelSaveContinue(server_->channel, buffer, 8, &filled, &required),
      STATUS_INVALID_DEVICE_STATE);
}

// doc:SR2 doc:SR3 doc:SR5 doc:SR6 doc:CB10
TEST_F(KmclSaveTest, AnyBufferGivesTheSameBytesAndAsksOncePerPacket) {
  SendSome(6);
  const std::string all = Join(Save(1 << 20));
  // Packets that are in the ring and want no completion are done.
  loopback_.Pump();
  const size_t in_use = 6 - server_->completions.size();
  EXPECT_GT(in_use, 2u);
  EXPECT_LT(in_use, 6u);
  Log wanted;
  for (size_t i = 0; i < in_use; ++i) {
    wanted.push_back("save 0");
    wanted.push_back("save 5");
  }
  EXPECT_EQ(calls.log, wanted);
  for (const UINT32 bytes : {0u, 1u, 100u, 3000u, 5000u}) {
    SCOPED_TRACE(bytes);
    calls.log.clear();
    EXPECT_EQ(Join(Save(bytes)), all);
    EXPECT_EQ(calls.log, wanted);
  }
}

// doc:SR6
TEST_F(KmclSaveTest, AFailureWithoutASizeFailsTheSave) {
  SendSome(2);
  calls.save_status = STATUS_UNSUCCESSFUL;  // any failure asks for a buffer
  EXPECT_FALSE(Save(1 << 20).empty());
  calls.blob_bytes = 17 << 20;  // more than a packet may have
  ASSERT_EQ(VmbChannelSaveBegin(server_->channel), STATUS_SUCCESS);
  UINT32 filled = 0;
  UINT32 required = 0;
  std::string buffer(1 << 20, '\0');
  EXPECT_EQ(VmbChannelSaveContinue(server_->channel, buffer.data(), 1 << 20,
                                   &filled, &required),
            STATUS_UNSUCCESSFUL);
  VmbChannelSaveEnd(server_->channel);
}

// doc:SR8 doc:SR9 doc:SR10 doc:SR11 doc:SR12 doc:SR13 doc:SR14 doc:CB11
TEST_F(KmclSaveTest, PacketsGoOnWhereTheyWere) {
  for (const UINT32 bytes : {1u, 1u << 20}) {
    SCOPED_TRACE(bytes);
    client_.log.clear();
    SendSome(6);
    loopback_.Pump();
    const size_t in_use = 6 - server_->completions.size();
    const std::vector<std::string> pieces = Save(bytes);
    calls.blobs.clear();
    ASSERT_NO_FATAL_FAILURE(Move());
    for (size_t i = 0; i < pieces.size(); ++i) {
      ASSERT_EQ(Restore(pieces[i]), i + 1 < pieces.size()
                                        ? STATUS_MORE_PROCESSING_REQUIRED
                                        : STATUS_SUCCESS);
    }
    EXPECT_EQ(calls.blobs, Log(in_use, "bbbbb"));
    EXPECT_EQ(server_->TakeLog(), Log{"opened"});
    Start();
    VmbChannelStart(server_->channel);
    std::string got;
    client_.on_packet = [&got](const End::Held& packet) {
      got += packet.payload.substr(0, 3) + " ";
      VmbChannelPacketComplete(packet.completion,
                               const_cast<char*>(packet.payload.data()), 8);
    };
    VmbChannelStart(client_.channel);
    loopback_.Pump();
    EXPECT_EQ(got, "100 101 102 103 104 105 ");
    ASSERT_EQ(server_->completions.size(), in_use);
    Log replies;
    for (const End::Completion& each : server_->completions) {
      EXPECT_EQ(each.status, STATUS_SUCCESS);
      if (!each.reply.empty()) replies.push_back(each.reply.substr(0, 3));
    }
    EXPECT_EQ(replies, (Log{"100", "105"}));
    EXPECT_EQ(server_->TakeLog(), (Log{"started", "post-started"}));
    server_->completions.clear();
  }
}

// doc:SR7
TEST_F(KmclSaveTest, APacketWithoutAStateOfTheUser) {
  calls.blob_bytes = 0;
  SendSome(2);
  const auto pieces = Save(1 << 20);
  EXPECT_EQ(calls.log, (Log(calls.log.size(), "save 0")));
  ASSERT_NO_FATAL_FAILURE(Move());
  ASSERT_EQ(Restore(pieces[0]), STATUS_SUCCESS);
  EXPECT_EQ(calls.blobs.front(), "none");
}

// doc:SR15
TEST_F(KmclSaveTest, AForcedNewChannelDropsWhatWasSaved) {
  SendSome(4);
  const std::vector<std::string> pieces = Save(100);
  ASSERT_GE(pieces.size(), 2u);
  server_flags_ = VMBUS_SERVER_CHANNEL_INIT_FLAG_FORCE_NEW_CHANNEL;
  ASSERT_NO_FATAL_FAILURE(Move());
  for (size_t i = 0; i < pieces.size(); ++i) {
    ASSERT_EQ(Restore(pieces[i]), i + 1 < pieces.size()
                                      ? STATUS_MORE_PROCESSING_REQUIRED
                                      : STATUS_SUCCESS);
  }
  EXPECT_TRUE(calls.blobs.empty());
  EXPECT_TRUE(server_->TakeLog().empty());
  client_.log.clear();
  Start();
  VmbChannelStart(server_->channel);
  VmbChannelStart(client_.channel);
  loopback_.Pump();
  EXPECT_NE(std::find(client_.log.begin(), client_.log.end(), "closed"),
            client_.log.end());
  EXPECT_TRUE(server_->completions.empty());
}

// doc:SR17
TEST_F(KmclSaveTest, TheSourceMayGoOn) {
  SendSome(4);
  (void)Save(100);
  VmbChannelStart(server_->channel);
  VmbChannelStart(client_.channel);
  loopback_.Pump();
  EXPECT_EQ(server_->completions.size(), 4u);
}

// Packets of a channel that is not open.
TEST_F(KmclSaveTest, UnsentPacketsAreSentByTheNextOwner) {
  VmbChannelDisable(client_.channel);
  loopback_.Pump();
  EXPECT_EQ(server_->Send("waits...", kWait), STATUS_SUCCESS);
  VmbChannelPause(server_->channel);
  const auto pieces = Save(1 << 20);
  ASSERT_NO_FATAL_FAILURE(Move());
  ASSERT_EQ(Restore(pieces[0]), STATUS_SUCCESS);
  Start();
  VmbChannelStart(server_->channel);
  client_.Enable();
  loopback_.Pump();
  ASSERT_EQ(server_->completions.size(), 1u);
  EXPECT_EQ(server_->completions[0].reply, "waits...");
}

// doc:SR11 doc:CB11
TEST_F(KmclSaveTest, ARestoreThatFailsTakesEverythingBack) {
  SendSome(6);
  const std::string all = Join(Save(1 << 20));
  ASSERT_NO_FATAL_FAILURE(Move());
  calls.restores = false;
  EXPECT_EQ(Restore(all), STATUS_INVALID_PARAMETER)
      << "without VmbPacketRestore the transaction would be lost";
  calls.restores = true;
  calls.restore_status = STATUS_INSUFFICIENT_RESOURCES;
  EXPECT_EQ(Restore(all), STATUS_INSUFFICIENT_RESOURCES);
  ASSERT_EQ(server_->completions.size(), 1u);
  EXPECT_EQ(server_->completions[0].status, STATUS_CANCELLED);
  EXPECT_TRUE(server_->TakeLog().empty());
  calls.restore_status = STATUS_SUCCESS;
  EXPECT_EQ(Restore(all), STATUS_SUCCESS);
}

// doc:SR11 promise:P8
TEST_F(KmclSaveTest, ChangedAndCutBytesAreRefused) {
  SendSome(4);
  const std::string all = Join(Save(1 << 20));
  ASSERT_NO_FATAL_FAILURE(Move());
  for (size_t i = 0; i < all.size(); i += i < 100 ? 1 : 61) {
    SCOPED_TRACE(i);
    std::string changed = all;
    changed[i] = static_cast<char>(changed[i] ^ 0x10);
    EXPECT_FALSE(NT_SUCCESS(Restore(changed)));
    server_->completions.clear();
    const NTSTATUS cut = Restore(all.substr(0, i));
    if (cut == STATUS_MORE_PROCESSING_REQUIRED) {
      EXPECT_FALSE(NT_SUCCESS(Restore("x"))) << "ends it";
    } else {
      EXPECT_FALSE(NT_SUCCESS(cut));
    }
  }
  EXPECT_FALSE(NT_SUCCESS(Restore(all + all))) << "bytes behind the end";
  EXPECT_EQ(Restore(all), STATUS_SUCCESS);
}

}  // namespace
}  // namespace ferrybus::kmcl
