// SPDX-License-Identifier: MIT
//
// Rules about packets: completions, order, quota, external data, bytes.

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "ferrybus/tests/conformance/guest.h"
#include "ferrybus/tests/conformance/rule.h"

namespace ferrybus::conformance {
namespace {

// `words`, 8 bytes each.
Bytes Extension(std::initializer_list<uint64_t> words) {
  Bytes bytes;
  for (const uint64_t word : words) {
    const Bytes more = BytesOf(word);
    bytes.insert(bytes.end(), more.begin(), more.end());
  }
  return bytes;
}

constexpr uint64_t Range(uint32_t bytes, uint32_t offset) {
  return uint64_t{offset} << 32 | bytes;
}

RULE(RequestIsAnsweredOnce, "doc:KI1 doc:KI2 doc:KP10 doc:CB9",
     "A request that asks for a completion gets exactly one.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  guest.Ask(channel, Command::kEcho);
  guest.Take(channel);
  guest.ExpectNoPacket(channel, "after the answer");
  std::map<uint64_t, int> answers;
  for (uint64_t i = 0; i < 20; ++i) {
    answers[guest.Ask(channel, Command::kEcho, 0, i)] = 0;
    guest.Settle();
  }
  guest.Settle();
  for (const ReceivedPacket& packet : channel.received) {
    ++answers[packet.transaction_id];
  }
  for (const auto& [id, count] : answers) {
    if (!t.Expect(count == 1, absl::StrCat("one completion for ", id, "; ",
                                           count, " came"))) {
      return;
    }
  }
}

RULE(CompletionHasItsTransaction, "doc:KP10 bad:R30",
     "A completion is a packet of type 11 without flags, with the "
     "transaction id of its request, all 64 bits, and with its payload.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  for (const uint64_t id :
       {uint64_t{0}, uint64_t{1}, uint64_t{0x8877665544332211},
        ~uint64_t{0} - 2, ~uint64_t{0}}) {
    RawPacket request = guest.Request(channel, Command::kEcho, 0, id);
    request.transaction_id = id;
    guest.Send(channel, request);
    const ReceivedPacket answer = guest.ExpectAnswer(channel, id);
    t.Expect(answer.payload == request.payload, "the payload is its own");
  }
}

RULE(SameTransactionTwiceInFlight, "bad:R30",
     "Two requests in flight with one transaction id are two requests: each "
     "is answered, with its own payload.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  for (const uint64_t number : {1, 2}) {
    RawPacket request = guest.Request(channel, Command::kHold, 0, number);
    request.transaction_id = 42;
    guest.Send(channel, request);
  }
  const uint64_t id = guest.Ask(channel, Command::kRelease);
  t.Expect(HeaderOf(guest.ExpectAnswer(channel, 42)).number == 1, "first");
  t.Expect(HeaderOf(guest.ExpectAnswer(channel, 42)).number == 2, "second");
  guest.ExpectAnswer(channel, id);
}

RULE(UnaskedPacketsHaveNoCompletion, "doc:KI2 doc:KP11",
     "A packet that asks for no completion gets none.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  RawPacket packet = guest.Request(channel, Command::kEcho);
  packet.flags = 0;
  guest.Send(channel, packet);
  guest.ExpectNoPacket(channel, "for a packet that asks for none");
  guest.ExpectAlive(channel);
}

RULE(AnswersKeepTheirOrder, "doc:KP16 promise:P2",
     "What a device completes in order arrives in order, batch after batch.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1, 4);
  for (int batch = 0; batch < 4; ++batch) {
    std::vector<uint64_t> ids;
    for (int i = 0; i < 30; ++i) {
      const RawPacket request = guest.Request(channel, Command::kEcho, 0, i);
      channel.writer.Write(request);
      ids.push_back(request.transaction_id);
    }
    if (channel.writer.Publish()) guest.Signal(channel);
    for (const uint64_t id : ids) guest.ExpectAnswer(channel, id);
  }
}

RULE(AnswersMayOvertake, "doc:KI1",
     "A device may complete in any order; each completion finds its request.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  std::vector<uint64_t> ids;
  for (uint64_t i = 0; i < 8; ++i) {
    ids.push_back(guest.Ask(channel, Command::kHold, 0, i));
  }
  guest.ExpectAlive(channel);
  const uint64_t id =
      guest.Ask(channel, Command::kRelease, 0, 0, BytesOf(uint64_t{1}));
  for (uint64_t i = 8; i-- > 0;) {
    t.Expect(HeaderOf(guest.ExpectAnswer(channel, ids[i])).number == i,
             "the newest comes first");
  }
  guest.ExpectAnswer(channel, id);
}

