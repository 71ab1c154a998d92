// SPDX-License-Identifier: MIT

#include "ferrybus/examples/hypervisor/acpi_tables.h"

#include <cstring>
#include <string>
#include <vector>

namespace ferrybus::hypervisor {
namespace {

constexpr uint64_t kTablesAddress = 0xe0000;
constexpr uint64_t kLocalApicAddress = 0xfee00000;
constexpr uint64_t kIoApicAddress = 0xfec00000;
constexpr uint16_t kSciInterrupt = 9;
// IAPC_BOOT_ARCH: legacy devices (the serial port), no VGA, no MSI, no clock
// chip for a driver: after the boot the time comes over the bus.
constexpr uint16_t kBootArchitecture = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 5;
// WBINVD; C1 on all processors.
constexpr uint32_t kFadtFlags = 1 << 0 | 1 << 2;

// A table under construction: bytes and little-endian numbers.
class Bytes {
 public:
  Bytes& U8(uint64_t value) { return Number(value, 1); }
  Bytes& U16(uint64_t value) { return Number(value, 2); }
  Bytes& U32(uint64_t value) { return Number(value, 4); }
  Bytes& U64(uint64_t value) { return Number(value, 8); }
  Bytes& Text(const std::string& text) {
    bytes_ += text;
    return *this;
  }
  void SetU64(size_t offset, uint64_t value) {
    std::memcpy(&bytes_[offset], &value, 8);
  }
  void SetU32(size_t offset, uint32_t value) {
    std::memcpy(&bytes_[offset], &value, 4);
  }
  void SetU16(size_t offset, uint16_t value) {
    std::memcpy(&bytes_[offset], &value, 2);
  }
  void SetU8(size_t offset, uint8_t value) {
    bytes_[offset] = static_cast<char>(value);
  }
  // Makes the bytes from `begin` on sum to 0.
  void SetChecksum(size_t offset, size_t length) {
    uint8_t sum = 0;
    for (size_t i = 0; i < length; ++i) sum += static_cast<uint8_t>(bytes_[i]);
    SetU8(offset, static_cast<uint8_t>(-sum));
  }
  void Resize(size_t size) { bytes_.resize(size); }
  const std::string& bytes() const { return bytes_; }

