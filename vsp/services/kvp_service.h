// SPDX-License-Identifier: MIT
//
// Key-value exchange: the host reads and writes pairs of short texts in the
// guest's pools.
//
// What it is: an IntegrationService with a bounded queue of operations; the
// guest does one at a time.  Each operation ends in one OnKvpDone with its
// cookie, also after a restore.
//
// Texts are UTF-16, as they stand on the wire, without the final zero.
//
// Numbers of 64 bits are sent as decimal text, since guests do not agree on
// their type's number; both are understood in answers.
//
// Ownership: borrows the events.  Thread safety: one thread, the bus's.
// Trust: lengths and types in answers are checked; a text may hold any units,
// zeroes too.
//
//   kvp.Set(ic::KvpPool::kExternal, u"HostName", u"left", /*cookie=*/7);
//   kvp.Enumerate(ic::KvpPool::kAuto, /*index=*/0, /*cookie=*/8);

#ifndef FERRYBUS_VSP_SERVICES_KVP_SERVICE_H_
#define FERRYBUS_VSP_SERVICES_KVP_SERVICE_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>

#include "ferrybus/vsp/services/integration_service.h"

namespace ferrybus::vsp {

using KvpValue = std::variant<std::u16string, uint32_t, uint64_t>;

struct KvpResult {
  IntegrationOutcome outcome = IntegrationOutcome::kOk;
  // Of kRefused: the guest's reason.  An enumeration ends with
  // ic::kStatusNoMoreItems; Linux says ic::kStatusFail when its daemon does
  // not run.
  uint32_t status = ic::kStatusOk;
  // Of a Get or an Enumerate that succeeded.
  std::u16string key = {};
  KvpValue value = {};
};

class KvpService final : public IntegrationService {
 public:
  class Events {
   public:
    virtual void OnKvpDone(uint64_t cookie, const KvpResult& result) = 0;

   protected:
    ~Events() = default;
  };

  explicit KvpService(Events* events, IntegrationLimits limits = {});

  // All: FailedPrecondition before the guest's driver is ready,
  // ResourceExhausted when too many wait, InvalidArgument for a text longer
  // than 255 units (a key) or 1023 (a value).
  absl::Status Get(ic::KvpPool pool, std::u16string_view key, uint64_t cookie);
  absl::Status Set(ic::KvpPool pool, std::u16string_view key,
                   std::u16string_view value, uint64_t cookie);
  absl::Status SetNumber(ic::KvpPool pool, std::u16string_view key,
                         uint64_t value, uint64_t cookie);
  absl::Status Delete(ic::KvpPool pool, std::u16string_view key,
                      uint64_t cookie);
  // The pair at `index`, from 0.
  absl::Status Enumerate(ic::KvpPool pool, uint32_t index, uint64_t cookie);

 protected:
  void OnAnswer(const IntegrationRequest& request, uint32_t status,
                absl::Span<const std::byte> answer) override;
  void OnLost(const IntegrationRequest& request,
              IntegrationOutcome outcome) override;
  bool IsSound(const IntegrationRequest& request,
               ic::Version message_version) const override;

 private:
  Events* const events_;
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_SERVICES_KVP_SERVICE_H_
