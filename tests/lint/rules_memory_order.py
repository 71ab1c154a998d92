# SPDX-License-Identifier: MIT
"""Rules about atomics: each ordering is labelled, each label has its partner.

    // [W1] release: pairs with [R1] in ring_consumer.h; without it ...
    index.store(value, std::memory_order_release);

The label stands on the line itself or in one of the three lines above.
"""

import re

from source_tree import Finding

ORDERED_FOLDERS = ("ringbuffer", "channel")
LINES_ABOVE = 3

_ORDER = re.compile(r"\bmemory_order(?:_|::)[a-z_]+\b|\b__ATOMIC_[A-Z_]+\b")
_LABEL = re.compile(r"\[[A-Z]\d+\]")
_PAIRS = re.compile(r"pairs with [^\[\].;]*(\[[A-Z]\d+\])")
_ATOMIC_CALL = re.compile(
    r"(?:\.|->)(load|store|exchange|fetch_\w+|compare_exchange_\w+)\s*\(")


def _ordered_files(tree):
    return [
        file for file in tree.cpp_files()
        if file.top_folder in ORDERED_FOLDERS and not file.is_test
    ]


def _joined_comment(file, line):
    """The comment text around `line` (0-based): it and what follows."""
    text = [file.comments[line]]
    for below in file.comments[line + 1:line + 3]:
        if not below.strip().startswith("//"):
            break
        text.append(below.replace("//", " ", 1))
    return " ".join(" ".join(text).split())


def order_labels(tree):
    """A memory order in ring and channel code carries a label."""
    for file in _ordered_files(tree):
        for index, line in enumerate(file.code):
            match = _ORDER.search(line)
            if not match:
                continue
            near = file.comments[max(0, index - LINES_ABOVE):index + 1]
            if not any(_LABEL.search(comment) for comment in near):
                yield Finding("order-labels", file.path, index + 1,
                              f"{match.group()} without a label: say in a "
                              "comment like `[W1] release: pairs with [R1]` "
                              "what it orders")


def order_pairs(tree):
    """The partner that a label names is itself a label in the code."""
    defined = set()
    for file in _ordered_files(tree):
        for comment in file.comments:
            defined.update(re.findall(r"//\s*(\[[A-Z]\d+\])", comment))
    for file in _ordered_files(tree):
        for index, comment in enumerate(file.comments):
            if "pairs with" not in comment:
                continue
            for label in _PAIRS.findall(_joined_comment(file, index)):
                if label not in defined:
                    yield Finding("order-pairs", file.path, index + 1,
                                  f"pairs with {label}, but no line is "
                                  f"labelled `// {label} ...`")


def order_default(tree):
    """No atomic operation takes its order from a default argument."""
    for file in _ordered_files(tree):
        text = "\n".join(file.code)
        for match in _ATOMIC_CALL.finditer(text):
            end = _closing_parenthesis(text, match.end())
            arguments = text[match.end():end]
            if re.search(r"\b(memory_order|order)", arguments):
                continue
            line = text.count("\n", 0, match.start()) + 1
            yield Finding("order-default", file.path, line,
                          f"{match.group(1)} with the default order: name "
                          "the memory order and label it")


def _closing_parenthesis(text, start):
    depth = 1
    for at in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        if depth == 0:
            return at
    return len(text)


RULES = [order_labels, order_pairs, order_default]
