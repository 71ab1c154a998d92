// SPDX-License-Identifier: MIT
//
// Rules about INITIATE_CONTACT, VERSION_RESPONSE, UNLOAD and malformed
// messages.

#include "absl/strings/str_cat.h"
#include "ferrybus/tests/conformance/guest.h"
#include "ferrybus/tests/conformance/rule.h"

namespace ferrybus::conformance {
namespace {

constexpr auto kNone = ProtocolVersion{0x00070000};

EncodedMessage Raw(std::initializer_list<uint32_t> words, size_t bytes) {
  Bytes all(240);
  size_t at = 0;
  for (const uint32_t word : words) {
    std::memcpy(all.data() + at, &word, sizeof(word));
    at += sizeof(word);
  }
  EncodedMessage message;
  message.Append(all.data(), bytes);
  return message;
}

RULE(ContactIsAnswered, "quirk:D15 quirk:D11 quirk:D17",
     "INITIATE_CONTACT at a version that the host has is answered by a "
     "VERSION_RESPONSE of 16 bytes: supported 1, state 0, and from 5.0 on the "
     "connection for further messages.") {
  t.guest().PostContact(ProtocolVersion::kIron);
  const HostBytes answer = t.guest().Expect(MessageType::kVersionResponse, 16);
  t.Expect(answer.At<uint8_t>(8) == 1, "supported is 1");
  t.Expect(answer.At<uint8_t>(9) == 0, "the connection state is 0");
  t.Expect(answer.At<uint16_t>(10) == 0, "padding is 0");
  t.Expect(answer.At<uint32_t>(12) != 0, "a message connection is named");
  t.guest().ExpectNoMessage("after the answer");
}

RULE(ContactNamesTheVersionBeforeFive, "vector:M4",
     "Before 5.0 the second word of VERSION_RESPONSE is the version that was "
     "selected.") {
  t.guest().PostContact(ProtocolVersion::kWin10);
  const HostBytes answer = t.guest().Expect(MessageType::kVersionResponse, 16);
  if (answer.At<uint8_t>(8) == 0) return;
  t.Expect(answer.At<uint32_t>(8) == 1, "supported, and nothing else, is 1");
  t.Expect(
      answer.At<uint32_t>(12) == 0x00040000,
      absl::StrCat("it is 4.0; it is ", absl::Hex(answer.At<uint32_t>(12))));
}

RULE(EveryVersionHasItsResponse, "quirk:D15",
     "Each version is accepted or refused, never ignored; the response has 16 "
     "bytes, and 20 when 6.0 is accepted.") {
  for (const ProtocolVersion version : kAllProtocolVersions) {
    t.guest().TryConnect(version);
  }
}

RULE(UnknownVersionIsRefused, "bad:C3",
     "A version that does not exist is answered by 16 bytes with supported 0; "
     "the guest then tries a lower one and gets in.") {
  t.guest().PostContact(kNone);
  const HostBytes answer = t.guest().Expect(MessageType::kVersionResponse, 16);
  t.Expect(answer.At<uint8_t>(8) == 0, "supported is 0");
  t.guest().Connect();
}

RULE(BadMonitorPageIsRefused, "bad:C3",
     "A contact with one monitor page, or with one outside of RAM, is refused "
     "with an answer, and a good one follows it.") {
  Guest& guest = t.guest();
  const uint64_t ram = guest.memory().page_count() * 4096;
  for (const uint64_t page : {uint64_t{0}, ram, uint64_t{0x1001}}) {
    InitiateContactMessage contact;
    contact.version = static_cast<uint32_t>(ProtocolVersion::kIron);
    contact.target_sint = 2;
    contact.parent_to_child_monitor_page = 0x1000;
    contact.child_to_parent_monitor_page = page;
    guest.Post(EncodeInitiateContact(contact));
    const HostBytes answer = guest.Expect(MessageType::kVersionResponse, 16);
    t.Expect(answer.At<uint8_t>(8) == 0 || answer.At<uint8_t>(9) != 0,
             "it is refused");
  }
  guest.Connect();
}

RULE(LongerMessagesAreTaken, "bad:C1 quirk:D20",
     "Trailing bytes do no harm: firmware sends messages of 240 bytes.") {
  Guest& guest = t.guest();
  guest.Post(Raw({14, 0, 0x00050003, 0, 2}, 240));
  guest.Expect(MessageType::kVersionResponse, 16);
  guest.Post(Raw({3}, 240));
  t.Expect(guest.TakeMessage().has_value(), "the offers come");
}

RULE(ShortMessagesAreRefused, "bad:C1",
     "A message shorter than its type needs, or than a header, is refused "
     "without an answer; the connection goes on.") {
  Guest& guest = t.guest();
  guest.Post(Raw({14, 0, 0x00050003, 0, 2}, 39));
  guest.ExpectNoMessage("for a contact of 39 bytes");
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  for (size_t bytes = 1; bytes < 8; ++bytes) guest.Post(Raw({3}, bytes));
  guest.Post(Raw({7, 0, channel.relid}, 11));
  guest.Post(Raw({5, 0, channel.relid}, 147));
  guest.Post(Raw({8, 0, channel.relid, 9, 0x10010}, 19));
  guest.Post(Raw({11, 0, channel.relid, channel.gpadl}, 15));
  guest.ExpectNoMessage("for short messages");
  guest.ExpectAlive(channel);
}

RULE(HostsMessagesAreRefused, "bad:C2",
     "A guest may not send what only a host sends, nor a type that does not "
     "exist: refused without an answer.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  for (const uint32_t type : {1u, 2u, 4u, 6u, 10u, 12u, 15u, 17u, 20u, 23u, 24u,
                              26u, 28u, 0u, 30u, 0xffffffffu}) {
    guest.Post(Raw({type, 0, channel.relid, channel.gpadl}, 240));
  }
  guest.ExpectNoMessage("for messages of the other direction");
  guest.ExpectAlive(channel);
}

