#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""No change of a .proto file may break a state that was saved before it.

    tests/golden/schema_check.py [--root ROOT]          compares; 1: complaints
    tests/golden/schema_check.py --land                 takes over additions
    tests/golden/schema_check.py --release 1.0          keeps them for ever

savestate/golden/schemas/<release>/ has the schema of each .proto file as that
release reads and writes it; `unreleased` is what was landed since.  A schema is
text, one line for each thing that is on the wire:

    section channel 1
    field ferrybus.savestate.v1.RingState 1 own_index optional uint32

Complaints (docs/SAVE_STATE.md, "Schemas"):
  * a message or an enum is gone; a field or a value is, and its number is not
    reserved;
  * a field has another name, type, label or oneof, a value another name;
  * a number that was reserved is not any more;
  * something differs from a release, and the section's version is not higher;
  * something is new, and not landed; a file is gone, or has no schema.
"""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

SCHEMAS = "savestate/golden/schemas"
UNRELEASED = "unreleased"
DESCRIPTOR = "google/protobuf/descriptor.proto"
INCLUDE = "/usr/include"

# The section that a file's messages are in, by folder: what devices save is
# within their channel's section.
SECTIONS = {"savestate/connection.proto": "connection"}
DEFAULT_SECTION = "channel"
VERSIONS_FILE = "vsp/bus_persist.cc"
_VERSION = re.compile(
    r"constexpr uint32_t k(Connection|Channel)Version = (\d+);")

RESERVED_MAX = 1000

LABELS = {"LABEL_OPTIONAL": "optional", "LABEL_REQUIRED": "required",
          "LABEL_REPEATED": "repeated"}


class SchemaError(Exception):
    """The tree cannot be read."""


# -- From a .proto file to lines ----------------------------------------------


def parse_text(text):
    """Protobuf's text format, as far as protoc prints descriptors in it."""
    stack = [{}]
    for line in text.splitlines():
        line = line.strip()
        if line.endswith(" {"):
            child = {}
            stack[-1].setdefault(line[:-2], []).append(child)
            stack.append(child)
        elif line == "}":
            stack.pop()
        elif line:
            key, value = line.split(": ", 1)
            stack[-1].setdefault(key, []).append(value.strip('"'))
    return stack[0]


def one(node, key, default=None):
    return node.get(key, [default])[0]


def enum_lines(enum, package):
    name = f"{package}.{one(enum, 'name')}"
    yield f"enum {name}"
    for value in enum.get("value", ()):
        yield f"value {name} {one(value, 'number', '0')} {one(value, 'name')}"
    # Of an enum, `end` is the last number itself.
    yield from reserved_lines(enum, name, end_is_last=True)


def reserved_lines(node, name, end_is_last=False):
    for span in node.get("reserved_range", ()):
        start = int(one(span, "start", 0))
        end = int(one(span, "end", 0)) + (1 if end_is_last else 0)
        if end - start > RESERVED_MAX:
            raise SchemaError(f"{name}: reserve single numbers")
        for number in range(start, end):
            yield f"reserved {name} {number}"
    for reserved in node.get("reserved_name", ()):
        yield f"reserved {name} {reserved}"


def message_lines(message, package):
    name = f"{package}.{one(message, 'name')}"
    yield f"message {name}"
    oneofs = [one(oneof, "name") for oneof in message.get("oneof_decl", ())]
    for field in message.get("field", ()):
        kind = one(field, "type")[len("TYPE_"):].lower()
        parts = ["field", name, one(field, "number"), one(field, "name"),
                 LABELS[one(field, "label")], kind]
        if "type_name" in field:
            parts.append(one(field, "type_name").lstrip("."))
        if "oneof_index" in field:
            parts.append("oneof=" + oneofs[int(one(field, "oneof_index"))])
        yield " ".join(parts)
    yield from reserved_lines(message, name)
    for nested in message.get("nested_type", ()):
        yield from message_lines(nested, name)
    for enum in message.get("enum_type", ()):
        yield from enum_lines(enum, name)


def schema_of(root, proto, version):
    """The lines of one .proto file."""
    with tempfile.NamedTemporaryFile() as made:
        compiled = subprocess.run(
            ["protoc", f"--proto_path={root}",
             f"--descriptor_set_out={made.name}", proto],
            cwd=root, capture_output=True, text=True, check=False)
        if compiled.returncode != 0:
            raise SchemaError(compiled.stderr.strip())
        with open(made.name, "rb") as binary:
            text = subprocess.run(
                ["protoc", f"--proto_path={INCLUDE}",
                 "--decode=google.protobuf.FileDescriptorSet", DESCRIPTOR],
                stdin=binary, capture_output=True, text=True, check=True)
    file = one(parse_text(text.stdout), "file")
    section = SECTIONS.get(proto, DEFAULT_SECTION)
    lines = [f"section {section} {version[section]}",
             f"syntax {one(file, 'syntax', 'proto2')}"]
    package = one(file, "package", "")
    for message in file.get("message_type", ()):
        lines += message_lines(message, package)
    for enum in file.get("enum_type", ()):
        lines += enum_lines(enum, package)
    return lines


