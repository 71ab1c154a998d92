// SPDX-License-Identifier: MIT

#include "ferrybus/tests/simulation/run_apart.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/check.h"
#include "ferrybus/tests/simulation/simulation.h"

namespace ferrybus::simulation {
namespace {

constexpr unsigned kSecondsMax = 60;
constexpr size_t kTextBytesMax = 400;

// What a child tells of a run before it begins, and after it ended.
struct Message {
  bool is_over = false;
  bool has_failed = false;
  uint64_t seed = 0;
  uint64_t step = 0;
  Totals totals;
  char kind[64] = {};
  char text[kTextBytesMax] = {};
};

void Tell(int pipe, const Message& message) {
  // Below PIPE_BUF: all of it, or nothing.
  if (write(pipe, &message, sizeof(message)) != sizeof(message)) _exit(1);
}
static_assert(sizeof(Message) < 4096);

[[noreturn]] void RunAndTell(RunOptions options, uint64_t count, int pipe) {
  const int quiet = open("/dev/null", O_WRONLY | O_CLOEXEC);
  if (quiet >= 0) (void)dup2(quiet, STDERR_FILENO);
  for (uint64_t i = 0; i < count; ++i, ++options.seed) {
    alarm(kSecondsMax);
    Message message;
    message.seed = options.seed;
    Tell(pipe, message);
    const RunResult result = Simulate(options);
    message.is_over = true;
    message.totals = result.totals;
    if (result.failure.has_value()) {
      message.has_failed = true;
      message.step = result.failure->step;
      std::snprintf(message.kind, sizeof(message.kind), "%s",
                    result.failure->kind.c_str());
      std::snprintf(message.text, sizeof(message.text), "%s",
                    result.failure->text.c_str());
    }
    Tell(pipe, message);
    if (message.has_failed) break;
  }
  _exit(0);
}

class Child {
 public:
  Child(const RunOptions& options, uint64_t count) {
    int ends[2];
    FERRYBUS_CHECK(pipe2(ends, O_CLOEXEC) == 0, "no pipe");
    process_ = fork();
    FERRYBUS_CHECK(process_ >= 0, "no process");
    if (process_ == 0) RunAndTell(options, count, ends[1]);
    close(ends[1]);
    pipe_ = ends[0];
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() { close(pipe_); }

  // False: it has ended.
  bool Hear(Message* message) {
    return read(pipe_, message, sizeof(*message)) == sizeof(*message);
  }
  std::string End() {
    int status = 0;
    (void)waitpid(process_, &status, 0);
    return absl::StrCat("ended by signal ", WIFSIGNALED(status)
                                                ? WTERMSIG(status)
                                                : -WEXITSTATUS(status));
  }

 private:
  pid_t process_ = -1;
  int pipe_ = -1;
};

}  // namespace

Outcome RunApart(const RunOptions& options) {
  Child child(options, 1);
  Message message;
  while (child.Hear(&message) && !message.is_over) {
  }
  const std::string end = child.End();
  if (!message.is_over) return {.kind = end, .step = options.steps};
  return {.kind = message.kind, .step = message.step};
}

BatchOutcome RunBatchApart(const RunOptions& options, uint64_t count,
                           Totals* totals) {
  BatchOutcome outcome;
  Child child(options, count);
  Message message;
  while (child.Hear(&message)) {
    if (!message.is_over) continue;
    ++outcome.done;
    totals->Add(message.totals);
    if (!message.has_failed) continue;
    outcome.failed_seed = message.seed;
    outcome.text = absl::StrCat(message.kind, ": ", message.text);
  }
  const std::string end = child.End();
  if (!message.is_over) {
    ++outcome.done;
    outcome.failed_seed = message.seed;
    outcome.text = end;
  }
  return outcome;
}

}  // namespace ferrybus::simulation
