// SPDX-License-Identifier: MIT
//
// Rules about when a side signals the other.

#include "ferrybus/tests/conformance/guest.h"
#include "ferrybus/tests/conformance/rule.h"

namespace ferrybus::conformance {
namespace {

// A channel whose guest reads only when the rule says so.
GuestChannel& Open(Trial& t) {
  t.guest().Connect();
  GuestChannel& channel = t.guest().Open(1);
  t.guest().ExpectAlive(channel);
  t.guest().TakeSignal(channel);
  channel.reads = false;
  return channel;
}

// Packets that have no answer: what is signalled is the reading of them.
// `bytes` of ring in all; published at once, after `pending` was stored.
void SendUnanswered(Guest& guest, GuestChannel& channel, uint32_t bytes,
                    uint32_t pending) {
  while (bytes > 0) {
    RawPacket packet = guest.Request(channel, Command::kEcho);
    packet.flags = 0;
    const uint32_t step = bytes >= 1064 || bytes == 1024 ? 1024 : bytes;
    packet.payload.resize(step - 24);
    channel.writer.Write(packet);
    bytes -= step;
  }
  channel.out.Store(kPendingSend, pending);
  channel.writer.Publish();
  guest.Signal(channel);
  guest.Settle();
}

RULE(EmptyRingIsSignalled, "vector:G1",
     "The first packet into an empty ring is signalled.") {
  GuestChannel& channel = Open(t);
  t.guest().Ask(channel, Command::kEcho);
  t.guest().Settle();
  t.Expect(t.guest().TakeSignal(channel), "the guest is signalled");
}

RULE(UnreadRingIsNotSignalled, "vector:G2",
     "A packet behind unread ones is not signalled: the guest has been told.") {
  GuestChannel& channel = Open(t);
  t.guest().Ask(channel, Command::kEcho);
  t.guest().Settle();
  t.guest().TakeSignal(channel);
  t.guest().Ask(channel, Command::kEcho);
  t.guest().Settle();
  t.Expect(!t.guest().TakeSignal(channel), "the guest is not signalled again");
}

RULE(MaskedRingIsNotSignalled, "vector:G3 bad:R21",
     "While the guest's interrupt mask is not 0, whatever its value, packets "
     "are not signalled.") {
  GuestChannel& channel = Open(t);
  Guest& guest = t.guest();
  for (const uint32_t mask : {1u, 2u, 0xffffffffu}) {
    if (t.over()) return;
    channel.in.Store(kInterruptMask, mask);
    guest.Ask(channel, Command::kEcho);
    guest.Settle();
    t.Expect(!guest.TakeSignal(channel), "the guest is not signalled");
    channel.reads = true;
    guest.Take(channel);
    channel.reads = false;
    channel.in.Store(kInterruptMask, 0);
    guest.Ask(channel, Command::kEcho);
    guest.Settle();
    t.Expect(guest.TakeSignal(channel), "unmasked, it is");
    channel.reads = true;
    guest.Take(channel);
    channel.reads = false;
  }
}

RULE(MaskIsTheReadersWord, "bad:R21",
     "The host does not write the guest's interrupt mask.") {
  GuestChannel& channel = Open(t);
  if (t.over()) return;
  channel.in.Store(kInterruptMask, 7);
  for (int i = 0; i < 10; ++i) t.guest().Ask(channel, Command::kEcho);
  t.guest().Settle();
  t.Expect(channel.in.Load(kInterruptMask) == 7, "it is as the guest left it");
}

RULE(HostClearsItsMask, "vector:G13 quirk:D26",
     "When the host has drained the ring and waits, its own mask is 0, so "
     "that the next packet is signalled to it.") {
  GuestChannel& channel = Open(t);
  channel.reads = true;
  for (int i = 0; i < 5; ++i) {
    t.guest().ExpectAlive(channel);
    if (t.over()) return;
    t.Expect(channel.out.Load(kInterruptMask) == 0, "its mask is 0");
    t.Expect(channel.out.Load(kReadIndex) == channel.out.Load(kWriteIndex),
             "the ring is drained");
  }
}

RULE(NoSignalWithoutPendingSize, "vector:G6",
     "Reading packets signals nothing to a guest that does not wait for "
     "room.") {
  GuestChannel& channel = Open(t);
  if (t.over()) return;
  SendUnanswered(t.guest(), channel, 2048, 0);
  t.Expect(!t.guest().TakeSignal(channel), "the guest is not signalled");
}

RULE(FreedRoomIsSignalled, "vector:G7 vector:G9 bad:R22",
     "A guest that waits for room is signalled when more is free than its "
     "pending send size.") {
  GuestChannel& channel = Open(t);
  if (t.over()) return;
  SendUnanswered(t.guest(), channel, 4088, 256);
  t.Expect(t.guest().TakeSignal(channel), "the guest is signalled");
}

RULE(EnoughRoomIsNotSignalled, "vector:G10",
     "A guest that had room enough all the time is not signalled.") {
  GuestChannel& channel = Open(t);
  if (t.over()) return;
  SendUnanswered(t.guest(), channel, 1024, 256);
  t.Expect(!t.guest().TakeSignal(channel), "the guest is not signalled");
}

RULE(DrainedRingIsSignalled, "vector:G12 quirk:D6 quirk:D7",
     "A pending send size of one less than the ring is reached when the ring "
     "is drained.") {
  GuestChannel& channel = Open(t);
  if (t.over()) return;
  SendUnanswered(t.guest(), channel, 1024, 4095);
  t.Expect(t.guest().TakeSignal(channel), "the guest is signalled");
}

RULE(PendingSizeWorksWithoutFeatureBit, "vector:G11 quirk:D5",
     "A pending send size counts, whether or not the feature bit is set.") {
  GuestChannel& channel = Open(t);
  if (t.over()) return;
  channel.out.Store(kFeatureBits, 0);
  SendUnanswered(t.guest(), channel, 4088, 256);
  t.Expect(t.guest().TakeSignal(channel), "the guest is signalled");
}

RULE(AbsurdPendingSizes, "bad:R22",
     "Pending send sizes of any value do no harm, and a size that the ring "
     "cannot free never fires.") {
  GuestChannel& channel = Open(t);
  for (const uint32_t size : {4096u, 8192u, 0xffffffffu}) {
    if (t.over()) return;
    SendUnanswered(t.guest(), channel, 4088, size);
    t.Expect(!t.guest().TakeSignal(channel), "the guest is not signalled");
  }
  channel.out.Store(kPendingSend, 0);
  channel.reads = true;
  t.guest().ExpectAlive(channel);
}

RULE(HostTakesItsFeatureBit, "quirk:D5",
     "The host sets the feature bit of the ring that it writes: it uses the "
     "pending send size.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Prepare(1);
  channel.in.Store(kFeatureBits, 0);
  guest.PostOpen(channel);
  guest.ExpectOpenResult(channel.relid);
  channel.is_open = true;
  guest.ExpectAlive(channel);
  if (t.over()) return;
  t.Expect(channel.in.Load(kFeatureBits) == 1, "the bit is set");
}

RULE(StraySignalsAreIgnored, "bad:C19 bad:R27",
     "Signals for channels that do not exist, and for empty rings, cost "
     "nothing and change nothing.") {
  GuestChannel& channel = Open(t);
  channel.reads = true;
  for (uint32_t i = 0; i < 2048 && !t.over(); ++i) t.endpoint().Signal(i);
  for (int i = 0; i < 100; ++i) t.guest().Signal(channel);
  t.guest().ExpectNoPacket(channel, "for signals alone");
  t.guest().ExpectAlive(channel);
}

}  // namespace
}  // namespace ferrybus::conformance
