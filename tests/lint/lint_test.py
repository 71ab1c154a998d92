#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Each lint rule catches its bad tree and lets the good tree pass.

A rule without a bad tree here fails the test: a rule that cannot fail is no
rule.
"""

import pathlib
import tempfile
import unittest

import lint
from source_tree import SourceTree, function_spans

BY_NAME = {lint.rule_name(rule): rule for rule in lint.RULES}
SPDX = "// SPDX-License-Identifier: MIT\n"


def header(folder, name, body="", prose=3, guard=None):
    """A header that breaks no rule unless an argument makes it."""
    guard = guard or f"FERRYBUS_{folder}_{name}_H_".upper().replace("/", "_")
    lines = [f"// Line {i} of prose.\n" for i in range(prose)]
    return (SPDX + f"#ifndef {guard}\n#define {guard}\n\n" + "".join(lines) +
            f"\n{body}\n#endif  // {guard}\n")


GOOD_TREE = {
    "BUILD.bazel": "",
    "ringbuffer/BUILD.bazel": '"a.h" "a.cc" "a_test.cc" "a_fuzz.cc"\n',
    "ringbuffer/a.h": header("ringbuffer", "a", """\
#include <cstdint>

#include "absl/types/span.h"

// Not a call of strcpy(x), not a throw.
inline const char* Text() { return "assert(NULL)"; }
"""),
    "ringbuffer/a.cc": SPDX + """\
#include "ferrybus/ringbuffer/a.h"

// [W1] release: pairs with the peer's [R1].
void Store() { word.store(1, std::memory_order_release); }
// [R1] acquire: pairs with [W1].
int Load() { return word.load(std::memory_order_acquire); }
static_assert(sizeof(int) == 4);
""",
    "ringbuffer/a_test.cc": SPDX + """\
#include <functional>

