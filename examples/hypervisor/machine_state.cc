// SPDX-License-Identifier: MIT

#include "ferrybus/examples/hypervisor/machine_state.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <string_view>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ferrybus/savestate/frame.h"

namespace ferrybus::hypervisor {
namespace {

using savestate::Frame;
using savestate::FrameWriter;
using savestate::Section;
using savestate::SectionKind;

constexpr uint32_t kVersion = 1;
constexpr savestate::FrameLimits kLimits = {
    .total_bytes_max = uint64_t{64} << 20,
    .sections_max = 8192,
    .body_bytes_max = uint64_t{32} << 20};
// Of each kind that waited; the sockets hold fewer.
constexpr size_t kMessagesMax = 1024;

// The time stamp counter first, since the others' times go by it; its deadline
// last, since it counts from it.
// clang-format off
constexpr uint32_t kSavedMsrs[] = {
    0x10, 0x3b,                // TSC, and what was added to it
    0x174, 0x175, 0x176,       // SYSENTER
    0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084,  // SYSCALL
    0xc0000102, 0xc0000103,    // kernel's GS base, TSC_AUX
    0x1a0, 0x48, 0xc001011f,   // features, speculation
    0x17a,                     // machine checks
    0xda0,                     // XSS
    0x277, 0x2ff,              // memory types: PAT, MTRRs
    0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f,
    0x200, 0x201, 0x202, 0x203, 0x204, 0x205, 0x206, 0x207,
    0x208, 0x209, 0x20a, 0x20b, 0x20c, 0x20d, 0x20e, 0x20f,
    // Hyper-V's (hyperv.h), where KVM has them: who the guest is before its
    // hypercall page, time, crash, SynIC.
    0x40000000, 0x40000001, 0x40000021, 0x40000073,
    0x40000100, 0x40000101, 0x40000102, 0x40000103, 0x40000104,
    0x40000080, 0x40000082, 0x40000083,
    0x40000090, 0x40000091, 0x40000092, 0x40000093,
    0x40000094, 0x40000095, 0x40000096, 0x40000097,
    0x40000098, 0x40000099, 0x4000009a, 0x4000009b,
    0x4000009c, 0x4000009d, 0x4000009e, 0x4000009f,
    0x6e0,                     // TSC deadline
};
// clang-format on

template <typename T>
std::string Bytes(const T& value) {
  static_assert(std::is_trivially_copyable_v<T>);
  return std::string(reinterpret_cast<const char*>(&value), sizeof(T));
}

template <typename T>
std::string ListBytes(const std::vector<T>& values) {
  static_assert(std::is_trivially_copyable_v<T>);
  return std::string(reinterpret_cast<const char*>(values.data()),
                     values.size() * sizeof(T));
}

// Calls `part` with the name and the value of each part of fixed size.
template <typename State, typename Part>
void ForEachPart(State& vcpu, Part part) {
  part("cpu.run-state", vcpu.run_state);
  part("cpu.registers", vcpu.registers);
  part("cpu.special", vcpu.special);
  part("cpu.debug", vcpu.debug);
  part("cpu.xsave", vcpu.xsave);
  part("cpu.xcrs", vcpu.xcrs);
  part("cpu.lapic", vcpu.lapic);
  part("cpu.events", vcpu.events);
  part("cpu.synic", vcpu.synic);
}

class Writer {
 public:
  void Add(const char* name, uint64_t instance, std::string body) {
    writer_.AddSection(name, instance, kVersion, SectionKind::kRequired,
                       std::move(body));
  }
  absl::StatusOr<std::string> Finish() const { return writer_.Finish(); }

 private:
  FrameWriter writer_ = FrameWriter("ferrybus-hypervisor", kLimits);
};

// Takes sections out of a frame; the first thing that is wrong stays.
class Reader {
 public:
  explicit Reader(absl::Span<const std::byte> bytes)
      : frame_(Frame::Parse(bytes, kLimits)), status_(frame_.status()) {}

  template <typename T>
  void Get(const char* name, uint64_t instance, T* value) {
    const absl::Span<const std::byte> body =
        Body(name, instance, sizeof(T), sizeof(T));
    if (status_.ok()) std::memcpy(value, body.data(), sizeof(T));
  }

  template <typename T>
  void GetList(const char* name, uint64_t instance, size_t count_max,
               std::vector<T>* values) {
    const absl::Span<const std::byte> body =
        Body(name, instance, 0, count_max * sizeof(T));
    if (status_.ok() && body.size() % sizeof(T) != 0) {
      Refuse(name, instance, body.size(), sizeof(T));
    }
    if (!status_.ok()) return;
    values->resize(body.size() / sizeof(T));
    if (!body.empty()) std::memcpy(values->data(), body.data(), body.size());
  }

  void GetText(const char* name, uint64_t size_max, std::string* text) {
    const absl::Span<const std::byte> body = Body(name, 0, 0, size_max);
    if (status_.ok()) {
      text->assign(reinterpret_cast<const char*>(body.data()), body.size());
    }
  }

  void Check(bool is_right, const char* what) {
    if (status_.ok() && !is_right) {
      status_ = absl::DataLossError(absl::StrCat(
          "machine state: ", what, ": the saved state is corrupt"));
    }
  }

  // Nothing is left over.
  absl::Status Finish() const {
    if (status_.ok() && frame_->sections().size() != taken_) {
      return absl::DataLossError(absl::StrCat(
          "machine state: ", frame_->sections().size(), " sections, of which ",
          taken_, " belong to such a machine"));
    }
    return status_;
  }
  bool ok() const { return status_.ok(); }

