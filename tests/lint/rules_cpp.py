# SPDX-License-Identifier: MIT
"""Rules about C++ files."""

import re

from source_tree import PRODUCTION_FOLDERS, Finding, function_spans

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 500
PROSE_LINES_MIN = 3

# (pattern, top folder or None for all, what to use instead)
BANNED = [
    (r"\b(?:strcpy|strcat|stpcpy)\s*\(", None,
     "memcpy with a checked size, or absl::StrCat"),
    (r"\b(?:v?sprintf)\s*\(", None, "absl::StrFormat or snprintf"),
    (r"\bgets\s*\(", None, "std::getline"),
    (r"\bs?rand\s*\(", None, "a std::mt19937_64 whose seed is printed"),
    (r"\bstd::function\b", "ringbuffer", "a template argument"),
    (r"\bthrow\b", None, "an absl::Status, or an enum on the data path"),
    (r"\bstd::endl\b", None, "'\\n'; std::endl flushes"),
    (r"(?<![\w:])assert\s*\(", None,
     "static_assert, a CHECK that stays in release builds, or a status"),
    (r"\bNULL\b", None, "nullptr"),
] + [
    # gRPC's deadlines are the system's time.
    (r"(?<!ToChronoTime\()\babsl::Now\(", folder,
     "savestate::SteadyNow(): the system's time may be set meanwhile")
    for folder in ("savestate", "vsp")
]


def function_length(tree):
    """A function fits a screen."""
    for file in tree.cpp_files():
        for first, last in function_spans(file.code):
            length = last - first + 1
            if length > FUNCTION_LINES_MAX:
                yield Finding("function-length", file.path, first,
                              f"function of {length} lines, at most "
                              f"{FUNCTION_LINES_MAX}: split it")


def file_length(tree):
    """A file fits a sitting.  Tests may be longer: they are read in parts."""
    for file in tree.cpp_files():
        length = len(file.lines) - 1
        if not file.is_test and length > FILE_LINES_MAX:
            yield Finding("file-length", file.path, 1,
                          f"{length} lines, at most {FILE_LINES_MAX}: split "
                          "it by subject")


def header_guard(tree):
    """FERRYBUS_<FOLDER>_<FILE>_H_, also behind the #endif."""
    for file in tree.cpp_files():
        if file.suffix != ".h":
            continue
        guard = "FERRYBUS_" + re.sub(r"\W", "_", file.path).upper() + "_"
        text = "\n".join(file.lines)
        for wanted in (f"#ifndef {guard}\n#define {guard}\n",
                       f"\n#endif  // {guard}\n"):
            if wanted not in text:
                yield Finding("header-guard", file.path, 1,
                              "wrong header guard: expected "
                              f"`{wanted.strip().splitlines()[0]}`")
                break


def header_prose(tree):
    """A library header says what it is before anything else."""
    for file in tree.cpp_files():
        if (file.suffix != ".h" or file.is_test or
                file.top_folder not in PRODUCTION_FOLDERS or
                file.name.endswith("_internal.h")):
            continue
        prose_lines = 0
        for line in file.lines:
            if re.match(r"//\s*\S", line) and "SPDX" not in line:
                prose_lines += 1
            elif line and not line.startswith(("//", "#ifndef", "#define")):
                break
        if prose_lines < PROSE_LINES_MIN:
            yield Finding("header-prose", file.path, 1,
                          f"{prose_lines} lines of prose before the first "
                          f"include, at least {PROSE_LINES_MIN}: say what it "
                          "is, who owns what, which threads, what it trusts")


def banned_calls(tree):
    """Names that the tree does not use, each with what to use instead."""
    patterns = [(re.compile(p), folder, use) for p, folder, use in BANNED]
    for file in tree.cpp_files():
        for number, line in enumerate(file.code, 1):
            for pattern, folder, use in patterns:
                if folder and (file.top_folder != folder or file.is_test):
                    continue
                match = pattern.search(line)
                if match:
                    name = match.group().rstrip("( ")
                    yield Finding("banned-calls", file.path, number,
                                  f"{name}: use {use}")


RULES = [
    function_length, file_length, header_guard, header_prose, banned_calls
]
