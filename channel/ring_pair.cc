// SPDX-License-Identifier: MIT

#include "ferrybus/channel/ring_pair.h"

#include <errno.h>

#include <cstring>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace ferrybus {
namespace {

absl::Status MapOne(const GuestMemory& memory,
                    absl::Span<const uint64_t> file_offsets, const char* which,
                    ringbuffer::RingMapping* mapping) {
  const int error =
      ringbuffer::RingMapping::Map(memory.file(), file_offsets, mapping);
  if (error == 0) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("mapping the ", which, " ring of ", file_offsets.size(),
                   " pages: ", std::strerror(error),
                   error == ENOMEM ? "; is vm.max_map_count reached?" : ""));
}

}  // namespace

absl::StatusOr<RingPair> RingPair::Map(const GuestMemory& memory,
                                       absl::Span<const uint64_t> page_numbers,
                                       uint32_t downstream_page_offset) {
  const size_t pages = page_numbers.size();
  if (downstream_page_offset < 2 || pages < 4 ||
      downstream_page_offset > pages - 2) {
    return absl::InvalidArgumentError(absl::StrCat(
        "ring page offset ", downstream_page_offset, " in a GPADL of ", pages,
        " pages: each ring needs a control page and at least one data page"));
  }
  std::vector<uint64_t> offsets;
  offsets.reserve(pages);
  for (const uint64_t page : page_numbers) {
    if (page >= memory.page_count()) {
      return absl::InvalidArgumentError(
          absl::StrCat("ring page frame ", page, " is outside guest RAM of ",
                       memory.page_count(), " pages"));
    }
    offsets.push_back(memory.FileOffset(page));
  }
  const absl::Span<const uint64_t> all = offsets;
  RingPair pair;
  absl::Status status = MapOne(memory, all.first(downstream_page_offset),
                               "guest-to-host", &pair.guest_to_host);
  if (status.ok()) {
    status = MapOne(memory, all.subspan(downstream_page_offset),
                    "host-to-guest", &pair.host_to_guest);
  }
  if (!status.ok()) return status;
  return pair;
}

}  // namespace ferrybus