RULE(PaddingIsZero, "bad:R32 quirk:D3 promise:P10",
     "What pads a payload to 8 bytes is zero, whatever lay in the ring.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  const Bytes data = Pattern(64, 3);
  for (uint32_t bytes = 17; bytes <= 48; ++bytes) {
    const Bytes sent = Payload(Command::kEcho, bytes, 0, data);
    const ReceivedPacket answer =
        guest.Do(channel, Command::kEcho, bytes, 0, data);
    t.Expect(answer.payload.size() == (bytes + 7) / 8 * 8,
             "the answer has as many bytes as the device wrote");
    for (size_t i = 0; i < answer.payload.size(); ++i) {
      const std::byte want = i < bytes ? sent[i] : std::byte{0};
      if (!t.Expect(answer.payload[i] == want,
                    absl::StrCat("byte ", i, " of ", bytes, " is right"))) {
        return;
      }
    }
  }
}

RULE(TrailerSaysWhereItStarts, "quirk:D4 bad:R32",
     "Behind each packet stand four zero bytes and the ring index at which it "
     "starts, also across the end of the ring.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  for (int i = 0; i < 100; ++i) {
    const ReceivedPacket answer =
        guest.Do(channel, Command::kEcho, 0, i, Pattern(8 * (i % 9), 1));
    if (!t.Expect(answer.trailer == uint64_t{answer.at} << 32,
                  "the trailer is right")) {
      return;
    }
  }
}

RULE(ReservedWordsStayZero, "bad:R32",
     "The host leaves the reserved words of both control pages at zero, and "
     "writes only those words that are its own.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  for (int i = 0; i < 30; ++i) guest.ExpectAlive(channel);
  if (t.over()) return;
  for (const GuestRing* const ring : {&channel.out, &channel.in}) {
    for (uint32_t at = 16; at < 4096; at += 4) {
      if (at == kFeatureBits) continue;
      if (!t.Expect(ring->Load(at) == 0, absl::StrCat("word ", at, " is 0"))) {
        return;
      }
    }
  }
  t.Expect(channel.out.Load(kPendingSend) == 0 &&
               channel.in.Load(kInterruptMask) == 0 &&
               channel.out.Load(kFeatureBits) == 1,
           "the guest's words are as the guest left them");
}

RULE(PacketsWrapAnywhere, "bad:R12",
     "Every part of a packet may lie across the end of the ring, at each "
     "multiple of 8: its bytes arrive unchanged, in both directions.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  // The ring has 512 units, and a packet of 13 or of 9 starts at each.
  for (uint64_t i = 0; i < 512 && !t.over(); ++i) {
    const Bytes data = Pattern(64, i);
    const ReceivedPacket answer = guest.Do(channel, Command::kEcho, 0, i, data);
    t.Expect(answer.payload == Payload(Command::kEcho, 0, i, data),
             "the bytes are unchanged");
  }
  const uint64_t page = guest.NewPages(1)[0];
  for (uint64_t i = 0; i < 512 && !t.over(); ++i) {
    const Bytes data = Pattern(16, i);
    std::memcpy(guest.page(page), data.data(), data.size());
    RawPacket packet =
        guest.Request(channel, Command::kReadExternal, 0, i, Bytes(8));
    packet.type = kGpaDirect;
    packet.extension = Extension({uint64_t{1} << 32, Range(16, 0), page});
    guest.Send(channel, packet);
    const ReceivedPacket answer =
        guest.ExpectAnswer(channel, packet.transaction_id);
    t.Expect(answer.payload == Payload(Command::kReadExternal, 0, i, data),
             "the ranges are unchanged");
  }
}

RULE(LargestPacketsPass, "quirk:D1 quirk:D2",
     "A packet may take the whole ring less 8 bytes; the host sends at most "
     "the ring less 16.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  for (const size_t payload : {4064u, 4056u}) {
    const uint32_t reply = 4056;
    const Bytes data = Pattern(payload - 16, payload);
    const ReceivedPacket answer =
        guest.Do(channel, Command::kEcho, reply, 0, data);
    Bytes want = Payload(Command::kEcho, reply, 0, data);
    want.resize(reply);
    t.Expect(answer.payload == want, "its bytes come back");
  }
}

