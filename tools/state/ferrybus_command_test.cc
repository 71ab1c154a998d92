// SPDX-License-Identifier: MIT
//
// The program itself, as people and scripts run it: exit codes, standard
// output and standard error, files and folders.

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "ferrybus/savestate/checkpoint.h"
#include "ferrybus/savestate/frame_fixup.h"
#include "ferrybus/savestate/seal.h"
#include "ferrybus/tools/state/describe.h"
#include "ferrybus/tools/state/state_sections.h"
#include "ferrybus/tools/state/state_test_util.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ferrybus::state_tool {
namespace {

using ::testing::HasSubstr;

constexpr char kProgram[] = "tools/state/ferrybus";
constexpr char kGolden[] = "savestate/golden";

std::string ReadText(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

struct Result {
  int code = -1;
  std::string out;
  std::string err;
};

class CommandTest : public ::testing::Test {
 protected:
  CommandTest() {
    std::string pattern = ::testing::TempDir() + "/ferrybusXXXXXX";
    folder_ = mkdtemp(pattern.data());
  }
  ~CommandTest() override { std::filesystem::remove_all(folder_); }

  std::string Path(const std::string& name) const {
    return folder_ + "/" + name;
  }
  std::string Write(const std::string& name, const std::string& bytes) {
    std::ofstream(Path(name), std::ios::binary) << bytes;
    return Path(name);
  }

  // `ferrybus state ARGUMENTS`, `input` on standard input.
  Result Run(const std::vector<std::string>& arguments,
             const std::string& input = "/dev/null") {
    const pid_t child = fork();
    if (child == 0) {
      Redirect(input, O_RDONLY, STDIN_FILENO);
      Redirect(Path("out"), O_WRONLY | O_CREAT | O_TRUNC, STDOUT_FILENO);
      Redirect(Path("err"), O_WRONLY | O_CREAT | O_TRUNC, STDERR_FILENO);
      std::vector<const char*> argv = {kProgram, "state"};
      for (const std::string& each : arguments) argv.push_back(each.c_str());
      argv.push_back(nullptr);
      execv(kProgram, const_cast<char**>(argv.data()));
      _exit(127);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status),
            ReadText(Path("out")), ReadText(Path("err"))};
  }

 private:
  static void Redirect(const std::string& path, int flags, int to) {
    const int file = open(path.c_str(), flags, 0600);
    if (file < 0 || dup2(file, to) < 0) _exit(126);
  }

  std::string folder_;
};

// -- Golden files ------------------------------------------------------------

TEST_F(CommandTest, InspectsEveryGoldenFile) {
  size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kGolden)) {
    const std::string path = entry.path().string();
    const Result text = Run({"inspect", path});
    EXPECT_EQ(text.code, 0) << path << text.err;
    EXPECT_THAT(text.out, HasSubstr(path));
    EXPECT_EQ(text.err, "");
    const Result json = Run({"inspect", "--json", path});
    const Json model = Json::parse(json.out, nullptr, false);
    ASSERT_TRUE(model.is_object()) << path;
    EXPECT_EQ(model["frame"]["file_bytes"],
              std::filesystem::file_size(entry.path()));
    ++count;
  }
  EXPECT_GE(count, 4u);
}

// promise:P8
// Cut and flipped: refused with 1, never a crash, never silence.
TEST_F(CommandTest, CutAndFlippedGoldenFilesAreFindings) {
  for (const auto& entry : std::filesystem::directory_iterator(kGolden)) {
    const std::string good = ReadText(entry.path().string());
    for (size_t part = 0; part < 4; ++part) {
      const std::string cut =
          Write("cut", good.substr(0, part * good.size() / 4));
      for (const char* command : {"inspect", "validate"}) {
        const Result result = Run({command, cut});
        EXPECT_EQ(result.code, 1) << entry.path() << " " << part;
        EXPECT_NE(result.out, "");
      }
      std::string flipped = good;
      flipped[part * good.size() / 4] ^= 0x10;
      EXPECT_EQ(Run({"validate", Write("flipped", flipped)}).code, 1);
    }
  }
}

// -- States of a bus ---------------------------------------------------------

TEST_F(CommandTest, InspectsABus) {
  const std::string path = Write("a.ferry", SavedBus());
  const Result text = Run({"inspect", path});
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_THAT(text.out, HasSubstr("connected, version 5.3"));
  EXPECT_THAT(text.out, HasSubstr("channel 1: storage (SCSI)"));
  EXPECT_THAT(text.out, HasSubstr("incoming, received and not completed (3)"));
  const Result json = Run({"inspect", "--json", "-"}, path);
  EXPECT_EQ(json.code, 0);
  const Json model = Json::parse(json.out, nullptr, false);
  EXPECT_EQ(model["source"], "standard input");
  EXPECT_EQ(model["channels"]["count"], 4u);
}