RULE(NothingIsSaidBeforeContact, "bad:C4",
     "Before contact no message but INITIATE_CONTACT has an answer.") {
  Guest& guest = t.guest();
  for (const uint32_t type : {3u, 5u, 7u, 8u, 9u, 11u, 13u, 22u}) {
    guest.Post(Raw({type, 0, 1, 1}, 240));
  }
  guest.ExpectNoMessage("before contact");
  guest.Connect();
}

RULE(ContactResetsTheConnection, "bad:C18 bad:C3",
     "A contact while channels are open (a new kernel) closes them all before "
     "it is answered; the old rings are not touched any more, and the new "
     "guest starts from nothing.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& old = guest.Open(1);
  guest.Ask(old, Command::kHold);
  guest.ExpectAlive(guest.Open(2));
  const Bytes before = old.in.Snapshot();
  old.is_open = false;
  guest.Connect();
  old.writer.Write(guest.Request(old, Command::kEcho));
  old.writer.Publish();
  guest.Signal(old);
  guest.Settle();
  t.Expect(old.in.Snapshot() == before, "the old ring stays as it was");
  guest.ExpectAlive(guest.Open(1));
}

RULE(ContactForgetsGpadls, "bad:C18 bad:G4",
     "After a new contact the ids of old GPADLs are free, and an old GPADL "
     "holds no ring.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& old = guest.Prepare(1);
  guest.Connect();
  guest.PostOpen(old);
  t.Expect(guest.ExpectOpenResult(old.relid) != 0,
           "a GPADL of before opens nothing");
  guest.PostGpadl(old.relid, old.gpadl, old.pages);
  t.Expect(guest.ExpectCreated(old.relid, old.gpadl), "its id is free");
}

RULE(UnloadIsAnswered, "bad:C10 vector:M24 vector:M25 quirk:D18",
     "UNLOAD closes everything and is answered by UNLOAD_RESPONSE of 8 bytes; "
     "afterwards nothing is answered until the next contact.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  guest.Ask(channel, Command::kHold);
  guest.Settle();
  channel.is_open = false;
  guest.Post(EncodeMessage(UnloadMessage()));
  guest.Expect(MessageType::kUnloadResponse, 8);
  const Bytes before = channel.in.Snapshot();
  guest.Post(EncodeMessage(RequestOffersMessage()));
  guest.PostTeardown(channel.relid, channel.gpadl);
  guest.Signal(channel);
  guest.ExpectNoMessage("after UNLOAD");
  t.Expect(channel.in.Snapshot() == before, "the old ring stays as it was");
  guest.Connect();
  guest.ExpectAlive(guest.Open(1));
}

RULE(ModifyConnectionIsAnswered, "vector:M29 vector:M30 bad:C9",
     "With feature 0x4, MODIFY_CONNECTION is answered by exactly 9 bytes: "
     "state 0 for two pages of RAM or none, a failure for one page or one "
     "outside of RAM.") {
  Guest& guest = t.guest();
  if (!guest.TryConnect(ProtocolVersion::kCopper, 0x4)) return;
  const uint64_t ram = guest.memory().page_count() * 4096;
  const struct {
    uint64_t first, second;
    bool ok;
  } cases[] = {{0x1000, 0x2000, true},
               {0, 0, true},
               {0x1000, 0, false},
               {0x1000, ram, false},
               {0x1008, 0x2000, false}};
  for (const auto& [first, second, ok] : cases) {
    ModifyConnectionMessage modify;
    modify.parent_to_child_monitor_page = first;
    modify.child_to_parent_monitor_page = second;
    guest.Post(EncodeMessage(modify));
    const HostBytes answer =
        guest.Expect(MessageType::kModifyConnectionResponse, 9);
    t.Expect((answer.At<uint8_t>(8) == 0) == ok,
             absl::StrCat("pages ", first, " and ", second,
                          ok ? " are taken" : " are refused"));
  }
}

RULE(PauseHoldsMessagesBack, "quirk:D28",
     "With feature 0x20, after PAUSE_RESPONSE the host keeps its messages "
     "until RESUME, and refuses all but RESUME, UNLOAD and contact.") {
  Guest& guest = t.guest();
  if (!guest.TryConnect(ProtocolVersion::kCopper, 0x20)) return;
  guest.Post(EncodeMessage(PauseMessage()));
  const auto answer = guest.TakeMessage();
  if (!answer.has_value()) return;  // the feature is not granted
  t.Expect(answer->type() == MessageType::kPauseResponse &&
               answer->bytes.size() == 8,
           "PAUSE_RESPONSE has 8 bytes");
  guest.Post(EncodeMessage(RequestOffersMessage()));
  guest.ExpectNoMessage("while the guest takes none");
  guest.Post(EncodeMessage(ResumeMessage()));
  guest.ExpectNoMessage("for a request made meanwhile");
  guest.RequestOffers();
}

}  // namespace
}  // namespace ferrybus::conformance
