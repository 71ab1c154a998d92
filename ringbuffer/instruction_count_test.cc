// SPDX-License-Identifier: MIT
//
// How many instructions the ring's hot path takes: golden numbers, reviewed
// when they change, and the same for an access policy that only forwards.
//
// Each operation is a function of its own that does nothing else, so that its
// number holds the loading of the arguments and no surrounding code.  A call
// that does nothing is taken off.

#include <signal.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/types/span.h"
#include "ferrybus/ringbuffer/asymmetric_access.h"
#include "ferrybus/ringbuffer/memory_access.h"
#include "ferrybus/ringbuffer/ring_consumer.h"
#include "ferrybus/ringbuffer/ring_producer.h"
#include "ferrybus/ringbuffer/ring_view.h"
#include "ferrybus/ringbuffer/testing/instruction_counter.h"
#include "ferrybus/ringbuffer/testing/test_ring.h"
#include "ferrybus/ringbuffer/wire.h"
#include "gtest/gtest.h"

namespace ferrybus::ringbuffer {

// ProductionAccess, once more, by composition.  With a name that other files
// could use, like ProductionAccess: the compiler inlines local names more.
class ForwardingAccess {
 public:
  uint32_t LoadRelaxed(const uint32_t* word) const {
    return memory_.LoadRelaxed(word);
  }
  uint32_t LoadAcquire(const uint32_t* word) const {
    return memory_.LoadAcquire(word);
  }
  void StoreRelaxed(uint32_t* word, uint32_t value) const {
    memory_.StoreRelaxed(word, value);
  }
  void StoreRelease(uint32_t* word, uint32_t value) const {
    memory_.StoreRelease(word, value);
  }
  static constexpr bool kInPlace = ProductionAccess::kInPlace;
  void SleepFence() const { memory_.SleepFence(); }
  void FullFence() const { memory_.FullFence(); }
  void CopyFrom(void* to, const std::byte* shared, size_t bytes) const {
    memory_.CopyFrom(to, shared, bytes);
  }
  void CopyTo(std::byte* shared, const void* from, size_t bytes) const {
    memory_.CopyTo(shared, from, bytes);
  }
  void PrefetchForRead(const std::byte* shared) const {
    memory_.PrefetchForRead(shared);
  }
  void PrefetchForWrite(const std::byte* shared) const {
    memory_.PrefetchForWrite(shared);
  }

 private:
  [[no_unique_address]] ProductionAccess memory_;
};

namespace {

using testing::Bytes;
using testing::CountInstructions;
using testing::MarkStretch;
using testing::TestRing;

constexpr char kGoldenFile[] = "ringbuffer/instruction_counts.txt";
// Set, the test writes this file and compares nothing.
constexpr char kUpdateVariable[] = "FERRYBUS_UPDATE_GOLDEN";
constexpr char kUpdateCommand[] =
    "bazel test //ringbuffer:instruction_count_test "
    "--test_env=FERRYBUS_UPDATE_GOLDEN=$PWD/ringbuffer/instruction_counts.txt";

#if defined(__clang__)
constexpr char kCompiler[] = "clang " __clang_version__;
#else
constexpr char kCompiler[] = "gcc " __VERSION__;
#endif

constexpr bool IsSanitized() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
  return true;
#endif
#endif
  return false;
}

// Both ends of a ring, and what the operations take and give.
template <class Access>
struct Bed {
  explicit Bed(Access access)
      : producer(ring.view(), access), consumer(ring.view(), 4096, access) {}

  void Stage(uint32_t payload_bytes, int packets = 1) {
    for (int i = 0; i < packets; ++i) {
      result = static_cast<int>(
          producer.Write({}, {}, absl::MakeSpan(bytes).first(payload_bytes)));
    }
  }
  void Drain() {
    while (consumer.Next(&packet) == ReadResult::kOk) {
    }
    (void)consumer.Release();
  }

  TestRing ring{65536};
  BasicRingProducer<Access> producer;
  BasicRingConsumer<Access> consumer;
  typename BasicRingConsumer<Access>::PacketView packet;
  Bytes bytes = Bytes(4096);
  absl::Span<const std::byte> payload;
  uint64_t transaction_id = 1;
  int result = 0;
};

template <class Access>
struct Operation {
  using Function = void (*)(Bed<Access>&);

