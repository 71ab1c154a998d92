// SPDX-License-Identifier: MIT
//
// What the machine is made of, without running it: kernel files, tables,
// CPUID, the console.

#include <asm/bootparam.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "ferrybus/examples/hypervisor/acpi_tables.h"
#include "ferrybus/examples/hypervisor/boot_linux.h"
#include "ferrybus/examples/hypervisor/cmos_clock.h"
#include "ferrybus/examples/hypervisor/console_log.h"
#include "ferrybus/examples/hypervisor/hyperv_cpuid.h"
#include "ferrybus/examples/hypervisor/serial_port.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ferrybus::hypervisor {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// -- Kernel files

class LoadLinuxTest : public testing::Test {
 protected:
  LoadLinuxTest() : ram_(8 << 20), file_(64 << 10, 0) {
    setup_header header = {};
    header.setup_sects = 1;
    header.header = 0x53726448;
    header.version = 0x20f;
    header.xloadflags = XLF_KERNEL_64;
    header.pref_address = 1 << 20;
    header.init_size = 1 << 20;
    header.cmdline_size = 255;
    header.initrd_addr_max = 0x7fffffff;
    SetHeader(header);
  }

  void SetHeader(const setup_header& header) {
    std::memcpy(&file_[offsetof(boot_params, hdr)], &header, sizeof(header));
  }
  setup_header header() const {
    setup_header header;
    std::memcpy(&header, &file_[offsetof(boot_params, hdr)], sizeof(header));
    return header;
  }
  std::string Write(const std::string& name, const std::string& bytes) {
    const std::string path = testing::TempDir() + "/" + name;
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }
  absl::StatusOr<BootEntry> Load(const std::string& initrd = "") {
    return LoadLinux({Write("kernel", file_), initrd, "console=ttyS0"}, 0xe0000,
                     absl::MakeSpan(ram_));
  }
  absl::StatusCode CodeWith(void (*change)(setup_header&)) {
    setup_header changed = header();
    change(changed);
    SetHeader(changed);
    return Load().status().code();
  }

  std::vector<std::byte> ram_;
  std::string file_;
};

TEST_F(LoadLinuxTest, PlacesKernelInitrdAndParameters) {
  file_[1024] = 'K';
  const auto entry = Load(Write("initrd", std::string(5000, 'I')));
  ASSERT_TRUE(entry.ok()) << entry.status();
  EXPECT_EQ(entry->rip, (1u << 20) + 0x200);
  EXPECT_EQ(ram_[1 << 20], std::byte{'K'});
  const auto* const params =
      reinterpret_cast<const boot_params*>(&ram_[entry->boot_params]);
  EXPECT_EQ(params->e820_entries, 2);
  EXPECT_EQ(params->e820_table[1].addr + params->e820_table[1].size,
            ram_.size());
  EXPECT_EQ(params->acpi_rsdp_addr, 0xe0000u);
  EXPECT_EQ(params->hdr.ramdisk_size, 5000u);
  EXPECT_EQ(ram_[params->hdr.ramdisk_image], std::byte{'I'});
  EXPECT_STREQ(reinterpret_cast<const char*>(&ram_[params->hdr.cmd_line_ptr]),
               "console=ttyS0");
}

TEST_F(LoadLinuxTest, SaysWhatIsWrongWithAFile) {
  EXPECT_EQ(LoadLinux({"/nonexistent", "", ""}, 0, absl::MakeSpan(ram_))
                .status()
                .code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(Load("/nonexistent").status().code(), absl::StatusCode::kNotFound);
  file_.resize(100);
  const absl::Status status = Load().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("kernel"));
}

TEST_F(LoadLinuxTest, RefusesHeadersThatCannotBe) {
  using Code = absl::StatusCode;
  const setup_header good = header();
  const auto code = [&](void (*change)(setup_header&)) {
    SetHeader(good);
    return CodeWith(change);
  };
  EXPECT_EQ(code([](auto& h) { h.header = 0; }), Code::kInvalidArgument);
  EXPECT_EQ(code([](auto& h) { h.version = 0x20b; }), Code::kInvalidArgument);
  EXPECT_EQ(code([](auto& h) { h.xloadflags = 0; }), Code::kInvalidArgument);
  EXPECT_EQ(code([](auto& h) { h.setup_sects = 255; }), Code::kInvalidArgument);
  EXPECT_EQ(code([](auto& h) { h.cmdline_size = 3; }), Code::kInvalidArgument);
  EXPECT_EQ(code([](auto& h) { h.pref_address = 0; }),
            Code::kResourceExhausted);
  EXPECT_EQ(code([](auto& h) { h.pref_address = ~uint64_t{0}; }),
            Code::kResourceExhausted);
  EXPECT_EQ(code([](auto& h) { h.init_size = 4096; }),
            Code::kResourceExhausted);
  EXPECT_EQ(code([](auto& h) { h.init_size = 0xffffffff; }),
            Code::kResourceExhausted);
}

TEST_F(LoadLinuxTest, RefusesAnInitrdThatDoesNotFit) {
  const std::string initrd = Write("initrd", std::string(7 << 20, 'I'));
  EXPECT_EQ(Load(initrd).status().code(), absl::StatusCode::kResourceExhausted);
  setup_header low = header();
  low.initrd_addr_max = 100;
  SetHeader(low);
  EXPECT_EQ(Load(initrd).status().code(), absl::StatusCode::kResourceExhausted);
}

// -- ACPI

