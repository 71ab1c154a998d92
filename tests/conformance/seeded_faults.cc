// SPDX-License-Identifier: MIT
//
// The faults themselves: each a behaviour that a rule forbids.

#include <cstdlib>
#include <cstring>
#include <utility>

#include "ferrybus/channel/messages.h"
#include "ferrybus/savestate/channel.pb.h"
#include "ferrybus/savestate/frame.h"
#include "ferrybus/tests/conformance/faulty_endpoint.h"

namespace ferrybus::conformance {
namespace {

MessageType TypeOf(const Bytes& message) {
  uint32_t type = 0;
  if (message.size() >= sizeof(type)) {
    std::memcpy(&type, message.data(), sizeof(type));
  }
  return MessageType{type};
}

uint32_t WordAt(const Bytes& message, size_t offset) {
  uint32_t word = 0;
  if (offset + sizeof(word) <= message.size()) {
    std::memcpy(&word, message.data() + offset, sizeof(word));
  }
  return word;
}

void SetWord(Bytes& message, size_t offset, uint32_t word) {
  if (offset + sizeof(word) > message.size()) return;
  std::memcpy(message.data() + offset, &word, sizeof(word));
}

// Adds a packet to those that the host wrote.
void Append(GuestRing& ring, RawPacket packet) {
  const uint32_t at = ring.Load(kWriteIndex);
  const Bytes bytes = EncodePacket(packet, at);
  ring.Write(at, bytes);
  ring.Store(kWriteIndex,
             ring.Advance(at, static_cast<uint32_t>(bytes.size())));
}

// -- Messages ----------------------------------------------------------------

class LongOpenResult final : public FaultyEndpoint {
  using FaultyEndpoint::FaultyEndpoint;
  bool OnMessage(Bytes& message) override {
    if (TypeOf(message) == MessageType::kOpenChannelResult) message.resize(24);
    return true;
  }
};

class ForgetsOpenId final : public FaultyEndpoint {
  using FaultyEndpoint::FaultyEndpoint;
  bool OnMessage(Bytes& message) override {
    // Right for the many guests whose open id is the channel.
    if (TypeOf(message) == MessageType::kOpenChannelResult) {
      SetWord(message, 12, WordAt(message, 8));
    }
    return true;
  }
};

class OpensForeignGpadls final : public FaultyEndpoint {
  using FaultyEndpoint::FaultyEndpoint;
  bool OnPost(const Bytes& message) override {
    if (TypeOf(message) == MessageType::kOpenChannel) {
      const uint32_t owner = OwnerOf(WordAt(message, 16));
      is_foreign_ = owner != 0 && owner != WordAt(message, 8);
    }
    return true;
  }
  bool OnMessage(Bytes& message) override {
    if (TypeOf(message) == MessageType::kOpenChannelResult && is_foreign_) {
      SetWord(message, 16, 0);
    }
    return true;
  }
  bool is_foreign_ = false;
};

class AcceptsAnyVersion final : public FaultyEndpoint {
  using FaultyEndpoint::FaultyEndpoint;
  bool OnMessage(Bytes& message) override {
    if (TypeOf(message) == MessageType::kVersionResponse) {
      message[8] = std::byte{1};
    }
    return true;
  }
};

class OffersUnasked final : public FaultyEndpoint {
  using FaultyEndpoint::FaultyEndpoint;
  bool OnPost(const Bytes& message) override {
    if (TypeOf(message) == MessageType::kRequestOffers) return !asked_;
    asked_ &= TypeOf(message) != MessageType::kInitiateContact;
    return true;
  }
  bool OnMessage(Bytes& message) override {
    if (TypeOf(message) == MessageType::kVersionResponse && !asked_) {
      asked_ = true;
      Bytes request(8);
      SetWord(request, 0, static_cast<uint32_t>(MessageType::kRequestOffers));
      good().Post(1, request);
      (void)good().Run();
    }
    return true;
  }
  bool asked_ = false;
};

template <MessageType type>
class Swallows final : public FaultyEndpoint {
  using FaultyEndpoint::FaultyEndpoint;
  bool OnMessage(Bytes& message) override { return TypeOf(message) != type; }
};

class KeepsChannelsOverContact final : public FaultyEndpoint {
 public:
  using FaultyEndpoint::FaultyEndpoint;
  std::vector<Bytes> TakeMessages() override {
    std::vector<Bytes> messages = FaultyEndpoint::TakeMessages();
    if (std::exchange(owes_answer_, false)) {
      messages.push_back(answer_);
    }
    return messages;
  }

