// SPDX-License-Identifier: MIT

#include "ferrybus/channel/protocols/socket_stream.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace ferrybus {

// -- Reading -----------------------------------------------------------------

size_t SocketStream::Read(absl::Span<std::byte> room) {
  size_t total = 0;
  while (total < room.size() && !unread_.empty()) {
    const absl::Span<const std::byte> left =
        unread_.front().payload().subspan(state_.front_bytes_read);
    const size_t bytes = std::min(left.size(), room.size() - total);
    std::memcpy(room.data() + total, left.data(), bytes);
    total += bytes;
    state_.front_bytes_read += static_cast<uint32_t>(bytes);
    if (bytes < left.size()) break;
    state_.front_bytes_read = 0;
    unread_.front().Complete();
    unread_.pop_front();
  }
  return total;
}

void SocketStream::TakeDatagram(IncomingPacket packet) {
  if (packet.payload().empty()) {
    packet.Complete();
    if (std::exchange(state_.peer_ended, true)) return;
    events_->OnReadable();
    return;
  }
  if (state_.peer_ended) {
    packet.Fail("bytes behind the end of the stream");
    return;
  }
  if (state_.is_read_shut) {
    packet.Complete();
    return;
  }
  unread_.push_back(std::move(packet));
  events_->OnReadable();
}

void SocketStream::ShutdownRead() {
  state_.is_read_shut = true;
  state_.front_bytes_read = 0;
  while (!unread_.empty()) {
    unread_.front().Complete();
    unread_.pop_front();
  }
}

// -- Writing -----------------------------------------------------------------

size_t SocketStream::Write(absl::Span<const std::byte> bytes) {
  size_t total = 0;
  if (!can_write()) return 0;
  while (total < bytes.size()) {
    const auto chunk = bytes.subspan(total, kSocketChunkBytes);
    const Taken taken = sink_->SendDatagram(chunk);
    writer_waits_ = taken == Taken::kNoRoom;
    if (taken != Taken::kYes) break;
    total += chunk.size();
  }
  if (total > 0) sink_->PublishDatagrams();
  return total;
}

void SocketStream::ShutdownWrite() {
  if (!can_write()) return;
  state_.is_write_shut = true;
  writer_waits_ = false;
  SendEnd();
}

void SocketStream::SendEnd() {
  const Taken taken = sink_->SendDatagram({});
  state_.is_end_due = taken == Taken::kNoRoom;
  if (taken == Taken::kYes) sink_->PublishDatagrams();
}

void SocketStream::OnRoom() {
  if (!is_connected_) return;
  if (state_.is_end_due) SendEnd();
  if (std::exchange(writer_waits_, false)) events_->OnWritable();
}

// -- Life --------------------------------------------------------------------

void SocketStream::Connect() {
  state_ = State();
  is_connected_ = true;
  writer_waits_ = false;
  events_->OnConnected();
}

void SocketStream::Disconnect() {
  is_connected_ = false;
  while (!unread_.empty()) {
    (void)unread_.front().Complete();
    unread_.pop_front();
  }
  events_->OnDisconnected();
}

void SocketStream::Restore(const State& state) {
  state_ = state;
  is_connected_ = true;
}

absl::Status SocketStream::RestoreDatagram(IncomingPacket packet) {
  const bool is_first = unread_.empty();
  if (state_.is_read_shut || packet.payload().empty() ||
      (is_first && state_.front_bytes_read >= packet.payload().size())) {
    return absl::InvalidArgumentError(
        "socket: a saved packet cannot have waited to be read: the saved "
        "state is corrupt");
  }
  unread_.push_back(std::move(packet));
  return absl::OkStatus();
}

void SocketStream::Resume() {
  if (unread_.empty()) state_.front_bytes_read = 0;
  writer_waits_ = can_write();
  OnRoom();
  if (!unread_.empty() || state_.peer_ended) events_->OnReadable();
}

}  // namespace ferrybus