# -- Two schemas ---------------------------------------------------------------


def version_in(lines):
    return int(lines[0].split()[2])


def keyed(lines):
    """{(what, where, number or name): the rest}."""
    found = {}
    for line in lines[1:]:
        what, where, *rest = line.split()
        if what == "reserved":
            found[what, where, rest[0]] = []
        else:
            found[what, where, rest[0] if rest else ""] = rest[1:]
    return found


def compare(old_lines, new_lines):
    """What breaks old files; what changed; what is merely new."""
    old, new = keyed(old_lines), keyed(new_lines)
    changed = [key for key in new if key not in old]
    additions = [" ".join(filter(None, [*key, *new[key]])) for key in changed]
    complaints = []
    for key, was in old.items():
        what, where, number = key
        text = " ".join(filter(None, [*key, *was]))
        if key in new:
            if new[key] != was:
                complaints.append(f"{text}: is now \"{' '.join(new[key])}\"")
        elif what == "reserved":
            complaints.append(f"{text}: not reserved any more")
        elif what in ("message", "enum", "syntax"):
            complaints.append(f"{text}: gone; old files may have it")
        elif ("reserved", where, number) in new:
            changed.append(key)
        else:
            complaints.append(f"{text}: gone, and {number} is not reserved")
    return complaints, changed, additions


# -- The tree --------------------------------------------------------------------


def versions(root):
    found = {name.lower(): int(number) for name, number in
             _VERSION.findall((root / VERSIONS_FILE).read_text())}
    if set(found) != {"connection", "channel"}:
        raise SchemaError(f"{VERSIONS_FILE}: no versions of the sections")
    return found


def proto_files(root):
    """All but those of tests."""
    for path in sorted(root.rglob("*.proto")):
        name = path.relative_to(root).as_posix()
        if not name.startswith("bazel-") and not name.endswith("_test.proto"):
            yield name


def schema_path(folder, proto):
    return folder / (proto[:-len(".proto")].replace("/", ".") + ".schema.txt")


def read_schema(path):
    return path.read_text().splitlines()


def check(root):
    """All complaints about the tree."""
    version = versions(root)
    current = {proto: schema_of(root, proto, version)
               for proto in proto_files(root)}
    unreleased = root / SCHEMAS / UNRELEASED
    expected = {schema_path(unreleased, proto).name: proto for proto in current}
    for folder in sorted((root / SCHEMAS).glob("*")):
        for path in sorted(folder.glob("*.schema.txt")):
            if path.name not in expected:
                yield f"{path.relative_to(root)}: its .proto file is gone"
                continue
            old, new = read_schema(path), current[expected[path.name]]
            where = f"{expected[path.name]} against {folder.name}"
            complaints, changed, additions = compare(old, new)
            if folder.name == UNRELEASED:
                complaints += [f"new and not landed (--land): {addition}"
                               for addition in additions]
            elif changed and version_in(new) <= version_in(old):
                complaints.append(
                    f"changed since the release, but \"{new[0]}\" has no "
                    f"higher version ({VERSIONS_FILE}): "
                    f"{' '.join(changed[0])}")
            if version_in(new) < version_in(old):
                complaints.append(f"\"{new[0]}\" was \"{old[0]}\"")
            for complaint in complaints:
                yield f"{where}: {complaint}"
    for proto in current:
        if not schema_path(unreleased, proto).exists():
            yield f"{proto}: no schema landed (--land)"


def land(root, release=UNRELEASED):
    """Writes the schemas of today where nothing is broken by them."""
    folder = root / SCHEMAS / release
    if release != UNRELEASED and folder.exists():
        raise SchemaError(f"{folder}: a release is written once")
    folder.mkdir(parents=True, exist_ok=True)
    version = versions(root)
    for proto in proto_files(root):
        path, new = schema_path(folder, proto), schema_of(root, proto, version)
        if path.exists():
            complaints = compare(read_schema(path), new)[0]
            if complaints:
                raise SchemaError(f"{proto}: " + "; ".join(complaints))
        path.write_text("\n".join(new) + "\n")


def main(arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=pathlib.Path,
                        default=pathlib.Path(__file__).resolve().parents[2])
    parser.add_argument("--land", action="store_true")
    parser.add_argument("--release")
    options = parser.parse_args(arguments)
    root = options.root.resolve()
    try:
        if options.land:
            land(root)
        if options.release:
            land(root, options.release)
        complaints = list(check(root))
    except SchemaError as error:
        complaints = [str(error)]
    for complaint in complaints:
        print(complaint)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
