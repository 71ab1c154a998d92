// SPDX-License-Identifier: MIT
//
// ferrybus: looks at saved states (docs/STATE_COMMAND.md).

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

#include "absl/strings/str_cat.h"
#include "ferrybus/savestate/frame.h"
#include "ferrybus/savestate/seal.h"
#include "ferrybus/tools/state/state_check.h"
#include "ferrybus/tools/state/state_diff.h"
#include "ferrybus/tools/state/state_file.h"
#include "ferrybus/tools/state/state_model.h"
#include "ferrybus/tools/state/state_sections.h"
#include "ferrybus/tools/state/state_text.h"
#include "ferrybus/tools/state/state_upgrade.h"

namespace {

using namespace ferrybus::state_tool;  // NOLINT: this is the tool
namespace savestate = ferrybus::savestate;

constexpr int kFine = 0;
constexpr int kFound = 1;
constexpr int kCannot = 2;

constexpr size_t kListedByDefault = 40;
constexpr size_t kKeyBytesMax = size_t{1} << 16;

constexpr char kFooter[] =
    "A FILE is a saved state, a checkpoint folder (its newest generation), or "
    "- for\nstandard input.  Nothing is ever restored, and files may be "
    "damaged or hostile.\n\n"
    "  ferrybus state inspect vm1.ferry                what is in it\n"
    "  ferrybus state inspect --json - < vm1.ferry     the same for programs\n"
    "  ferrybus state validate --explain checkpoints/  is it good, and for "
    "whom\n"
    "  ferrybus state diff before.ferry after.ferry    what has changed\n"
    "  ferrybus state upgrade old.ferry new.ferry      newest section "
    "versions\n\n"
    "Exit codes: 0 fine or same; 1 errors found or different; 2 cannot "
    "(usage,\nunreadable).\n";

struct Options {
  std::string file;
  std::string other;
  std::string key_file;
  bool json = false;
  bool all = false;
  bool explain = false;
  bool opaque_devices = false;
  bool force = false;