 private:
  bool OnPost(const Bytes& message) override {
    if (TypeOf(message) == MessageType::kRequestOffers) return true;
    if (TypeOf(message) != MessageType::kInitiateContact || answer_.empty()) {
      return true;
    }
    owes_answer_ = true;
    return false;
  }
  bool OnMessage(Bytes& message) override {
    if (TypeOf(message) == MessageType::kVersionResponse &&
        message[8] != std::byte{0}) {
      answer_ = message;
    }
    return true;
  }
  Bytes answer_;
  bool owes_answer_ = false;
};

// -- Rings and signals -------------------------------------------------------

class AnswersTwice final : public FaultyEndpoint {
  using FaultyEndpoint::FaultyEndpoint;
  void OnPacket(Rings& rings, uint32_t at) override {
    const Bytes head = rings.in.Read(at, 16);
    last_.type = static_cast<uint16_t>(WordAt(head, 0));
    std::memcpy(&last_.transaction_id, head.data() + 8, 8);
  }
  void AfterRun(uint32_t, Rings& rings, bool wrote) override {
    if (!wrote || last_.type != kCompletionPacket) return;
    last_.flags = 0;
    Append(rings.in, last_);
  }
  RawPacket last_;
};

class AnswersUnasked final : public FaultyEndpoint {
  using FaultyEndpoint::FaultyEndpoint;
  void BeforeRun(Rings& rings) override {
    const uint32_t at = rings.out.Load(kReadIndex);
    if (at >= rings.out.data_bytes() || at == rings.out.Load(kWriteIndex)) {
      return;
    }
    const Bytes head = rings.out.Read(at, 16);
    if (WordAt(head, 0) == (0x20000u | kInBand) && WordAt(head, 4) >> 16 == 0) {
      is_due_ = true;
      std::memcpy(&answer_.transaction_id, head.data() + 8, 8);
    }
  }
  void AfterRun(uint32_t, Rings& rings, bool) override {
    if (!std::exchange(is_due_, false)) return;
    answer_.type = kCompletionPacket;
    answer_.flags = 0;
    Append(rings.in, answer_);
  }
  RawPacket answer_;
  bool is_due_ = false;
};

class CutsTransactionIds final : public FaultyEndpoint {
  using FaultyEndpoint::FaultyEndpoint;
  void OnPacket(Rings& rings, uint32_t at) override {
    rings.in.Write(rings.in.Advance(at, 12), Bytes(4));
  }
};

class LeaksPadding final : public FaultyEndpoint {
  using FaultyEndpoint::FaultyEndpoint;
  void OnPacket(Rings& rings, uint32_t at) override {
    const uint32_t bytes = (WordAt(rings.in.Read(at, 8), 4) & 0xffff) * 8;
    const uint32_t last = rings.in.Advance(at, bytes - 1);
    if (bytes > 16 && rings.in.Read(last, 1)[0] == std::byte{0}) {
      rings.in.Write(last, Bytes(1, std::byte{0xa5}));
    }
  }
};

class SwapsAnswers final : public FaultyEndpoint {
  using FaultyEndpoint::FaultyEndpoint;
  void OnPacket(Rings& rings, uint32_t at) override {
    const uint32_t bytes = (WordAt(rings.in.Read(at, 8), 4) & 0xffff) * 8;
    if (previous_bytes_ == bytes) {
      const Bytes mine = rings.in.Read(at, bytes);
      rings.in.Write(at, rings.in.Read(previous_, bytes));
      rings.in.Write(previous_, mine);
      previous_bytes_ = 0;
    } else {
      previous_ = at;
      previous_bytes_ = bytes;
    }
  }
  void AfterRun(uint32_t, Rings&, bool) override { previous_bytes_ = 0; }
  uint32_t previous_ = 0;
  uint32_t previous_bytes_ = 0;
};

class ForgetsSignals final : public FaultyEndpoint {
 public:
  using FaultyEndpoint::FaultyEndpoint;
  std::vector<uint32_t> TakeSignals() override {
    (void)good().TakeSignals();
    return {};
  }
};

class IgnoresTheMask final : public FaultyEndpoint {
 public:
  using FaultyEndpoint::FaultyEndpoint;
  std::vector<uint32_t> TakeSignals() override {
    std::vector<uint32_t> signals = good().TakeSignals();
    for (const uint32_t channel : std::exchange(wrong_, {})) {
      signals.push_back(channel);
    }
    return signals;
  }

