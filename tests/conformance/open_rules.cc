// SPDX-License-Identifier: MIT
//
// Rules about opening, closing and modifying channels.

#include "absl/strings/str_cat.h"
#include "ferrybus/tests/conformance/guest.h"
#include "ferrybus/tests/conformance/rule.h"

namespace ferrybus::conformance {
namespace {

constexpr uint32_t kOpenId = 0xabcd1234;

void ExpectOpenRefused(Trial& t, const GuestChannel& channel,
                       const std::string& what) {
  t.guest().PostOpen(channel, kOpenId);
  t.Expect(t.guest().ExpectOpenResult(channel.relid, kOpenId) != 0,
           absl::StrCat(what, " is refused"));
}

uint32_t Modify(Guest& guest, uint32_t relid, uint32_t vp) {
  ModifyChannelMessage modify;
  modify.channel_id = ChannelId{relid};
  modify.target_vp = vp;
  guest.Post(EncodeMessage(modify));
  const HostBytes answer =
      guest.Expect(MessageType::kModifyChannelResponse, 16);
  return answer.At<uint32_t>(12);
}

RULE(OpenIsAnswered, "vector:M14 vector:M16 doc:KC23",
     "OPENCHANNEL with a good ring is answered by OPENCHANNEL_RESULT of 20 "
     "bytes with the channel, the guest's open id and status 0.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Prepare(1);
  guest.PostOpen(channel, kOpenId);
  t.Expect(guest.ExpectOpenResult(channel.relid, kOpenId) == 0, "it opens");
  channel.is_open = true;
  guest.ExpectAlive(channel);
}

RULE(LongOpenIsTaken, "quirk:D20",
     "An OPENCHANNEL of 156 bytes is taken at any version; what was not "
     "agreed on is not looked at.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Prepare(1);
  OpenChannelMessage open;
  open.channel_id = ChannelId{channel.relid};
  open.open_id = 0x77;
  open.ring_gpadl = GpadlId{channel.gpadl};
  open.downstream_page_offset = channel.downstream_offset;
  open.connection_id = 0xffffffff;
  open.event_flag = 0xffff;
  guest.Post(EncodeOpenChannel(open, 1));
  t.Expect(guest.ExpectOpenResult(channel.relid) == 0, "it opens");
  channel.is_open = true;
  guest.ExpectAlive(channel);
}

RULE(OpenOfNoChannelIsRefused, "bad:C5",
     "OPENCHANNEL for a channel that was not offered is answered by a "
     "failure.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Prepare(1);
  for (const uint32_t relid : {0u, 2000u, 2048u, 0xffffffffu}) {
    GuestChannel wrong = channel;
    wrong.relid = relid;
    ExpectOpenRefused(t, wrong, absl::StrCat("channel ", relid));
  }
}

RULE(OpenWithForeignGpadlIsRefused, "bad:C5",
     "OPENCHANNEL with a GPADL of another channel is refused: it is no way "
     "into that channel's memory.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Prepare(1);
  GuestChannel wrong = channel;
  wrong.gpadl = guest.Prepare(2).gpadl;
  ExpectOpenRefused(t, wrong, "another channel's GPADL");
  guest.PostOpen(channel);
  t.Expect(guest.ExpectOpenResult(channel.relid) == 0, "its own opens it");
}

RULE(OpenWithUnfinishedGpadlIsRefused, "bad:C5",
     "OPENCHANNEL with a GPADL that does not exist, is not complete or is torn "
     "down is refused.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Prepare(1);
  GuestChannel wrong = channel;
  wrong.gpadl = 0x4711;
  ExpectOpenRefused(t, wrong, "no GPADL");
  GpadlHeaderMessage header;
  header.channel_id = ChannelId{channel.relid};
  header.gpadl_id = GpadlId{wrong.gpadl};
  header.range_buffer_size_bytes = 8 + 8 * 40;
  header.range_count = 1;
  guest.Post(EncodeGpadlHeader(header, BytesOf(uint64_t{40 * 4096})));
  ExpectOpenRefused(t, wrong, "half a GPADL");
  guest.PostTeardown(channel.relid, channel.gpadl);
  guest.ExpectTorndown(channel.gpadl);
  ExpectOpenRefused(t, channel, "a GPADL that was torn down");
}

RULE(OpenWithBadSplitIsRefused, "bad:C5 bad:R24",
     "The second ring starts within the GPADL and leaves each ring a data "
     "page; an OPENCHANNEL that splits it in another way is refused.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Prepare(1, 2);
  for (const uint32_t offset : {0u, 1u, 5u, 6u, 7u, 0xffffffffu}) {
    GuestChannel wrong = channel;
    wrong.downstream_offset = offset;
    ExpectOpenRefused(t, wrong, absl::StrCat("offset ", offset, " of 6"));
  }
  guest.PostOpen(channel);
  t.Expect(guest.ExpectOpenResult(channel.relid) == 0, "offset 3 opens it");
}

RULE(RingsMayNotShareAPage, "bad:R24",
     "A GPADL that names a page twice is no pair of rings.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Prepare(1);
  std::vector<uint64_t> pages = channel.pages;
  pages[3] = pages[1];
  GuestChannel wrong = channel;
  wrong.gpadl = guest.MakeGpadl(channel.relid, pages);
  ExpectOpenRefused(t, wrong, "a shared page");
}

RULE(SecondOpenIsRefused, "bad:C5",
     "OPENCHANNEL of an open channel is refused, and the channel goes on.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  ExpectOpenRefused(t, channel, "a second open");
  guest.ExpectAlive(channel);
}

RULE(DeviceMayRefuseToOpen, "doc:ST13 doc:CB1 doc:KC23",
     "A device sees the user data of OPENCHANNEL and may refuse: the guest "
     "gets a failure, no traffic flows, and it may try again.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Prepare(1);
  guest.PostOpen(channel, kOpenId, kRefuseOpen);
  t.Expect(guest.ExpectOpenResult(channel.relid, kOpenId) != 0,
           "the device refuses");
  channel.writer.Write(guest.Request(channel, Command::kEcho));
  channel.writer.Publish();
  guest.Signal(channel);
  guest.Settle();
  t.Expect(
      channel.out.Load(kReadIndex) == 0 && channel.in.Load(kWriteIndex) == 0,
      "nothing flows");
  guest.Close(channel);
  guest.ExpectAlive(guest.Open(1));
}

RULE(NothingFlowsBeforeOpen, "doc:ST14 bad:C19",
     "A channel that has a GPADL but is not open is not read, though it is "
     "signalled.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Prepare(1);
  const Bytes in = channel.in.Snapshot();
  channel.writer.Write(guest.Request(channel, Command::kEcho));
  channel.writer.Publish();
  const Bytes out = channel.out.Snapshot();
  guest.Signal(channel);
  guest.Settle();
  t.Expect(channel.in.Snapshot() == in && channel.out.Snapshot() == out,
           "the rings stay as they are");
}

RULE(OpenedChannelIsStarted, "doc:ST4 doc:CB4",
     "Requests that lie in the ring when the channel opens are answered when "
     "it is signalled.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Prepare(1);
  const RawPacket request = guest.Request(channel, Command::kEcho);
  channel.writer.Write(request);
  channel.writer.Publish();
  guest.PostOpen(channel);
  guest.ExpectOpenResult(channel.relid);
  channel.is_open = true;
  guest.Signal(channel);
  guest.ExpectAnswer(channel, request.transaction_id);
}

RULE(ClosedRingIsNotTouched, "doc:CB2 bad:C19 vector:M17",
     "CLOSECHANNEL has no answer; after it the host neither reads nor writes "
     "the rings, signalled or not.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  guest.ExpectAlive(channel);
  guest.PostClose(channel);
  guest.ExpectNoMessage("for CLOSECHANNEL");
  channel.writer.Write(guest.Request(channel, Command::kEcho));
  channel.writer.Publish();
  const Bytes in = channel.in.Snapshot();
  const Bytes out = channel.out.Snapshot();
  guest.Signal(channel);
  guest.Settle();
  t.Expect(channel.in.Snapshot() == in && channel.out.Snapshot() == out,
           "the rings stay as they are");
}

RULE(CloseCancelsWhatIsInFlight, "bad:C6",
     "Requests in flight end with the channel: none is completed afterwards, "
     "the GPADL can be torn down, and the next opening starts clean.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  for (int i = 0; i < 8; ++i) guest.Ask(channel, Command::kHold, 0, i);
  guest.ExpectNoPacket(channel, "for held requests");
  guest.Close(channel);
  const Bytes in = channel.in.Snapshot();
  GuestChannel& again = guest.Open(1);
  guest.Do(again, Command::kRelease);
  guest.ExpectNoPacket(again, "for requests of the opening before");
  t.Expect(channel.in.Snapshot() == in, "the old ring stays as it was");
}

RULE(CloseOfAClosedChannelIsRefused, "bad:C6",
     "CLOSECHANNEL of a closed channel, or of none, changes nothing.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Prepare(1);
  guest.PostClose(channel);
  GuestChannel wrong = channel;
  wrong.relid = 1999;
  guest.PostClose(wrong);
  guest.ExpectNoMessage("for CLOSECHANNEL");
  guest.PostOpen(channel);
  t.Expect(guest.ExpectOpenResult(channel.relid) == 0, "it opens");
}

RULE(ChannelOpensAgain, "doc:ST4 doc:ST15",
     "A closed channel's offer stands: it opens again and again, also with "
     "the same rings.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  for (int i = 0; i < 5; ++i) {
    guest.ExpectAlive(channel);
    guest.PostClose(channel);
    channel.out.Initialise();
    channel.in.Initialise();
    channel.writer.set_write_index(0);
    channel.reader.set_read_index(0);
    guest.PostOpen(channel);
    t.Expect(guest.ExpectOpenResult(channel.relid) == 0, "it opens again");
    channel.is_open = true;
  }
  guest.ExpectAlive(channel);
}

RULE(IndicesOfAnOpenedRingCount, "bad:R12",
     "An endpoint attaches to the rings as they are: traffic goes on where "
     "their indices stand.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Prepare(1);
  for (GuestRing* const ring : {&channel.out, &channel.in}) {
    ring->Store(kWriteIndex, 0xff0);
    ring->Store(kReadIndex, 0xff0);
  }
  channel.writer.set_write_index(0xff0);
  channel.reader.set_read_index(0xff0);
  guest.PostOpen(channel);
  guest.ExpectOpenResult(channel.relid);
  channel.is_open = true;
  guest.ExpectAlive(channel);
}

RULE(ModifyIsAnswered, "vector:M22 bad:C8",
     "From 5.3 on MODIFYCHANNEL is answered by MODIFYCHANNEL_RESPONSE of 16 "
     "bytes: success for a processor that exists, failure for one that does "
     "not and for a channel that is not open.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  t.Expect(Modify(guest, channel.relid, 0) == 0, "processor 0 is taken");
  t.Expect(Modify(guest, channel.relid, 0xffffffff) != 0,
           "no processor is refused");
  t.Expect(Modify(guest, guest.relid(2), 0) != 0,
           "a closed channel is refused");
  guest.ExpectAlive(channel);
}

}  // namespace
}  // namespace ferrybus::conformance
