// SPDX-License-Identifier: MIT
//
// What the bodies of a saved state say, as JSON: the neutral form that the
// command line tool prints and compares.
//
// Keys come in a fixed order and are only added from version to version.  A
// list is {"count": of all, "listed": [...], "rest": not listed}.
//
// Thread safety: functions without state.
// Trust: the messages may say anything.  Nothing of it is believed, the text
// that comes out is printable ASCII, and its size is bounded by ModelOptions.
// Cost: about a kilobyte for each packet that is listed.

#ifndef FERRYBUS_TOOLS_STATE_DESCRIBE_H_
#define FERRYBUS_TOOLS_STATE_DESCRIBE_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "ferrybus/savestate/channel.pb.h"
#include "ferrybus/savestate/connection.pb.h"

namespace ferrybus::state_tool {

using Json = nlohmann::ordered_json;

// However much is asked for, a model has no more list elements than this.
inline constexpr size_t kElementsMax = size_t{1} << 17;

struct ModelOptions {
  // Elements shown of each list.
  size_t list_max = 12;
  // Bytes shown of what a device wrote in a format that is not known here.
  size_t hex_bytes_max = 16;
  // For comparing: all bytes of packets, page lists and user data.
  bool has_contents = false;

  static ModelOptions All() { return {.list_max = kElementsMax}; }
  static ModelOptions ForComparing() {
    return {.list_max = kElementsMax,
            .hex_bytes_max = SIZE_MAX,
            .has_contents = true};
  }
};

// What one model may still grow by.
class Budget {
 public:
  explicit Budget(const ModelOptions& options) : options_(options) {}

  const ModelOptions& options() const { return options_; }

  template <typename List, typename Describe>
  Json Listed(const List& list, Describe describe) {
    const size_t count = static_cast<size_t>(list.size());
    const size_t taken = std::min({count, options_.list_max, elements_left_});
    elements_left_ -= taken;
    Json listed = Json::array();
    for (size_t i = 0; i < taken; ++i) {
      listed.push_back(describe(list[static_cast<int>(i)]));
    }
    return {{"count", count},
            {"listed", std::move(listed)},
            {"rest", count - taken}};
  }

 private:
  const ModelOptions options_;
  size_t elements_left_ = kElementsMax;
};

// -- Values ------------------------------------------------------------------

// Printable ASCII; all else as \xHH.
std::string Escaped(std::string_view text);
// What it says.
std::string Escaped(const absl::Status& status);
// "0x2c"
std::string Hex(uint64_t number);
// At most `max` bytes, in hexadecimal, with "..." for more.
std::string HexBytes(std::string_view bytes, size_t max);
// The printed form; bytes in hexadecimal when it is no GUID.
std::string GuidText(const std::string& bytes);

// -- Devices -----------------------------------------------------------------

// Whose format a channel's device state is in, as far as the offer tells.
enum class DeviceKind { kUnknown, kStorage, kSocket, kService };

DeviceKind KindOf(const savestate::v1::OfferState& offer);
// "storage (SCSI)", "socket, vsock port 22", "heartbeat".
std::string DeviceName(const savestate::v1::OfferState& offer);

// What this library's devices of that kind would say to these bytes.  Kinds
// and packets without a format of ours are fine.
absl::Status CheckDeviceState(DeviceKind kind, const std::string& bytes);
absl::Status CheckPacketBlob(DeviceKind kind, const std::string& bytes);

Json DescribeDeviceState(DeviceKind kind, const std::string& bytes,
                         const ModelOptions& options);
Json DescribePacketBlob(DeviceKind kind, const std::string& bytes,
                        const ModelOptions& options);

// -- Sections ----------------------------------------------------------------

Json DescribeConnection(const savestate::v1::ConnectionState& connection,
                        Budget& budget);
// `offer` is the one that the channel belongs to, or null.
Json DescribeChannel(uint64_t channel_id,
                     const savestate::v1::ChannelState& channel,
                     const savestate::v1::OfferState* offer, Budget& budget);

}  // namespace ferrybus::state_tool

#endif  // FERRYBUS_TOOLS_STATE_DESCRIBE_H_
