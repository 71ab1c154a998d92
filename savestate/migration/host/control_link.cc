// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/migration/host/control_link.h"

#include <utility>

#include "ferrybus/savestate/steady_clock.h"

namespace ferrybus::migration {
namespace {

constexpr size_t kReceivedMax = 4;

}  // namespace

ControlLink::ControlLink(Stream stream) : stream_(std::move(stream)) {
  reader_ = std::thread([this] { ReadAll(); });
  writer_ = std::thread([this] { WriteAll(); });
}

ControlLink::~ControlLink() { Close(absl::ZeroDuration()); }

void ControlLink::Send(LinkMessage message) {
  absl::MutexLock lock(&mutex_);
  to_send_.push_back(std::move(message));
}

std::optional<LinkMessage> ControlLink::Receive(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  auto is_due = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return is_poked_ || is_read_ended_ || !received_.empty();
  };
  mutex_.AwaitWithTimeout(absl::Condition(&is_due), timeout);
  is_poked_ = false;
  if (received_.empty()) return std::nullopt;
  LinkMessage message = std::move(received_.front());
  received_.pop_front();
  return message;
}

bool ControlLink::is_ended() const {
  absl::MutexLock lock(&mutex_);
  return is_read_ended_ && received_.empty();
}

void ControlLink::Poke() {
  absl::MutexLock lock(&mutex_);
  is_poked_ = true;
}

void ControlLink::ReadAll() {
  stream_.open();
  {
    absl::MutexLock lock(&mutex_);
    is_open_ = true;
  }
  LinkMessage message;
  while (stream_.read(&message)) {
    absl::MutexLock lock(&mutex_);
    if (is_closing_) continue;  // only its end is of interest
    received_.push_back(std::exchange(message, {}));
    auto has_room = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return is_closing_ || received_.size() < kReceivedMax;
    };
    mutex_.Await(absl::Condition(&has_room));
  }
  absl::MutexLock lock(&mutex_);
  is_read_ended_ = true;
}

void ControlLink::WriteAll() {
  while (true) {
    LinkMessage message;
    {
      absl::MutexLock lock(&mutex_);
      auto is_due = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return is_open_ && (is_closing_ || !to_send_.empty());
      };
      mutex_.Await(absl::Condition(&is_due));
      if (to_send_.empty()) break;
      message = std::move(to_send_.front());
      to_send_.pop_front();
    }
    if (!stream_.write(message)) break;  // the reader hears of it
  }
  stream_.writes_done();
  absl::MutexLock lock(&mutex_);
  is_write_ended_ = true;
}

void ControlLink::Close(absl::Duration patience) {
  if (!reader_.joinable()) return;
  {
    absl::MutexLock lock(&mutex_);
    is_closing_ = true;
    auto is_over = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return is_read_ended_ && is_write_ended_;
    };
    // A wait ends early when the system's time is set ahead.
    const absl::Time end = savestate::SteadyNow() + patience;
    for (absl::Duration left = patience;
         !mutex_.AwaitWithTimeout(absl::Condition(&is_over), left) &&
         left > absl::ZeroDuration();
         left = end - savestate::SteadyNow()) {
    }
  }
  stream_.cancel();
  reader_.join();
  writer_.join();
}

}  // namespace ferrybus::migration
