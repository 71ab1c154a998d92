#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""docs/LIMITS.md names every limit of the code, with its default.

    tests/lint/limits.py [ROOT]

A limit is a field of a struct whose name ends in "Limits" or "Bounds", except
those in NOT_LIMITS, and whatever else the document names: a field as
`Struct::field`, a constant as `kName`.  What the document names must exist, and
a default that it gives must be the code's.
"""

import pathlib
import re
import sys

DOCUMENT = "docs/LIMITS.md"
FOLDERS = ("channel", "kmcl", "ringbuffer", "savestate", "vsc", "vsp")
NOT_LIMITS = {"ProtoLimits::unknown_fields", "ReportBounds::indent"}

_STRUCT = re.compile(r"^struct (\w+) \{$(.*?)^\};$", re.MULTILINE | re.DOTALL)
_FIELD = re.compile(r"^  [\w:]+ (\w+) = ([^;]+);", re.MULTILINE)
_CONSTANT = re.compile(
    r"^(?:inline )?constexpr \w[\w:]* (k\w+)\s*=\s*([^;]+);", re.MULTILINE)
_ROW = re.compile(r"^\| `([\w:]+)` \| (\d*) \|", re.MULTILINE)
_IN_TEXT = re.compile(r"`(\w+::\w+|k[A-Z]\w*)` \((\d+)\)")


def read_code(root):
    """{"Struct::field" or "kName": the text of its value}."""
    fields, constants = {}, {}
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.h")):
            text = re.sub(r"//.*", "", path.read_text())
            constants.update(_CONSTANT.findall(text))
            for struct, body in _STRUCT.findall(text):
                for field, value in _FIELD.findall(body):
                    fields[f"{struct}::{field}"] = value
    return fields, constants


def value_of(text, constants):
    """The number that a C++ initialiser says; None if it is none."""
    text = re.sub(r"u?int\d+_t\{(\d+)\}", r"\1", text).replace("'", "")
    text = re.sub(r"\b(\d+)u?(?:ll|l)?\b", r"\1", text, flags=re.IGNORECASE)
    text = re.sub(r"\bk\w+\b",
                  lambda name: str(value_of(constants.get(name[0], ""),
                                            constants)), text)
    return eval(text) if re.fullmatch(r"[\d\s*+<()-]+", text) else None


def is_limit(field):
    struct = field.split("::")[0]
    return struct.endswith(("Limits", "Bounds")) and field not in NOT_LIMITS


def complaints(document, fields, constants):
    named = dict(_ROW.findall(document)) | dict(_IN_TEXT.findall(document))
    for field in sorted(filter(is_limit, fields)):
        if field not in named:
            yield f"{field} is not in {DOCUMENT}: add it to a table"
    for name, default in sorted(named.items()):
        text = fields.get(name, constants.get(name))
        if text is None:
            yield f"{DOCUMENT} names {name}, which the code does not have"
        elif default and value_of(text, constants) != int(default):
            yield f"{DOCUMENT} says {default} for {name}, the code {text}"


def main(root):
    fields, constants = read_code(root)
    found = list(complaints((root / DOCUMENT).read_text(), fields, constants))
    for complaint in found:
        print(complaint)
    limits = sum(map(is_limit, fields))
    if not limits:
        found.append("no limits")
        print("found no limits in the code")
    print(f"{limits} limits of the code, {len(found)} complaints")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else
                  pathlib.Path(__file__).resolve().parents[2]))