uint8_t Sum(const std::byte* begin, size_t bytes) {
  uint8_t sum = 0;
  for (size_t i = 0; i < bytes; ++i) sum += static_cast<uint8_t>(begin[i]);
  return sum;
}

TEST(AcpiTablesTest, LinkToEachOtherAndAddUp) {
  std::vector<std::byte> ram(1 << 20);
  const uint64_t root = WriteAcpiTables(3, absl::MakeSpan(ram));
  const auto load = [&](uint64_t address, auto value) {
    std::memcpy(&value, &ram[address], sizeof(value));
    return value;
  };
  const auto check_table = [&](uint64_t address, const char* signature) {
    EXPECT_EQ(std::memcmp(&ram[address], signature, 4), 0) << signature;
    EXPECT_EQ(Sum(&ram[address], load(address + 4, uint32_t{})), 0)
        << signature;
  };
  EXPECT_EQ(std::memcmp(&ram[root], "RSD PTR ", 8), 0);
  EXPECT_EQ(Sum(&ram[root], 20), 0);
  EXPECT_EQ(Sum(&ram[root], 36), 0);
  const uint64_t xsdt = load(root + 24, uint64_t{});
  check_table(xsdt, "XSDT");
  const uint64_t fadt = load(xsdt + 36, uint64_t{});
  check_table(fadt, "FACP");
  check_table(load(fadt + 140, uint64_t{}), "DSDT");
  const uint64_t madt = load(xsdt + 44, uint64_t{});
  check_table(madt, "APIC");
  EXPECT_EQ(load(madt + 4, uint32_t{}), 44u + 3 * 8 + 12);
}

// -- CPUID

TEST(HypervCpuidTest, KeepsTheProcessorAndReplacesTheHypervisor) {
  kvm_cpuid_entry2 first = {}, kvm = {};
  first.function = 1;
  kvm.function = 0x40000000;
  kvm.eax = 0x40000001;
  const auto entries = HypervCpuid({first, kvm}, HypervMode::kUserspace, 3, 4);
  std::vector<uint32_t> functions;
  for (const auto& entry : entries) functions.push_back(entry.function);
  EXPECT_THAT(functions, ElementsAre(1, 0x40000000, 0x40000001, 0x40000002,
                                     0x40000003, 0x40000004, 0x40000005));
  EXPECT_EQ(entries[0].ebx, 4u << 16 | 3u << 24);
  EXPECT_EQ(entries[0].ecx, uint32_t{1} << 31);
  EXPECT_EQ(entries[1].ebx, 0x7263694du);
}

// -- Console

TEST(SerialPortTest, PrintsAndInterruptsForInput) {
  std::string printed;
  std::vector<bool> line;
  SerialPort port([&](char c) { printed += c; },
                  [&](bool level) { line.push_back(level); });
  port.Write(0, 'h');
  port.Write(0, 'i');
  EXPECT_EQ(printed, "hi");
  port.Write(4, 8);  // interrupts are connected
  port.Write(1, 1);  // for input
  port.Type("x");
  EXPECT_EQ(port.Read(2), 4);
  EXPECT_EQ(port.Read(5) & 1, 1);
  EXPECT_EQ(port.Read(0), 'x');
  EXPECT_EQ(port.Read(2), 1);
  EXPECT_THAT(line, ElementsAre(true, false));
}

TEST(SerialPortTest, KeepsALimitedAmountOfInput) {
  SerialPort port([](char) {}, [](bool) {});
  port.Type(std::string(100'000, 'x'));
  int count = 0;
  for (; (port.Read(5) & 1) != 0; ++count) port.Read(0);
  EXPECT_EQ(count, 4096);
}

TEST(CmosClockTest, TellsTheTimeInDecimalDigits) {
  CmosClock clock;
  const auto read = [&](uint8_t index) {
    clock.Select(index | 0x80u);
    return clock.Read(1'945'814'399);  // Friday, 2031-08-29 23:59:59
  };
  EXPECT_EQ(read(0), 0x59);
  EXPECT_EQ(read(2), 0x59);
  EXPECT_EQ(read(4), 0x23);
  EXPECT_EQ(read(6), 6);
  EXPECT_EQ(read(7), 0x29);
  EXPECT_EQ(read(8), 0x08);
  EXPECT_EQ(read(9), 0x31);
  EXPECT_EQ(read(10) & 0x80, 0);  // no update is under way
  EXPECT_EQ(read(11), 0x02);
  EXPECT_EQ(read(13), 0x80);
  EXPECT_EQ(read(0x7f), 0);
  EXPECT_EQ(clock.selected(), 0x7f);
}

TEST(ConsoleLogTest, FindsResultsAndComplaints) {
  ConsoleLog log(nullptr);
  const auto print = [&](const std::string& text) {
    for (const char c : text) log.Put(c);
  };
  print("hv_storvsc: all is well\r\nFERRYBUS-RESULT not json\n");
  EXPECT_FALSE(log.is_ready());
  EXPECT_TRUE(log.result().is_null());
  print(
      "/ # [    3.14] FERRYBUS-READY\r\n[    4.1] FERRYBUS-RESULT {\"lost\": "
      "0}\n");
  print("I/O ERROR, dev sda\nhv_vmbus: probe failed\n");
  print(std::string(1'000'000, 'x') + "\n");
  EXPECT_TRUE(log.is_ready());
  EXPECT_EQ(log.result()["lost"], 0);
  EXPECT_THAT(log.complaints(),
              ElementsAre("I/O ERROR, dev sda", "hv_vmbus: probe failed"));
}

}  // namespace
}  // namespace ferrybus::hypervisor
