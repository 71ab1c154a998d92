#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A reader that was written from docs/SAVE_STATE.md reads all golden files."""

import contextlib
import io
import pathlib
import sys
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import read_state  # pylint: disable=wrong-import-position

FILES = sorted([*(HERE / "files").glob("*.ferry"),
                *(HERE.parents[1] / "savestate/golden").glob("*.ferry")])
SEALED = HERE / "files" / "bus_v1_sealed.ferry"
KEYS = {"golden": b"32 bytes that everybody can read"}


def refusal(data, keys=None, counter=0):
    """The code that a file is refused with; None: it is taken."""
    try:
        list(read_state.describe(data, KEYS if keys is None else keys, counter))
    except read_state.Refused as refused:
        return refused.code
    return None


class ReadStateTest(unittest.TestCase):

    def test_all_golden_files_are_read(self):
        self.assertGreaterEqual(len(FILES), 20)
        for path in FILES:
            self.assertIsNone(refusal(path.read_bytes()), path.name)

    def test_each_has_one_spelling(self):
        for path in FILES:
            data = path.read_bytes()
            self.assertEqual(
                read_state.write_frame(*read_state.read_frame(data)), data)

    def test_what_a_bus_has(self):
        for path in (HERE / "files").glob("*.ferry"):
            _, sections = read_state.read_frame(path.read_bytes())
            self.assertEqual(str(sections[0])[:41],
                             "connection instance 0 version 1 required ")
            for section in sections[1:]:
                self.assertIn(section.name, ("channel", "authentication"))
                self.assertEqual(section.version, 1)
                self.assertTrue(section.is_required)

    def test_damage_is_found(self):
        for path in FILES:
            data = path.read_bytes()
            for size in range(0, len(data), 7):
                self.assertEqual(refusal(data[:size]), "DataLoss")
            for byte in range(0, len(data), 11):
                damaged = bytearray(data)
                damaged[byte] ^= 0x10
                self.assertEqual(refusal(bytes(damaged)), "DataLoss")
            self.assertEqual(refusal(data + bytes(8)), "InvalidArgument")

    def test_the_seal(self):
        data = SEALED.read_bytes()
        self.assertIsNone(refusal(data, counter=42))
        self.assertEqual(refusal(data, counter=43), "OutOfRange")
        self.assertEqual(refusal(data, keys={}), "NotFound")
        self.assertEqual(refusal(data, keys={"golden": b"another"}),
                         "Unauthenticated")
        producer, sections = read_state.read_frame(data)
        sections[0].instance = 1
        self.assertEqual(refusal(read_state.write_frame(producer, sections)),
                         "Unauthenticated")

    def test_what_is_inside_the_seal_is_the_file_before_it(self):
        producer, sections = read_state.read_frame(SEALED.read_bytes())
        self.assertEqual(
            read_state.write_frame(producer, sections[:-1]),
            (HERE / "files" / "bus_v1_incoming.ferry").read_bytes())

    def test_the_command(self):
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            taken = read_state.main(
                ["--key", "golden=" + KEYS["golden"].hex(), str(SEALED)])
            refused = read_state.main([str(SEALED)])
        self.assertEqual((taken, refused), (0, 1))
        self.assertIn("  sealed with \"golden\", counter 42\n",
                      output.getvalue())
        self.assertIn("  refused: NotFound: no key golden\n", output.getvalue())


if __name__ == "__main__":
    unittest.main()
