// SPDX-License-Identifier: MIT
//
// A byte stream over the datagrams of a pipe's channel: what both ends of an
// hv_sock connection have.
//
// What it is: the reading half keeps the channel's packets until they are
// read, and the writing half cuts bytes into datagrams.  Nothing is copied
// aside: what is not read counts against the channel's quota, so that a full
// quota leaves the rest in the ring, and a full ring stops the peer.  A
// datagram without bytes ends its direction; the other one goes on.
//
// Ownership: borrows sink and events.
// Thread safety: one thread, the bus's.  Events may read, write and shut down.
//
// Trust: the peer may send anything; bytes behind its own end of stream fault
// the channel.
//
// Cost: no allocation while writing; one copy per byte and direction besides
// the ring's own.
//
//   size_t taken = stream.Write(bytes);      // less: OnWritable follows
//   size_t got = stream.Read(room);          // 0: OnReadable follows, or
//   if (stream.is_at_end()) { ... }          // never again

#ifndef FERRYBUS_CHANNEL_PROTOCOLS_SOCKET_STREAM_H_
#define FERRYBUS_CHANNEL_PROTOCOLS_SOCKET_STREAM_H_

#include <cstddef>
#include <cstdint>
#include <deque>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "ferrybus/channel/incoming_packet.h"

namespace ferrybus {

// Of a datagram that we send: two fit into the smallest ring.
inline constexpr size_t kSocketChunkBytes = 1984;
// Datagrams that may wait to be read; of at most 16 KiB each.
inline constexpr uint32_t kSocketUnreadMax = 16;

class SocketStream {
 public:
  enum class Taken { kYes, kNoRoom, kClosed };
  // The channel below.
  class Sink {
   public:
    // kNoRoom: OnRoom() follows.
    virtual Taken SendDatagram(absl::Span<const std::byte> bytes) = 0;
    virtual void PublishDatagrams() {}

   protected:
    ~Sink() = default;
  };
  class Events {
   public:
    // The channel is there.
    virtual void OnConnected() {}
    // The client's: there will be none.
    virtual void OnRefused() {}
    // There are bytes, or the end of the stream.
    virtual void OnReadable() {}
    // A Write() that took less than all of it may go on.
    virtual void OnWritable() {}
    // The channel ended, and with it both directions.  What was not read is
    // lost.
    virtual void OnDisconnected() {}

   protected:
    ~Events() = default;
  };

  // What a save keeps, beside the packets that are not read.
  struct State {
    uint32_t front_bytes_read = 0;  // of the oldest packet
    bool peer_ended = false;
    bool is_read_shut = false;
    bool is_write_shut = false;
    bool is_end_due = false;  // the end of our stream waits for room

    friend bool operator==(const State&, const State&) = default;
  };

  SocketStream(Sink* sink, Events* events) : sink_(sink), events_(events) {}
  SocketStream(const SocketStream&) = delete;
  SocketStream& operator=(const SocketStream&) = delete;

  // -- The user --------------------------------------------------------------

  // As many bytes as there are, up to `room`.
  size_t Read(absl::Span<std::byte> room);
  // The peer writes no more, and all was read.
  bool is_at_end() const { return state_.peer_ended && unread_.empty(); }
  // As many bytes as the ring has room for; 0 also when it cannot be written
  // any more.
  size_t Write(absl::Span<const std::byte> bytes);
  bool can_write() const { return is_connected_ && !state_.is_write_shut; }
  // The peer finds the end of the stream behind what was written.
  void ShutdownWrite();
  // What came, and what comes, is dropped.
  void ShutdownRead();

  bool is_connected() const { return is_connected_; }
  size_t unread_datagrams() const { return unread_.size(); }

  // -- The channel -----------------------------------------------------------

  void Connect();
  void Refuse() { events_->OnRefused(); }
  void TakeDatagram(IncomingPacket packet);
  void OnRoom();
  void Disconnect();

  // -- Moving ----------------------------------------------------------------

  const State& state() const { return state_; }
  // Then the packets, in their order; then Resume() when the restore is final.
  void Restore(const State& state);
  // InvalidArgument: it cannot have waited.
  absl::Status RestoreDatagram(IncomingPacket packet);
  void Resume();

 private:
  void SendEnd();

  Sink* const sink_;
  Events* const events_;
  bool is_connected_ = false;
  bool writer_waits_ = false;
  State state_;
  std::deque<IncomingPacket> unread_;
};

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_PROTOCOLS_SOCKET_STREAM_H_