 private:
  Bytes& Number(uint64_t value, size_t size) {
    for (size_t i = 0; i < size; ++i) {
      bytes_ += static_cast<char>(value >> (8 * i));
    }
    return *this;
  }
  std::string bytes_;
};

// A whole table, header and checksum made from its signature and body.
std::string Table(const char* signature, uint8_t revision,
                  const std::string& body) {
  Bytes table;
  table.Text(signature)
      .U32(36 + body.size())
      .U8(revision)
      .U8(0)
      .Text("FERRYB")
      .Text("FERRYBUS")
      .U32(1)
      .Text("FBUS")
      .U32(1)
      .Text(body);
  table.SetChecksum(9, table.bytes().size());
  return table.bytes();
}

// ---- The small part of AML, the tables' code, that is needed.

std::string AmlPackageLength(size_t content) {
  // The length counts its own bytes; two are enough for 4 KiB.
  const size_t length = content + 2;
  return {static_cast<char>(0x40 | (length & 0xf)),
          static_cast<char>(length >> 4)};
}

std::string AmlName(const std::string& name, const std::string& value) {
  return "\x08" + name + value;
}

std::string AmlText(const std::string& text) {
  return "\x0d" + text + std::string(1, '\0');
}

std::string AmlBlock(const std::string& op, const std::string& content) {
  return op + AmlPackageLength(content.size()) + content;
}

// Scope(\_SB) { Device(VMBS) {...} }; Name(\_S5, Package() {5, 5, 0, 0}).
std::string DsdtBody() {
  using std::string_literals::operator""s;
  const std::string no_resources =
      AmlBlock("\x11", "\x0a\x02\x79\x00"s);  // Buffer(2) {EndTag}
  const std::string device = AmlBlock(
      "\x5b\x82", "VMBS" + AmlName("_HID", AmlText("VMBus")) +
                      AmlName("_UID", "\x00"s) + AmlName("_STA", "\x0a\x0f") +
                      AmlName("_CRS", no_resources));
  const std::string scope = AmlBlock("\x10", "\\_SB_" + device);
  const std::string sleep =
      AmlName("\\_S5_", AmlBlock("\x12", "\x04\x0a\x05\x0a\x05\x00\x00"s));
  return scope + sleep;
}

std::string Facs() {
  Bytes facs;
  facs.Text("FACS").U32(64);
  facs.Resize(64);
  facs.SetU8(32, 2);
  return facs.bytes();
}

// A generic address in I/O space.
void SetPort(Bytes* table, size_t offset, uint16_t port, uint8_t bytes) {
  table->SetU8(offset, 1);
  table->SetU8(offset + 1, static_cast<uint8_t>(bytes * 8));
  table->SetU64(offset + 4, port);
}

// Offsets are those of the specification less the header's 36 bytes.
std::string Fadt(uint64_t facs, uint64_t dsdt) {
  Bytes body;
  body.Resize(244 - 36);
  const auto at = [](size_t offset) { return offset - 36; };
  body.SetU32(at(36), static_cast<uint32_t>(facs));
  body.SetU32(at(40), static_cast<uint32_t>(dsdt));
  body.SetU16(at(46), kSciInterrupt);
  body.SetU32(at(56), kAcpiEventPort);
  body.SetU32(at(64), kAcpiControlPort);
  body.SetU8(at(88), 4);
  body.SetU8(at(89), 2);
  body.SetU16(at(96), 0x1000);  // no C2
  body.SetU16(at(98), 0x1000);  // no C3
  body.SetU16(at(109), kBootArchitecture);
  body.SetU32(at(112), kFadtFlags);
  body.SetU64(at(140), dsdt);
  SetPort(&body, at(148), kAcpiEventPort, 4);
  SetPort(&body, at(172), kAcpiControlPort, 2);
  return Table("FACP", 3, body.bytes());
}

std::string Madt(uint32_t vp_count) {
  Bytes body;
  body.U32(kLocalApicAddress).U32(1);  // with 8259s
  for (uint32_t vp = 0; vp < vp_count; ++vp) {
    body.U8(0).U8(8).U8(vp).U8(vp).U32(1);
  }
  body.U8(1).U8(12).U8(vp_count).U8(0).U32(kIoApicAddress).U32(0);
  return Table("APIC", 3, body.bytes());
}

std::string RootPointer(uint64_t xsdt) {
  Bytes pointer;
  pointer.Text("RSD PTR ").U8(0).Text("FERRYB").U8(2).U32(0);
  pointer.U32(36).U64(xsdt).U8(0).U8(0).U16(0);
  pointer.SetChecksum(8, 20);
  pointer.SetChecksum(32, 36);
  return pointer.bytes();
}

}  // namespace

uint64_t WriteAcpiTables(uint32_t vp_count, absl::Span<std::byte> ram) {
  uint64_t next = kTablesAddress + 64;  // behind the root pointer
  const auto place = [&](const std::string& table) {
    const uint64_t address = next;
    std::memcpy(ram.data() + address, table.data(), table.size());
    next = (address + table.size() + 63) & ~uint64_t{63};
    return address;
  };
  const uint64_t facs = place(Facs());
  const uint64_t dsdt = place(Table("DSDT", 2, DsdtBody()));
  Bytes root;
  root.U64(place(Fadt(facs, dsdt)));
  root.U64(place(Madt(vp_count)));
  const std::string pointer =
      RootPointer(place(Table("XSDT", 1, root.bytes())));
  std::memcpy(ram.data() + kTablesAddress, pointer.data(), pointer.size());
  return kTablesAddress;
}

}  // namespace ferrybus::hypervisor
