// SPDX-License-Identifier: MIT
//
// All interleavings of small programs on one ring: nothing is lost, repeated or
// torn, and nobody sleeps for ever; and none of the orderings is there for
// nothing.  `explore_ring --deep` has longer programs.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <string>

#include "ferrybus/tests/interleaving/ring_report.h"

namespace ferrybus::interleaving {
namespace {

class RingModelTest : public ::testing::TestWithParam<Model> {};

// One ordering to weaken, by its place in the list.
class RingOrderingTest : public ::testing::TestWithParam<size_t> {
 protected:
  const Ordering& ordering() const { return AllOrderings()[GetParam()]; }
};

// What goes wrong in `variant`, printed.
Miss ExpectMiss(const Variant& variant, Model model) {
  Miss miss = FindMiss(variant, model, /*deep=*/false);
  EXPECT_NE(miss.scene, nullptr) << ModelName(model);
  if (miss.scene != nullptr) {
    std::cout << variant.weakened->name << ", weakened; " << ModelName(model)
              << "; " << miss.scene->name << "\n"
              << miss.exploration.schedule;
  }
  return miss;
}

// For what is asked many times.  The orderings of a shared producer are those
// of one thread.
bool IsSmall(const RingScene& scene) {
  return !scene.deep && scene.packets <= 2 && scene.threads == 1;
}

void ExpectNoViolation(const RingScene& scene, const Variant& variant,
                       Model model, bool reduce) {
  const Exploration found =
      ExploreRing(scene, model, variant, {.reduce = reduce});
  EXPECT_TRUE(found.complete) << scene.name;
  EXPECT_EQ(found.violation, nullptr) << scene.name << "\n" << found.schedule;
  // An explorer that lost its way would see few.
  EXPECT_GT(found.schedules, 500) << scene.name;
  std::cout << scene.name << ", " << ModelName(model) << ": " << found.states
            << " states, " << found.schedules << " schedules\n";
}

// promise:P2 promise:P3
// Also if neither ringing nor waking orders anything.
TEST_P(RingModelTest, NoScheduleGoesWrong) {
  for (const RingScene& scene : AllScenes()) {
    if (scene.deep) continue;
    ExpectNoViolation(scene, {.bell_orders = false}, GetParam(), true);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Models, RingModelTest, ::testing::ValuesIn(kModels), [](const auto& param) {
      return std::string(param.param == Model::kInOrder      ? "InOrder"
                         : param.param == Model::kOutOfOrder ? "OutOfOrder"
                                                             : "Cpp");
    });

// promise:P3
TEST(RingInterleavingTest, NoScheduleGoesWrongWithAsymmetricFences) {
  for (const RingScene& scene : AllScenes()) {
    if (!IsSmall(scene)) continue;
    for (const Model model : {Model::kInOrder, Model::kCpp}) {
      ExpectNoViolation(scene, {Fences::kAsymmetric, nullptr, false, false},
                        model, true);
    }
  }
}

// Reduction leaves out only what says the same.
TEST(RingReductionTest, EveryStepATurnSaysTheSame) {
  for (const RingScene& scene : AllScenes()) {
    if (!IsSmall(scene)) continue;
    for (const Model model : {Model::kInOrder, Model::kCpp}) {
      ExpectNoViolation(scene, {}, model, false);
    }
  }
  for (const Ordering& ordering : AllOrderings()) {
    if (*ordering.spare_because != '\0') continue;
    const Variant variant = {.weakened = &ordering};
    const Miss miss = FindMiss(variant, Model::kCpp, false);
    ASSERT_NE(miss.scene, nullptr);
    EXPECT_EQ(miss.exploration.violation,
              ExploreRing(*miss.scene, Model::kCpp, variant, {.reduce = false})
                  .violation);
  }
}

// Weakened, each ordering is missed by some schedule, or is listed as spare.
TEST_P(RingOrderingTest, IsNeededOrListedAsSpare) {
  const Variant variant = {.weakened = &ordering()};
  if (*ordering().spare_because == '\0') {
    (void)ExpectMiss(variant, Model::kCpp);
    return;
  }
  std::cout << ordering().name << " is spare: " << ordering().spare_because
            << "\n";
  // `explore_ring` asks the longer programs as well.
  for (const RingScene& scene : AllScenes()) {
    if (!IsSmall(scene)) continue;
    ExpectNoViolation(scene, variant, Model::kCpp, true);
  }
}

// Threads of a shared producer that are not told of each other's publications:
// the explorer must see who is left asleep.
TEST_P(RingModelTest, ThreadsThatDoNotWakeEachOtherAreFound) {
  const RingScene& scene = *std::find_if(
      AllScenes().begin(), AllScenes().end(), [](const RingScene& each) {
        return each.name == "shared: full, two longest";
      });
  const Exploration found =
      ExploreRing(scene, GetParam(), {.threads_do_not_wake = true}, {});
  ASSERT_NE(found.violation, nullptr);
  EXPECT_THAT(std::string(found.violation),
              ::testing::HasSubstr("lost wake-up"));
}

// The two Dekker handshakes: a store buffer is enough to lose the wake-up.
TEST_P(RingOrderingTest, FenceIsNeededOnX86) {
  if (ordering().call != Call::kFullFence &&
      ordering().call != Call::kSleepFence) {
    GTEST_SKIP() << "not a fence";
  }
  const Miss miss = ExpectMiss({.weakened = &ordering()}, Model::kInOrder);
  EXPECT_THAT(std::string(miss.exploration.violation),
              ::testing::HasSubstr("lost wake-up"));
}

// Of an asymmetric pair, a fence of the sleeper's own does nothing for the side
// that has none.
TEST_P(RingOrderingTest, SleepFenceOfAsymmetricPairIsHeavy) {
  if (ordering().call != Call::kSleepFence) GTEST_SKIP() << "not a sleep fence";
  for (const bool own_fence : {false, true}) {
    for (const Model model : kModels) {
      const Miss miss =
          ExpectMiss({Fences::kAsymmetric, &ordering(), own_fence}, model);
      EXPECT_THAT(std::string(miss.exploration.violation),
                  ::testing::HasSubstr("lost wake-up"));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, RingOrderingTest,
                         ::testing::Range<size_t>(0, AllOrderings().size()));

}  // namespace
}  // namespace ferrybus::interleaving
