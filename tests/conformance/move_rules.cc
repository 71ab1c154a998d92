// SPDX-License-Identifier: MIT
//
// Rules about saving, ending and restoring an endpoint.

#include <algorithm>
#include <map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "ferrybus/tests/conformance/guest.h"
#include "ferrybus/tests/conformance/rule.h"

namespace ferrybus::conformance {
namespace {

// Requests that the device of `channel` holds.
std::vector<uint64_t> Hold(Guest& guest, GuestChannel& channel, int count) {
  std::vector<uint64_t> ids;
  for (int i = 0; i < count; ++i) {
    ids.push_back(guest.Ask(channel, Command::kHold, 0, i, Pattern(8 * i, i)));
  }
  guest.Settle();
  return ids;
}

// Each of them comes once, with its own bytes; others do not.
void ExpectEachOnce(Trial& t, GuestChannel& channel,
                    const std::vector<uint64_t>& ids) {
  t.guest().Settle();
  std::map<uint64_t, int> answers;
  for (const ReceivedPacket& packet : channel.received) {
    if (packet.type == kCompletionPacket) ++answers[packet.transaction_id];
  }
  for (size_t i = 0; i < ids.size() && !t.over(); ++i) {
    t.Expect(answers[ids[i]] == 1,
             absl::StrCat("request ", i, " is answered once; ", answers[ids[i]],
                          " answers came"));
  }
}

DeviceReport Report(Trial& t, GuestChannel& channel) {
  const ReceivedPacket answer = t.guest().Do(channel, Command::kReport);
  DeviceReport report;
  if (t.Expect(answer.payload.size() == sizeof(report), "a report comes")) {
    std::memcpy(&report, answer.payload.data(), sizeof(report));
  }
  return report;
}

// Held requests of one device over a move, whatever its policy.
void MoveHeld(Trial& t, uint32_t device) {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(device);
  std::vector<uint64_t> ids = Hold(guest, channel, 16);
  t.Move();
  guest.Settle();
  ids.push_back(guest.Ask(channel, Command::kRelease));
  ExpectEachOnce(t, channel, ids);
  t.Expect(channel.received.size() == ids.size(), "no other packet comes");
  guest.ExpectAlive(guest.Open(device == 2 ? 1 : 2));
}

RULE(IdleEndpointMoves, "promise:P7 doc:SR14",
     "An endpoint with open channels and nothing in flight goes on after a "
     "move; the guest reopens nothing.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& first = guest.Open(1);
  GuestChannel& second = guest.Open(2, 3);
  guest.ExpectAlive(first);
  t.Move();
  guest.ExpectAlive(first);
  guest.ExpectAlive(second);
  guest.ExpectNoMessage("because of a move");
}

RULE(InFlightIsAnsweredOnce, "promise:P1 doc:SR12 doc:SR7",
     "Each request that was in flight at the save is completed exactly once "
     "by the next endpoint.") {
  MoveHeld(t, 1);
}

RULE(DrainedIsAnsweredOnce, "promise:P1 doc:ST8 doc:ST9 doc:KS2",
     "A device that drains completes what it holds before the save is taken; "
     "the next endpoint completes none of it again.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(kDrainDevice);
  const std::vector<uint64_t> ids = Hold(guest, channel, 8);
  const std::string saved = t.Save();
  if (t.over()) return;
  t.Expect(channel.in.Load(kWriteIndex) != 0,
           "the answers are in the ring when the save is there");
  t.Restore(saved);
  guest.Settle();
  ExpectEachOnce(t, channel, ids);
  guest.Take(channel);
  channel.received.clear();
  guest.ExpectAlive(channel);
}

RULE(ReissuedIsAnsweredOnce, "promise:P1",
     "Requests that are delivered again after the restore are completed "
     "exactly once.") {
  MoveHeld(t, kReissueDevice);
}

RULE(InFlightKeepsItsIds, "promise:P1 promise:P2 doc:SR12",
     "Requests in flight keep transaction id, payload and order over a "
     "move.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  const std::vector<uint64_t> ids = Hold(guest, channel, 12);
  t.Move();
  const uint64_t release = guest.Ask(channel, Command::kRelease);
  for (size_t i = 0; i < ids.size(); ++i) {
    const ReceivedPacket answer = guest.ExpectAnswer(channel, ids[i]);
    t.Expect(answer.payload == Payload(Command::kHold, 0, i, Pattern(8 * i, i)),
             "its payload is its own");
  }
  guest.ExpectAnswer(channel, release);
}

RULE(QueuedAnswersSurvive, "doc:SR8 promise:P2 bad:R26",
     "Answers that waited for room in the ring at the save come after the "
     "restore, in order, each once.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  channel.reads = false;
  std::vector<uint64_t> ids;
  const Bytes data = Pattern(480, 2);
  for (uint64_t i = 0; i < 20; ++i) {
    ids.push_back(guest.Ask(channel, Command::kEcho, 0, i, data));
    guest.Settle();
  }
  t.Move();
  channel.reads = true;
  for (size_t i = 0; i < ids.size(); ++i) {
    t.Expect(guest.ExpectAnswer(channel, ids[i]).payload ==
                 Payload(Command::kEcho, 0, i, data),
             "its payload is its own");
  }
  guest.ExpectNoPacket(channel, "after the last answer");
}

RULE(QueuedPacketsSurvive, "doc:SR8 promise:P2",
     "Packets of the host's own that waited for room are sent after the "
     "restore, in order, each once.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  channel.reads = false;
  for (uint64_t i = 0; i < 4; ++i) {
    guest.Ask(channel, Command::kNotify, 32, i * 32);
    guest.Settle();
  }
  t.Move();
  channel.reads = true;
  guest.Settle();
  uint64_t next = 0;
  for (const ReceivedPacket& packet : channel.received) {
    if (packet.type != kInBand) continue;
    t.Expect(HeaderOf(packet).number == next++, "they come in order");
  }
  t.Expect(next == 128, absl::StrCat("128 come; ", next, " came"));
}

RULE(AwaitingRequestsSurvive, "doc:SR9 doc:SR10 doc:SR5 doc:SR6",
     "Requests of the host that the guest had not completed accept their "
     "completion after the restore, and it reaches its owner.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  const uint64_t id = guest.Ask(channel, Command::kSend, 6, 40);
  std::vector<ReceivedPacket> requests;
  for (int i = 0; i < 6; ++i) requests.push_back(guest.Take(channel));
  guest.ExpectAnswer(channel, id);
  guest.Complete(channel, requests[0]);
  guest.Settle();
  t.Move();
  uint64_t digest = HeaderOf(requests[0]).number;
  for (const int i : {5, 2, 1, 4, 3}) {
    guest.Complete(channel, requests[i]);
    digest = digest * 31 + HeaderOf(requests[i]).number;
  }
  guest.Settle();
  const DeviceReport report = Report(t, channel);
  t.Expect(report.completions == 6 && report.awaiting == 0,
           "each of them ended, once");
  t.Expect(report.digest == digest, "each reached its owner");
}

RULE(UnseenRequestsSurvive, "doc:SR9 promise:P2",
     "Requests of the host that the guest reads only after the move are what "
     "they were, and accept their completion.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  channel.reads = false;
  guest.Ask(channel, Command::kSend, 5, 7);
  guest.Settle();
  t.Move();
  channel.reads = true;
  for (uint64_t i = 0; i < 5; ++i) {
    const ReceivedPacket request = guest.Take(channel);
    t.Expect(HeaderOf(request).number == 7 + i, "they come in order");
    guest.Complete(channel, request);
  }
  guest.Take(channel);
  guest.Settle();
  t.Expect(Report(t, channel).completions == 5, "each of them ended, once");
}

RULE(UnreadRequestsSurvive, "promise:P2 promise:P3",
     "Requests that lay in the ring, not yet taken, are answered after the "
     "restore even if their signal was lost.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  guest.ExpectAlive(channel);
  const std::string saved = t.Save();
  std::vector<uint64_t> ids;
  for (int i = 0; i < 5 && !t.over(); ++i) {
    const RawPacket request = guest.Request(channel, Command::kEcho);
    channel.writer.Write(request);
    ids.push_back(request.transaction_id);
  }
  if (t.over()) return;
  channel.writer.Publish();
  t.Restore(saved);
  for (const uint64_t id : ids) guest.ExpectAnswer(channel, id);
}

RULE(BothSidesAreSignalled, "promise:P3",
     "After a restore the guest is signalled for each open channel, since a "
     "signal may have been lost.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& first = guest.Open(1);
  GuestChannel& second = guest.Open(2);
  guest.Settle();
  guest.TakeSignal(first);
  guest.TakeSignal(second);
  t.Move();
  guest.Settle();
  t.Expect(guest.TakeSignal(first) && guest.TakeSignal(second),
           "both channels are signalled");
}

RULE(NothingIsLostInBetween, "promise:P3 promise:P7",
     "Messages that are posted and signals that are rung while no endpoint "
     "serves are there for the next one.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  GuestChannel& next = guest.Prepare(2);
  const std::string saved = t.Save();
  if (t.over()) return;
  t.endpoint().Kill();
  const RawPacket request = guest.Request(channel, Command::kEcho);
  channel.writer.Write(request);
  channel.writer.Publish();
  guest.Signal(channel);
  guest.PostOpen(next);
  t.Succeeds(t.endpoint().Restore(saved), "the saved bytes are restored");
  guest.ExpectAnswer(channel, request.transaction_id);
  t.Expect(guest.ExpectOpenResult(next.relid) == 0, "the channel opens");
}

RULE(SavedEndpointStandsStill, "promise:P7",
     "From the save on the endpoint publishes nothing, in no ring and by no "
     "message, and the next one answers what came meanwhile.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  guest.ExpectAlive(channel);
  const std::string saved = t.Save();
  const uint64_t id = guest.Ask(channel, Command::kEcho);
  guest.PostTeardown(channel.relid, channel.gpadl + 1);
  guest.Signal(channel);
  guest.ExpectNoPacket(channel, "from an endpoint that is saved");
  guest.ExpectNoMessage("from an endpoint that is saved");
  t.Restore(saved);
  guest.ExpectAnswer(channel, id);
  guest.ExpectNoPacket(channel, "after it");
}

RULE(SourceMayGoOn, "doc:SR17 promise:P7 doc:SR4",
     "After a save the endpoint may go on as if nothing had happened, with "
     "all that is in flight; and be saved again later.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  std::vector<uint64_t> ids = Hold(guest, channel, 6);
  t.Save();
  if (t.over()) return;
  t.Succeeds(t.endpoint().Resume(), "resume");
  ids.push_back(guest.Ask(channel, Command::kRelease, 3));
  guest.Settle();
  t.Save();
  if (t.over()) return;
  t.Succeeds(t.endpoint().Resume(), "resume");
  ids.push_back(guest.Ask(channel, Command::kRelease));
  ExpectEachOnce(t, channel, ids);
}

RULE(SaveIsRepeatable, "promise:P11",
     "Saving twice at one moment gives the same bytes.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  Hold(guest, channel, 5);
  guest.Ask(channel, Command::kSend, 3, 1);
  guest.Settle();
  const std::string first = t.Save();
  const std::string second = t.Save();
  t.Expect(!first.empty() || t.over(), "there are bytes");
  t.Expect(first == second, "the bytes are the same");
}

RULE(SaveRestoreSave, "bad:S23 promise:P11",
     "An endpoint that was restored and saved at once gives the same bytes "
     "again.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  Hold(guest, channel, 5);
  const std::string first = t.Save();
  t.Restore(first);
  const std::string second = t.Save();
  t.Expect(first == second, "the bytes are the same");
}

RULE(ChangedBytesAreRefused, "bad:S1 bad:S2 promise:P4",
     "Saved bytes that are cut or have a flipped bit are refused, and nothing "
     "has happened: the right bytes restore afterwards.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  std::vector<uint64_t> ids = Hold(guest, channel, 4);
  const std::string saved = t.Save();
  if (t.over()) return;
  t.endpoint().Kill();
  const Bytes before = channel.in.Snapshot();
  for (size_t i = 0; i < 12; ++i) {
    std::string changed = saved;
    const size_t at = i * saved.size() / 12;
    if (i % 2 == 0) {
      changed.resize(at);
    } else {
      changed[at] = static_cast<char>(changed[at] ^ (1 << i % 8));
    }
    const absl::Status status = t.endpoint().Restore(changed);
    if (absl::IsUnimplemented(status)) break;
    if (!t.Expect(!status.ok(),
                  absl::StrCat("a change at byte ", at, " is refused"))) {
      return;
    }
  }
  t.Expect(channel.in.Snapshot() == before, "the rings stay as they were");
  t.Succeeds(t.endpoint().Restore(saved), "the saved bytes are restored");
  ids.push_back(guest.Ask(channel, Command::kRelease));
  ExpectEachOnce(t, channel, ids);
}

RULE(OffersWaitForTheirRequest, "bad:C12",
     "An endpoint that is moved between contact and REQUESTOFFERS sends no "
     "offers until it is asked.") {
  Guest& guest = t.guest();
  t.Expect(guest.TryConnect(ProtocolVersion::kIron), "5.3 is accepted");
  t.Move();
  guest.ExpectNoMessage("before REQUESTOFFERS");
  t.Expect(guest.RequestOffers().size() >= kDevices, "all devices come");
  guest.ExpectAlive(guest.Open(1));
}

RULE(EveryStepMoves, "promise:P1 bad:S20",
     "Moved after each single message of a guest's way from contact to an "
     "open channel and back, the endpoint answers as if it had not been.") {
  Guest& guest = t.guest();
  t.Move();
  t.Expect(guest.TryConnect(ProtocolVersion::kIron), "5.3 is accepted");
  t.Move();
  guest.RequestOffers();
  t.Move();
  GuestChannel& channel = guest.Prepare(1);
  t.Move();
  guest.PostOpen(channel);
  t.Expect(guest.ExpectOpenResult(channel.relid) == 0, "it opens");
  channel.is_open = true;
  t.Move();
  guest.ExpectAlive(channel);
  t.Move();
  guest.PostTeardown(channel.relid, channel.gpadl);
  guest.ExpectNoMessage("while the channel is open");
  t.Move();
  guest.PostClose(channel);
  guest.ExpectTorndown(channel.gpadl);
  t.Move();
  guest.ExpectAlive(guest.Open(1));
  t.Move();
  guest.Post(EncodeMessage(UnloadMessage()));
  guest.Expect(MessageType::kUnloadResponse, 8);
  t.Move();
  guest.Connect();
}

RULE(HalfAGpadlMoves, "bad:G3 promise:P1",
     "A GPADL of which only a part has come is completed after the move.") {
  Guest& guest = t.guest();
  guest.Connect();
  const std::vector<uint64_t> pages = guest.NewPages(30);
  GpadlHeaderMessage header;
  header.channel_id = ChannelId{guest.relid(1)};
  header.gpadl_id = GpadlId{0x99};
  header.range_buffer_size_bytes = 8 + 8 * 30;
  header.range_count = 1;
  Bytes range = BytesOf(uint64_t{30 * 4096});
  for (const uint64_t page : pages) {
    const Bytes number = BytesOf(page);
    range.insert(range.end(), number.begin(), number.end());
  }
  const absl::Span<const std::byte> all = range;
  guest.Post(EncodeGpadlHeader(header, all.first(8 + 8 * 26)));
  guest.ExpectNoMessage("before the last part");
  t.Move();
  GpadlBodyMessage body;
  body.gpadl_id = GpadlId{0x99};
  guest.Post(EncodeGpadlBody(body, all.subspan(8 + 8 * 26)));
  t.Expect(guest.ExpectCreated(guest.relid(1), 0x99), "it is created");
}

RULE(MessagesSurviveTheMove, "bad:C13",
     "Answers that the guest had not taken at the save come once, in order.") {
  Guest& guest = t.guest();
  guest.Connect();
  const std::vector<uint64_t> pages = guest.NewPages(2);
  std::vector<uint32_t> gpadls;
  for (int i = 0; i < 10; ++i) {
    gpadls.push_back(guest.NewGpadlId());
    guest.PostGpadl(guest.relid(1), gpadls.back(), pages);
  }
  if (!t.over()) t.Succeeds(t.endpoint().Run(), "the endpoint works");
  t.Move();
  for (const uint32_t gpadl : gpadls) {
    t.Expect(guest.ExpectCreated(guest.relid(1), gpadl), "it is created");
  }
  guest.ExpectNoMessage("after the last answer");
}

RULE(FaultedChannelStaysFaulted, "bad:K12",
     "A channel that stopped because its guest broke the ring is saved as "
     "such: the next endpoint does not read it, and it can be reopened.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  GuestChannel& other = guest.Open(2);
  if (t.over()) return;
  channel.out.Store(kWriteIndex, 0x7777);
  guest.Signal(channel);
  guest.Settle();
  t.Move();
  guest.ExpectFaultedAlone(channel, other);
}

RULE(ContactAfterAMove, "bad:C18",
     "A new contact after a move resets the restored connection like any "
     "other.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  Hold(guest, channel, 3);
  t.Move();
  const Bytes before = channel.in.Snapshot();
  guest.Connect();
  guest.Signal(channel);
  guest.Settle();
  t.Expect(channel.in.Snapshot() == before, "the old ring stays as it was");
  guest.ExpectAlive(guest.Open(1));
}

RULE(CloseAfterAMove, "bad:C6",
     "Requests that moved along end with their channel, too.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  Hold(guest, channel, 3);
  t.Move();
  guest.Close(channel);
  GuestChannel& again = guest.Open(1);
  guest.Do(again, Command::kRelease);
  guest.ExpectNoPacket(again, "for requests of the opening before");
}

RULE(ManyMoves, "promise:P1 promise:P2 bad:S20",
     "Over thirty moves in a row, with requests held and released between "
     "them, each request is answered exactly once.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  std::vector<uint64_t> ids;
  for (uint64_t i = 0; i < 30; ++i) {
    for (int k = 0; k < 3; ++k) {
      ids.push_back(guest.Ask(channel, Command::kHold, 0, ids.size()));
    }
    ids.push_back(guest.Ask(channel, Command::kEcho, 0, i));
    if (i % 3 == 1) ids.push_back(guest.Ask(channel, Command::kRelease, 5));
    if (i % 2 == 0) guest.Settle();
    t.Move();
    if (t.over()) return;
  }
  ids.push_back(guest.Ask(channel, Command::kRelease));
  ExpectEachOnce(t, channel, ids);
}

}  // namespace
}  // namespace ferrybus::conformance
