// SPDX-License-Identifier: MIT

#include "ferrybus/tests/conformance/guest.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/check.h"

namespace ferrybus::conformance {
namespace {

constexpr int kRoundsMax = 1000;

std::string TypeName(MessageType type) {
  return absl::StrCat("message ", static_cast<uint32_t>(type));
}

}  // namespace

Bytes Payload(Command command, uint32_t argument, uint64_t number,
              absl::Span<const std::byte> data) {
  Bytes bytes = BytesOf(DeviceHeader{command, argument, number});
  bytes.insert(bytes.end(), data.begin(), data.end());
  return bytes;
}

DeviceHeader HeaderOf(const ReceivedPacket& packet) {
  DeviceHeader header{Command{}, ~0u, ~uint64_t{0}};
  if (packet.payload.size() >= sizeof(header)) {
    std::memcpy(&header, packet.payload.data(), sizeof(header));
  }
  return header;
}

Bytes Pattern(size_t count, uint64_t seed) {
  Bytes bytes(count);
  uint64_t x = seed * 2 + 1;
  for (std::byte& byte : bytes) {
    x = x * 6364136223846793005u + 1442695040888963407u;
    byte = static_cast<std::byte>(x >> 56);
  }
  return bytes;
}

Guest::Guest(Trial* trial, const MemfdGuestMemory* memory)
    : trial_(trial), memory_(memory) {}

Guest::~Guest() = default;

// -- Messages ----------------------------------------------------------------

void Guest::Post(absl::Span<const std::byte> payload, uint32_t connection) {
  if (trial_->over()) return;
  trial_->endpoint().Post(connection, payload);
}

void Guest::Settle() {
  for (int i = 0; i < kRoundsMax && !trial_->over(); ++i) {
    if (!trial_->Succeeds(trial_->endpoint().Run(), "the endpoint works")) {
      return;
    }
    bool more = false;
    for (Bytes& bytes : trial_->endpoint().TakeMessages()) {
      inbox_.push_back({std::move(bytes)});
      more = true;
    }
    for (const uint32_t channel : trial_->endpoint().TakeSignals()) {
      signalled_.insert(channel);
    }
    more |= ReadRings();
    if (!more) return;
  }
  trial_->Fail("the endpoint comes to rest; it goes on for ever");
}

// True: the host is to be run again.
bool Guest::ReadRings() {
  bool more = false;
  for (GuestChannel& channel : channels_) {
    if (!channel.is_open || !channel.reads) continue;
    std::string broken;
    while (auto packet = channel.reader.Next(&broken)) {
      channel.received.push_back(*std::move(packet));
    }
    if (!broken.empty()) trial_->Fail(broken);
    if (!channel.reader.Release()) continue;
    Signal(channel);
    more = true;
  }
  return more;
}

std::optional<HostBytes> Guest::TakeMessage() {
  Settle();
  if (trial_->over() || inbox_.empty()) return std::nullopt;
  HostBytes message = std::move(inbox_.front());
  inbox_.pop_front();
  return message;
}

HostBytes Guest::Expect(MessageType type, size_t size) {
  const std::optional<HostBytes> message = TakeMessage();
  if (!trial_->Expect(message.has_value(),
                      absl::StrCat(TypeName(type), " comes; nothing came"))) {
    return {};
  }
  trial_->Expect(
      message->type() == type,
      absl::StrCat(TypeName(type), " comes; ", TypeName(message->type()),
                   " of ", message->bytes.size(), " bytes came"));
  trial_->Expect(message->At<uint32_t>(4) == 0, "the header's padding is 0");
  trial_->Expect(message->bytes.size() == size,
                 absl::StrCat(TypeName(type), " has ", size, " bytes; it has ",
                              message->bytes.size()));
  return *message;
}

void Guest::ExpectNoMessage(const std::string& when) {
  const std::optional<HostBytes> message = TakeMessage();
  if (!message.has_value()) return;
  trial_->Fail(absl::StrCat("no message comes ", when, "; ",
                            TypeName(message->type()), " came"));
}

bool Guest::TakeSignal(const GuestChannel& channel) {
  return signalled_.erase(channel.relid) != 0;
}

void Guest::Signal(const GuestChannel& channel) {
  if (!trial_->over()) trial_->endpoint().Signal(channel.relid);
}

void Guest::PostContact(ProtocolVersion version, uint32_t features) {
  for (GuestChannel& channel : channels_) channel.is_open = false;
  InitiateContactMessage contact;
  contact.version = static_cast<uint32_t>(version);
  if (version >= ProtocolVersion::kWin10Rs3Plus) {
    contact.target_sint = 2;
    contact.feature_flags = features;
  }
  Post(EncodeInitiateContact(contact));
}

bool Guest::TryConnect(ProtocolVersion version, uint32_t features) {
  PostContact(version, features);
  const std::optional<HostBytes> answer = TakeMessage();
  if (!trial_->Expect(
          answer.has_value() && answer->type() == MessageType::kVersionResponse,
          "INITIATE_CONTACT is answered by VERSION_RESPONSE")) {
    return false;
  }
  const bool supported = answer->At<uint8_t>(8) != 0;
  const bool is_long = supported && version >= ProtocolVersion::kCopper;
  trial_->Expect(answer->bytes.size() == (is_long ? 20 : 16),
                 absl::StrCat("VERSION_RESPONSE has its size; it has ",
                              answer->bytes.size(), " bytes"));
  return supported && answer->At<uint8_t>(9) == 0;
}

void Guest::Connect() {
  trial_->Expect(TryConnect(ProtocolVersion::kIron), "version 5.3 is accepted");
  RequestOffers();
}

std::vector<HostBytes> Guest::RequestOffers(size_t offer_size) {
  std::vector<HostBytes> offers;
  Post(EncodeMessage(RequestOffersMessage()));
  while (const auto message = TakeMessage()) {
    if (message->type() == MessageType::kAllOffersDelivered) {
      trial_->Expect(message->bytes.size() == 8,
                     "ALLOFFERS_DELIVERED has 8 bytes");
      return offers;
    }
    if (!trial_->Expect(message->type() == MessageType::kOfferChannel &&
                            message->bytes.size() == offer_size,
                        absl::StrCat("offers have ", offer_size, " bytes; ",
                                     TypeName(message->type()), " of ",
                                     message->bytes.size(), " came"))) {
      break;
    }
    const Bytes type(message->bytes.begin() + 8, message->bytes.begin() + 24);
    if (type == BytesOf(kInterfaceType)) {
      relids_[message->At<uint8_t>(24)] = message->At<uint32_t>(184);
    }
    offers.push_back(*message);
  }
  trial_->Fail("ALLOFFERS_DELIVERED ends the offers; it did not come");
  return offers;
}

uint32_t Guest::relid(uint32_t device) {
  if (trial_->over()) return 0;
  trial_->Expect(relids_.count(device) != 0,
                 absl::StrCat("device ", device, " is offered"));
  return relids_[device];
}

// -- GPADLs and channels -----------------------------------------------------

std::vector<uint64_t> Guest::NewPages(uint32_t count) {
  std::vector<uint64_t> pages;
  for (uint32_t i = 0; i < count; ++i) pages.push_back(next_page_++);
  FERRYBUS_CHECK(next_page_ <= memory_->page_count(), "guest RAM is full");
  return pages;
}

std::byte* Guest::page(uint64_t number) const {
  return memory_->Translate(number * 4096, 4096).data();
}

void Guest::PostGpadl(uint32_t relid, uint32_t gpadl,
                      absl::Span<const uint64_t> pages) {
  GpadlHeaderMessage header;
  header.channel_id = ChannelId{relid};
  header.gpadl_id = GpadlId{gpadl};
  header.range_buffer_size_bytes = static_cast<uint16_t>(8 + 8 * pages.size());
  header.range_count = 1;
  Bytes range = BytesOf(static_cast<uint64_t>(pages.size() * 4096));
  for (const uint64_t page : pages) {
    const Bytes number = BytesOf(page);
    range.insert(range.end(), number.begin(), number.end());
  }
  absl::Span<const std::byte> rest = range;
  const size_t first =
      std::min<size_t>(rest.size(), 8 + 8 * kGpadlHeaderPagesMax);
  Post(EncodeGpadlHeader(header, rest.first(first)));
  rest.remove_prefix(first);
  while (!rest.empty()) {
    GpadlBodyMessage body;
    body.gpadl_id = GpadlId{gpadl};
    const size_t count = std::min<size_t>(rest.size(), 8 * kGpadlBodyPagesMax);
    Post(EncodeGpadlBody(body, rest.first(count)));
    rest.remove_prefix(count);
  }
}

bool Guest::ExpectCreated(uint32_t relid, uint32_t gpadl) {
  const HostBytes created = Expect(MessageType::kGpadlCreated, 20);
  trial_->Expect(
      created.At<uint32_t>(8) == relid && created.At<uint32_t>(12) == gpadl,
      "GPADL_CREATED names the channel and the GPADL");
  return !trial_->over() && created.At<uint32_t>(16) == 0;
}

uint32_t Guest::MakeGpadl(uint32_t relid, absl::Span<const uint64_t> pages) {
  const uint32_t gpadl = NewGpadlId();
  PostGpadl(relid, gpadl, pages);
  trial_->Expect(ExpectCreated(relid, gpadl), "a GPADL of RAM is created");
  return gpadl;
}

void Guest::PostTeardown(uint32_t relid, uint32_t gpadl) {
  GpadlTeardownMessage message;
  message.channel_id = ChannelId{relid};
  message.gpadl_id = GpadlId{gpadl};
  Post(EncodeMessage(message));
}

void Guest::ExpectTorndown(uint32_t gpadl) {
  const HostBytes torndown = Expect(MessageType::kGpadlTorndown, 12);
  trial_->Expect(torndown.At<uint32_t>(8) == gpadl,
                 "GPADL_TORNDOWN names the GPADL");
}

GuestChannel& Guest::Prepare(uint32_t device, uint32_t data_pages) {
  GuestChannel& channel = channels_.emplace_back();
  channel.pages = NewPages(2 * (data_pages + 1));
  channel.downstream_offset = data_pages + 1;
  const absl::Span<const uint64_t> pages = channel.pages;
  channel.out = GuestRing(*memory_, pages.first(data_pages + 1));
  channel.in = GuestRing(*memory_, pages.subspan(data_pages + 1));
  for (GuestRing* const ring : {&channel.out, &channel.in}) {
    ring->Initialise();
    ring->Store(kFeatureBits, 1);
  }
  channel.writer = RingWriter(&channel.out);
  channel.reader = RingReader(&channel.in);
  channel.relid = relid(device);
  channel.gpadl = MakeGpadl(channel.relid, channel.pages);
  return channel;
}

void Guest::PostOpen(const GuestChannel& channel, uint32_t open_id,
                     uint8_t user_data) {
  OpenChannelMessage open;
  open.channel_id = ChannelId{channel.relid};
  open.open_id = open_id;
  open.ring_gpadl = GpadlId{channel.gpadl};
  open.downstream_page_offset = channel.downstream_offset;
  open.user_data[0] = std::byte{user_data};
  Post(EncodeOpenChannel(open, 0));
}

uint32_t Guest::ExpectOpenResult(uint32_t relid, uint32_t open_id) {
  const HostBytes result = Expect(MessageType::kOpenChannelResult, 20);
  trial_->Expect(result.At<uint32_t>(8) == relid,
                 "OPENCHANNEL_RESULT names the channel");
  trial_->Expect(result.At<uint32_t>(12) == open_id,
                 "OPENCHANNEL_RESULT returns the open id");
  return trial_->over() ? ~0u : result.At<uint32_t>(16);
}

GuestChannel& Guest::Open(uint32_t device, uint32_t data_pages) {
  GuestChannel& channel = Prepare(device, data_pages);
  PostOpen(channel);
  trial_->Expect(ExpectOpenResult(channel.relid) == 0, "the channel opens");
  channel.is_open = !trial_->over();
  return channel;
}

void Guest::PostClose(GuestChannel& channel) {
  channel.is_open = false;
  CloseChannelMessage close;
  close.channel_id = ChannelId{channel.relid};
  Post(EncodeMessage(close));
}

void Guest::Close(GuestChannel& channel) {
  PostClose(channel);
  PostTeardown(channel.relid, channel.gpadl);
  ExpectTorndown(channel.gpadl);
}

// -- Packets -----------------------------------------------------------------

void Guest::Send(GuestChannel& channel, const RawPacket& packet) {
  if (trial_->over()) return;
  if (!trial_->Expect(channel.writer.Write(packet),
                      "the host made room in the ring to it")) {
    return;
  }
  if (channel.writer.Publish()) Signal(channel);
}

RawPacket Guest::Request(GuestChannel& channel, Command command,
                         uint32_t argument, uint64_t number,
                         absl::Span<const std::byte> data) {
  RawPacket packet;
  packet.transaction_id = channel.next_id++;
  packet.payload = Payload(command, argument, number, data);
  return packet;
}

uint64_t Guest::Ask(GuestChannel& channel, Command command, uint32_t argument,
                    uint64_t number, absl::Span<const std::byte> data) {
  const RawPacket packet = Request(channel, command, argument, number, data);
  Send(channel, packet);
  return packet.transaction_id;
}

ReceivedPacket Guest::Take(GuestChannel& channel) {
  if (channel.received.empty()) Settle();
  if (!trial_->Expect(!channel.received.empty(),
                      "a packet of the host comes; none came") ||
      trial_->over()) {
    return {};
  }
  ReceivedPacket packet = std::move(channel.received.front());
  channel.received.pop_front();
  return packet;
}

ReceivedPacket Guest::ExpectAnswer(GuestChannel& channel, uint64_t id) {
  ReceivedPacket packet = Take(channel);
  trial_->Expect(packet.type == kCompletionPacket,
                 absl::StrCat("a completion comes; type ", packet.type));
  trial_->Expect(
      packet.transaction_id == id,
      absl::StrCat("the completion has transaction id ", absl::Hex(id),
                   "; it has ", absl::Hex(packet.transaction_id)));
  return packet;
}

ReceivedPacket Guest::Do(GuestChannel& channel, Command command,
                         uint32_t argument, uint64_t number,
                         absl::Span<const std::byte> data) {
  return ExpectAnswer(channel, Ask(channel, command, argument, number, data));
}

void Guest::Complete(GuestChannel& channel, const ReceivedPacket& request) {
  RawPacket packet;
  packet.type = kCompletionPacket;
  packet.flags = 0;
  packet.transaction_id = request.transaction_id;
  packet.payload = request.payload;
  Send(channel, packet);
}

void Guest::ExpectNoPacket(GuestChannel& channel, const std::string& when) {
  Settle();
  trial_->Expect(channel.received.empty(),
                 absl::StrCat("no packet comes ", when));
}

void Guest::ExpectAlive(GuestChannel& channel) {
  const Bytes data = Pattern(40, ++echoes_);
  const ReceivedPacket answer = Do(channel, Command::kEcho, 0, echoes_, data);
  trial_->Expect(answer.payload == Payload(Command::kEcho, 0, echoes_, data),
                 "a request comes back with its bytes");
}

void Guest::ExpectFaultedAlone(GuestChannel& channel, GuestChannel& other) {
  Settle();
  ExpectAlive(other);
  const size_t before = channel.received.size();
  // Right again: an endpoint that goes on would find this one.
  channel.writer.set_write_index(channel.out.Load(kReadIndex) / 8 * 8 %
                                 channel.out.data_bytes());
  Ask(channel, Command::kEcho);
  Signal(channel);
  Settle();
  trial_->Expect(channel.received.size() == before,
                 "the host takes nothing more from a ring that was broken");
  ExpectAlive(other);
  Close(channel);
  uint32_t device = 0;
  for (const auto& [number, its] : relids_) {
    if (its == channel.relid) device = number;
  }
  if (!trial_->over()) ExpectAlive(Open(device));
  ExpectAlive(other);
}

}  // namespace ferrybus::conformance
