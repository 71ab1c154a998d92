#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tests/lint/limits.py finds what docs/LIMITS.md does not say, or says wrong."""

import sys
import unittest

import limits

FIELDS = {
    "ALimits::count_max": "4096",
    "ALimits::bytes_max": "uint64_t{64} << 20",
    "BOptions::time": "15'000",
}
CONSTANTS = {"kTotalMax": "kPartMax + 2", "kPartMax": "40u"}
GOOD = """
| `ALimits::count_max` | 4096 | refused |
| `ALimits::bytes_max` | 67108864 | refused |
| `BOptions::time` | 15000 | refused |
| `kTotalMax` | 42 | refused |
and `kPartMax` (40).
"""


class LimitsTest(unittest.TestCase):

    def complaints(self, document):
        return list(limits.complaints(document, FIELDS, CONSTANTS))

    def test_a_complete_table_is_taken(self):
        self.assertEqual(self.complaints(GOOD), [])

    def test_what_is_missing_stale_or_wrong_is_told(self):
        for old, new, complaint in (
            ("`ALimits::count_max`", "`BOptions::time`", "count_max is not in"),
            ("| 4096 |", "| 4095 |", "says 4095 for ALimits::count_max"),
            ("67108864", "64", "says 64 for ALimits::bytes_max"),
            ("| 42 |", "| 43 |", "says 43 for kTotalMax"),
            ("(40)", "(41)", "says 41 for kPartMax"),
            ("BOptions::time", "BOptions::gone", "names BOptions::gone"),
        ):
            with self.subTest(complaint):
                told = "\n".join(self.complaints(GOOD.replace(old, new)))
                self.assertIn(complaint, told)


if __name__ == "__main__":
    sys.exit(unittest.main())
