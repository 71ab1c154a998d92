#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks the tree's own rules that a compiler does not know.

    tests/lint/lint.py [ROOT]

Prints one line `path:line: [rule] what is wrong: what to do` per finding and
ends with 1 if there is any.  CONTRIBUTING.md has the rules in prose.
"""

import pathlib
import sys

import rules_build
import rules_cpp
import rules_layers
import rules_memory_order
import rules_text
from source_tree import SourceTree

RULES = (rules_text.RULES + rules_cpp.RULES + rules_layers.RULES +
         rules_memory_order.RULES + rules_build.RULES)


def rule_name(rule):
    return rule.__name__.replace("_", "-")


def lint(root, rules=None):
    tree = SourceTree(root)
    findings = [found for rule in rules or RULES for found in rule(tree)]
    return tree, sorted(findings, key=lambda f: (f.path, f.line, f.rule))


def main(arguments):
    # Through the symbolic links of a Bazel run to the tree itself.
    own_root = pathlib.Path(__file__).resolve().parents[2]
    root = pathlib.Path(arguments[0]) if arguments else own_root
    tree, findings = lint(root)
    for finding in findings:
        print(finding)
    print(f"lint: {len(tree.files)} files, {len(RULES)} rules, "
          f"{len(findings)} findings")
    return 1 if findings or not tree.files else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
