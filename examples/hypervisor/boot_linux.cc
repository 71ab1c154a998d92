// SPDX-License-Identifier: MIT

#include "ferrybus/examples/hypervisor/boot_linux.h"

#include <asm/bootparam.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace ferrybus::hypervisor {
namespace {

// Low memory, all of it below the 640 KiB that a PC has there.
constexpr uint64_t kGdt = 0x500;
constexpr uint64_t kBootParams = 0x7000;
constexpr uint64_t kPageTables = 0x9000;  // six pages
constexpr uint64_t kCommandLine = 0x20000;
constexpr uint64_t kLowMemoryEnd = 0x9fc00;
constexpr uint64_t kHighMemory = 0x100000;

constexpr uint16_t kCodeSelector = 0x10;
constexpr uint16_t kDataSelector = 0x18;
constexpr uint16_t kOldestProtocol = 0x020c;  // 64-bit entry
constexpr uint64_t kEntry64 = 0x200;
constexpr uint64_t kSectorBytes = 512;

absl::StatusOr<std::vector<char>> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat(path, ": cannot be read"));
  return std::vector<char>(std::istreambuf_iterator<char>(file), {});
}

template <typename T>
T* At(absl::Span<std::byte> ram, uint64_t address) {
  return reinterpret_cast<T*>(ram.data() + address);
}

absl::StatusOr<setup_header> ReadSetupHeader(const std::string& path,
                                             const std::vector<char>& file) {
  setup_header header = {};
  constexpr size_t kOffset = offsetof(boot_params, hdr);
  constexpr uint32_t kMagic = 0x53726448;  // "HdrS"
  if (file.size() < kOffset + sizeof(header)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": not a Linux kernel, it is too short"));
  }
  std::memcpy(&header, file.data() + kOffset, sizeof(header));
  if (header.header != kMagic) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": not a Linux bzImage (vmlinuz of a package)"));
  }
  if (header.version < kOldestProtocol ||
      (header.xloadflags & XLF_KERNEL_64) == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": this kernel has no 64-bit entry"));
  }
  if (header.setup_sects == 0) header.setup_sects = 4;
  return header;
}

void BuildPageTables(absl::Span<std::byte> ram) {
  constexpr uint64_t kPresentWritable = 3;
  constexpr uint64_t kLargePage = 0x80;
  auto* const tables = At<uint64_t>(ram, kPageTables);
  tables[0] = (kPageTables + 0x1000) | kPresentWritable;
  for (uint64_t gib = 0; gib < 4; ++gib) {
    tables[512 + gib] =
        (kPageTables + 0x2000 + gib * 0x1000) | kPresentWritable;
  }
  for (uint64_t i = 0; i < 4 * 512; ++i) {
    tables[1024 + i] = (i << 21) | kPresentWritable | kLargePage;
  }
}

void BuildGdt(absl::Span<std::byte> ram) {
  auto* const gdt = At<uint64_t>(ram, kGdt);
  gdt[kCodeSelector / 8] = 0x00af9b000000ffff;
  gdt[kDataSelector / 8] = 0x00cf93000000ffff;
}

void AddMemory(boot_params* params, uint64_t begin, uint64_t end) {
  boot_e820_entry& entry = params->e820_table[params->e820_entries++];
  entry.addr = begin;
  entry.size = end - begin;
  entry.type = 1;  // RAM
}