 private:
  void AfterRun(uint32_t channel, Rings& rings, bool wrote) override {
    if (wrote && rings.in.Load(kInterruptMask) != 0) wrong_.push_back(channel);
  }
  std::vector<uint32_t> wrong_;
};

class SignalsEachPacket final : public FaultyEndpoint {
 public:
  using FaultyEndpoint::FaultyEndpoint;
  std::vector<uint32_t> TakeSignals() override {
    std::vector<uint32_t> signals = good().TakeSignals();
    for (const uint32_t channel : std::exchange(more_, {})) {
      signals.push_back(channel);
    }
    return signals;
  }

 private:
  void AfterRun(uint32_t channel, Rings& rings, bool wrote) override {
    if (wrote && rings.in.Load(kInterruptMask) == 0) more_.push_back(channel);
  }
  std::vector<uint32_t> more_;
};

class FaultsAllChannels final : public FaultyEndpoint {
 public:
  using FaultyEndpoint::FaultyEndpoint;
  void Signal(uint32_t channel_id) override {
    if (!is_faulted_) good().Signal(channel_id);
  }

 private:
  void BeforeRun(Rings& rings) override {
    const uint32_t index = rings.out.Load(kWriteIndex);
    is_faulted_ |= index >= rings.out.data_bytes() || index % 8 != 0;
  }
  bool is_faulted_ = false;
};

class RepairsBadPackets final : public FaultyEndpoint {
  using FaultyEndpoint::FaultyEndpoint;
  void BeforeRun(Rings& rings) override {
    const uint32_t at = rings.out.Load(kReadIndex);
    if (at >= rings.out.data_bytes() || at == rings.out.Load(kWriteIndex)) {
      return;
    }
    Bytes head = rings.out.Read(at, 8);
    const uint32_t offset = WordAt(head, 0) >> 16;
    const uint32_t length = WordAt(head, 4) & 0xffff;
    if (length < 2 || offset <= length) return;
    SetWord(head, 0, (WordAt(head, 0) & 0xffff) | 0x20000);
    rings.out.Write(at, head);
  }
};

class WritesAfterClose final : public FaultyEndpoint {
  using FaultyEndpoint::FaultyEndpoint;
  void AfterRun(uint32_t, Rings& rings, bool) override {
    if (!rings.is_open) rings.in.Write(8, Bytes(8, std::byte{++writes_}));
  }
  uint8_t writes_ = 0;
};

// -- Moves -------------------------------------------------------------------

// Changes the channels of saved bytes on their way back.
class ChangesSaved : public FaultyEndpoint {
 public:
  using FaultyEndpoint::FaultyEndpoint;
  absl::Status Restore(const std::string& saved) override {
    return good().Restore(Changed(saved));
  }

 private:
  virtual void Change(savestate::v1::EndpointState& state) = 0;