RULE(EmptyPayloadIsLegal, "bad:R10",
     "A packet of a descriptor and nothing else is legal: it is completed, if "
     "only with an error of its device.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  RawPacket packet;
  packet.transaction_id = 77;
  guest.Send(channel, packet);
  t.Expect(HeaderOf(guest.ExpectAnswer(channel, 77)).argument != 0,
           "the device says that it is no request");
  guest.ExpectAlive(channel);
}

RULE(QuotaIsKept, "doc:KC19 bad:P7",
     "With a quota of n, requests beyond n in flight stay in the ring; a "
     "completion lets the next one in.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  guest.Do(channel, Command::kQuota, 3);
  const uint32_t start = channel.writer.write_index();
  for (int i = 0; i < 6; ++i) guest.Ask(channel, Command::kHold, 0, i);
  guest.ExpectNoPacket(channel, "for held requests");
  if (t.over()) return;
  t.Expect(channel.out.Used(channel.out.Load(kReadIndex), start) == 3 * 40,
           "three of six were taken");
}

RULE(FullRingHoldsAnswersBack, "bad:R26 doc:KP16",
     "A guest that does not read gets nothing lost: answers wait in order, "
     "the host asks for a signal by its pending send size, and goes on when "
     "there is room.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  channel.reads = false;
  std::vector<uint64_t> ids;
  const Bytes data = Pattern(480, 9);
  for (uint64_t i = 0; i < 20; ++i) {
    ids.push_back(guest.Ask(channel, Command::kEcho, 0, i, data));
    guest.Settle();
  }
  if (t.over()) return;
  t.Expect(channel.in.Load(kPendingSend) != 0,
           "the host waits for room and says how much");
  channel.reads = true;
  for (uint64_t i = 0; i < ids.size(); ++i) {
    t.Expect(guest.ExpectAnswer(channel, ids[i]).payload ==
                 Payload(Command::kEcho, 0, i, data),
             "each answer comes, in order");
  }
  guest.ExpectAlive(channel);
  t.Expect(channel.in.Load(kPendingSend) == 0,
           "the request for room is taken back");
}

RULE(OwnPacketsWaitForRoom, "doc:KP16 bad:R26",
     "Packets that the host sends on its own wait for room as well, and come "
     "in order, none lost.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  guest.Do(channel, Command::kEcho, 0, 0, Pattern(3000, 1));
  channel.reads = false;
  for (uint64_t i = 0; i < 4; ++i) {
    guest.Ask(channel, Command::kNotify, 32, i * 32);
    guest.Settle();
  }
  channel.reads = true;
  guest.Settle();
  uint64_t next = 0;
  int answers = 0;
  for (const ReceivedPacket& packet : channel.received) {
    if (packet.type == kCompletionPacket) {
      ++answers;
      continue;
    }
    t.Expect(packet.flags == 0, "they ask for no completion");
    t.Expect(HeaderOf(packet).number == next++, "they come in order");
  }
  t.Expect(next == 128 && answers == 4, "all come");
}

RULE(HostRequestsAreCompleted, "doc:KP10 doc:CB9",
     "A request of the host that the guest completes reaches its sender once, "
     "in any order of completion.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  const uint64_t id = guest.Ask(channel, Command::kSend, 5, 100);
  std::vector<ReceivedPacket> requests;
  for (int i = 0; i < 5; ++i) requests.push_back(guest.Take(channel));
  guest.ExpectAnswer(channel, id);
  uint64_t digest = 0;
  for (const int i : {3, 0, 4, 1, 2}) {
    t.Expect(
        requests[i].type == kInBand && requests[i].flags == kWantsCompletion,
        "they ask for a completion");
    guest.Complete(channel, requests[i]);
    digest = digest * 31 + HeaderOf(requests[i]).number;
  }
  DeviceReport report;
  const ReceivedPacket answer = guest.Do(channel, Command::kReport);
  if (t.Expect(answer.payload.size() == sizeof(report), "a report comes")) {
    std::memcpy(&report, answer.payload.data(), sizeof(report));
  }
  t.Expect(report.completions == 5 && report.digest == digest,
           "each ended once, as it was completed");
}

