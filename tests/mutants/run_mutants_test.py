#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""run_mutants.py: a rotten list is told, and a survivor is no find."""

import pathlib
import sys
import tempfile
import unittest

import run_mutants
from run_mutants import BEGIN, BUILD_FAILED, BUILT, END, TESTS_FAILED

GOOD = run_mutants.Mutant(
    id="m", bug="a | b", row="bad:R1", file="a.cc",
    edits=(("x == 1", "x == 2"),), tests=("//p:quick_test", "//p:slow_test"))


def changed(**fields):
    return run_mutants.dataclasses.replace(GOOD, **fields)


class FakeBazel:
    """Says what it is told to; otherwise all is well."""

    def __init__(self, folder, **answers):
        self._folder = folder
        self._answers = answers  # "mutated_test_quick_test": exit code
        self.log = folder / "logs"
        self.log.mkdir()

    def run(self, command, label):
        is_mutated = "x == 2" in (self._folder / "a.cc").read_text()
        name = label.partition(":")[2]
        key = f"{'mutated' if is_mutated else 'sound'}_{command}_{name}"
        return self._answers.get(key, BUILT), 1.5, "what bazel said"

    def logs(self, label):
        return self.log


class MutantsTest(unittest.TestCase):

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        (self.root / "a.cc").write_text("if (x == 1) y();\n")
        (self.root / "docs").mkdir()
        (self.root / run_mutants.ROWS).write_text("bad:R1\tA row\n")
        (self.root / "p").mkdir()
        (self.root / "p/BUILD.bazel").write_text(
            'ferry_test(name = "quick_test")\nferry_test(name = "slow_test")\n'
            'ferry_fuzz(name = "a_fuzz")\n')

    def result(self, **answers):
        bazel = FakeBazel(self.root, **answers)
        (bazel.log / "test.xml").write_text(
            '<testsuites><testcase classname="A" name="Good"/>'
            '<testcase classname="A" name="Bad"><failure/></testcase>'
            "</testsuites>")
        result = run_mutants.Run(self.root, bazel).run(GOOD)
        self.assertEqual((self.root / "a.cc").read_text(), "if (x == 1) y();\n")
        return result

    def test_a_list_that_fits_is_taken(self):
        fits = [GOOD, changed(id="f", tests=("//p:a_fuzz_replay",))]
        self.assertEqual(list(run_mutants.complaints(self.root, fits)), [])

    def test_a_list_that_does_not_fit_is_told(self):
        for mutants, complaint in (
            ([GOOD, GOOD], "another one of that name"),
            ([changed(row="bad:R2")], "no row bad:R2"),
            ([changed(tests=())], "no tests"),
            ([changed(tests=("//p:gone_test",))], "no target //p:gone_test"),
            ([changed(file="gone.cc")], "no file gone.cc"),
            ([changed(edits=(("z", "w"),))], "has 0 times"),
            ([changed(edits=(("(", "w"),))], "has 2 times"),
            ([changed(edits=(("y", "y"),))], "changes nothing"),
        ):
            told = list(run_mutants.complaints(self.root, mutants))
            self.assertEqual(len(told), 1, told)
            self.assertIn(complaint, told[0])

    def test_the_first_test_that_fails_has_found_it(self):
        result = self.result(mutated_test_slow_test=TESTS_FAILED)
        self.assertEqual(result["status"], "found")
        self.assertEqual(result["test"], "//p:slow_test")
        self.assertEqual(result["cases"], ["A.Bad"])
        self.assertEqual(result["build_seconds"], 3.0)

    def test_no_test_fails(self):
        self.assertEqual(self.result()["status"], "survived")

    def test_what_does_not_compile_is_no_find(self):
        result = self.result(mutated_build_quick_test=BUILD_FAILED)
        self.assertEqual(result["status"], "error")
        self.assertIn("does not compile", result["detail"])

    def test_a_test_that_always_fails_finds_nothing(self):
        result = self.result(sound_test_quick_test=TESTS_FAILED,
                             mutated_test_quick_test=TESTS_FAILED)
        self.assertEqual(result["status"], "error")
        self.assertIn("without a mutant", result["detail"])

    def test_crashes_and_hangs_have_the_name_of_their_case(self):
        for text, name in (
            ("[ RUN      ] A.B\nSegmentation fault\n", ["A.B (crash)"]),
            ("[ RUN      ] A.B\n-- Test timed out at 1\n", ["A.B (no end)"]),
            ("[ RUN      ] A.B\n[       OK ] A.B (1 ms)\n", []),
            ("-- Test timed out at 1\n", ["no end"]),
        ):
            (self.root / "test.log").write_text(text)
            self.assertEqual(run_mutants.failing_cases(self.root), name)

    def test_the_document_has_survivors_first(self):
        found = {"status": "found", "test": "//p:t", "cases": ["A.B"] * 5,
                 "build_seconds": 2.0, "test_seconds": 1.0}
        results = {"m": found, "s": found | {"status": "survived"}}
        path = self.root / "table.md"
        path.write_text(f"Text\n{BEGIN}\nold\n{END}\nfoot\n")
        run_mutants.write_document(path, [GOOD, changed(id="s")], results, "c1")
        text = path.read_text()
        self.assertLess(text.index("**survived**"), text.index("//p:t"))
        self.assertIn("Commit c1: 1 of 2 found", text)
        self.assertIn("a \\| b", text)
        self.assertIn("2 more", text)
        self.assertNotIn("old", text)
        self.assertTrue(text.startswith("Text\n") and text.endswith("foot\n"))


if __name__ == "__main__":
    sys.exit(unittest.main())
