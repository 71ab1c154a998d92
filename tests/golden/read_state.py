#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Reads saved states, written from docs/SAVE_STATE.md alone.

    tests/golden/read_state.py [--key ID=HEX]... [--counter N] FILE...

Checks the frame, prints the sections, and checks the seal if there is one.
Shares no code with the library: what this cannot read, the document does not
say.  Exit code 1: a file was refused.
"""

import argparse
import hashlib
import hmac
import re
import struct
import sys

MAGIC = b"FERRYBUS"
HEADER = struct.Struct("<8sIIIIQ24sII")
ENTRY = struct.Struct("<24sQIIQQII")
SEAL = struct.Struct("<IIQ24s32s")
SEAL_SECTION = "authentication"
SEAL_DOMAIN = b"ferrybus-seal-1\0"
NAME = re.compile(rb"[A-Za-z0-9._-]{1,24}\0*")
PRODUCER = re.compile(rb"[ -~]*\0*")


class Refused(Exception):
    """The file is not one that a reader may take; `code` as in the document."""

    def __init__(self, code, text):
        super().__init__(f"{code}: {text}")
        self.code = code


def require(condition, code, text):
    if not condition:
        raise Refused(code, text)


def make_crc_table():
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


CRC_TABLE = make_crc_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def padded(length):
    return -length % 8


class Section:
    """A row of the table, and its body."""

    def __init__(self, entry, data, expected_offset):
        (name, self.instance, self.version, flags, offset, length, crc,
         reserved) = ENTRY.unpack(entry)
        require(NAME.fullmatch(name), "InvalidArgument", "a section's name")
        self.name = name.rstrip(b"\0").decode()
        require(self.version != 0, "InvalidArgument", "a section's version 0")
        require(flags in (0, 1) and reserved == 0, "Unimplemented",
                "a section's flags")
        self.is_required = flags == 1
        require(offset == expected_offset, "InvalidArgument",
                f"{self.name}: offset {offset}, not {expected_offset}")
        require(length <= len(data) - offset, "InvalidArgument",
                f"{self.name}: length {length}")
        self.body = data[offset:offset + length]
        self.crc = crc
        self.end = offset + length + padded(length)
        self.padding = data[offset + length:self.end]

    def check_body(self):
        require(crc32c(self.body) == self.crc and not any(self.padding),
                "DataLoss", f"{self.name}: the body is damaged")

    def __str__(self):
        kind = "required" if self.is_required else "optional"
        return (f"{self.name} instance {self.instance} version {self.version} "
                f"{kind} {len(self.body)} bytes")


def check_header(data):
    """The fields of the header, which has its meaning in every version."""
    if len(data) < HEADER.size:
        require(MAGIC.startswith(data[:8]), "InvalidArgument", "the magic")
        raise Refused("DataLoss", f"{len(data)} bytes of a header of 64")
    fields = HEADER.unpack_from(data)
    magic, version, crc = fields[0], fields[1], fields[8]
    if magic != MAGIC:
        require(crc32c(MAGIC + data[8:60]) != crc, "DataLoss", "the magic")
        raise Refused("InvalidArgument", "the magic")
    require(version != 0x01000000, "InvalidArgument", "the byte order")
    require(crc32c(data[:60]) == crc, "DataLoss", "the header")
    require(version == 1, "Unimplemented", f"frame version {version}")
    return fields


def read_frame(data):
    """(producer, sections) of a file that is whole."""
    (_, _, header_bytes, count, flags, total, producer, table_crc,
     _) = check_header(data)
    require(header_bytes == 64, "InvalidArgument", "the header's size")
    require(flags == 0, "Unimplemented", "the frame's flags")
    require(PRODUCER.fullmatch(producer), "InvalidArgument", "the producer")
    require(total <= len(data), "DataLoss", "the file is cut off")
    require(total == len(data), "InvalidArgument", "bytes after the end")
    table_end = 64 + 64 * count
    require(table_end <= total and total % 8 == 0, "InvalidArgument",
            "the total size")
    require(crc32c(data[64:table_end]) == table_crc, "DataLoss", "the table")
    sections, offset = [], table_end
    for at in range(64, table_end, 64):
        sections.append(Section(data[at:at + 64], data, offset))
        offset = sections[-1].end
    require(offset == total, "InvalidArgument", "the last body's end")
    keys = {(section.name, section.instance) for section in sections}
    require(len(keys) == count, "InvalidArgument", "a section twice")
    for section in sections:
        section.check_body()
    return producer, sections


def write_frame(producer, sections):
    """The one spelling of these sections."""
    offset = 64 + 64 * len(sections)
    table = bodies = b""
    for section in sections:
        table += ENTRY.pack(section.name.encode(), section.instance,
                            section.version, int(section.is_required),
                            offset + len(bodies), len(section.body),
                            crc32c(section.body), 0)
        bodies += section.body + bytes(padded(len(section.body)))
    header = HEADER.pack(MAGIC, 1, 64, len(sections), 0, offset + len(bodies),
                         producer, crc32c(table), 0)[:60]
    return header + struct.pack("<I", crc32c(header)) + table + bodies


def check_seal(producer, sections, keys, minimum_counter):
    """(key id, counter) of the last section, if its tag is right."""
    seal = next((section for section in sections
                 if section.name == SEAL_SECTION and section.instance == 0),
                None)
    require(seal is not None, "FailedPrecondition", "not sealed")
    require(seal.version == 1, "Unimplemented", "the seal's version")
    require(seal is sections[-1] and seal.is_required and
            len(seal.body) == SEAL.size, "InvalidArgument", "the seal's form")
    algorithm, reserved, counter, key_id, tag = SEAL.unpack(seal.body)
    require(algorithm == 1 and reserved == 0, "Unimplemented",
            f"the seal's algorithm {algorithm}")
    require(NAME.fullmatch(key_id), "InvalidArgument", "the seal's key id")
    name = key_id.rstrip(b"\0").decode()
    require(name in keys, "NotFound", f"no key {name}")
    message = (SEAL_DOMAIN + seal.body[:40] +
               write_frame(producer, sections[:-1]))
    right = hmac.digest(keys[name], message, hashlib.sha256)
    require(hmac.compare_digest(right, tag), "Unauthenticated", "the tag")
    require(counter >= minimum_counter, "OutOfRange",
            f"counter {counter}, at least {minimum_counter} is asked for")
    return name, counter


def describe(data, keys, minimum_counter):
    """What is printed about a file."""
    producer, sections = read_frame(data)
    text = producer.rstrip(b"\0").decode()
    yield f"{len(data)} bytes, written by \"{text}\""
    yield from (f"  {section}" for section in sections)
    if any(section.name == SEAL_SECTION for section in sections):
        name, counter = check_seal(producer, sections, keys, minimum_counter)
        yield f"  sealed with \"{name}\", counter {counter}"


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--key", action="append", default=[])
    parser.add_argument("--counter", type=int, default=0)
    parser.add_argument("files", nargs="+")
    options = parser.parse_args(arguments)
    keys = {}
    for key in options.key:
        name, secret = key.split("=", 1)
        keys[name] = bytes.fromhex(secret)
    status = 0
    for name in options.files:
        with open(name, "rb") as file:
            data = file.read()
        try:
            print(f"{name}:")
            for line in describe(data, keys, options.counter):
                print(line)
        except Refused as refusal:
            print(f"  refused: {refusal}")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