  size_t list_max() const { return all ? kElementsMax : kListedByDefault; }
  CheckOptions check() const { return {opaque_devices}; }
};

int Cannot(const absl::Status& status) {
  std::fprintf(stderr, "ferrybus: %s\n", Escaped(status).c_str());
  return kCannot;
}

// Says where the bytes are from, when that was not named.
absl::StatusOr<StateFile> Read(const std::string& path) {
  absl::StatusOr<StateFile> file = ReadState(path);
  if (!file.ok()) return file.status();
  for (const std::string& passed_over : file->passed_over) {
    std::fprintf(stderr, "ferrybus: passed over %s\n", passed_over.c_str());
  }
  return file;
}

// False: standard output is full or closed.
bool Print(const std::string& text) {
  return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() &&
         std::fflush(stdout) == 0;
}

int PrintResult(const std::string& text, bool is_fine) {
  if (!Print(text)) {
    return Cannot(absl::UnavailableError("cannot write to standard output"));
  }
  return is_fine ? kFine : kFound;
}

Json SourceOf(const StateFile& file) {
  Json passed_over = Json::array();
  for (const std::string& each : file.passed_over) passed_over.push_back(each);
  return {{"source", file.source}, {"passed_over", std::move(passed_over)}};
}

int Inspect(const Options& options) {
  const absl::StatusOr<StateFile> file = Read(options.file);
  if (!file.ok()) return Cannot(file.status());
  const ModelOptions model_options =
      options.all ? ModelOptions::All() : ModelOptions();
  Json model = SourceOf(*file);
  model.update(DescribeState(AsBytes(file->bytes), model_options));
  const bool is_fine = model["frame"]["accepted"].get<bool>();
  if (options.json) return PrintResult(ToJsonText(model), is_fine);
  return PrintResult(absl::StrCat(file->source, "\n", InspectText(model)),
                     is_fine);
}

// What is wrong with the seal, or how good it is, as a finding.
Finding CheckSealWith(const std::string& file, const std::string& secret) {
  Finding finding;
  finding.section = std::string(kSealSection);
  const auto refuse = [&finding](const absl::Status& status) {
    finding.problem = Escaped(status);
    finding.action =
        "do not restore it unless you know why; is this the right key file?";
    return finding;
  };
  const auto frame = savestate::Frame::Parse(AsBytes(file));
  if (!frame.ok()) return refuse(frame.status());
  const auto seal = savestate::DescribeSeal(*frame);
  if (!seal.ok()) return refuse(seal.status());
  const savestate::SealKey key{seal->key_id, AsBytes(secret)};
  const auto opened =
      savestate::OpenSeal(AsBytes(file), {&key, 1}, /*minimum_counter=*/0);
  if (!opened.ok()) return refuse(opened.status());
  finding.is_error = false;
  finding.problem =
      absl::StrCat("the seal is authentic: key \"", Escaped(seal->key_id),
                   "\", counter ", seal->counter);
  finding.action = "compare the counter with the highest one seen";
  return finding;
}

int Validate(const Options& options) {
  const absl::StatusOr<StateFile> file = Read(options.file);
  if (!file.ok()) return Cannot(file.status());
  Findings findings = CheckState(AsBytes(file->bytes), options.check());
  if (!options.key_file.empty()) {
    const absl::StatusOr<std::string> secret =
        ReadBytes(options.key_file, kKeyBytesMax);
    if (!secret.ok()) return Cannot(secret.status());
    findings.Add(CheckSealWith(file->bytes, *secret));
  }
  for (const std::string& passed_over : file->passed_over) {
    findings.Add(
        {true, "", 0, 0,
         absl::StrCat("a newer generation is not whole: ", passed_over),
         "state that once was complete may be lost: look at the "
         "storage before going on with an older generation"});
  }
  Json model = SourceOf(*file);
  model.update(ToJson(findings, options.list_max()));
  if (options.explain) model["explain"] = DescribeNeeds(AsBytes(file->bytes));
  return PrintResult(
      options.json ? ToJsonText(model)
                   : absl::StrCat(file->source, "\n", ValidateText(model)),
      findings.ok());
}

int Diff(const Options& options) {
  const absl::StatusOr<StateFile> before = Read(options.file);
  if (!before.ok()) return Cannot(before.status());
  const absl::StatusOr<StateFile> after = Read(options.other);
  if (!after.ok()) return Cannot(after.status());
  const absl::StatusOr<Json> model = DiffStates(
      AsBytes(before->bytes), AsBytes(after->bytes), options.list_max());
  if (!model.ok()) return Cannot(model.status());
  Json result = {{"before", SourceOf(*before)}, {"after", SourceOf(*after)}};
  result.update(*model);
  return PrintResult(options.json ? ToJsonText(result) : DiffText(result),
                     result["same"].get<bool>());
}

int Upgrade(const Options& options) {
  const absl::StatusOr<StateFile> file = Read(options.file);
  if (!file.ok()) return Cannot(file.status());
  const absl::StatusOr<UpgradedState> upgraded =
      UpgradeState(AsBytes(file->bytes), options.check());
  if (!upgraded.ok()) {
    (void)Cannot(upgraded.status());
    return kFound;
  }
  const absl::Status status =
      WriteState(options.other, upgraded->file, options.force);
  if (!status.ok()) return Cannot(status);
  std::string text;
  for (const std::string& note : upgraded->notes) {
    absl::StrAppend(&text, note, "\n");
  }
  absl::StrAppend(&text, Escaped(options.other), ": ", upgraded->file.size(),
                  " bytes, ",
                  upgraded->file == file->bytes ? "the same bytes as before"
                                                : "says the same as before",
                  "\n");
  return PrintResult(text, true);
}

CLI::App* AddCommand(CLI::App& state, const char* name, const char* help,
                     Options& options) {
  CLI::App* const command = state.add_subcommand(name, help);
  command->footer(kFooter);
  command->add_option("FILE", options.file, "a saved state")->required();
  return command;
}

void AddListOptions(CLI::App& command, Options& options) {
  command.add_flag("--json", options.json, "JSON; keys are only ever added");
  command.add_flag("--all", options.all, "whole lists");
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Ferrybus's tool for saved states.", "ferrybus");
  app.require_subcommand(1);
  app.footer(kFooter);
  CLI::App* const state = app.add_subcommand("state", "look at saved states");
  state->require_subcommand(1);
  state->footer(kFooter);

  CLI::App* const inspect = AddCommand(
      *state, "inspect", "show what a file holds, good or damaged", options);
  AddListOptions(*inspect, options);

  CLI::App* const validate =
      AddCommand(*state, "validate",
                 "list what would keep a restore from taking a file", options);
  AddListOptions(*validate, options);
  validate->add_flag("--explain", options.explain,
                     "say which build and which target can restore it");
  validate->add_option("--key-file", options.key_file,
                       "check the seal with this secret: the file's bytes, 32 "
                       "or more");

  CLI::App* const diff = AddCommand(
      *state, "diff", "compare two files by channel and packet", options);
  diff->add_option("OTHER", options.other, "the file to compare with")
      ->required();
  AddListOptions(*diff, options);

  CLI::App* const upgrade =
      AddCommand(*state, "upgrade",
                 "write a file anew with the newest section versions", options);
  upgrade->add_option("OUT", options.other, "the file to write, mode 0600")
      ->required();
  upgrade->add_flag("--force", options.force, "replace OUT if it is there");
  for (CLI::App* const command : {validate, upgrade}) {
    command->add_flag("--opaque-devices", options.opaque_devices,
                      "device states are in formats that this tool does not "
                      "know, whatever the offers say");
  }

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kFine : kCannot;
  }
  if (inspect->parsed()) return Inspect(options);
  if (validate->parsed()) return Validate(options);
  if (diff->parsed()) return Diff(options);
  return Upgrade(options);
}