TEST_F(CommandTest, ValidatesABus) {
  const std::string path = Write("a.ferry", SavedBus());
  const Result good = Run({"validate", "--explain", path});
  EXPECT_EQ(good.code, 0) << good.out;
  EXPECT_THAT(good.out, HasSubstr("valid: 0 errors, 0 notes"));
  EXPECT_THAT(good.out, HasSubstr("this build reads all that is required"));
  EXPECT_THAT(good.out, HasSubstr("protocol version  5.3 or later"));
  const std::string bad =
      Write("bad.ferry", WithoutSection(SavedBus(), "channel", 2));
  const Result json = Run({"validate", "--json", bad});
  EXPECT_EQ(json.code, 1);
  const Json model = Json::parse(json.out, nullptr, false);
  EXPECT_FALSE(model["valid"].get<bool>());
  EXPECT_EQ(model["findings"]["listed"][0]["section"], "channel");
}

TEST_F(CommandTest, FlippedBitsOfABusWithGoodChecksumsNeverCrash) {
  const std::string file = SavedBus();
  for (size_t i = 0; i < 60; ++i) {
    std::string flipped = file;
    const size_t at = 64 + i * (file.size() - 64) / 60;
    flipped[at] = static_cast<char>(flipped[at] ^ 1 << i % 8);
    savestate::FixChecksums(&flipped);
    const std::string path = Write("flipped.ferry", flipped);
    const Result validate = Run({"validate", path});
    EXPECT_TRUE(validate.code == 0 || validate.code == 1) << at;
    const Result inspect = Run({"inspect", path});
    EXPECT_TRUE(inspect.code == 0 || inspect.code == 1) << at;
  }
}

TEST_F(CommandTest, ComparesFiles) {
  const std::string a = Write("a.ferry", SavedBus());
  const std::string b = Write("b.ferry", OtherSavedBus());
  const Result same = Run({"diff", a, a});
  EXPECT_EQ(same.code, 0);
  EXPECT_EQ(same.out, "same\n");
  const Result differs = Run({"diff", a, b});
  EXPECT_EQ(differs.code, 1);
  EXPECT_THAT(differs.out, HasSubstr("front_bytes_read: 7 -> 8"));
  const Json model =
      Json::parse(Run({"diff", "--json", a, b}).out, nullptr, false);
  EXPECT_EQ(model["differences"]["count"], 1u);
  EXPECT_EQ(model["differences"]["listed"][0]["change"], "changed");
  const Result broken = Run({"diff", a, Write("no", "no")});
  EXPECT_EQ(broken.code, 2);
  EXPECT_THAT(broken.err, HasSubstr("the second file"));
}

// -- Folders -----------------------------------------------------------------

TEST_F(CommandTest, TakesTheNewestGenerationWhileAnotherWriterIsThere) {
  auto folder = savestate::CheckpointFolder::Open(Path("checkpoints"));
  ASSERT_TRUE(folder.ok()) << folder.status();
  ASSERT_TRUE(folder->Write(AsBytes(SavedBus())).ok());
  ASSERT_TRUE(folder->Write(AsBytes(OtherSavedBus())).ok());
  const Result newest = Run({"inspect", Path("checkpoints")});
  EXPECT_EQ(newest.code, 0) << newest.err;
  EXPECT_THAT(newest.out, HasSubstr("checkpoint-0000000000000002.ferry\n"));
  EXPECT_THAT(newest.out, HasSubstr("front_bytes_read 8"));
  // The newest is damaged: the one before is shown, and that is said.
  std::ofstream(Path("checkpoints/checkpoint-0000000000000003.ferry")) << "x";
  const Result older = Run({"inspect", Path("checkpoints")});
  EXPECT_EQ(older.code, 0);
  EXPECT_THAT(older.out, HasSubstr("checkpoint-0000000000000002.ferry\n"));
  EXPECT_THAT(older.err, HasSubstr("passed over checkpoint-0000000000000003"));
  EXPECT_EQ(Run({"validate", Path("checkpoints")}).code, 1);
}

