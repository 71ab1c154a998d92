// SPDX-License-Identifier: MIT
//
// The objects behind the C interface's handles.  Internal to kmcl/.
//
// What it is: FerrybusChannel keeps the settings, the callbacks and the packet
// objects of a channel; a Side, made when the channel is enabled, ties it to
// the bus of the server or of the client.
//
// Ownership: see kmcl/kmcl.h.  Thread safety: one thread, but
// VmbChannelPacketComplete.

#ifndef FERRYBUS_KMCL_CHANNEL_H_
#define FERRYBUS_KMCL_CHANNEL_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "ferrybus/channel/channel_life.h"
#include "ferrybus/channel/incoming_packet.h"
#include "ferrybus/kmcl/parent.h"

namespace ferrybus::kmcl {

struct SaveStream;
struct RestoreStream;

struct Settings {
  uint32_t packet_bytes_max = 4096;
  uint32_t external_bytes_max = 1u << 20;
  uint32_t external_ranges_max = 64;
  uint32_t packet_count_max = 256;
  uint32_t context_bytes = 0;
  EVT_VMB_CHANNEL_PROCESS_PACKET* process_packet = nullptr;
  EVT_VMB_CHANNEL_PROCESSING_COMPLETE* processing_complete = nullptr;
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS state = {};
  EVT_VMB_CHANNEL_SAVE_PACKET* save_packet = nullptr;
  EVT_VMB_CHANNEL_RESTORE_PACKET* restore_packet = nullptr;
  EVT_VMB_CHANNEL_PNP_FAILURE* pnp_failure = nullptr;
  std::string friendly_name;
  bool is_pipe = false;
  uint32_t server_flags = 0;
  uint16_t mmio_megabytes = 0;
  uint16_t mmio_megabytes_optional = 0;
  uint8_t vtl = 0;
  Guid type;
  std::optional<Guid> instance;
  uint32_t incoming_pages = 16;
  uint32_t outgoing_pages = 16;
  std::array<std::byte, kUserDataSizeBytes> user_data{};
};

// External data of a packet that is sent: one of the two, or none.
struct External {
  absl::Span<const vsc::GuestBuffer> buffers;
  absl::Span<const uint64_t> pages;
  bool empty() const { return buffers.empty() && pages.empty(); }
};

// One end of the link.
class Side {
 public:
  virtual ~Side() = default;
  // Blocks until nothing calls the channel any more.
  virtual void Disable() = 0;
  // kPaused: blocks until it is drained.
  virtual void SetRun(ChannelRun run) = 0;
  // REQUIRES of all below: the channel is open.
  virtual SendStatus Send(absl::Span<const std::byte> payload,
                          const External& external, bool waits,
                          uint64_t tag) = 0;
  virtual void SetQuota(uint32_t quota) = 0;
  virtual void SetWantsBlocking(bool wants) = 0;
  virtual Guid instance() const = 0;
  virtual const std::byte* peer_user_data() const = 0;
  virtual uint64_t mmio_bytes() const = 0;
  // Nothing calls the channel any more, nor knows the side.
  virtual bool is_gone() const = 0;
  // The bus has ended without a word.
  virtual void Abandon() = 0;
};

}  // namespace ferrybus::kmcl

// Followed in memory by room for a payload and its external data.
struct FerrybusPacket {
  FerrybusChannel* channel = nullptr;
  EVT_VMB_PACKET_COMPLETION_ROUTINE* routine = nullptr;
  PVOID pointer = nullptr;
  FerrybusPacket* next = nullptr;  // free, or waiting for the channel to open
  uint32_t index = 0;              // while in flight
  bool is_allocated = false;
  bool in_flight = false;
  bool waits = false;  // for a completion
  uint32_t payload_bytes = 0;
  uint32_t buffer_count = 0;
  uint32_t page_count = 0;
};

struct FerrybusCompletion {
  FerrybusChannel* channel = nullptr;
  ferrybus::IncomingPacket packet;
  bool gives_back = false;
  std::vector<uint64_t> context;
  std::vector<MDL> mdls;
};

struct FerrybusChannel {
  FerrybusChannel(FERRYBUS_PARENT parent, bool is_server);
  FerrybusChannel(const FerrybusChannel&) = delete;
  FerrybusChannel& operator=(const FerrybusChannel&) = delete;
  ~FerrybusChannel();

