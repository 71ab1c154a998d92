#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tools/specification.py, test_report.py and soak.py do what they say."""

import contextlib
import io
import json
import pathlib
import sys
import tempfile
import unittest
from unittest import mock

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import soak  # pylint: disable=wrong-import-position
import specification  # pylint: disable=wrong-import-position
import test_report  # pylint: disable=wrong-import-position

ROWS = "bad:R1\tone\nbad:R2\ttwo | half\nquirk:D1\tthree\n"
DOCUMENT = (f"# Head\n\n{specification.BEGIN}\n{specification.END}\n\nTail\n")


def quietly(function, *arguments):
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        result = function(*arguments)
    return result, output.getvalue()


class SpecificationTest(unittest.TestCase):

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        (self.root / "docs").mkdir()
        (self.root / specification.ROWS_FILE).write_text(ROWS)
        (self.root / specification.DOCUMENT).write_text(DOCUMENT)

    def run_on(self, test_source, *arguments):
        (self.root / "a_test.cc").write_text(test_source)
        return quietly(specification.main, list(arguments), self.root)

    def document(self):
        return (self.root / specification.DOCUMENT).read_text()

    def test_citation_above_test_fills_the_row(self):
        source = ("// bad:R1 quirk:D1\n// More text.\n"
                  "TEST_P(\n    LongName, Does) {\n}\n"
                  "// bad:R1\nTEST(B, C) {}\n")
        self.assertEqual(self.run_on(source), (0, ""))
        self.assertIn("| bad:R1 | one | a_test.cc: `LongName.Does`, `B.C` |",
                      self.document())
        self.assertIn("| bad:R2 | two \\| half | open |", self.document())
        self.assertIn("| quirk:D1 | three | a_test.cc: `LongName.Does` |",
                      self.document())
        self.assertTrue(self.document().startswith("# Head\n"))
        self.assertTrue(self.document().endswith("\n\nTail\n"))
        self.assertIn("2 of 3 rows have a test", self.document())

    def test_rule_of_the_conformance_kit_fills_its_rows(self):
        source = ('RULE(\n    LongName, "bad:R1 quirk:D1", "It does.") {\n}\n'
                  'RULE(B, "bad:R9", "It does.") {}\n')
        result, output = self.run_on(source)
        self.assertEqual(result, 1)
        self.assertIn("B: cites bad:R9, which is not in", output)
        self.assertIn("| bad:R1 | one | a_test.cc: `LongName` |",
                      self.document())
        self.assertIn("| quirk:D1 | three | a_test.cc: `LongName` |",
                      self.document())

    def test_check_fails_until_written(self):
        source = "// bad:R1\nTEST(B, C) {}\n"
        self.assertEqual(self.run_on(source, "--check")[0], 1)
        self.assertEqual(self.run_on(source)[0], 0)
        self.assertEqual(self.run_on(source, "--check")[0], 0)
        self.assertEqual(self.run_on("", "--check")[0], 1)

    def test_unknown_row_range_and_stray_citation_are_refused(self):
        for source, complaint in (
                ("// bad:R9\nTEST(B, C) {}\n", "not in"),
                ("// bad:R1-R2\nTEST(B, C) {}\n", "no ranges"),
                ("// bad:R1\nint x;\n", "above no test"),
                ("// bad:R1\n\nTEST(B, C) {}\n", "above no test")):
            with self.subTest(source=source):
                self.run_on(source)
                code, text = self.run_on(source, "--check")
                self.assertEqual(code, 1)
                self.assertIn(complaint, text)

    def test_a_row_that_stays_open_says_why(self):
        rows = "bad:R1\tone\tno such device\nbad:R2\ttwo\n"
        (self.root / specification.ROWS_FILE).write_text(rows)
        self.run_on("// bad:R2\nTEST(B, C) {}\n")
        self.assertIn("| bad:R1 | one | open: no such device |",
                      self.document())
        self.run_on("// bad:R1\nTEST(B, C) {}\n")
        code, text = self.run_on("// bad:R1\nTEST(B, C) {}\n", "--check")
        self.assertEqual(code, 1)
        self.assertIn("calls open", text)

    def test_rows_file_is_checked(self):
        for rows in ("bad:R1 one\n", "bad:R1\tone\nbad:R1\ttwo\n",
                     "other:R1\tone\n", "bad:R1\tone\t\n"):
            with self.subTest(rows=rows):
                (self.root / specification.ROWS_FILE).write_text(rows)
                with self.assertRaises(SystemExit):
                    self.run_on("")


GTEST_XML = """<testsuites tests="4"><testsuite name="A" tests="4">
<testcase name="p" status="run" result="completed" />
<testcase name="f" status="run" result="completed"><failure/></testcase>
<testcase name="s" status="run" result="skipped" />
<testcase name="d" status="notrun" result="suppressed" />
</testsuite></testsuites>"""
PASSING_XML = ('<testsuites><testsuite><testcase name="p" status="run"/>'
               '<testcase name="q" status="run"/></testsuite></testsuites>')


