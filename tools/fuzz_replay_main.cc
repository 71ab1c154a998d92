// SPDX-License-Identifier: MIT

// A main() for fuzz targets where libFuzzer is not at hand: any compiler, any
// sanitizer, part of the ordinary test run.
//
//   <target>_fuzz_replay CORPUS_FILE...
//
// Each file is fed to LLVMFuzzerTestOneInput as it is, then cut short at up to
// 512 places, then with single bits flipped, then with a few thousand seeded
// random edits and splices.  The same seed gives the same inputs in the same
// order.  A crash prints the seed, the file, the mutation and the input bytes.
//
//   FERRYBUS_FUZZ_SEED=N   other random edits; also lifts the time limit, so
//                          that a repeated run reaches what the first reached.

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <system_error>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes);

namespace {

using Bytes = std::vector<uint8_t>;

constexpr uint64_t kDefaultSeed = 20260101;
constexpr std::chrono::milliseconds kTimeLimit(4000);
constexpr size_t kTruncationsMax = 512;
constexpr size_t kBitFlipsMax = 4096;
constexpr size_t kRandomEditsPerFile = 3000;
constexpr size_t kInputBytesMax = size_t{1} << 16;
constexpr size_t kCrashDumpBytesMax = 512;

// What is running now, for the crash report.
struct Current {
  uint64_t seed;
  const char* file;
  const char* mutation;
  size_t number;
  const uint8_t* data;
  size_t size_bytes;
};
Current current;

void Put(const char* text) {
  size_t length = 0;
  while (text[length] != '\0') ++length;
  if (write(STDERR_FILENO, text, length) < 0) return;
}

void PutNumber(uint64_t value) {
  char digits[21];
  size_t at = sizeof(digits) - 1;
  digits[at] = '\0';
  do {
    digits[--at] = static_cast<char>('0' + value % 10);
    value /= 10;
  } while (value != 0);
  Put(digits + at);
}

// Only async-signal-safe calls: it runs in a signal handler.
void ReportCrash(int signal_number) {
  static const char kHex[] = "0123456789abcdef";
  Put("\nfuzz replay: crashed on signal ");
  PutNumber(static_cast<uint64_t>(signal_number));
  Put("\n  file:     ");
  Put(current.file != nullptr ? current.file : "(none)");
  Put("\n  mutation: ");
  Put(current.mutation != nullptr ? current.mutation : "(none)");
  Put(" ");
  PutNumber(current.number);
  Put("\n  repeat:   FERRYBUS_FUZZ_SEED=");
  PutNumber(current.seed);
  Put(" and the same arguments\n  input (");
  PutNumber(current.size_bytes);
  Put(" bytes): ");
  const size_t shown = std::min(current.size_bytes, kCrashDumpBytesMax);
  for (size_t i = 0; i < shown; ++i) {
    const uint8_t byte = current.data[i];
    const char pair[] = {kHex[byte >> 4], kHex[byte & 15], '\0'};
    Put(pair);
  }
  Put(shown < current.size_bytes ? "...\n" : "\n");
  signal(signal_number, SIG_DFL);
  raise(signal_number);
}

// A sanitizer's own handlers print more, so they stay; it ends in SIGABRT.
void InstallCrashReport() {
  for (int number : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL}) {
    struct sigaction before = {};
    if (sigaction(number, nullptr, &before) != 0) continue;
    if (before.sa_handler == SIG_DFL) signal(number, &ReportCrash);
  }
}

class Replayer {
 public:
  Replayer(uint64_t seed, bool timed, std::vector<std::string> files)
      : seed_(seed), timed_(timed), files_(std::move(files)) {}

  // Returns false if a file could not be read.
  bool Load() {
    for (const std::string& file : files_) {
      std::ifstream stream(file, std::ios::binary);
      if (!stream) {
        std::fprintf(stderr, "fuzz replay: cannot read %s\n", file.c_str());
        return false;
      }
      inputs_.emplace_back(std::istreambuf_iterator<char>(stream),
                           std::istreambuf_iterator<char>());
    }
    return true;
  }

  void Run() {
    current.seed = seed_;
    started_ = std::chrono::steady_clock::now();
    Execute("empty input", 0, Bytes());
    // The files themselves come first: no time limit cuts them.
    for (size_t i = 0; i < inputs_.size(); ++i) {
      current.file = files_[i].c_str();
      Execute("as it is", 0, inputs_[i]);
    }
    for (size_t i = 0; i < inputs_.size(); ++i) {
      current.file = files_[i].c_str();
      random_.seed(seed_ + i);
      Truncate(i);
      FlipBits(i);
      EditAtRandom(i);
    }
  }

  size_t executions() const { return executions_; }
  size_t files_cut_short() const { return files_cut_short_; }

 private:
  // The copy has exactly the input's size, so that the address sanitizer sees
  // a read of one byte too many.
  void Execute(const char* mutation, size_t number, const Bytes& input) {
    const std::unique_ptr<uint8_t[]> copy(new uint8_t[input.size()]);
    std::copy(input.begin(), input.end(), copy.get());
    current.mutation = mutation;
    current.number = number;
    current.data = copy.get();
    current.size_bytes = input.size();
    (void)LLVMFuzzerTestOneInput(copy.get(), input.size());
    ++executions_;
  }

  // Each file has an equal share of the time limit.
  bool TimeIsUp(size_t file_index) const {
    if (!timed_) return false;
    const auto share = kTimeLimit * (file_index + 1) / inputs_.size();
    return std::chrono::steady_clock::now() - started_ > share;
  }