#include "ferrybus/tests/testing/fake.h"
std::function<int()> f = [] { return word.load(); };
""",
    "ringbuffer/a_fuzz.cc": SPDX,
    "ringbuffer/corpus/a/one": "\ttab, blanks \n",
    "savestate/BUILD.bazel": '"s.proto"\n',
    "savestate/s.proto": SPDX + "// TODO(jo): more fields.\n",
    "channel/BUILD.bazel": '"c_persist.cc"\n',
    "channel/c_persist.cc": SPDX + '#include "ferrybus/savestate/s.pb.h"\n',
    "tests/testing/BUILD.bazel": '"fake.h"\n',
    "tests/testing/fake.h": header("tests/testing", "fake"),
    "docs/table.tsv": "a\tb\n",
    "bazel-out/x.cc": "FIXME NULL\n",
}

LONG_FUNCTION = "void F() {\n" + "  G();\n" * 69 + "}\n"
LONG_METHOD = ("template <class T>\nclass C : public B<T> {\n public:\n"
               "  int F(int x = 3) const override {\n" + "    G();\n" * 69 +
               "  }\n};\n")
TABLE = "constexpr int kTable[] = {\n" + "    1,\n" * 200 + "};\n"


def ring_code(code):
    return {"ringbuffer/a.cc": SPDX + code}


def channel_code(code):
    return {"channel/c_persist.cc": SPDX + code}


def banned(code):
    return ("banned-calls", channel_code(code))


# (rule, files that replace or join those of the good tree)
BAD_TREES = [
    ("line-length", ring_code("// " + "x" * 78 + "\n")),
    ("line-length", {"ringbuffer/BUILD.bazel":
                     GOOD_TREE["ringbuffer/BUILD.bazel"] + "#" * 81 + "\n"}),
    ("tabs", ring_code("\tint x;\n")),
    ("trailing-blanks", ring_code("int x; \n")),
    ("trailing-blanks", ring_code("int x;")),
    ("file-size", {"docs/big": "x\n" * (1 << 19) + "x\n"}),
    ("spdx", {"ringbuffer/a.cc": "int x;\n"}),
    ("spdx", {"savestate/s.proto": "syntax = 'proto3';\n"}),
    ("spdx", {"run": "#!/bin/sh\n"}),
    ("todo-owner", ring_code("// TODO: later\n")),
    ("todo-owner", ring_code("// FIXME\n")),
    ("machine-path", {"docs/a.md": "see /home/jo/tree\n"}),
    ("machine-path", {"docs/a.md": "cd /work/tree\n"}),
    ("machine-path", ring_code('const char k[] = "/tmp/x";\n')),
    ("machine-path", {"docs/a.md": "from https://pypi.org/x\n"}),
    ("function-length", ring_code(LONG_FUNCTION)),
    ("function-length", ring_code("namespace n {\n" + LONG_METHOD + "}\n")),
    ("function-length", ring_code("TEST(A, B) {\n" + "  G();\n" * 69 + "}\n")),
    ("function-length",
     ring_code("C::C(int x)\n    : a_{x},\n      b_(x) {\n" +
               "  G();\n" * 69 + "}\n")),
    ("file-length", ring_code("int x;\n" * 500)),
    ("header-guard", {"ringbuffer/a.h": header("ringbuffer", "b")}),
    ("header-guard", {"ringbuffer/a.h": header("ringbuffer", "a")
                      .replace("#endif  //", "#endif //")}),
    ("header-prose", {"ringbuffer/a.h": header("ringbuffer", "a", prose=2)}),
    banned("void F() { strcpy(a, b); }\n"),
    banned("void F() { sprintf(a, b); }\n"),
    banned("void F() { std::vsprintf(a, b); }\n"),
    banned("int x = rand();\n"),
    banned("char* x = gets(y);\n"),
    banned("void F() { throw 1; }\n"),
    banned("void F() { out << std::endl; }\n"),
    banned("void F() { assert(x); }\n"),
    banned("int* x = NULL;\n"),
    ("banned-calls", ring_code("std::function<int()> f;\n")),
    ("banned-calls", {"vsp/a.cc": SPDX + "auto x = absl::Now() + y;\n"}),
    ("include-form", ring_code('#include "ringbuffer/a.h"\n')),
    ("include-form", ring_code('#include "a.h"\n')),
    ("include-form", ring_code("#include <ferrybus/ringbuffer/a.h>\n")),
    ("include-form", ring_code('#include "ferrybus/ringbuffer/none.h"\n')),
    ("layers", ring_code('#include "ferrybus/channel/c.h"\n')),
    ("layers", ring_code('#include "ferrybus/tests/testing/fake.h"\n')),
    ("layers", ring_code('#include "ferrybus/ringbuffer/testing/m.h"\n')),
    ("layers", {"savestate/a.cc": SPDX +
                '#include "ferrybus/ringbuffer/a.h"\n'}),
    ("layers", channel_code('#include "ferrybus/vsp/a.h"\n')),
    ("layers", {"vsp/a.cc": SPDX + '#include "ferrybus/vsc/a.h"\n'}),
    ("layers", {"vsc/a_test.cc": SPDX + '#include "ferrybus/vsp/a.h"\n'}),
    ("layers", {"tools/a.cc": SPDX + '#include "ferrybus/tests/a.h"\n'}),
    ("ringbuffer-headers", ring_code("#include <mutex>\n")),
    ("ringbuffer-headers", ring_code("#include <chrono>\n")),
    ("ringbuffer-headers",
     ring_code("#include <google/protobuf/message.h>\n")),
    ("proto-headers", {"channel/c.cc": SPDX +
                       '#include "ferrybus/savestate/s.pb.h"\n'}),
    ("proto-headers", {"vsp/s/c_persist.h":
                       '#include "ferrybus/savestate/s.pb.h"\n'}),
    ("order-labels",
     ring_code("void F() { w.store(1, std::memory_order_release); }\n")),
    ("order-labels", ring_code("// [W1] too far away\n\n\n\n"
                               "int x = w.load(std::memory_order::acquire);\n")),
    ("order-labels",
     ring_code("int x = __atomic_load_n(p, __ATOMIC_ACQUIRE);\n")),
    ("order-pairs", ring_code("// [W1] release: pairs with [R9].\n")),
    ("order-pairs", ring_code("// [W1] release: pairs with the\n"
                              "// peer's [R9].\n")),
    ("order-default", ring_code("int x = w.load();\n")),
    ("order-default", ring_code("void F() { w->fetch_add(\n    1); }\n")),
    ("in-build", {"ringbuffer/b.cc": SPDX}),
    ("in-build", {"savestate/t.proto": SPDX}),
    ("in-build", {"other/b.h": header("other", "b")}),
    ("fuzz-corpus", {"ringbuffer/b_fuzz.cc": SPDX}),
]


def findings_of(files, rules=None):
    with tempfile.TemporaryDirectory() as folder:
        for path, text in files.items():
            target = pathlib.Path(folder, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        return lint.lint(folder, rules)[1]


class LintTest(unittest.TestCase):

    def test_good_tree_has_no_findings(self):
        self.assertEqual([str(f) for f in findings_of(GOOD_TREE)], [])

    def test_each_bad_tree_is_caught_in_the_bad_file(self):
        for rule, files in BAD_TREES:
            with self.subTest(rule=rule, files=files):
                found = findings_of({**GOOD_TREE, **files},
                                    [BY_NAME[rule]])
                self.assertEqual({f.rule for f in found}, {rule})
                self.assertTrue({f.path for f in found} <= set(files))

    def test_each_rule_has_a_bad_tree(self):
        self.assertEqual(set(BY_NAME), {rule for rule, _ in BAD_TREES})

    def test_a_long_table_is_no_function(self):
        self.assertEqual(findings_of({**GOOD_TREE, **ring_code(TABLE)}), [])

    def test_function_spans_skip_containers_and_preprocessor(self):
        code = ["namespace n {", "struct S {", "  int F() {", "    return 1;",
                "  }", "};", "#define M(x) \\", "  if (x) {", "}", ""]
        self.assertEqual(function_spans(code[:8] + ["}"]), [(3, 5)])

    def test_comments_and_strings_are_no_code(self):
        text = ("int a = 1'000; // NULL\nauto s = R\"(NULL\nNULL)\";\n"
                "/* NULL\n*/ char c = '\"'; x = \"a\\\"NULL\";\n")
        files = {**GOOD_TREE, **ring_code(text)}
        self.assertEqual(findings_of(files), [])

    def test_empty_root_is_an_error(self):
        with tempfile.TemporaryDirectory() as folder:
            self.assertEqual(SourceTree(folder).files, [])
            self.assertEqual(lint.main([folder]), 1)


if __name__ == "__main__":
    unittest.main()