TEST_F(CommandTest, AFolderIsOnlyReadAndItsLinksAreNotFollowed) {
  const std::string outside = Write("outside", SavedBus());
  std::filesystem::create_directory(Path("checkpoints"));
  std::filesystem::create_symlink(
      outside, Path("checkpoints/checkpoint-0000000000000001.ferry"));
  mkfifo(Path("checkpoints/checkpoint-0000000000000002.ferry").c_str(), 0600);
  EXPECT_EQ(Run({"inspect", Path("checkpoints")}).code, 2);
  size_t names = 0;
  for ([[maybe_unused]] const auto& entry :
       std::filesystem::directory_iterator(Path("checkpoints"))) {
    ++names;
  }
  EXPECT_EQ(names, 2u);
}

// -- upgrade -----------------------------------------------------------------

TEST_F(CommandTest, UpgradeWritesAPrivateFile) {
  const std::string in = Write("in.ferry", SavedBus());
  const Result result = Run({"upgrade", in, Path("out.ferry")});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("the same bytes as before"));
  EXPECT_EQ(ReadText(Path("out.ferry")), SavedBus());
  struct stat info = {};
  ASSERT_EQ(stat(Path("out.ferry").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, mode_t{0600});
}

TEST_F(CommandTest, UpgradeReplacesOnlyWhenTold) {
  const std::string in = Write("in.ferry", SavedBus());
  const std::string out = Write("out.ferry", "mine");
  const Result refused = Run({"upgrade", in, out});
  EXPECT_EQ(refused.code, 2);
  EXPECT_THAT(refused.err, HasSubstr("--force"));
  EXPECT_EQ(ReadText(out), "mine");
  EXPECT_EQ(Run({"upgrade", "--force", in, out}).code, 0);
  EXPECT_EQ(ReadText(out), SavedBus());
}

TEST_F(CommandTest, UpgradeOfABadFileWritesNothing) {
  const std::string bad = Write("bad", SavedBus().substr(0, 500));
  EXPECT_EQ(Run({"upgrade", bad, Path("out.ferry")}).code, 1);
  EXPECT_FALSE(std::filesystem::exists(Path("out.ferry")));
}

// -- Seals -------------------------------------------------------------------

TEST_F(CommandTest, ASealIsShownAndChecked) {
  const std::string secret(32, 'k');
  const auto sealed = savestate::Seal(
      AsBytes(SavedBus()), {"guest-7", AsBytes(secret)}, /*counter=*/5);
  ASSERT_TRUE(sealed.ok()) << sealed.status();
  const std::string path = Write("sealed.ferry", *sealed);
  const std::string key = Write("key", secret);
  EXPECT_THAT(Run({"inspect", path}).out,
              HasSubstr("algorithm HMAC-SHA-256, key_id guest-7, counter 5"));
  const Result unchecked = Run({"validate", path});
  EXPECT_EQ(unchecked.code, 0) << unchecked.out;
  EXPECT_THAT(unchecked.out, HasSubstr("note: "));
  const Result good = Run({"validate", "--key-file", key, path});
  EXPECT_EQ(good.code, 0) << good.out;
  EXPECT_THAT(good.out, HasSubstr("the seal is authentic"));
  const std::string wrong = Write("wrong", std::string(32, 'w'));
  EXPECT_EQ(Run({"validate", "--key-file", wrong, path}).code, 1);
  EXPECT_EQ(Run({"upgrade", path, Path("out.ferry")}).code, 1);
  EXPECT_EQ(Run({"validate", "--key-file", key, Write("a", SavedBus())}).code,
            1);
}

// -- Usage -------------------------------------------------------------------

TEST_F(CommandTest, UsageAndUnreadableFilesAreTwo) {
  EXPECT_EQ(Run({}).code, 2);
  EXPECT_EQ(Run({"inspect"}).code, 2);
  EXPECT_EQ(Run({"frobnicate", "a"}).code, 2);
  EXPECT_EQ(Run({"inspect", Path("nothing")}).code, 2);
  const Result empty_folder = Run({"inspect", "."});
  EXPECT_EQ(empty_folder.code, 2);
  EXPECT_THAT(empty_folder.err, HasSubstr("a folder without checkpoints"));
  const Result help = Run({"validate", "--help"});
  EXPECT_EQ(help.code, 0);
  EXPECT_THAT(help.out, HasSubstr("--explain"));
  EXPECT_THAT(help.out, HasSubstr("Exit codes"));
}

TEST_F(CommandTest, FullOutputIsAnError) {
  const std::string path = Write("a.ferry", SavedBus());
  const std::string shell = std::string(kProgram) + " state inspect " + path +
                            " > /dev/full 2> /dev/null";
  const int status = std::system(shell.c_str());
  EXPECT_EQ(WEXITSTATUS(status), 2);
}

}  // namespace
}  // namespace ferrybus::state_tool