RULE(ExternalDataIsReached, "doc:KE1 doc:KE4 doc:KI3",
     "A device reads and writes the guest pages that a packet describes: "
     "several ranges, with offsets, across pages.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  const std::vector<uint64_t> pages = guest.NewPages(3);
  const Bytes data = Pattern(3 * 4096, 11);
  for (size_t i = 0; i < pages.size(); ++i) {
    std::memcpy(guest.page(pages[i]), data.data() + i * 4096, 4096);
  }
  RawPacket packet = guest.Request(channel, Command::kReadExternal);
  packet.type = kGpaDirect;
  packet.extension = Extension({uint64_t{2} << 32, Range(512, 4000), pages[0],
                                pages[1], Range(16, 8), pages[2]});
  guest.Send(channel, packet);
  const ReceivedPacket answer =
      guest.ExpectAnswer(channel, packet.transaction_id);
  Bytes want = Payload(Command::kReadExternal);
  want.insert(want.end(), data.begin() + 4000, data.begin() + 4512);
  want.insert(want.end(), data.begin() + 8200, data.begin() + 8216);
  t.Expect(answer.payload == want, "it reads what is there");
  packet = guest.Request(channel, Command::kWriteExternal, 0, 0x5a5a);
  packet.type = kGpaDirect;
  packet.extension = Extension({uint64_t{1} << 32, Range(16, 16), pages[0]});
  guest.Send(channel, packet);
  guest.ExpectAnswer(channel, packet.transaction_id);
  uint64_t found[4] = {};
  std::memcpy(found, guest.page(pages[0]) + 8, sizeof(found));
  t.Expect(found[1] == 0x5a5a && found[2] == 0x5a5a && found[0] != 0x5a5a &&
               found[3] != 0x5a5a,
           "it writes there and nowhere else");
}

RULE(ExternalDataOutsideRamFails, "bad:R17 bad:P6",
     "A range outside of RAM fails its packet, and the channel goes on.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  for (const uint64_t page :
       {guest.memory().page_count(), uint64_t{1} << 40, ~uint64_t{0} >> 12}) {
    RawPacket packet = guest.Request(channel, Command::kReadExternal);
    packet.type = kGpaDirect;
    packet.extension = Extension({uint64_t{1} << 32, Range(4096, 0), page});
    guest.Send(channel, packet);
    const ReceivedPacket answer =
        guest.ExpectAnswer(channel, packet.transaction_id);
    t.Expect(HeaderOf(answer).argument != 0, "the packet fails");
  }
  guest.ExpectAlive(channel);
}

RULE(PauseStopsTheQueue, "doc:ST7 doc:ST9 doc:ST19 doc:KS1 doc:KS2",
     "A paused channel takes no packets, the guest is not told, and after the "
     "start they are answered in order.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  t.Succeeds(t.endpoint().Pause(1), "pause");
  std::vector<uint64_t> ids;
  for (int i = 0; i < 4; ++i) {
    ids.push_back(guest.Ask(channel, Command::kEcho));
  }
  guest.ExpectNoPacket(channel, "while paused");
  guest.ExpectNoMessage("while paused");
  t.Succeeds(t.endpoint().Unpause(1), "unpause");
  for (const uint64_t id : ids) guest.ExpectAnswer(channel, id);
  guest.ExpectAlive(channel);
}

RULE(ChannelsAreApart, "promise:P2",
     "Traffic of one channel never shows in another.") {
  Guest& guest = t.guest();
  guest.Connect();
  std::vector<GuestChannel*> channels;
  for (uint32_t i = 1; i <= kDevices; ++i) channels.push_back(&guest.Open(i));
  for (uint64_t round = 0; round < 10; ++round) {
    std::vector<uint64_t> ids;
    for (size_t i = 0; i < channels.size(); ++i) {
      channels[i]->next_id = (i + 1) << 32 | round;
      ids.push_back(guest.Ask(*channels[i], Command::kEcho, 0, i));
    }
    for (size_t i = 0; i < channels.size(); ++i) {
      const ReceivedPacket answer = guest.ExpectAnswer(*channels[i], ids[i]);
      t.Expect(HeaderOf(answer).number == i, "it is its own");
    }
  }
}

}  // namespace
}  // namespace ferrybus::conformance
