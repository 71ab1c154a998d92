// SPDX-License-Identifier: MIT

#include "ferrybus/tests/interleaving/explorer.h"

#include <memory>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace ferrybus::interleaving {
namespace {

constexpr char kLostWakeUp[] = "lost wake-up: who sleeps is never rung for";

// One turn: whose, and in which of the possible ways.
struct Turn {
  bool by_memory = false;
  uint8_t actor = 0;
  uint8_t choice = 0;
};

struct State {
  explicit State(const Memory& from) : memory(from.Clone()) {}
  State(const State& other)
      : memory(other.memory->Clone()),
        actors{other.actors[0], other.actors[1]} {}
  State(State&&) = default;
  State& operator=(State&&) = default;

  Fingerprint Print() const {
    Fingerprint print;
    memory->AddTo(&print);
    for (const ActorState& actor : actors) {
      print.Add(actor.results.size());
      print.Add(actor.log.low());
      print.Add(actor.log.high());
    }
    return print;
  }
  const char* Failure() const {
    for (const ActorState& actor : actors) {
      if (actor.failure != nullptr) return actor.failure;
    }
    return nullptr;
  }
  bool Done() const {
    return actors[0].next.kind == StepKind::kDone &&
           actors[1].next.kind == StepKind::kDone;
  }

  std::unique_ptr<Memory> memory;
  ActorState actors[kActors];
};

class Search {
 public:
  Search(const Program& producer, const Program& consumer, const Memory& memory,
         const ExploreOptions& options)
      : programs_{&producer, &consumer}, initial_(memory), options_(options) {}

  Exploration Run() {
    std::vector<Node> level;
    level.push_back({State(initial_), 0, 1});
    Start(&level[0].state, {options_.reduce});
    origins_.push_back({});
    Judge(level[0].state, 0);
    while (!level.empty() && found_.violation == nullptr && found_.complete) {
      level = Next(level);
    }
    found_.states = origins_.size();
    return std::move(found_);
  }

 private:
  struct Node {
    State state;
    uint32_t number = 0;  // in origins_
    double paths = 0;     // that lead here
  };
  struct Origin {
    uint32_t parent = 0;
    Turn turn;
  };

  void Start(State* state, const Actor::Options& options) const {
    for (int actor = 0; actor < kActors; ++actor) {
      Actor::Start(actor, *programs_[actor], options, state->memory.get(),
                   &state->actors[actor]);
    }
  }

  static std::vector<Turn> Turns(const State& state) {
    std::vector<Turn> turns;
    for (uint8_t actor = 0; actor < kActors; ++actor) {
      const int choices =
          state.memory->Choices(actor, state.actors[actor].next);
      for (uint8_t choice = 0; choice < choices; ++choice) {
        turns.push_back({false, actor, choice});
      }
      const int internal = state.memory->InternalChoices(actor);
      for (uint8_t choice = 0; choice < internal; ++choice) {
        turns.push_back({true, actor, choice});
      }
    }
    return turns;
  }

  void Take(Turn turn, const Actor::Options& options, State* state) const {
    if (turn.by_memory) {
      const Step step = state->memory->ApplyInternal(turn.actor, turn.choice);
      if (options.trace != nullptr) {
        options.trace->push_back({turn.actor, step, {}, true});
      }
    } else {
      Actor::Continue(turn.actor, *programs_[turn.actor], options, turn.choice,
                      state->memory.get(), &state->actors[turn.actor]);
    }
  }

  // The states that are one turn further.  A state's number of turns is given
  // by what it is, so it cannot come again on a later level.
  std::vector<Node> Next(const std::vector<Node>& level) {
    std::vector<Node> next;
    absl::flat_hash_map<Fingerprint, size_t> known;
    for (const Node& node : level) {
      const std::vector<Turn> turns = Turns(node.state);
      for (const Turn turn : turns) {
        State state = node.state;
        Take(turn, {options_.reduce}, &state);
        ++found_.transitions;
        const auto [entry, is_new] =
            known.try_emplace(state.Print(), next.size());
        if (!is_new) {
          next[entry->second].paths += node.paths;
          continue;
        }
        const uint32_t number = static_cast<uint32_t>(origins_.size());
        origins_.push_back({node.number, turn});
        if (!Judge(state, number)) return {};
        next.push_back({std::move(state), number, node.paths});
      }
      if (turns.empty()) found_.schedules += node.paths;
    }
    if (origins_.size() > options_.states_max) found_.complete = false;
    return next;
  }

  // False: a violation.
  bool Judge(const State& state, uint32_t number) {
    const char* violation = state.Failure();
    if (violation == nullptr && Turns(state).empty() && !state.Done()) {
      violation = kLostWakeUp;
    }
    if (violation == nullptr) return true;
    found_.violation = violation;
    found_.schedule = ScheduleText(Trace(number), violation, options_.labels);
    return false;
  }

  // Makes all turns that lead to a state once more.
  std::vector<Performed> Trace(uint32_t number) const {
    std::vector<Turn> turns;
    for (; number != 0; number = origins_[number].parent) {
      turns.push_back(origins_[number].turn);
    }
    std::vector<Performed> trace;
    const Actor::Options options = {options_.reduce, &trace};
    State state(initial_);
    Start(&state, options);
    for (size_t at = turns.size(); at != 0; --at) {
      Take(turns[at - 1], options, &state);
    }
    // Who is left waiting.
    for (int actor = 0; actor < kActors; ++actor) {
      const Step& next = state.actors[actor].next;
      if (next.kind != StepKind::kSleep) continue;
      if (state.memory->Choices(actor, next) != 0) continue;
      trace.push_back({actor, next, {}, true});
    }
    return trace;
  }

  const Program* const programs_[kActors];
  const Memory& initial_;
  const ExploreOptions options_;
  std::vector<Origin> origins_;
  Exploration found_;
};

}  // namespace

Exploration Explore(const Program& producer, const Program& consumer,
                    const Memory& memory, const ExploreOptions& options) {
  return Search(producer, consumer, memory, options).Run();
}

}  // namespace ferrybus::interleaving