absl::Status LoadInitrd(const std::string& path, absl::Span<std::byte> ram,
                        uint64_t lowest, setup_header* header) {
  const absl::StatusOr<std::vector<char>> file = ReadFile(path);
  if (!file.ok()) return file.status();
  const uint64_t end =
      std::min<uint64_t>(ram.size(), uint64_t{header->initrd_addr_max} + 1);
  if (file->size() > end || end - file->size() < lowest + 4096) {
    return absl::ResourceExhaustedError(
        absl::StrCat(path, ": does not fit into the guest's RAM"));
  }
  const uint64_t address = (end - file->size()) & ~uint64_t{4095};
  std::memcpy(ram.data() + address, file->data(), file->size());
  header->ramdisk_image = static_cast<uint32_t>(address);
  header->ramdisk_size = static_cast<uint32_t>(file->size());
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<BootEntry> LoadLinux(const LinuxImage& image, uint64_t acpi_rsdp,
                                    absl::Span<std::byte> ram) {
  const absl::StatusOr<std::vector<char>> file = ReadFile(image.kernel_path);
  if (!file.ok()) return file.status();
  absl::StatusOr<setup_header> header =
      ReadSetupHeader(image.kernel_path, *file);
  if (!header.ok()) return header.status();
  const uint64_t begin = (header->setup_sects + 1) * kSectorBytes;
  const uint64_t load_address = header->pref_address;
  const uint64_t kernel_end = load_address + header->init_size;
  if (file->size() <= begin + kEntry64) {
    return absl::InvalidArgumentError(
        absl::StrCat(image.kernel_path, ": the kernel is cut off"));
  }
  if (load_address < kHighMemory || kernel_end < load_address ||
      kernel_end > ram.size() || file->size() - begin > header->init_size) {
    return absl::ResourceExhaustedError(
        absl::StrCat(image.kernel_path, ": the kernel needs RAM up to ",
                     kernel_end, ", the guest has ", ram.size(), " bytes"));
  }
  if (image.command_line.size() > header->cmdline_size) {
    return absl::InvalidArgumentError("the kernel's command line is too long");
  }
  std::memcpy(ram.data() + load_address, file->data() + begin,
              file->size() - begin);
  std::memcpy(ram.data() + kCommandLine, image.command_line.c_str(),
              image.command_line.size() + 1);
  header->type_of_loader = 0xff;
  header->cmd_line_ptr = kCommandLine;
  header->ramdisk_image = header->ramdisk_size = 0;
  if (!image.initrd_path.empty()) {
    const absl::Status status =
        LoadInitrd(image.initrd_path, ram, kernel_end, &*header);
    if (!status.ok()) return status;
  }

  auto* const params = At<boot_params>(ram, kBootParams);
  std::memset(params, 0, sizeof(*params));
  params->hdr = *header;
  params->acpi_rsdp_addr = acpi_rsdp;
  AddMemory(params, 0, kLowMemoryEnd);
  AddMemory(params, kHighMemory, ram.size());
  BuildPageTables(ram);
  BuildGdt(ram);
  return BootEntry{.rip = load_address + kEntry64, .boot_params = kBootParams};
}

kvm_regs BootRegisters(const BootEntry& entry) {
  kvm_regs registers = {};
  registers.rip = entry.rip;
  registers.rsi = entry.boot_params;
  registers.rsp = kBootParams;
  registers.rflags = 2;
  return registers;
}

void SetBootSegments(kvm_sregs* registers) {
  constexpr uint64_t kPaging = 0x80000001;     // CR0: PG, PE
  constexpr uint64_t kPae = 0x20;              // CR4
  constexpr uint64_t kLongModeActive = 0x500;  // EFER: LME, LMA
  kvm_segment code = {};
  code.limit = 0xffffffff;
  code.selector = kCodeSelector;
  code.type = 11;  // execute, read, accessed
  code.present = code.s = code.l = code.g = 1;
  kvm_segment data = code;
  data.selector = kDataSelector;
  data.type = 3;  // read, write, accessed
  data.l = 0;
  data.db = 1;
  registers->cs = code;
  registers->ds = registers->es = registers->ss = data;
  registers->fs = registers->gs = data;
  registers->gdt.base = kGdt;
  registers->gdt.limit = kDataSelector + 7;
  registers->cr3 = kPageTables;
  registers->cr4 = kPae;
  registers->cr0 |= kPaging;
  registers->efer = kLongModeActive;
}

}  // namespace ferrybus::hypervisor
