#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tools/cmake_sources.py reads BUILD.bazel files as Bazel means them."""

import pathlib
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import cmake_sources  # pylint: disable=wrong-import-position

UMBRELLA = 'ferry_library(name = "ferrybus", deps = ["//a:top"])'
TOP = '''
load("//tools:build_defs.bzl", "ferry_library")
package(default_visibility = ["//visibility:public"])
ferry_library(
    name = "top", srcs = ["top.cc"], hdrs = ["top.h"],
    deps = [":inner", "//b", "@system//:one"])
ferry_library(
    name = "inner", srcs = ["inner.cc"], hdrs = ["inner.h", "hidden.h"],
    visibility = ["//visibility:private"])
ferry_library(name = "util", testonly = True, srcs = ["util.cc"])
ferry_test(name = "top_test", srcs = ["top_test.cc"])
'''
BELOW = 'ferry_proto(name = "b", src = "b.proto")\n'
SYSTEM = '''
cc_library(name = "one", linkopts = ["-lone", "-lone_more"])
cc_library(name = "protobuf", linkopts = ["-lproto", "-pthread"])
cc_library(name = "unused", linkopts = ["-lunused"])
'''


class CmakeSourcesTest(unittest.TestCase):

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        self.write("BUILD.bazel", UMBRELLA)
        self.write("a/BUILD.bazel", TOP)
        self.write("a/top.h", '#include "ferrybus/a/inner.h"\n')
        self.write("a/inner.h", "#include <map>\n")
        self.write("b/BUILD.bazel", BELOW)
        self.write(cmake_sources.SYSTEM_BUILD, SYSTEM)

    def write(self, path, text):
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def assert_refused(self, complaint):
        with self.assertRaisesRegex(cmake_sources.SourcesError, complaint):
            cmake_sources.collect(self.root)

    def test_lists_what_the_umbrella_reaches(self):
        lists = cmake_sources.collect(self.root)
        self.assertEqual(lists["SOURCES"], ["a/inner.cc", "a/top.cc"])
        self.assertEqual(lists["PROTOS"], ["b/b.proto"])
        self.assertEqual(lists["LIBRARIES"], ["one", "one_more", "proto"])
        self.assertIn("a/BUILD.bazel", lists["BUILD"])

    def test_private_headers_only_if_a_public_one_includes_them(self):
        self.assertEqual(cmake_sources.collect(self.root)["HEADERS"],
                         ["a/inner.h", "a/top.h"])

    def test_other_workspaces_are_not_read(self):
        self.write("c/WORKSPACE", "")
        self.write("c/BUILD.bazel", "unheard_of()")
        self.assertNotIn("c/BUILD.bazel",
                         cmake_sources.collect(self.root)["BUILD"])

    def test_forgotten_public_library_is_refused(self):
        self.write("a/BUILD.bazel", TOP + 'ferry_library(name = "extra")')
        self.assert_refused("not part of //:ferrybus: //a:extra")

    def test_test_code_in_the_library_is_refused(self):
        self.write("BUILD.bazel", UMBRELLA.replace("top", "util"))
        self.assert_refused("//a:util")

    def test_what_cmake_cannot_be_told_is_refused(self):
        self.write("a/BUILD.bazel",
                   TOP.replace('name = "inner"',
                               'name = "inner", copts = ["-DX"]'))
        self.assert_refused("//a:inner.*copts")
        self.write("a/BUILD.bazel", TOP + "unheard_of()")
        self.assert_refused("unheard_of")


if __name__ == "__main__":
    unittest.main()
