// SPDX-License-Identifier: MIT
//
// Rules about rings that a guest breaks: its channel stops, nothing else does.

#include <functional>

#include "absl/strings/str_cat.h"
#include "ferrybus/tests/conformance/guest.h"
#include "ferrybus/tests/conformance/rule.h"

namespace ferrybus::conformance {
namespace {

enum class Taken { kNo, kMaybe };

// Breaks the ring of one channel behind good packets, sees it stop and the
// other go on.  What is broken is not taken, unless that is allowed.
void ExpectFault(Trial& t,
                 const std::function<void(Guest&, GuestChannel&)>& break_it,
                 Taken taken = Taken::kNo) {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  GuestChannel& other = guest.Open(2);
  guest.ExpectAlive(channel);
  if (t.over()) return;
  const uint32_t start = channel.writer.write_index();
  break_it(guest, channel);
  guest.Signal(channel);
  guest.Settle();
  if (taken == Taken::kNo) {
    t.Expect(channel.received.empty(), "what is broken has no answer");
    t.Expect(channel.out.Load(kReadIndex) == start,
             "the read index does not pass it");
  }
  guest.ExpectFaultedAlone(channel, other);
}

void ExpectPacketFault(Trial& t, const RawPacket& packet,
                       Taken taken = Taken::kNo) {
  ExpectFault(
      t,
      [&packet](Guest&, GuestChannel& channel) {
        RawPacket its = packet;
        if (its.payload.empty()) its.payload = Payload(Command::kEcho);
        channel.writer.Write(its);
        channel.writer.Publish();
      },
      taken);
}

// `words` of an extension, 4 bytes each.
Bytes Extension(std::initializer_list<uint32_t> words) {
  Bytes bytes;
  for (const uint32_t word : words) {
    const Bytes more = BytesOf(word);
    bytes.insert(bytes.end(), more.begin(), more.end());
  }
  return bytes;
}

RULE(WriteIndexBeyondTheRing, "bad:R1 vector:X11",
     "A write index at or beyond the size of the ring stops its channel.") {
  for (const uint32_t index : {0x1000u, 0x7ffffff8u, 0xfffffff8u}) {
    ExpectFault(t, [index](Guest&, GuestChannel& channel) {
      channel.out.Store(kWriteIndex, index);
    });
  }
}

RULE(WriteIndexNotAligned, "bad:R2 vector:X11",
     "A write index that is no multiple of 8 stops its channel.") {
  for (const uint32_t step : {1u, 4u, 31u}) {
    ExpectFault(t, [step](Guest& guest, GuestChannel& channel) {
      channel.writer.Write(guest.Request(channel, Command::kEcho));
      channel.out.Store(kWriteIndex, channel.writer.write_index() + step);
    });
  }
}

RULE(TooFewBytesForADescriptor, "bad:R5 quirk:D8",
     "Eight published bytes are no packet: the channel stops.") {
  ExpectFault(t, [](Guest&, GuestChannel& channel) {
    channel.out.Store(kWriteIndex,
                      channel.out.Advance(channel.writer.write_index(), 8));
  });
}

RULE(LengthBelowOffset, "bad:R6 vector:X3",
     "A packet whose length is smaller than its payload's offset stops its "
     "channel.") {
  ExpectPacketFault(t, {.offset8 = 5, .length8 = 4});
}

RULE(LengthZero, "vector:X1", "A packet of length 0 stops its channel.") {
  ExpectPacketFault(t, {.length8 = 0});
}

RULE(OffsetWithinTheDescriptor, "bad:R7 vector:X2",
     "A payload offset within the descriptor stops the channel.") {
  ExpectPacketFault(t, {.offset8 = 1});
  ExpectPacketFault(t, {.offset8 = 0});
}

RULE(LengthBeyondWhatIsThere, "bad:R8",
     "A packet longer than what was published stops its channel.") {
  ExpectPacketFault(t, {.length8 = 40});
}

RULE(NoRoomForTheTrailer, "bad:R9 vector:X5 quirk:D10",
     "A packet that takes all that was published, so that its trailer was "
     "not, stops its channel.") {
  ExpectPacketFault(t, {.length8 = 5});
}

RULE(LargestLength, "bad:R10 vector:X4",
     "The largest length there is, in a small ring, stops the channel.") {
  ExpectPacketFault(t, {.length8 = 0xffff});
}

RULE(UnknownPacketTypes, "bad:R13 vector:X7 quirk:D30",
     "A packet of a type that is reserved or unknown stops its channel.") {
  for (const uint16_t type :
       std::initializer_list<uint16_t>{0, 1, 5, 8, 10, 12, 0xffff}) {
    ExpectPacketFault(t, {.type = type});
  }
}

RULE(UnknownFlags, "bad:R13 vector:X6",
     "A flag other than \"completion requested\" stops the channel.") {
  ExpectPacketFault(t, {.flags = 2});
  ExpectPacketFault(t, {.flags = 0x8001});
}

RULE(ExternalDataWithoutItsHeader, "bad:R14 vector:X8",
     "An external data packet without its extended header stops its "
     "channel.") {
  ExpectPacketFault(t, {.type = kGpaDirect});
  ExpectPacketFault(t, {.type = kTransferPages});
}

RULE(RangeCountBeyondTheBytes, "bad:R15 vector:X10",
     "More ranges than the packet has bytes for stop its channel.") {
  ExpectPacketFault(
      t, {.type = kGpaDirect, .extension = Extension({0, 2, 4096, 0, 5, 0})},
      Taken::kMaybe);
  ExpectPacketFault(t,
                    {.type = kGpaDirect,
                     .extension = Extension({0, 0xffffffff, 4096, 0, 5, 0})},
                    Taken::kMaybe);
  ExpectPacketFault(
      t, {.type = kTransferPages, .extension = Extension({0, 2, 64, 0})},
      Taken::kMaybe);
}

RULE(PageListOneShort, "bad:R16 bad:R15",
     "A range whose page list is one short does not reach what follows it: "
     "the packet fails or its channel stops.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  GuestChannel& other = guest.Open(2);
  RawPacket packet = guest.Request(channel, Command::kReadExternal);
  packet.type = kGpaDirect;
  packet.extension = Extension({0, 1, 8192, 0, 5, 0});
  guest.Send(channel, packet);
  guest.Settle();
  for (const ReceivedPacket& answer : channel.received) {
    t.Expect(HeaderOf(answer).argument != 0, "no data comes back");
  }
  guest.ExpectAlive(other);
}

RULE(WriteIndexMovedBack, "bad:R4",
     "A write index that moves back over what was read stops the channel, or "
     "the bytes there fail their own checks.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  GuestChannel& other = guest.Open(2);
  for (int i = 0; i < 3; ++i) guest.ExpectAlive(channel);
  if (t.over()) return;
  channel.out.Write(channel.writer.write_index(), Bytes(1024));
  channel.out.Store(kWriteIndex, 8);
  guest.Signal(channel);
  guest.ExpectFaultedAlone(channel, other);
}

RULE(DeviceFailsAPacket, "doc:KI5",
     "A device that calls a packet malformed beyond repair stops the "
     "channel's queue.") {
  ExpectFault(
      t,
      [](Guest& guest, GuestChannel& channel) {
        guest.Ask(channel, Command::kFail);
      },
      Taken::kMaybe);
}

RULE(FaultLeavesRequestsUnanswered, "bad:R6",
     "Nothing is written into the rings of a channel that stopped, also not "
     "for requests that were in flight.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  GuestChannel& other = guest.Open(2);
  guest.Ask(channel, Command::kHold);
  guest.Settle();
  if (t.over()) return;
  channel.out.Store(kWriteIndex, 0x7777);
  guest.Signal(channel);
  guest.Settle();
  const Bytes before = channel.in.Snapshot();
  guest.ExpectAlive(other);
  guest.Signal(channel);
  guest.Settle();
  t.Expect(channel.in.Snapshot() == before, "its ring stays as it was");
}

RULE(OverwrittenReadIndex, "bad:R3",
     "The host's own read index, overwritten by the guest, is not read back: "
     "the next packet is taken, and the index is right again.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  guest.ExpectAlive(channel);
  if (t.over()) return;
  channel.out.Store(kReadIndex, 0x123);
  channel.writer.Publish();
  RawPacket request = guest.Request(channel, Command::kEcho);
  channel.out.Write(channel.writer.write_index(),
                    EncodePacket(request, channel.writer.write_index()));
  const uint32_t next = channel.out.Advance(channel.writer.write_index(), 40);
  channel.out.Store(kWriteIndex, next);
  channel.writer.set_write_index(next);
  guest.Signal(channel);
  guest.ExpectAnswer(channel, request.transaction_id);
  t.Expect(channel.out.Load(kReadIndex) == next, "the index is right again");
  guest.ExpectAlive(channel);
}

RULE(HostsIndexInTheOtherRing, "bad:R1 bad:R2",
     "A read index of the guest that is out of range stops the channel when "
     "the host looks at it, and no byte leaves the ring.") {
  ExpectFault(
      t,
      [](Guest& guest, GuestChannel& channel) {
        // Full, so that the host has to look.
        channel.reads = false;
        channel.in.Store(kReadIndex, 0x1234567);
        for (int i = 0; i < 11; ++i) {
          guest.Ask(channel, Command::kEcho, 0, i, Pattern(400, 1));
          guest.Settle();
        }
        channel.reads = true;
      },
      Taken::kMaybe);
}

RULE(WrongTrailerIsIgnored, "bad:R25 quirk:D4",
     "A trailer that does not say where its packet starts is not looked "
     "at.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  RawPacket request = guest.Request(channel, Command::kEcho);
  request.trailer_xor = ~uint64_t{0};
  guest.Send(channel, request);
  guest.ExpectAnswer(channel, request.transaction_id);
  guest.ExpectAlive(channel);
}

RULE(StrayCompletionsAreIgnored, "bad:R29",
     "A completion for a transaction that the host does not have is ignored "
     "while they are few.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  for (const uint64_t id : {uint64_t{0}, uint64_t{1}, ~uint64_t{0}}) {
    ReceivedPacket none;
    none.transaction_id = id;
    none.payload = Bytes(16);
    guest.Complete(channel, none);
  }
  guest.ExpectAlive(channel);
}

RULE(SecondCompletionIsIgnored, "bad:R29 doc:CB9",
     "The host's request, completed twice by the guest, ends once.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  const uint64_t id = guest.Ask(channel, Command::kSend, 1, 5);
  const ReceivedPacket request = guest.Take(channel);
  guest.ExpectAnswer(channel, id);
  guest.Complete(channel, request);
  guest.Complete(channel, request);
  const ReceivedPacket answer = guest.Do(channel, Command::kReport);
  DeviceReport report;
  if (t.Expect(answer.payload.size() == sizeof(report), "a report comes")) {
    std::memcpy(&report, answer.payload.data(), sizeof(report));
  }
  t.Expect(report.completions == 1 && report.awaiting == 0,
           "one completion counts");
}

RULE(FeatureBitsAreNotRead, "bad:R23 quirk:D5",
     "Feature bits that change while the channel is open do no harm.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  for (const uint32_t bits : {0u, 0xffffffffu, 1u}) {
    channel.out.Store(kFeatureBits, bits);
    channel.in.Store(kFeatureBits, bits);
    guest.ExpectAlive(channel);
  }
}

}  // namespace
}  // namespace ferrybus::conformance