  std::string Changed(const std::string& saved) {
    const auto frame = savestate::Frame::Parse(
        {reinterpret_cast<const std::byte*>(saved.data()), saved.size()});
    if (!frame.ok()) return saved;
    savestate::FrameWriter writer{std::string(frame->producer())};
    for (const savestate::Section& section : frame->sections()) {
      std::string body(reinterpret_cast<const char*>(section.body.data()),
                       section.body.size());
      savestate::v1::ChannelState state;
      if (section.name == "channel" && state.ParseFromString(body)) {
        Change(*state.mutable_endpoint());
        body = state.SerializeAsString();
      }
      writer.AddSection(std::string(section.name), section.instance,
                        section.version, section.kind, body);
    }
    return writer.Finish().value_or(saved);
  }
};

class LosesQueuedPacket final : public ChangesSaved {
  using ChangesSaved::ChangesSaved;
  void Change(savestate::v1::EndpointState& state) override {
    if (state.queued_size() > 1) state.mutable_queued()->DeleteSubrange(1, 1);
  }
};

class SwapsQueuedPackets final : public ChangesSaved {
  using ChangesSaved::ChangesSaved;
  void Change(savestate::v1::EndpointState& state) override {
    if (state.queued_size() > 2) state.mutable_queued()->SwapElements(1, 2);
  }
};

class LosesInFlight final : public ChangesSaved {
  using ChangesSaved::ChangesSaved;
  void Change(savestate::v1::EndpointState& state) override {
    if (state.incoming_size() > 0) state.mutable_incoming()->RemoveLast();
  }
};

class SwapsTransactionIds final : public ChangesSaved {
  using ChangesSaved::ChangesSaved;
  void Change(savestate::v1::EndpointState& state) override {
    if (state.incoming_size() < 2) return;
    const uint64_t first = state.incoming(0).transaction_id();
    state.mutable_incoming(0)->set_transaction_id(
        state.incoming(1).transaction_id());
    state.mutable_incoming(1)->set_transaction_id(first);
  }
};

class LosesAwaiting final : public ChangesSaved {
  using ChangesSaved::ChangesSaved;
  void Change(savestate::v1::EndpointState& state) override {
    if (state.awaiting_size() > 0) state.mutable_awaiting()->RemoveLast();
  }
};

class RestoresInSilence final : public FaultyEndpoint {
 public:
  using FaultyEndpoint::FaultyEndpoint;
  absl::Status Restore(const std::string& saved) override {
    const absl::Status status = good().Restore(saved);
    (void)good().Run();
    (void)good().TakeSignals();
    return status;
  }
};

class LosesMessagesInAMove final : public FaultyEndpoint {
 public:
  using FaultyEndpoint::FaultyEndpoint;
  absl::Status Restore(const std::string& saved) override {
    const absl::Status status = good().Restore(saved);
    (void)good().Run();
    (void)good().TakeMessages();
    return status;
  }
};

class SavesDiffer final : public FaultyEndpoint {
 public:
  using FaultyEndpoint::FaultyEndpoint;
  // A time of day in the file would do this.
  absl::StatusOr<std::string> Save() override {
    absl::StatusOr<std::string> saved = good().Save();
    if (saved.ok()) *saved += static_cast<char>('a' + saves_++ % 26);
    return saved;
  }
  absl::Status Restore(const std::string& saved) override {
    return good().Restore(saved.substr(0, saved.size() - 1));
  }

 private:
  int saves_ = 0;
};

class RunsOnAfterSave final : public FaultyEndpoint {
 public:
  using FaultyEndpoint::FaultyEndpoint;
  absl::StatusOr<std::string> Save() override {
    absl::StatusOr<std::string> saved = good().Save();
    if (saved.ok()) (void)good().Resume();
    return saved;
  }
};

class TakesChangedBytes final : public FaultyEndpoint {
 public:
  using FaultyEndpoint::FaultyEndpoint;
  absl::StatusOr<std::string> Save() override {
    absl::StatusOr<std::string> saved = good().Save();
    if (saved.ok()) last_ = *saved;
    return saved;
  }
  absl::Status Restore(const std::string& saved) override {
    return good().Restore(saved.size() == last_.size() ? last_ : saved);
  }

