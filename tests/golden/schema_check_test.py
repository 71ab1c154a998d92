#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""schema_check.py complains about what breaks old files, and nothing else."""

import contextlib
import io
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import schema_check  # pylint: disable=wrong-import-position

PROTO = """
syntax = "proto3";
package p;
message Inner { uint32 a = 1; }
message State {
  enum Phase { NONE = 0; OPEN = 1; SHUT = 2; }
  reserved 9;
  uint32 id = 1;
  bytes blob = 2;
  repeated Inner inner = 3;
  Phase phase = 4;
}
"""
VERSIONS = ("constexpr uint32_t kConnectionVersion = 1;\n"
            "constexpr uint32_t kChannelVersion = 1;\n")


class SchemaCheckTest(unittest.TestCase):

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        (self.root / "vsp").mkdir()
        self.versions = self.root / schema_check.VERSIONS_FILE
        self.versions.write_text(VERSIONS)
        self.proto = self.root / "vsp" / "state.proto"
        self.proto.write_text(PROTO)
        self.assertEqual(self.run_check("--land"), "")

    def run_check(self, *arguments):
        """What is printed."""
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            result = schema_check.main(
                ["--root", str(self.root), *arguments])
        self.assertEqual(result, 1 if output.getvalue() else 0)
        return output.getvalue()

    def after(self, old, new, *arguments):
        """The complaints after an edit of the .proto file."""
        self.assertEqual(PROTO.count(old), 1)
        self.proto.write_text(PROTO.replace(old, new))
        return self.run_check(*arguments)

    def test_nothing_changed(self):
        self.assertEqual(self.run_check(), "")

    def test_comments_and_order_of_lines_do_not_matter(self):
        self.assertEqual(self.after(
            "  uint32 id = 1;\n  bytes blob = 2;\n",
            "  // What.\n  bytes blob = 2;\n  uint32 id = 1;\n"), "")

    def test_a_changed_type(self):
        self.assertIn("is now \"id optional uint64\"",
                      self.after("uint32 id", "uint64 id"))
        self.assertIn("is now \"id optional sint32\"",
                      self.after("uint32 id", "sint32 id"))

    def test_another_message_as_type(self):
        self.assertIn("p.State 3 inner repeated message p.Inner: is now",
                      self.after("repeated Inner", "repeated State"))

    def test_a_changed_label(self):
        self.assertIn("is now \"inner optional message p.Inner\"",
                      self.after("repeated Inner", "Inner"))

    def test_a_changed_name(self):
        self.assertIn("is now \"key optional uint32\"",
                      self.after("uint32 id", "uint32 key"))

    def test_a_changed_number(self):
        self.assertIn("field p.State 1 id optional uint32: gone",
                      self.after("id = 1", "id = 7"))

    def test_a_number_used_again(self):
        self.assertIn("is now \"other optional bytes\"",
                      self.after("bytes blob = 2", "bytes other = 2"))

    def test_a_field_removed(self):
        self.assertIn("2 is not reserved", self.after("  bytes blob = 2;\n", ""))

    def test_a_field_removed_and_reserved(self):
        printed = self.after("  bytes blob = 2;\n", "  reserved 2;\n")
        self.assertNotIn("gone", printed)
        self.assertIn("not landed (--land): reserved p.State 2", printed)
        self.assertEqual(self.run_check("--land"), "")

    def test_a_number_that_was_reserved(self):
        self.assertIn("reserved p.State 9: not reserved any more",
                      self.after("  reserved 9;\n", ""))
        self.assertIn("not reserved any more", self.after(
            "  reserved 9;\n", "  uint32 again = 9;\n"))

    def test_a_field_moved_into_a_oneof(self):
        self.assertIn("oneof=choice", self.after(
            "uint32 id = 1;", "oneof choice { uint32 id = 1; }"))

    def test_an_enum_value(self):
        self.assertIn("value p.State.Phase 2 SHUT: gone",
                      self.after(" SHUT = 2;", ""))
        self.assertIn("is now \"CLOSED\"", self.after("SHUT", "CLOSED"))

    def test_a_message_removed(self):
        printed = self.after("repeated Inner inner = 3", "reserved 3")
        self.assertNotIn("gone", printed)
        self.proto.write_text(self.proto.read_text().replace(
            "message Inner { uint32 a = 1; }", ""))
        self.assertIn("message p.Inner: gone", self.run_check())

    def test_another_syntax(self):
        self.proto.write_text(
            PROTO.replace("proto3", "proto2")
            .replace("  uint32", "  optional uint32")
            .replace("{ uint32", "{ optional uint32")
            .replace("  bytes", "  optional bytes")
            .replace("  Phase", "  optional Phase"))
        self.assertIn("syntax proto3: gone", self.run_check())

    def test_an_addition_is_landed_deliberately(self):
        printed = self.after("bytes blob = 2;", "bytes blob = 2; bool b = 5;")
        self.assertIn("new and not landed (--land): field p.State 5 b optional "
                      "bool", printed)
        self.assertEqual(self.run_check("--land"), "")

    def test_what_breaks_is_not_landed(self):
        self.assertIn("is now", self.after("uint32 id", "bytes id", "--land"))
        self.assertIn("is now", self.run_check())

    def test_a_release_needs_a_higher_version_for_any_addition(self):
        self.assertEqual(self.run_check("--release", "1.0"), "")
        self.assertIn("written once", self.run_check("--release", "1.0"))
        printed = self.after("bytes blob = 2;", "bytes blob = 2; bool b = 5;",
                             "--land")
        self.assertIn("state.proto against 1.0: changed since the release, but "
                      "\"section channel 1\" has no higher version", printed)
        self.versions.write_text(VERSIONS.replace("kChannelVersion = 1",
                                                  "kChannelVersion = 2"))
        self.assertEqual(self.run_check("--land"), "")
        # Against a release, what breaks does so with any version.
        self.assertIn("against 1.0", self.after("uint32 id", "bytes id"))

    def test_a_version_does_not_go_back(self):
        self.versions.write_text(VERSIONS.replace("1", "2"))
        self.assertEqual(self.run_check("--land"), "")
        self.versions.write_text(VERSIONS)
        self.assertIn("\"section channel 1\" was \"section channel 2\"",
                      self.run_check())

    def test_every_proto_file_has_a_schema(self):
        (self.root / "vsp" / "new.proto").write_text(
            "syntax = \"proto3\"; package q; message M { }")
        self.assertIn("vsp/new.proto: no schema landed", self.run_check())
        (self.root / "vsp" / "new.proto").unlink()
        (self.root / "vsp" / "new_test.proto").write_text("not checked")
        self.assertEqual(self.run_check(), "")
        self.proto.unlink()
        self.assertIn("its .proto file is gone", self.run_check())

    def test_what_cannot_be_read(self):
        self.proto.write_text("message {")
        self.assertIn("vsp/state.proto", self.run_check())
        self.proto.write_text(PROTO)
        self.versions.write_text("")
        self.assertIn("no versions of the sections", self.run_check())


if __name__ == "__main__":
    unittest.main()
