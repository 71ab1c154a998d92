// SPDX-License-Identifier: MIT
//
// Rules about offers and rescinds.

#include <set>

#include "absl/strings/str_cat.h"
#include "ferrybus/tests/conformance/guest.h"
#include "ferrybus/tests/conformance/rule.h"

namespace ferrybus::conformance {
namespace {

void PostReleased(Guest& guest, uint32_t relid) {
  RelidReleasedMessage released;
  released.channel_id = ChannelId{relid};
  guest.Post(EncodeMessage(released));
}

RULE(OffersComeWhenAskedFor, "bad:C4 bad:C12 vector:M8 vector:M10",
     "No offer comes before REQUESTOFFERS; then come all, each in 196 bytes, "
     "and ALLOFFERS_DELIVERED of 8 bytes last.") {
  Guest& guest = t.guest();
  t.Expect(guest.TryConnect(ProtocolVersion::kIron), "5.3 is accepted");
  guest.ExpectNoMessage("before REQUESTOFFERS");
  t.Expect(guest.RequestOffers().size() >= kDevices, "all devices come");
  guest.ExpectNoMessage("after ALLOFFERS_DELIVERED");
}

RULE(OffersAreTheirDevices, "doc:KC11 doc:KL6 doc:KC23 quirk:D14",
     "An offer has the device's type, instance and user data; channel numbers "
     "differ and are 1 to 2047; reserved words are 0.") {
  Guest& guest = t.guest();
  t.Expect(guest.TryConnect(ProtocolVersion::kIron), "5.3 is accepted");
  std::set<uint32_t> relids;
  for (const HostBytes& offer : guest.RequestOffers()) {
    const uint32_t relid = offer.At<uint32_t>(184);
    t.Expect(relid >= 1 && relid <= 2047, "the number is 1 to 2047");
    t.Expect(relids.insert(relid).second, "no number comes twice");
    t.Expect(offer.At<uint32_t>(192) != 0, "there is something to signal");
    t.Expect(offer.At<uint16_t>(180) == 0, "it is a primary channel");
    t.Expect(offer.At<uint64_t>(40) == 0 && offer.At<uint64_t>(48) == 0,
             "reserved words are 0");
    const uint8_t device = offer.At<uint8_t>(24);
    for (size_t i = 25; i < 40; ++i) {
      t.Expect(offer.At<uint8_t>(i) == 0, "the instance is the device's");
    }
    for (size_t i = 60; i < 180; ++i) {
      t.Expect(offer.At<uint8_t>(i) == device, "the user data is the device's");
    }
  }
  for (uint32_t i = 1; i <= kDevices; ++i) guest.relid(i);
}

RULE(OffersComeOnce, "bad:C4",
     "A second REQUESTOFFERS on a connection brings no offers.") {
  Guest& guest = t.guest();
  guest.Connect();
  guest.Post(EncodeMessage(RequestOffersMessage()));
  guest.ExpectNoMessage("for the second request");
  guest.ExpectAlive(guest.Open(1));
}

RULE(OldOffersAreShorter, "quirk:D11", "Before 1.1 an offer has 190 bytes.") {
  Guest& guest = t.guest();
  if (!guest.TryConnect(ProtocolVersion::kWs2008)) return;
  guest.RequestOffers(190);
}

RULE(NumbersStayOverContacts, "doc:KL6 bad:C18",
     "A new contact finds the same instances again.") {
  Guest& guest = t.guest();
  guest.Connect();
  guest.Connect();
  for (uint32_t i = 1; i <= kDevices; ++i) guest.relid(i);
}

RULE(RescindIsTold, "vector:M20 vector:M21 quirk:D22 doc:KL5",
     "Taking an offer back sends RESCIND_CHANNELOFFER of 12 bytes; what the "
     "guest sends for the channel meanwhile is ignored, its GPADLs are torn "
     "down, and RELID_RELEASED has no answer.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Prepare(1);
  t.Succeeds(t.endpoint().Rescind(1), "rescind");
  const HostBytes rescind = guest.Expect(MessageType::kRescindChannelOffer, 12);
  t.Expect(rescind.At<uint32_t>(8) == channel.relid, "it names the channel");
  guest.PostOpen(channel);
  guest.PostClose(channel);
  guest.ExpectNoMessage("for a rescinded channel");
  guest.PostTeardown(channel.relid, channel.gpadl);
  guest.ExpectTorndown(channel.gpadl);
  PostReleased(guest, channel.relid);
  PostReleased(guest, channel.relid);
  guest.ExpectNoMessage("for RELID_RELEASED");
}

RULE(RescindClosesTheChannel, "doc:KL5 bad:C6 doc:CB2",
     "Rescinding an open channel with requests in flight closes it: its ring "
     "is not touched any more, others go on.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  GuestChannel& other = guest.Open(2);
  guest.Ask(channel, Command::kHold);
  guest.ExpectAlive(channel);
  t.Succeeds(t.endpoint().Rescind(1), "rescind");
  guest.Expect(MessageType::kRescindChannelOffer, 12);
  channel.is_open = false;
  const Bytes before = channel.in.Snapshot();
  channel.writer.Write(guest.Request(channel, Command::kEcho));
  channel.writer.Publish();
  guest.Signal(channel);
  guest.Settle();
  t.Expect(channel.in.Snapshot() == before, "the ring stays as it was");
  guest.PostTeardown(channel.relid, channel.gpadl);
  guest.ExpectTorndown(channel.gpadl);
  guest.ExpectAlive(other);
}

RULE(HotOffersComeAlone, "doc:KL3",
     "A device that is offered while a guest is connected comes as an offer "
     "at once, without ALLOFFERS_DELIVERED, and can be opened.") {
  Guest& guest = t.guest();
  guest.Connect();
  t.Succeeds(t.endpoint().Rescind(2), "rescind");
  const HostBytes rescind = guest.Expect(MessageType::kRescindChannelOffer, 12);
  PostReleased(guest, rescind.At<uint32_t>(8));
  guest.ExpectNoMessage("after the release");
  t.Succeeds(t.endpoint().Offer(2), "offer");
  const HostBytes offer = guest.Expect(MessageType::kOfferChannel, 196);
  t.Expect(offer.At<uint8_t>(24) == 2, "it is device 2");
  guest.ExpectNoMessage("after a hot offer");
  guest.Connect();
  guest.ExpectAlive(guest.Open(2));
}

RULE(NumberIsKeptUntilReleased, "quirk:D22",
     "A rescinded number is not offered again before the guest has released "
     "it.") {
  Guest& guest = t.guest();
  guest.Connect();
  t.Succeeds(t.endpoint().Rescind(2), "rescind");
  const HostBytes rescind = guest.Expect(MessageType::kRescindChannelOffer, 12);
  t.Succeeds(t.endpoint().Offer(2), "offer");
  const auto offer = guest.TakeMessage();
  if (!offer.has_value()) return;  // waits for the release: allowed
  t.Expect(offer->At<uint32_t>(184) != rescind.At<uint32_t>(8),
           "the new offer has another number");
}

RULE(ReleaseOfAnOfferedNumberIsRefused, "bad:C7",
     "RELID_RELEASED for a channel that was not rescinded changes nothing.") {
  Guest& guest = t.guest();
  guest.Connect();
  GuestChannel& channel = guest.Open(1);
  PostReleased(guest, channel.relid);
  PostReleased(guest, guest.relid(2));
  PostReleased(guest, 2000);
  guest.ExpectNoMessage("for RELID_RELEASED");
  guest.ExpectAlive(channel);
  guest.ExpectAlive(guest.Open(2));
}

}  // namespace
}  // namespace ferrybus::conformance