 private:
  std::string last_;
};

class Dies final : public FaultyEndpoint {
  using FaultyEndpoint::FaultyEndpoint;
  bool OnPost(const Bytes& message) override {
    if (TypeOf(message) == MessageType::kModifyChannel) std::abort();
    return true;
  }
};

class Hangs final : public FaultyEndpoint {
  using FaultyEndpoint::FaultyEndpoint;
  bool OnPost(const Bytes& message) override {
    while (TypeOf(message) == MessageType::kRelidReleased) {
    }
    return true;
  }
};

template <typename Fault>
std::unique_ptr<Endpoint> Make(std::unique_ptr<Endpoint> good,
                               const MemfdGuestMemory& ram) {
  return std::make_unique<Fault>(std::move(good), ram);
}

constexpr SeededFault kFaults[] = {
    {"long-open-result", "OpenIsAnswered", Make<LongOpenResult>},
    {"forgets-open-id", "OpenOfNoChannelIsRefused", Make<ForgetsOpenId>},
    {"opens-foreign-gpadls", "OpenWithForeignGpadlIsRefused",
     Make<OpensForeignGpadls>},
    {"accepts-any-version", "UnknownVersionIsRefused", Make<AcceptsAnyVersion>},
    {"offers-unasked", "OffersComeWhenAskedFor", Make<OffersUnasked>},
    {"forgets-teardowns", "TeardownIsAnswered",
     Make<Swallows<MessageType::kGpadlTorndown>>},
    {"forgets-rescinds", "RescindIsTold",
     Make<Swallows<MessageType::kRescindChannelOffer>>},
    {"forgets-unload", "UnloadIsAnswered",
     Make<Swallows<MessageType::kUnloadResponse>>},
    {"keeps-channels-over-contact", "ContactResetsTheConnection",
     Make<KeepsChannelsOverContact>},
    {"answers-twice", "RequestIsAnsweredOnce", Make<AnswersTwice>},
    {"answers-unasked", "UnaskedPacketsHaveNoCompletion", Make<AnswersUnasked>},
    {"cuts-transaction-ids", "CompletionHasItsTransaction",
     Make<CutsTransactionIds>},
    {"leaks-padding", "PaddingIsZero", Make<LeaksPadding>},
    {"swaps-answers", "AnswersKeepTheirOrder", Make<SwapsAnswers>},
    {"forgets-signals", "EmptyRingIsSignalled", Make<ForgetsSignals>},
    {"ignores-the-mask", "MaskedRingIsNotSignalled", Make<IgnoresTheMask>},
    {"signals-each-packet", "UnreadRingIsNotSignalled",
     Make<SignalsEachPacket>},
    {"faults-all-channels", "WriteIndexBeyondTheRing", Make<FaultsAllChannels>},
    {"repairs-bad-packets", "LengthBelowOffset", Make<RepairsBadPackets>},
    {"writes-after-close", "ClosedRingIsNotTouched", Make<WritesAfterClose>},
    {"loses-queued-packet", "QueuedAnswersSurvive", Make<LosesQueuedPacket>},
    {"swaps-queued-packets", "QueuedPacketsSurvive", Make<SwapsQueuedPackets>},
    {"loses-in-flight", "InFlightIsAnsweredOnce", Make<LosesInFlight>},
    {"swaps-transaction-ids", "InFlightKeepsItsIds", Make<SwapsTransactionIds>},
    {"loses-awaiting", "AwaitingRequestsSurvive", Make<LosesAwaiting>},
    {"restores-in-silence", "BothSidesAreSignalled", Make<RestoresInSilence>},
    {"loses-messages-in-a-move", "MessagesSurviveTheMove",
     Make<LosesMessagesInAMove>},
    {"saves-differ", "SaveIsRepeatable", Make<SavesDiffer>},
    {"runs-on-after-save", "SavedEndpointStandsStill", Make<RunsOnAfterSave>},
    {"takes-changed-bytes", "ChangedBytesAreRefused", Make<TakesChangedBytes>},
    {"dies", "ModifyIsAnswered", Make<Dies>},
    {"hangs", "ReleaseOfAnOfferedNumberIsRefused", Make<Hangs>},
};

}  // namespace

absl::Span<const SeededFault> AllFaults() { return kFaults; }

}  // namespace ferrybus::conformance