  bool is_enabled() const { return side != nullptr && !has_ended; }
  // Nothing that was saved of it is taken up again.
  bool is_forced_new() const {
    return (settings.server_flags &
            VMBUS_SERVER_CHANNEL_INIT_FLAG_FORCE_NEW_CHANNEL) != 0;
  }

  // -- What a Side tells -----------------------------------------------------

  NTSTATUS OnOpened();
  void OnStarted();
  void OnPostStarted();
  void OnSuspend();
  void OnClosed();
  void OnPacket(ferrybus::IncomingPacket packet);
  void OnBatchEnd(size_t packets);
  void OnCompletion(uint64_t tag, absl::Span<const std::byte> reply);
  void OnSent(uint64_t tag);
  void OnOpenFailed();
  // The bus of this server has ended: another process serves now.
  void OnAbandoned();

  // -- Packets ---------------------------------------------------------------

  size_t external_room_bytes() const;
  uint32_t packet_object_bytes() const;
  void SendUnsent();
  void DropUnsent(FerrybusPacket* packet);
  NTSTATUS Send(FerrybusPacket* packet, absl::Span<const std::byte> payload,
                const ferrybus::kmcl::External& external, bool waits);
  // The range of guest memory; false: it is not guest RAM.
  bool Resolve(const void* at, uint64_t bytes, uint64_t* gpa) const;
  // [offset, offset + length) of a chain, 0 for all, into `buffers`.
  bool ResolveChain(PMDL mdl, uint32_t offset, uint32_t length, bool force,
                    std::vector<ferrybus::vsc::GuestBuffer>* buffers) const;
  FerrybusPacket* InFlight(uint64_t tag);
  bool TakeIndex(FerrybusPacket* packet);
  void Finish(FerrybusPacket* packet, NTSTATUS status,
              absl::Span<const std::byte> reply);
  void CancelInFlight(NTSTATUS status);

  std::shared_ptr<ferrybus::kmcl::World> world;
  const bool is_server;
  ferrybus::kmcl::Settings settings;
  PVOID pointer = nullptr;
  // Where the channel is to be once it opens.
  ferrybus::ChannelRun run;
  uint32_t quota = 0;  // 0: the number of packets
  bool at_passive = false;
  uint16_t interrupt_latency = 0;

  std::unique_ptr<ferrybus::kmcl::Side> side;  // while enabled
  // A client's channel that was closed: disabled, but the bus still knows it.
  bool has_ended = false;
  std::vector<std::unique_ptr<ferrybus::kmcl::Side>> ended_sides;
  bool is_open = false;
  bool takes_packets = false;  // open, and what was sent before is sent
  bool is_disabling = false;
  bool is_restoring_open = false;  // the last chunk of a restore is carried out
  uint64_t mmio_address = 0;
  uint64_t mmio_bytes = 0;

  std::vector<FerrybusPacket*> packets;  // by index; null: free
  std::vector<uint32_t> free_indices;
  FerrybusPacket* free_packets = nullptr;
  uint32_t packets_allocated = 0;
  // Sent while the channel was not open, in order.
  FerrybusPacket* unsent_first = nullptr;
  FerrybusPacket* unsent_last = nullptr;
  std::deque<FerrybusCompletion> completions;  // by slot
  std::vector<ferrybus::vsc::GuestBuffer> scratch;
  std::map<uint32_t, std::vector<MDL>> mapped_gpadls;
  std::unique_ptr<ferrybus::kmcl::SaveStream> saving;
  std::unique_ptr<ferrybus::kmcl::RestoreStream> restoring;
};

namespace ferrybus::kmcl {

std::unique_ptr<Side> EnableServer(FerrybusChannel* channel, NTSTATUS* status);
NTSTATUS EnableClient(FerrybusChannel* channel);
// The flags of a server's offer.
uint16_t OfferFlags(const Settings& settings);

// REQUIRES: enabled, of that side.
vsp::ServerChannel* ServerChannelOf(const FerrybusChannel& channel);
vsc::RingChannel* ClientChannelOf(const FerrybusChannel& channel);

// What a client's GPADL calls wait for.
enum class GpadlAnswer { kPending, kCreated, kRefused, kDeleted };
GpadlAnswer GpadlAnswerOf(const FerrybusChannel& channel, GpadlHandle gpadl);

NTSTATUS ToNtStatus(SendStatus status);

}  // namespace ferrybus::kmcl

#endif  // FERRYBUS_KMCL_CHANNEL_H_
