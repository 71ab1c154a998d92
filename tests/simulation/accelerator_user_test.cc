// SPDX-License-Identifier: MIT
//
// What the simulated accelerator's user must notice.

#include "ferrybus/tests/simulation/accelerator_user.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "ferrybus/tests/simulation/guest_ram.h"
#include "ferrybus/tests/simulation/simulated_function.h"
#include "gtest/gtest.h"

namespace ferrybus::simulation {
namespace {

// Between user and accelerator: keeps the answers until the test gives them.
class Wire final : public vsc::ClientChannel, public vsp::AcceleratorPort {
 public:
  Wire(FunctionOracle* oracle, const GuestMemory* memory,
       vsp::Accelerator* accelerator)
      : oracle_(oracle), memory_(memory), accelerator_(accelerator) {
    accelerator_->SetPort(this);
  }

  vsc::SendResult Send(const vsc::Request& request) override {
    accelerator::Command command;
    std::memcpy(&command, request.payload.data(), sizeof(command));
    absl::Span<std::byte> data;
    inline_data_.emplace_back(request.payload.begin() + sizeof(command),
                              request.payload.end());
    data = absl::MakeSpan(inline_data_.back());
    if (!request.buffers.empty()) {
      data = memory_->Translate(request.buffers[0].gpa,
                                request.buffers[0].byte_count);
    }
    data_.push_back(data);
    tags_.push_back(request.tag);
    EXPECT_TRUE(accelerator_->Submit(command, data.size(), [](uint64_t) {}));
    ++oracle_->submitted;
    return vsc::SendResult::kOk;
  }
  void Flush() override { (void)accelerator_->Run(~uint32_t{0}); }
  uint32_t requests_in_flight() const override { return 0; }

  bool ReadData(uint64_t ticket, uint64_t offset,
                absl::Span<std::byte> out) override {
    std::copy_n(data_[ticket].begin() + static_cast<ptrdiff_t>(offset),
                out.size(), out.begin());
    return true;
  }
  bool WriteData(uint64_t ticket, uint64_t offset,
                 absl::Span<const std::byte> data) override {
    std::copy(data.begin(), data.end(),
              data_[ticket].begin() + static_cast<ptrdiff_t>(offset));
    return true;
  }
  void OnDone(uint64_t ticket, const accelerator::Reply& reply,
              absl::Span<const std::byte> data) override {
    std::string bytes(reinterpret_cast<const char*>(&reply), sizeof(reply));
    bytes.append(reinterpret_cast<const char*>(data.data()), data.size());
    answers.emplace_back(tags_[ticket], std::move(bytes));
  }

  std::deque<std::pair<uint64_t, std::string>> answers;

 private:
  FunctionOracle* const oracle_;
  const GuestMemory* const memory_;
  vsp::Accelerator* const accelerator_;
  std::deque<std::vector<std::byte>> inline_data_;
  std::vector<absl::Span<std::byte>> data_;
  std::vector<uint64_t> tags_;
};

class AcceleratorUserTest : public ::testing::Test {
 protected:
  AcceleratorUserTest() {
    ram_.Create(0, std::byte{0});
    ram_.Activate(0);
    memory_.Fill(std::byte{0x5a});  // nothing of it is known
    function_.Begin();
    user_.OnOpened(wire_);
  }
  // So many commands are executed, their answers wait.
  void Execute(uint64_t commands) {
    user_.Ask(commands);
    user_.Flush();
  }
  void GiveAnswer() {
    const auto [tag, bytes] = wire_.answers.front();
    wire_.answers.pop_front();
    user_.OnCompletion(
        tag, {reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()});
  }
  void GiveAll() {
    while (!wire_.answers.empty()) GiveAnswer();
  }
  void Learn() {
    Execute(2 + kFunctionSegments);
    GiveAll();
  }
  std::string kind() const {
    return context_.failure.has_value() ? context_.failure->kind : "";
  }

  Context context_;
  FunctionOracle oracle_;
  FunctionMemory memory_;
  GuestRam ram_{16};
  vsc::GuestPages pages_{ram_.memory()};
  SimulatedFunction function_{&context_, &oracle_, &memory_, 0};
  Wire wire_{&oracle_, ram_.memory(), &function_.accelerator()};
  AcceleratorUser user_{&context_, &oracle_, &pages_};
};

TEST_F(AcceleratorUserTest, AllIsWell) {
  for (int opening = 0; opening < 3; ++opening) {
    Learn();
    for (int i = 0; i < 200; ++i) {
      Execute(6);
      GiveAll();
      ASSERT_EQ(kind(), "") << context_.failure->text;
    }
    uint64_t step = 0;
    EXPECT_TRUE(user_.Verify(&step));
    GiveAll();
    EXPECT_EQ(user_.busy(), 0u);
    EXPECT_EQ(kind(), "");
    // What was executed and not heard of counts.
    Execute(3);
    wire_.answers.clear();
    user_.OnClosed();
    user_.OnOpened(wire_);
  }
  EXPECT_GT(oracle_.interrupts, 100u);
}

TEST_F(AcceleratorUserTest, Order) {
  Learn();
  Execute(2);
  std::swap(wire_.answers[0], wire_.answers[1]);
  GiveAll();
  EXPECT_EQ(kind(), "accelerator-order");
}

TEST_F(AcceleratorUserTest, AnsweredTwice) {
  Learn();
  Execute(2);
  wire_.answers.push_front(wire_.answers.front());
  GiveAll();
  EXPECT_EQ(kind(), "accelerator-order");
}

TEST_F(AcceleratorUserTest, AnotherAnswer) {
  Learn();
  Execute(1);
  wire_.answers.front().second[40] ^= 1;  // of the register kRandom
  GiveAll();
  EXPECT_EQ(kind(), "accelerator-answer");
}

TEST_F(AcceleratorUserTest, AnotherByteInItsMemory) {
  Learn();
  memory_.bytes()[20000] ^= std::byte{1};
  uint64_t step = 0;
  EXPECT_TRUE(user_.Verify(&step));
  GiveAll();
  EXPECT_EQ(kind(), "accelerator-answer");
}

// Of an opening that nobody listens to any more.
TEST_F(AcceleratorUserTest, ACommandThatWasNotExecuted) {
  Learn();
  user_.OnClosed();
  user_.OnOpened(wire_);
  ++oracle_.submitted;
  Learn();
  EXPECT_EQ(kind(), "accelerator-count");
}

TEST_F(AcceleratorUserTest, AnInterruptTooMany) {
  Learn();
  ++oracle_.interrupts;
  Execute(1);
  GiveAll();
  EXPECT_EQ(kind(), "accelerator-interrupts");
}

}  // namespace
}  // namespace ferrybus::simulation
