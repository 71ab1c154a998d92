// SPDX-License-Identifier: MIT
//
// The C functions for GPADLs, and the function tables.

#include <cstring>

#include "ferrybus/kmcl/channel.h"

using ferrybus::GpadlHandle;
using ferrybus::GuestAccess;
using ferrybus::kmcl::ClientChannelOf;
using ferrybus::kmcl::GpadlAnswer;
using ferrybus::kmcl::GpadlAnswerOf;
using ferrybus::kmcl::PumpUntil;
using ferrybus::kmcl::ServerChannelOf;
using ferrybus::vsc::GuestBuffer;

namespace {

constexpr uint64_t kPageBytes = 4096;

GuestAccess ToAccess(UINT32 flags) {
  return (flags & VMBUS_CHANNEL_GPADL_FLAG_READ_ONLY) != 0
             ? GuestAccess::kReadOnly
             : GuestAccess::kReadWrite;
}

// The pages of buffers that follow each other at page borders.
bool ToPages(const std::vector<GuestBuffer>& buffers,
             std::vector<uint64_t>* pages, uint32_t* bytes) {
  uint64_t total = 0;
  for (size_t i = 0; i < buffers.size(); ++i) {
    const uint64_t begin = buffers[i].gpa;
    const uint64_t end = begin + buffers[i].byte_count;
    if ((i != 0 && begin % kPageBytes != 0) ||
        (i + 1 != buffers.size() && end % kPageBytes != 0)) {
      return false;
    }
    for (uint64_t page = begin / kPageBytes; page * kPageBytes < end; ++page) {
      pages->push_back(page);
    }
    total += buffers[i].byte_count;
  }
  *bytes = static_cast<uint32_t>(total);
  return total <= UINT32_MAX;
}

// Waits for the server, or for the end of the channel.
GpadlAnswer AwaitAnswer(VMBCHANNEL channel, GpadlHandle gpadl,
                        GpadlAnswer than) {
  const auto answer = [channel, gpadl] {
    return GpadlAnswerOf(*channel, gpadl);
  };
  (void)PumpUntil(*channel->world, absl::InfiniteFuture(),
                  [&] { return !channel->is_open || answer() != than; });
  return channel->is_open ? answer() : GpadlAnswer::kRefused;
}

}  // namespace

NTSTATUS VmbChannelCreateGpadlFromBuffer(VMBCHANNEL Channel, UINT32 Flags,
                                         PVOID Buffer, UINT32 BufferLength,
                                         UINT32* Handle) {
  MDL mdl = {nullptr, Buffer, BufferLength};
  return VmbChannelCreateGpadlFromMdl(Channel, Flags, &mdl, 0, 0, Handle);
}

NTSTATUS VmbChannelCreateGpadlFromMdl(VMBCHANNEL Channel, UINT32 Flags,
                                      PMDL Mdl, UINT32 Start, UINT32 Length,
                                      UINT32* Handle) {
  if (Channel == nullptr || Channel->is_server) {
    return STATUS_INVALID_PARAMETER_1;
  }
  if ((Flags & ~UINT32{VMBUS_CHANNEL_GPADL_FLAG_READ_ONLY}) != 0) {
    return STATUS_INVALID_PARAMETER_2;
  }
  if (!Channel->is_open || Channel->world->quiet_depth != 0) {
    return STATUS_INVALID_DEVICE_STATE;
  }
  std::vector<GuestBuffer> buffers;
  std::vector<uint64_t> pages;
  uint32_t bytes = 0;
  if (!Channel->ResolveChain(Mdl, Start, Length, false, &buffers) ||
      !ToPages(buffers, &pages, &bytes)) {
    return STATUS_INVALID_PARAMETER_3;
  }
  const auto gpadl = ClientChannelOf(*Channel)->CreateGpadl(
      pages, bytes, static_cast<uint32_t>(buffers[0].gpa % kPageBytes),
      ToAccess(Flags));
  if (!gpadl.ok()) return STATUS_INSUFFICIENT_RESOURCES;
  if (AwaitAnswer(Channel, *gpadl, GpadlAnswer::kPending) !=
      GpadlAnswer::kCreated) {
    return STATUS_UNSUCCESSFUL;
  }
  *Handle = static_cast<UINT32>(*gpadl);
  return STATUS_SUCCESS;
}

void VmbChannelDeleteGpadl(VMBCHANNEL Channel, UINT32 Handle) {
  // Closing deletes them by itself, and within that callback nobody may wait.
  if (!Channel->is_open || Channel->is_server) return;
  const GpadlHandle gpadl{Handle};
  if (!ClientChannelOf(*Channel)->DeleteGpadl(gpadl).ok()) return;
  (void)AwaitAnswer(Channel, gpadl, GpadlAnswer::kCreated);
}

NTSTATUS VmbChannelMapGpadl(VMBCHANNEL Channel, UINT32 Flags, UINT32 Handle,
                            PMDL* Mdl) {
  if (Channel == nullptr || !Channel->is_server) {
    return STATUS_INVALID_PARAMETER_1;
  }
  if ((Flags & ~UINT32{VMBUS_CHANNEL_GPADL_FLAG_READ_ONLY}) != 0) {
    return STATUS_INVALID_PARAMETER_2;
  }
  if (!Channel->is_open) return STATUS_INVALID_DEVICE_STATE;
  const auto buffers =
      ServerChannelOf(*Channel)->MapGpadl(GpadlHandle{Handle}, ToAccess(Flags));
  if (!buffers.ok()) {
    return absl::IsNotFound(buffers.status()) ? STATUS_INVALID_PARAMETER_3
                                              : STATUS_UNSUCCESSFUL;
  }
  std::vector<MDL>& mdls = Channel->mapped_gpadls[Handle];
  mdls.clear();
  for (const iovec& each : *buffers) {
    mdls.push_back({nullptr, each.iov_base, static_cast<ULONG>(each.iov_len)});
  }
  for (size_t i = 1; i < mdls.size(); ++i) mdls[i - 1].Next = &mdls[i];
  *Mdl = mdls.data();
  return STATUS_SUCCESS;
}

void VmbChannelUnmapGpadl(VMBCHANNEL Channel, UINT32 Handle) {
  if (!Channel->is_server || Channel->mapped_gpadls.erase(Handle) == 0) return;
  (void)ServerChannelOf(*Channel)->UnmapGpadl(GpadlHandle{Handle});
}