  void Truncate(size_t file_index) {
    const Bytes& input = inputs_[file_index];
    const size_t count = std::min(input.size(), kTruncationsMax);
    for (size_t i = 0; i < count && !TimeIsUp(file_index); ++i) {
      // Every position of a short input, evenly spread ones of a long one.
      const size_t size_bytes = i * input.size() / count;
      Execute("cut to bytes", size_bytes,
              Bytes(input.begin(), input.begin() + size_bytes));
    }
  }

  void FlipBits(size_t file_index) {
    Bytes input = inputs_[file_index];
    const size_t bit_count = input.size() * 8;
    const size_t count = std::min(bit_count, kBitFlipsMax);
    for (size_t i = 0; i < count && !TimeIsUp(file_index); ++i) {
      const size_t bit = bit_count <= kBitFlipsMax ? i : Below(bit_count);
      input[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
      Execute("flipped bit", bit, input);
      input[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
    }
  }

  void EditAtRandom(size_t file_index) {
    for (size_t i = 0; i < kRandomEditsPerFile; ++i) {
      if (TimeIsUp(file_index)) {
        ++files_cut_short_;
        return;
      }
      Bytes input = inputs_[file_index];
      const size_t edits = 1 + Below(8);
      for (size_t edit = 0; edit < edits; ++edit) EditOnce(input);
      if (input.size() > kInputBytesMax) input.resize(kInputBytesMax);
      Execute("random edit", i, input);
    }
  }

  void EditOnce(Bytes& input) {
    // Lengths, counts and indices break at their edges.
    static constexpr uint8_t kEdges[] = {0x00, 0x01, 0x02, 0x07, 0x08, 0x10,
                                         0x40, 0x7f, 0x80, 0xfe, 0xff};
    const size_t at = Below(input.size() + 1);
    switch (Below(6)) {
      case 0:
        if (at < input.size()) input[at] = static_cast<uint8_t>(random_());
        break;
      case 1:
        if (at < input.size()) input[at] = kEdges[Below(std::size(kEdges))];
        break;
      case 2:
        input.insert(input.begin() + at, 1 + Below(16),
                     static_cast<uint8_t>(random_()));
        break;
      case 3:
        input.erase(input.begin() + at,
                    input.begin() + std::min(input.size(), at + Below(16)));
        break;
      case 4:
        OverwriteWord(input, at);
        break;
      case 5:
        Splice(input, at);
        break;
    }
  }

  // A little-endian word of 2, 4 or 8 bytes with an edge value.
  void OverwriteWord(Bytes& input, size_t at) {
    static constexpr uint64_t kWords[] = {
        0,           1,           0x1000,      0x7fff'ffff,
        0x8000'0000, 0xffff'fff8, 0xffff'ffff, uint64_t{1} << 63,
        ~uint64_t{0}};
    const size_t width = size_t{2} << Below(3);
    uint64_t word = kWords[Below(std::size(kWords))];
    for (size_t i = 0; i < width && at + i < input.size(); ++i) {
      input[at + i] = static_cast<uint8_t>(word);
      word >>= 8;
    }
  }

  // Replaces the rest of `input` from `at` by a tail of another seed file.
  void Splice(Bytes& input, size_t at) {
    const Bytes& other = inputs_[Below(inputs_.size())];
    const size_t from = Below(other.size() + 1);
    input.resize(at);
    input.insert(input.end(), other.begin() + from, other.end());
  }

  // Not std::uniform_int_distribution: its results differ between libraries.
  size_t Below(size_t limit) { return limit == 0 ? 0 : random_() % limit; }

  const uint64_t seed_;
  const bool timed_;
  const std::vector<std::string> files_;
  std::vector<Bytes> inputs_;
  std::mt19937_64 random_;
  std::chrono::steady_clock::time_point started_;
  size_t executions_ = 0;
  size_t files_cut_short_ = 0;
};

// Arguments are files; a directory stands for all files below it.
std::vector<std::string> FilesOf(int argc, char** argv) {
  std::vector<std::string> files;
  for (int i = 1; i < argc; ++i) {
    std::error_code error;
    if (!std::filesystem::is_directory(argv[i], error)) {
      files.emplace_back(argv[i]);
      continue;
    }
    for (const auto& entry :
         std::filesystem::recursive_directory_iterator(argv[i], error)) {
      if (entry.is_regular_file()) files.push_back(entry.path().string());
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

int main(int argc, char** argv) {
  const char* const seed_text = std::getenv("FERRYBUS_FUZZ_SEED");
  const bool repeated = seed_text != nullptr && *seed_text != '\0';
  const uint64_t seed =
      repeated ? std::strtoull(seed_text, nullptr, 0) : kDefaultSeed;
  std::vector<std::string> files = FilesOf(argc, argv);
  if (files.empty()) {
    std::fprintf(stderr, "usage: %s CORPUS_FILE...\n", argv[0]);
    return 2;
  }
  const size_t file_count = files.size();
  std::printf("fuzz replay: %zu files, FERRYBUS_FUZZ_SEED=%llu\n", file_count,
              static_cast<unsigned long long>(seed));
  std::fflush(stdout);
  Replayer replayer(seed, /*timed=*/!repeated, std::move(files));
  if (!replayer.Load()) return 1;
  InstallCrashReport();
  replayer.Run();
  std::printf("fuzz replay: %zu executions, no crash%s\n",
              replayer.executions(),
              replayer.files_cut_short() > 0 ? " (time limit reached)" : "");
  return 0;
}