class TestReportTest(unittest.TestCase):

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def result(self, label, status, xml, attempt=1):
        outputs = []
        if xml is not None:
            path = self.folder / f"{len(label)}_{attempt}.xml"
            path.write_text(xml)
            outputs = [{"name": "test.xml", "uri": path.as_uri()}]
        return {"id": {"testResult": {"label": label, "run": 1, "shard": 1,
                                      "attempt": attempt}},
                "testResult": {"status": status,
                               "testActionOutput": outputs}}

    def report(self, events, bazel_exit_code):
        path = self.folder / "events.json"
        path.write_text("".join(json.dumps(e) + "\n" for e in events))
        code, text = quietly(test_report.main,
                             [str(path), str(bazel_exit_code)])
        return code, text.splitlines()[-1]

    def test_counts_cases(self):
        events = [self.result("//a:a", "FAILED", GTEST_XML),
                  self.result("//bb:bb", "PASSED", PASSING_XML)]
        self.assertEqual(self.report(events, 3), (1, "3 passed, 1 failed"))

    def test_test_without_cases_counts_once(self):
        events = [self.result("//a:a", "PASSED", None)]
        self.assertEqual(self.report(events, 0), (0, "1 passed, 0 failed"))

    def test_crash_after_passing_cases_is_a_failure(self):
        events = [self.result("//a:a", "FAILED", PASSING_XML)]
        self.assertEqual(self.report(events, 3), (1, "2 passed, 1 failed"))
        events = [self.result("//a:a", "TIMEOUT", None)]
        self.assertEqual(self.report(events, 3), (1, "0 passed, 1 failed"))

    def test_last_attempt_counts(self):
        events = [self.result("//a:a", "FAILED", GTEST_XML, attempt=1),
                  self.result("//a:a", "PASSED", PASSING_XML, attempt=2)]
        self.assertEqual(self.report(events, 0), (0, "2 passed, 0 failed"))

    def test_what_did_not_build_is_a_failure(self):
        broken = {"id": {"targetCompleted": {"label": "//a:a"}},
                  "completed": {}}
        fine = {"id": {"targetCompleted": {"label": "//b:b"}},
                "completed": {"success": True}}
        self.assertEqual(self.report([broken, fine], 1),
                         (1, "0 passed, 1 failed"))

    def test_bazel_that_does_not_run_is_a_failure(self):
        self.assertEqual(self.report([], 36), (1, "0 passed, 1 failed"))
        self.assertEqual(
            quietly(test_report.main, [str(self.folder / "none"), "2"])[0], 1)


class SoakTest(unittest.TestCase):

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.ledger = self.folder / "ledger.tsv"

    def program(self, name, script):
        path = self.folder / name
        path.write_text("#!/bin/sh\n" + script)
        path.chmod(0o755)
        return str(path)

    def soak(self, *arguments):
        command = ["soak.py", "--minutes=1", "--commit=c0ffee",
                   f"--ledger={self.ledger}", f"--work={self.folder}/work",
                   *arguments]
        with mock.patch.object(sys, "argv", command):
            return quietly(soak.main)

    def fuzzer(self, name, count, code=0):
        return self.program(name, f"echo stat::number_of_executed_units: "
                            f"{count}\nexit {code}\n")

    def test_goes_on_where_the_ledger_ends(self):
        self.ledger.write_text("\t".join(soak.COLUMNS) +
                               "\nc0\tsimulation\t1\t500\t9\t0"
                               "\nc0\tmuch_fuzz\t0\t70\t9\t0\n")
        # One portion of seeds takes longer than there is time.
        simulate = self.program(
            "simulate", f"echo $1 >>{self.folder}/asked\nsleep 1.5\n"
            "echo 500 seeds, 0 failed\n")
        code, _ = self.soak("--jobs=1", "--minutes=0.05",
                            f"--simulate={simulate}")
        self.assertEqual(code, 0)
        self.assertEqual((self.folder / "asked").read_text(),
                         "--from-seed=501\n")
        code, _ = self.soak("--jobs=1", self.fuzzer("much_fuzz", 7),
                            self.fuzzer("none_fuzz", 8) + "=a,b")
        self.assertEqual(code, 0)
        runs = [(entry.part, entry.first, entry.count)
                for entry in soak.read_ledger(self.ledger)[2:]]
        self.assertEqual(runs, [("simulation", 501, 500), ("none_fuzz", 0, 8),
                                ("much_fuzz", 0, 7)])

    def test_what_is_found_is_a_failure_and_in_the_ledger(self):
        fuzzers = [self.fuzzer(f"f{i}_fuzz", 3, int(i == 5)) for i in range(9)]
        code, _ = self.soak("--jobs=4", *fuzzers)
        self.assertEqual(code, 1)
        entries = soak.read_ledger(self.ledger)
        self.assertEqual(sorted(entry.part for entry in entries),
                         [f"f{i}_fuzz" for i in range(9)])
        self.assertEqual([entry.part for entry in entries if entry.found],
                         ["f5_fuzz"])


if __name__ == "__main__":
    unittest.main()
