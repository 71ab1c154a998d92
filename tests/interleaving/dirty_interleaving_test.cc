// SPDX-License-Identifier: MIT
//
// All interleavings of writes, marks and takes of dirty bits: no write is
// missed; and nothing that the words' functions ask for is there for nothing.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <iostream>
#include <string>

#include "ferrybus/tests/interleaving/dirty_programs.h"

namespace ferrybus::interleaving {
namespace {

class DirtyModelTest : public ::testing::TestWithParam<Model> {};

class DirtyWeakeningTest : public ::testing::TestWithParam<size_t> {
 protected:
  const DirtyWeakening& weakening() const {
    return AllDirtyWeakenings()[GetParam()];
  }

  // Whether some schedule of some scene goes wrong; the first is printed.
  bool IsMissed(Model model) const {
    for (const DirtyScene& scene : AllDirtyScenes()) {
      const Exploration found = ExploreDirty(scene, model, &weakening());
      if (found.violation == nullptr) continue;
      std::cout << "without " << weakening().name << "; " << ModelName(model)
                << "; " << scene.name << "\n"
                << found.schedule;
      return true;
    }
    return false;
  }
};

TEST_P(DirtyModelTest, NoScheduleLosesAWrite) {
  for (const DirtyScene& scene : AllDirtyScenes()) {
    for (const bool reduce : {true, false}) {
      const Exploration found =
          ExploreDirty(scene, GetParam(), nullptr, {.reduce = reduce});
      EXPECT_TRUE(found.complete) << scene.name;
      EXPECT_EQ(found.violation, nullptr) << scene.name << "\n"
                                          << found.schedule;
      EXPECT_GT(found.schedules, 10) << scene.name;
      std::cout << scene.name << ", " << ModelName(GetParam()) << ": "
                << found.states << " states, " << found.schedules
                << " schedules\n";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, DirtyModelTest, ::testing::ValuesIn(kModels),
                         [](const auto& param) {
                           return std::string(
                               param.param == Model::kInOrder ? "InOrder"
                               : param.param == Model::kOutOfOrder
                                   ? "OutOfOrder"
                                   : "Cpp");
                         });

TEST_P(DirtyWeakeningTest, IsMissed) {
  EXPECT_TRUE(IsMissed(Model::kCpp)) << weakening().name;
}

// As loading and clearing instead of exchanging.
TEST_P(DirtyWeakeningTest, IsMissedOnX86IfListedSo) {
  EXPECT_EQ(IsMissed(Model::kInOrder), weakening().shows_in_order)
      << weakening().name;
}

INSTANTIATE_TEST_SUITE_P(All, DirtyWeakeningTest,
                         ::testing::Range<size_t>(0,
                                                  AllDirtyWeakenings().size()));

}  // namespace
}  // namespace ferrybus::interleaving
