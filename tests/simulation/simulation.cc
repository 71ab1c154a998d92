// SPDX-License-Identifier: MIT

#include "ferrybus/tests/simulation/simulation.h"

#include "absl/strings/str_cat.h"
#include "ferrybus/tests/simulation/world.h"

namespace ferrybus::simulation {
namespace {

constexpr uint64_t kRoundsMax = 4000;
// Steps of the end draw from numbers that no other step has.
constexpr uint64_t kEndStep = uint64_t{1} << 40;

void SetStep(const RunOptions& options, uint64_t step, Context* context) {
  context->step = step;
  context->random = Random(options.seed, step);
}

// Until nothing is owed.
void Drain(const RunOptions& options, uint64_t first_step, World* world,
           Context* context) {
  for (uint64_t i = 0; i < kRoundsMax; ++i) {
    if (context->failure.has_value() || world->Wants().empty()) return;
    SetStep(options, first_step + i, context);
    world->Round();
  }
  context->Fail("stuck", world->Wants());
}

void Verify(const RunOptions& options, World* world, Context* context) {
  SetStep(options, 4 * kEndStep, context);
  world->BeginLastMove();
  Drain(options, 5 * kEndStep, world, context);
  if (!context->failure.has_value() && !world->HasMoved()) {
    context->Fail("stuck", "the machine cannot move any more");
  }
  world->BeginVerify();
  for (uint64_t i = 0; i < kRoundsMax; ++i) {
    SetStep(options, 2 * kEndStep + i, context);
    if (context->failure.has_value()) return;
    if (world->ContinueVerify()) break;
    world->Round();
  }
  Drain(options, 3 * kEndStep, world, context);
}

}  // namespace

RunResult Simulate(const RunOptions& options) {
  Context context;
  RunResult result;
  result.options = options;
  SetStep(options, ~uint64_t{1}, &context);
  World world(&context, options);
  world.Begin();
  for (uint64_t step = 0; step < options.steps && !context.failure.has_value();
       ++step) {
    if (options.Skips(step)) continue;
    SetStep(options, step, &context);
    ++context.totals.steps;
    world.Step();
  }
  SetStep(options, options.steps, &context);
  world.Heal();
  Drain(options, kEndStep, &world, &context);
  if (!context.failure.has_value()) Verify(options, &world, &context);
  if (context.failure.has_value()) result.state = world.Describe();
  result.trace = context.trace.hash();
  result.totals = context.totals;
  result.failure = context.failure;
  return result;
}

std::string RepeatCommand(const RunOptions& options) {
  return absl::StrCat("bazel run //tests/simulation:simulate -- ",
                      options.Flags());
}

std::string RunResult::Report() const {
  if (!failure.has_value()) return {};
  return absl::StrCat("seed ", options.seed, " failed at step ", failure->step,
                      ": ", failure->kind, ": ", failure->text,
                      "\nrepeat: ", RepeatCommand(options), "\n", state);
}

std::string DescribeTotals(const Totals& totals) {
  std::string text = absl::StrCat(
      totals.steps, " steps, ", totals.requests, " requests, ",
      totals.disk_requests, " of the disk, ", totals.commands,
      " commands of the accelerator\n", totals.moves,
      " moves to the other host, ", totals.moves_failed, " that failed; ",
      totals.restores, " restores on the same host, ", totals.checkpoints,
      " checkpoints, ", totals.thaws, " thaws; ", totals.updates, " updates, ",
      totals.updates_failed, " that failed\n", totals.boots, " boots, ",
      totals.openings, " openings, ", totals.channel_faults,
      " channels faulted\nfaults:");
  for (size_t i = 0; i < kFaultCount; ++i) {
    absl::StrAppend(&text, " ", FaultName(static_cast<Fault>(i)), " ",
                    totals.faults[i]);
  }
  return text + "\n";
}

}  // namespace ferrybus::simulation
