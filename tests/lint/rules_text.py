# SPDX-License-Identifier: MIT
"""Rules about files and lines, whatever the language."""

import re

from source_tree import Finding

LINE_COLUMNS_MAX = 80
FILE_BYTES_MAX = 1 << 20
SPDX_LINE = "SPDX-License-Identifier: MIT"

_URL = re.compile(r"https?://")
_MACHINE_PATH = re.compile(r"(?<![\w.~$}*-])/(work|home|root|mnt|Users)/")
_TEMPORARY_PATH = re.compile(r"(?<![\w.~$}*-])/tmp/")
_REGISTRY = re.compile(
    r"\b(deb\.debian\.org|security\.debian\.org|pypi\.org|crates\.io"
    r"|registry\.npmjs\.org|proxy\.golang\.org|docker\.io|ghcr\.io|quay\.io"
    r"|bcr\.bazel\.build|artifactory|[\w-]+\.internal)\b")
_OWNED_TODO = re.compile(r"TODO\([a-z][\w.@-]*\)")


def _is_own_folder(file):
    """The lint names what it bans, so it may not lint those names."""
    return file.path.startswith("tests/lint/")


def line_length(tree):
    """Lines of code are at most 80 columns."""
    for file in tree.text_files():
        if not (file.is_cpp or file.is_build or file.suffix == ".proto"):
            continue
        for number, line in enumerate(file.lines, 1):
            if len(line) <= LINE_COLUMNS_MAX:
                continue
            # Neither can be broken.
            if line.startswith(("#include", "#ifndef", "#define", "#endif")):
                continue
            if _URL.search(line):
                continue
            yield Finding("line-length", file.path, number,
                          f"{len(line)} columns, at most {LINE_COLUMNS_MAX}: "
                          "run clang-format, or break the line")


def tabs(tree):
    """No tab characters, except in tables made of them."""
    for file in tree.text_files():
        if file.suffix == ".tsv":
            continue
        for number, line in enumerate(file.lines, 1):
            if "\t" in line:
                yield Finding("tabs", file.path, number,
                              "tab character: use spaces")


def trailing_blanks(tree):
    """No blanks at the end of a line, one newline at the end of a file."""
    for file in tree.text_files():
        for number, line in enumerate(file.lines, 1):
            if line != line.rstrip():
                yield Finding("trailing-blanks", file.path, number,
                              "blanks at the end of the line: remove them")
        if file.data and not file.data.endswith(b"\n"):
            yield Finding("trailing-blanks", file.path, len(file.lines),
                          "no newline at the end of the file: add one")


def file_size(tree):
    """No file above one MiB: the tree is source, not storage."""
    for file in tree.files:
        if file.size_bytes > FILE_BYTES_MAX:
            yield Finding("file-size", file.path, 1,
                          f"{file.size_bytes} bytes, at most {FILE_BYTES_MAX}:"
                          " generate it, or make it smaller")


def spdx(tree):
    """Source files name their licence in the first three lines."""
    for file in tree.text_files():
        if file.top_folder == "third_party":
            continue
        if file.suffix not in (".h", ".cc", ".proto", ".py", ".sh"):
            if not file.lines[0].startswith("#!"):
                continue
        if not any(SPDX_LINE in line for line in file.lines[:3]):
            yield Finding("spdx", file.path, 1,
                          f"no licence line: start with `{SPDX_LINE}` in a "
                          "comment")


def todo_owner(tree):
    """A note about work to do has an owner, and is no cry for help."""
    for file in tree.text_files():
        if _is_own_folder(file):
            continue
        for number, line in enumerate(file.lines, 1):
            if re.search(r"\bTODO\b", _OWNED_TODO.sub("", line)):
                yield Finding("todo-owner", file.path, number,
                              "TODO without an owner: write TODO(name)")
            if re.search(r"\bFIXME\b", line):
                yield Finding("todo-owner", file.path, number,
                              "FIXME: repair it, or write TODO(name)")


def machine_path(tree):
    """No path of somebody's machine, no host of a package registry."""
    for file in tree.text_files():
        if _is_own_folder(file):
            continue
        # A file in the temporary folder is fine where it is an example.
        may_use_tmp = (file.is_test or file.top_folder == "examples" or
                       file.suffix == ".md")
        for number, line in enumerate(file.lines, 1):
            match = _MACHINE_PATH.search(line)
            if not match and not may_use_tmp:
                match = _TEMPORARY_PATH.search(line)
            if match:
                yield Finding("machine-path", file.path, number,
                              f"path of one machine ({match.group()}): make "
                              "it relative, an argument, or use mktemp")
            match = _REGISTRY.search(line)
            if match:
                yield Finding("machine-path", file.path, number,
                              f"host of a registry ({match.group()}): the "
                              "build takes everything from the machine")


RULES = [
    line_length, tabs, trailing_blanks, file_size, spdx, todo_owner,
    machine_path
]