  const char* name;
  Function set_up;   // once
  Function prepare;  // before each run
  Function run;
  int expected;  // Bed::result afterwards
};

constexpr int kUnset = -1;
constexpr int kOk = 0;  // WriteResult and ReadResult
constexpr int kYes = 1;
constexpr int kNo = 0;
// The list of one guest memory range of one page, behind the descriptor.
constexpr uint32_t kOneRangeBytes = 24;

// The operations.  Flattened: what the compiler inlines by itself depends on
// the rest of the file.

template <class Access, PacketType kType, uint32_t kExtensionBytes = 0>
[[gnu::flatten]] void Write(Bed<Access>& bed) {
  bed.result = static_cast<int>(
      bed.producer.Write({kType, kFlagCompletionRequested, bed.transaction_id},
                         {bed.bytes.data(), kExtensionBytes}, bed.payload));
}

template <class Access>
[[gnu::flatten]] void WriteKnownSize(Bed<Access>& bed) {
  bed.result = static_cast<int>(
      bed.producer.Write({PacketType::kDataInBand, 0, bed.transaction_id}, {},
                         {bed.bytes.data(), 64}));
}

template <class Access>
[[gnu::flatten]] void WriteBatch(Bed<Access>& bed) {
  bed.result = static_cast<int>(
      bed.producer
          .WriteBatch(
              8, {},
              [&bed](uint32_t i) {
                return OutgoingPacket{{.transaction_id = i}, {}, bed.payload};
              })
          .result);
}

template <class Access>
[[gnu::flatten]] void Publish(Bed<Access>& bed) {
  bed.result = bed.producer.Publish();
}

template <class Access>
[[gnu::flatten]] void PublishIfDue(Bed<Access>& bed) {
  bed.result = bed.producer.PublishIfDue({});
}

template <class Access>
[[gnu::flatten]] void Next(Bed<Access>& bed) {
  bed.result = static_cast<int>(bed.consumer.Next(&bed.packet));
}

template <class Access>
[[gnu::flatten]] void TakeBatch(Bed<Access>& bed) {
  bed.result = static_cast<int>(bed.consumer.TakeBatch(
      {.packets = 8}, [&bed](const BasicPacketView<Access>& packet) {
        bed.transaction_id += packet.transaction_id;
      }));
}

template <class Access>
[[gnu::flatten]] void Release(Bed<Access>& bed) {
  bed.result = bed.consumer.Release();
}

template <class Access>
void Nothing(Bed<Access>&) {}

// A batch has begun; the payload has this size, which the compiler is not told.
template <class Access, uint32_t kPayloadBytes>
void BeginBatch(Bed<Access>& bed) {
  bed.Stage(64);
  bed.payload = absl::MakeSpan(bed.bytes).first(kPayloadBytes);
}

template <class Access>
std::vector<Operation<Access>> Writes() {
  using B = Bed<Access>;
  constexpr auto kInBand = PacketType::kDataInBand;
  constexpr auto kGpaDirect = PacketType::kDataUsingGpaDirect;
  const auto nothing = Nothing<Access>;
  return {
      {"Write, 8 bytes", BeginBatch<Access, 8>, nothing, Write<Access, kInBand>,
       kOk},
      {"Write, 64 bytes", BeginBatch<Access, 64>, nothing,
       Write<Access, kInBand>, kOk},
      {"Write, 64 bytes, size known when compiled", BeginBatch<Access, 64>,
       nothing, WriteKnownSize<Access>, kOk},
      {"Write, 64 bytes, first of a batch",
       [](B& bed) { bed.payload = absl::MakeSpan(bed.bytes).first(64); },
       [](B& bed) { (void)bed.producer.Publish(); }, Write<Access, kInBand>,
       kOk},
      {"WriteBatch, 8 packets of 64 bytes", BeginBatch<Access, 64>, nothing,
       WriteBatch<Access>, kOk},
      {"Write, 1024 bytes", BeginBatch<Access, 1024>, nothing,
       Write<Access, kInBand>, kOk},
      {"Write, completion of 16 bytes", BeginBatch<Access, 16>, nothing,
       Write<Access, PacketType::kCompletion>, kOk},
      {"Write, GPA direct, one range and 64 bytes", BeginBatch<Access, 64>,
       nothing, Write<Access, kGpaDirect, kOneRangeBytes>, kOk},
  };
}

template <class Access>
std::vector<Operation<Access>> Publications() {
  using B = Bed<Access>;
  return {
      {"Publish, peer masks signals",
       [](B& bed) { bed.consumer.MaskSignals(); },
       [](B& bed) { bed.Stage(64); }, Publish<Access>, kNo},
      {"Publish, peer is awake",
       [](B& bed) {
         bed.Stage(64);
         (void)bed.producer.Publish();
       },
       [](B& bed) { bed.Stage(64); }, Publish<Access>, kNo},
      {"Publish, peer is idle: signal", Nothing<Access>,
       [](B& bed) {
         bed.Drain();
         bed.Stage(64);
       },
       Publish<Access>, kYes},
      {"PublishIfDue, busy peer: not yet",
       [](B& bed) {
         bed.Stage(64);
         (void)bed.producer.Publish();
       },
       [](B& bed) { bed.Stage(64); }, PublishIfDue<Access>, kNo},
      {"PublishIfDue, idle peer: signal", Nothing<Access>,
       [](B& bed) {
         bed.Drain();
         bed.Stage(64);
       },
       PublishIfDue<Access>, kYes},
  };
}

template <class Access>
std::vector<Operation<Access>> Reads() {
  using B = Bed<Access>;
  const auto nothing = Nothing<Access>;
  return {
      {"Next, shaped as the one before",
       [](B& bed) {
         bed.Stage(64, 100);
         (void)bed.producer.Publish();
         Next(bed);
       },
       nothing, Next<Access>, kOk},
      {"TakeBatch, 8 packets shaped alike",
       [](B& bed) {
         bed.Stage(64, 100);
         (void)bed.producer.Publish();
       },
       nothing, TakeBatch<Access>, kOk},
      {"Next, of another shape",
       [](B& bed) {
         for (int i = 0; i < 50; ++i) {
           bed.Stage(64);
           bed.Stage(72);
         }
         (void)bed.producer.Publish();
         Next(bed);
       },
       nothing, Next<Access>, kOk},
      {"Next, first of a batch", nothing,
       [](B& bed) {
         bed.Drain();
         bed.Stage(64);
         (void)bed.producer.Publish();
       },
       Next<Access>, kOk},
      {"Next, nothing there", nothing, nothing, Next<Access>,
       static_cast<int>(ReadResult::kEmpty)},
      {"Release, nobody waits for room",
       [](B& bed) {
         bed.Stage(64, 100);
         (void)bed.producer.Publish();
       },
       Next<Access>, Release<Access>, kNo},
  };
}

template <class Access>
std::vector<Operation<Access>> AllOperations() {
  std::vector<Operation<Access>> all = {
      {"a call", Nothing<Access>, Nothing<Access>, Nothing<Access>, kUnset}};
  for (const auto& some :
       {Writes<Access>(), Publications<Access>(), Reads<Access>()}) {
    all.insert(all.end(), some.begin(), some.end());
  }
  return all;
}

// The first one learns the shape of a packet, and is not counted.
constexpr int kRuns = 5;

// The marked stretches of one operation.
template <class Access>
bool RunMarked(const Operation<Access>& operation, Access access) {
  Bed<Access> bed(access);
  operation.set_up(bed);
  for (int i = 0; i < kRuns; ++i) {
    operation.prepare(bed);
    typename Operation<Access>::Function run = operation.run;
    asm("" : "+r"(run));  // a call, also where it could be inlined
    bed.result = kUnset;
    MarkStretch();
    run(bed);
    MarkStretch();
    if (bed.result == operation.expected) continue;
    std::fprintf(stderr, "%s: result %d, expected %d\n", operation.name,
                 bed.result, operation.expected);
    return false;
  }
  return true;
}

struct Count {
  std::string operation;
  uint32_t instructions;
};

template <class Access>
absl::StatusOr<std::vector<Count>> CountAll(Access access) {
  const std::vector<Operation<Access>> operations = AllOperations<Access>();
  const auto stretches = CountInstructions([&] {
    for (const auto& operation : operations) {
      if (!RunMarked(operation, access)) return false;
    }
    return true;
  });
  if (!stretches.ok()) return stretches.status();
  if (stretches->size() != operations.size() * kRuns) {
    return absl::InternalError(absl::StrCat(stretches->size(), " stretches"));
  }
  const uint32_t call = stretches->at(1);
  std::vector<Count> counts;
  for (size_t i = 1; i < operations.size(); ++i) {
    const auto runs =
        absl::MakeSpan(*stretches).subspan(i * kRuns + 1, kRuns - 1);
    for (const uint32_t run : runs) {
      if (run == runs[0]) continue;
      return absl::InternalError(
          absl::StrCat(operations[i].name, " took ", runs[0], ", then ", run));
    }
    counts.push_back({operations[i].name, runs[0] - call});
  }
  return counts;
}

constexpr char kHead[] =
    "# Instructions of the ring's hot path; instruction_count_test.cc counts\n"
    "# them and says how.  Packets are written within a batch, payload sizes\n"
    "# are not known when compiled, unless a row says otherwise.  The columns\n"
    "# are access policies: ProductionAccess, AsymmetricAccess (armed).\n";
constexpr int kNameColumns = 45;

std::string CompilerLine() {
  return absl::StrCat("compiler: ", kCompiler, " -O2 -DNDEBUG\n");
}

std::string Format(const std::vector<Count>& production,
                   const std::vector<Count>& asymmetric) {
  std::string text = absl::StrCat(kHead, CompilerLine(), "\n");
  absl::StrAppendFormat(&text, "%-*s%12s%12s\n", kNameColumns, "operation",
                        "production", "asymmetric");
  for (size_t i = 0; i < production.size(); ++i) {
    absl::StrAppendFormat(&text, "%-*s%12d%12d\n", kNameColumns,
                          production[i].operation, production[i].instructions,
                          asymmetric[i].instructions);
  }
  return text;
}

// The numbers of each row; other lines are rows as well, and do no harm.
std::map<std::string, std::string> RowsOf(const std::string& text) {
  std::map<std::string, std::string> rows;
  const std::vector<std::string> lines = absl::StrSplit(text, '\n');
  for (const std::string& line : lines) {
    if (line.size() > kNameColumns) {
      rows[line.substr(0, kNameColumns)] = line.substr(kNameColumns);
    }
  }
  return rows;
}

// Each row that differs, as it was and as it is.
std::string Changes(const std::string& was, const std::string& is) {
  std::map<std::string, std::string> old_rows = RowsOf(was);
  std::map<std::string, std::string> new_rows = RowsOf(is);
  for (const auto& row : old_rows) new_rows.insert({row.first, "(none)"});
  std::string table;
  for (const auto& [name, now] : new_rows) {
    const auto old_row = old_rows.insert({name, "(none)"}).first;
    if (old_row->second == now) continue;
    absl::StrAppendFormat(&table, "%s was %24s\n%*s is  %24s\n", name,
                          old_row->second, kNameColumns, "", now);
  }
  return table;
}

std::string ReadGolden() {
  std::ifstream file(kGoldenFile);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

class InstructionCountTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (IsSanitized()) GTEST_SKIP() << "sanitizers add instructions";
    const auto production = CountAll(ProductionAccess());
    if (absl::IsUnimplemented(production.status())) {
      GTEST_SKIP() << production.status();
    }
    ASSERT_TRUE(production.ok()) << production.status();
    production_ = *production;
  }

