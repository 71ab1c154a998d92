// SPDX-License-Identifier: MIT
//
// Rules about GPADLs.

#include "absl/strings/str_cat.h"
#include "ferrybus/tests/conformance/guest.h"
#include "ferrybus/tests/conformance/rule.h"

namespace ferrybus::conformance {
namespace {

struct RawGpadl {
  uint32_t byte_count = 4096;
  uint32_t byte_offset = 0;
  uint16_t range_bytes = 16;
  uint16_t range_count = 1;
  uint64_t page = 5;
};

void PostRaw(Guest& guest, uint32_t relid, uint32_t gpadl,
             const RawGpadl& raw) {
  GpadlHeaderMessage header;
  header.channel_id = ChannelId{relid};
  header.gpadl_id = GpadlId{gpadl};
  header.range_buffer_size_bytes = raw.range_bytes;
  header.range_count = raw.range_count;
  Bytes range = BytesOf(raw.byte_count);
  for (const Bytes& more : {BytesOf(raw.byte_offset), BytesOf(raw.page)}) {
    range.insert(range.end(), more.begin(), more.end());
  }
  guest.Post(EncodeGpadlHeader(header, range));
}

// It is refused, with an answer or without; its id is free afterwards.
void ExpectRefused(Trial& t, const RawGpadl& raw, const std::string& what) {
  Guest& guest = t.guest();
  const uint32_t gpadl = guest.NewGpadlId();
  const uint32_t relid = guest.relid(1);
  PostRaw(guest, relid, gpadl, raw);
  const auto answer = guest.TakeMessage();
  if (answer.has_value()) {
    t.Expect(answer->type() == MessageType::kGpadlCreated &&
                 answer->bytes.size() == 20,
             "only GPADL_CREATED answers, in 20 bytes");
    t.Expect(answer->At<uint32_t>(16) != 0, absl::StrCat(what, " is refused"));
  }
}

void PostBody(Guest& guest, uint32_t gpadl, uint32_t message_number,
              absl::Span<const uint64_t> pages) {
  GpadlBodyMessage body;
  body.message_number = message_number;
  body.gpadl_id = GpadlId{gpadl};
  Bytes range;
  for (const uint64_t page : pages) {
    const Bytes number = BytesOf(page);
    range.insert(range.end(), number.begin(), number.end());
  }
  guest.Post(EncodeGpadlBody(body, range));
}

// The header of a GPADL of 40 pages: 26 of them.
void PostHeader40(Guest& guest, uint32_t relid, uint32_t gpadl,
                  absl::Span<const uint64_t> pages) {
  GpadlHeaderMessage header;
  header.channel_id = ChannelId{relid};
  header.gpadl_id = GpadlId{gpadl};
  header.range_buffer_size_bytes = 8 + 8 * 40;
  header.range_count = 1;
  Bytes range = BytesOf(uint64_t{40 * 4096});
  for (size_t i = 0; i < kGpadlHeaderPagesMax; ++i) {
    const Bytes number = BytesOf(pages[i]);
    range.insert(range.end(), number.begin(), number.end());
  }
  guest.Post(EncodeGpadlHeader(header, range));
}

RULE(GpadlIsCreated, "vector:M13 quirk:D21",
     "A GPADL of RAM is answered by GPADL_CREATED of 20 bytes with its "
     "channel, its id as the guest chose it, and status 0.") {
  Guest& guest = t.guest();
  guest.Connect();
  const std::vector<uint64_t> pages = guest.NewPages(3);
  for (const uint32_t id : {1u, 0xe1e10u, 0x80000000u, 0xffffffffu}) {
    guest.PostGpadl(guest.relid(1), id, pages);
    t.Expect(guest.ExpectCreated(guest.relid(1), id), "it is created");
  }
}

RULE(GpadlComesInParts, "quirk:D19",
     "A GPADL longer than its header comes in bodies, whose message number "
     "does not matter; it is answered once, after the last of them.") {
  Guest& guest = t.guest();
  guest.Connect();
  const std::vector<uint64_t> pages = guest.NewPages(40);
  const uint32_t gpadl = guest.NewGpadlId();
  PostHeader40(guest, guest.relid(1), gpadl, pages);
  guest.ExpectNoMessage("before the last part");
  const absl::Span<const uint64_t> rest = pages;
  PostBody(guest, gpadl, 99, rest.subspan(26, 6));
  guest.ExpectNoMessage("before the last part");
  PostBody(guest, gpadl, 0, rest.subspan(32, 8));
  t.Expect(guest.ExpectCreated(guest.relid(1), gpadl), "it is created");
  guest.ExpectNoMessage("after the answer");
}

RULE(LongGpadlHoldsRings, "doc:KG1",
     "A channel whose rings come from a GPADL of many parts, its pages in any "
     "order, works over all of their bytes.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1, 60);
  const Bytes data = Pattern(8192, 7);
  for (int i = 0; i < 70; ++i) {
    const ReceivedPacket answer = guest.Do(channel, Command::kEcho, 0, i, data);
    if (!t.Expect(answer.payload == Payload(Command::kEcho, 0, i, data),
                  "each echo has its bytes")) {
      return;
    }
  }
}

RULE(PartsOfTwoGpadlsMix, "bad:C17",
     "Bodies of two GPADLs that come in turn are told apart by their id.") {
  Guest& guest = t.guest();
  guest.Connect();
  const std::vector<uint64_t> first = guest.NewPages(40);
  const std::vector<uint64_t> second = guest.NewPages(40);
  const uint32_t a = guest.NewGpadlId();
  const uint32_t b = guest.NewGpadlId();
  PostHeader40(guest, guest.relid(1), a, first);
  PostHeader40(guest, guest.relid(2), b, second);
  PostBody(guest, b, 0, absl::Span<const uint64_t>(second).subspan(26, 7));
  PostBody(guest, a, 0, absl::Span<const uint64_t>(first).subspan(26, 14));
  t.Expect(guest.ExpectCreated(guest.relid(1), a), "the first is created");
  PostBody(guest, b, 0, absl::Span<const uint64_t>(second).subspan(33, 7));
  t.Expect(guest.ExpectCreated(guest.relid(2), b), "the second is created");
}

RULE(BadRangesAreRefused, "bad:G1 bad:G2",
     "A GPADL with no range or several, a length that is not whole, no bytes, "
     "an offset beyond its page or a page count that does not match is not "
     "created.") {
  Guest& guest = t.guest();
  guest.Connect();
  ExpectRefused(t, {.range_count = 0}, "range count 0");
  ExpectRefused(t, {.range_count = 2}, "range count 2");
  ExpectRefused(t, {.range_count = 65535}, "range count 65535");
  ExpectRefused(t, {.range_bytes = 0}, "a range of 0 bytes");
  ExpectRefused(t, {.range_bytes = 12}, "a range of 12 bytes");
  ExpectRefused(t, {.range_bytes = 65535}, "a range of 65535 bytes");
  ExpectRefused(t, {.byte_count = 0}, "byte count 0");
  ExpectRefused(t, {.byte_count = 0xffffffff}, "byte count 2^32-1");
  ExpectRefused(t, {.byte_offset = 4096}, "byte offset 4096");
  ExpectRefused(t, {.byte_count = 8192}, "one page for two");
  guest.ExpectAlive(guest.Open(1));
}

RULE(PagesOutsideRamAreRefused, "bad:G10",
     "A GPADL of page 0, of pages beyond RAM, or whose addresses overflow, is "
     "not created.") {
  Guest& guest = t.guest();
  guest.Connect();
  const uint64_t ram_pages = guest.memory().page_count();
  for (const uint64_t page : {uint64_t{0}, ram_pages, uint64_t{1} << 40,
                              uint64_t{1} << 52, ~uint64_t{0}}) {
    ExpectRefused(t, {.page = page}, absl::StrCat("page ", page));
  }
  guest.ExpectAlive(guest.Open(1));
}

RULE(GpadlIdIsNotUsedTwice, "bad:G4",
     "A header with the id of a GPADL that exists is refused, and that GPADL "
     "stays.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Prepare(1);
  PostRaw(guest, guest.relid(2), channel.gpadl, {});
  const auto answer = guest.TakeMessage();
  if (answer.has_value()) {
    t.Expect(answer->At<uint32_t>(16) != 0, "it is refused");
  }
  guest.PostOpen(channel);
  t.Expect(guest.ExpectOpenResult(channel.relid) == 0, "the first one stays");
}

RULE(StrayPartsAreIgnored, "bad:G3",
     "A body without its header, or after the GPADL is complete, has no "
     "answer and changes nothing.") {
  Guest& guest = t.guest();
  guest.Connect();
  const std::vector<uint64_t> pages = guest.NewPages(2);
  PostBody(guest, 0x4711, 0, pages);
  guest.ExpectNoMessage("for a body of no GPADL");
  GuestChannel& channel = guest.Prepare(1);
  PostBody(guest, channel.gpadl, 0, pages);
  guest.ExpectNoMessage("for a body of a finished GPADL");
  guest.PostOpen(channel);
  t.Expect(guest.ExpectOpenResult(channel.relid) == 0, "it is as it was");
}

RULE(TeardownIsAnswered, "vector:M18 bad:G6",
     "GPADL_TEARDOWN is answered by GPADL_TORNDOWN of 12 bytes, once; the id "
     "is free then.  Tearing down what is not there, or another channel's, "
     "has no answer.") {
  Guest& guest = t.guest();
  guest.Connect();
  const std::vector<uint64_t> pages = guest.NewPages(2);
  const uint32_t gpadl = guest.MakeGpadl(guest.relid(1), pages);
  guest.PostTeardown(guest.relid(2), gpadl);
  guest.PostTeardown(guest.relid(1), gpadl + 1000);
  guest.ExpectNoMessage("for a GPADL that the channel does not have");
  guest.PostTeardown(guest.relid(1), gpadl);
  guest.ExpectTorndown(gpadl);
  guest.PostTeardown(guest.relid(1), gpadl);
  guest.ExpectNoMessage("for the second teardown");
  guest.PostGpadl(guest.relid(2), gpadl, pages);
  t.Expect(guest.ExpectCreated(guest.relid(2), gpadl), "the id is free");
}

RULE(RingIsNotTornDownUnderItsChannel, "bad:G6 bad:G7",
     "Tearing down the GPADL of an open channel's rings is answered when the "
     "channel is closed, not before.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  guest.PostTeardown(channel.relid, channel.gpadl);
  guest.ExpectNoMessage("while the channel is open");
  guest.ExpectAlive(channel);
  guest.PostClose(channel);
  guest.ExpectTorndown(channel.gpadl);
}

RULE(MappedGpadlStays, "doc:KG1 doc:KG3 doc:KG4 doc:KG6",
     "A device maps a GPADL as soon as it is created, once at a time; its "
     "teardown is answered when the device has let go.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  const std::vector<uint64_t> pages = guest.NewPages(2);
  const uint64_t mark = 0x1122334455667788;
  std::memcpy(guest.page(pages[0]), &mark, sizeof(mark));
  const uint32_t gpadl = guest.MakeGpadl(channel.relid, pages);
  const ReceivedPacket answer = guest.Do(channel, Command::kMap, gpadl);
  uint64_t found = 0;
  if (answer.payload.size() >= 24) {
    std::memcpy(&found, answer.payload.data() + 16, sizeof(found));
  }
  t.Expect(HeaderOf(answer).argument == 0 && found == mark,
           "the device sees the buffer");
  t.Expect(HeaderOf(guest.Do(channel, Command::kMap, gpadl)).argument != 0,
           "a second mapping is refused");
  guest.PostTeardown(channel.relid, gpadl);
  guest.ExpectNoMessage("while the device has it mapped");
  guest.Do(channel, Command::kUnmap, gpadl);
  guest.ExpectTorndown(gpadl);
}

RULE(GpadlsOfAnotherChannelAreNotMapped, "bad:C5 bad:G6",
     "A device maps only GPADLs of its own channel.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  const uint32_t foreign = guest.MakeGpadl(guest.relid(2), guest.NewPages(1));
  t.Expect(HeaderOf(guest.Do(channel, Command::kMap, foreign)).argument != 0,
           "another channel's is refused");
  t.Expect(HeaderOf(guest.Do(channel, Command::kMap, 0x4711)).argument != 0,
           "what does not exist is refused");
}

}  // namespace
}  // namespace ferrybus::conformance