 private:
  absl::Span<const std::byte> Body(const char* name, uint64_t instance,
                                   size_t size_min, size_t size_max) {
    if (!status_.ok()) return {};
    const Section* const section = frame_->Find(name, instance);
    if (section == nullptr || section->version != kVersion) {
      status_ = absl::DataLossError(
          absl::StrCat("machine state: no section ",
                       savestate::DescribeSection(name, instance),
                       " of version ", kVersion));
      return {};
    }
    ++taken_;
    if (section->body.size() < size_min || section->body.size() > size_max) {
      Refuse(name, instance, section->body.size(), size_max);
    }
    return section->body;
  }
  void Refuse(const char* name, uint64_t instance, size_t found,
              size_t allowed) {
    status_ = absl::DataLossError(absl::StrCat(
        "machine state: section ", savestate::DescribeSection(name, instance),
        " has ", found, " bytes, known are ", allowed));
  }

  absl::StatusOr<Frame> frame_;
  absl::Status status_;
  size_t taken_ = 0;
};

bool AreKnown(const std::vector<kvm_msr_entry>& msrs) {
  return std::all_of(msrs.begin(), msrs.end(), [](const kvm_msr_entry& msr) {
    return std::find(std::begin(kSavedMsrs), std::end(kSavedMsrs), msr.index) !=
           std::end(kSavedMsrs);
  });
}

bool AreSound(const std::vector<SocketMessage>& messages) {
  return std::all_of(messages.begin(), messages.end(),
                     [](const SocketMessage& message) {
                       return message.size <= kMaxMessageBytes;
                     });
}

}  // namespace

absl::Span<const uint32_t> SavedMsrs() { return kSavedMsrs; }

absl::StatusOr<std::string> SerializeMachineState(const MachineState& state) {
  Writer writer;
  writer.Add("platform", 0, Bytes(state.platform));
  writer.Add("interrupts", 0, Bytes(state.interrupt_controllers));
  writer.Add("serial.input", 0, state.serial_input);
  for (size_t i = 0; i < state.vcpus.size(); ++i) {
    ForEachPart(state.vcpus[i], [&](const char* name, const auto& part) {
      writer.Add(name, i, Bytes(part));
    });
    writer.Add("cpu.msrs", i, ListBytes(state.vcpus[i].msrs));
  }
  return writer.Finish();
}

absl::StatusOr<MachineState> ParseMachineState(
    absl::Span<const std::byte> bytes, uint32_t vp_count) {
  Reader reader(bytes);
  MachineState state;
  reader.Get("platform", 0, &state.platform);
  reader.Get("interrupts", 0, &state.interrupt_controllers);
  reader.GetText("serial.input", kSerialInputMax, &state.serial_input);
  for (uint32_t i = 0; i < vp_count && reader.ok(); ++i) {
    VcpuState vcpu;
    ForEachPart(vcpu, [&](const char* name, auto& part) {
      reader.Get(name, i, &part);
    });
    reader.GetList("cpu.msrs", i, std::size(kSavedMsrs), &vcpu.msrs);
    reader.Check(AreKnown(vcpu.msrs), "a register that is none of a machine's");
    state.vcpus.push_back(std::move(vcpu));
  }
  const absl::Status status = reader.Finish();
  if (!status.ok()) return status;
  return state;
}

absl::StatusOr<std::string> SerializeChannelsState(const ChannelsState& state) {
  Writer writer;
  writer.Add("bus", 0, state.bus);
  writer.Add("probe", 0, Bytes(state.probe));
  writer.Add("disk.sub-channels", 0, Bytes(state.sub_channels));
  writer.Add("port.to-guest", 0, ListBytes(state.port.to_guest));
  writer.Add("port.to-host", 0, ListBytes(state.port.to_host));
  writer.Add("port.signals", 0, ListBytes(state.port.signals));
  writer.Add("port.target-vps", 0, ListBytes(state.port.target_vps));
  return writer.Finish();
}

absl::StatusOr<ChannelsState> ParseChannelsState(
    absl::Span<const std::byte> bytes) {
  Reader reader(bytes);
  ChannelsState state;
  PortState& port = state.port;
  reader.GetText("bus", kLimits.body_bytes_max, &state.bus);
  reader.Get("probe", 0, &state.probe);
  reader.Get("disk.sub-channels", 0, &state.sub_channels);
  reader.GetList("port.to-guest", 0, kMessagesMax, &port.to_guest);
  reader.GetList("port.to-host", 0, kMessagesMax, &port.to_host);
  reader.GetList("port.signals", 0, kMaxChannelId + 1, &port.signals);
  reader.GetList("port.target-vps", 0, kMaxChannelId + 1, &port.target_vps);
  reader.Check(AreSound(port.to_guest) && AreSound(port.to_host),
               "a message that is too long");
  reader.Check(std::all_of(port.signals.begin(), port.signals.end(),
                           [](uint32_t id) { return id <= kMaxChannelId; }) &&
                   std::all_of(port.target_vps.begin(), port.target_vps.end(),
                               [](const PortState::TargetVp& target) {
                                 return target.channel_id <= kMaxChannelId;
                               }),
               "a channel that cannot be");
  const absl::Status status = reader.Finish();
  if (!status.ok()) return status;
  return state;
}

}  // namespace ferrybus::hypervisor