  std::vector<Count> production_;
};

TEST_F(InstructionCountTest, CountsWhatIsBetweenTheMarks) {
  const auto counts = CountInstructions([] {
    MarkStretch();
    MarkStretch();
    asm volatile("nop");
    MarkStretch();
    asm volatile("nop; nop; nop");
    MarkStretch();
    return true;
  });
  ASSERT_TRUE(counts.ok()) << counts.status();
  EXPECT_EQ(*counts, (std::vector<uint32_t>{0, 3}));
}

TEST_F(InstructionCountTest, CodeThatDoesNotEndWellHasNoCounts) {
  bool (*const bodies[])() = {
      [] { return false; },
      [] { return raise(SIGTERM) == 0; },
      [] {
        MarkStretch();
        return true;
      },
  };
  for (const auto body : bodies) {
    EXPECT_EQ(CountInstructions(body).status().code(),
              absl::StatusCode::kInternal);
  }
}

TEST_F(InstructionCountTest, TheHotPathTakesTheReviewedNumbers) {
  const auto access = AsymmetricAccess::Register(FenceScope::kProcess);
  if (!access.ok()) GTEST_SKIP() << access.status();
  const auto asymmetric = CountAll(*access);
  ASSERT_TRUE(asymmetric.ok()) << asymmetric.status();
  const std::string text = Format(production_, *asymmetric);

  if (const char* path = std::getenv(kUpdateVariable)) {
    std::ofstream file(path);
    file << text;
    file.close();
    ASSERT_TRUE(file.good()) << "cannot write " << path;
    return;
  }
  const std::string golden = ReadGolden();
  ASSERT_FALSE(golden.empty()) << "cannot read " << kGoldenFile;
  if (golden.find(CompilerLine()) == std::string::npos) {
    GTEST_SKIP() << "the golden numbers are another compiler's; "
                 << CompilerLine() << "says\n"
                 << text;
  }
  EXPECT_TRUE(golden == text)
      << Changes(golden, text) << "If that is intended: " << kUpdateCommand;
}

TEST_F(InstructionCountTest, APolicyCostsNothing) {
  const auto forwarding = CountAll(ForwardingAccess());
  ASSERT_TRUE(forwarding.ok()) << forwarding.status();
  for (size_t i = 0; i < production_.size(); ++i) {
    EXPECT_EQ((*forwarding)[i].instructions, production_[i].instructions)
        << production_[i].operation;
  }
}

}  // namespace
}  // namespace ferrybus::ringbuffer
