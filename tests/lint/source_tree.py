# SPDX-License-Identifier: MIT
"""The source tree as the lint rules see it: files, text, C++ code."""

import dataclasses
import functools
import os
import pathlib
import re

# What a build or an interpreter leaves behind; never part of the tree.
SKIPPED_FOLDERS = {".git", "out", "__pycache__", ".vscode", ".idea", ".cache"}
# Bytes in there are inputs and references, not text that people edit.
DATA_FOLDERS = {"corpus", "testdata", "golden"}
PRODUCTION_FOLDERS = ("ringbuffer", "savestate", "channel", "vsp", "vsc",
                      "kmcl")


@dataclasses.dataclass(frozen=True)
class Finding:
    rule: str
    path: str
    line: int
    message: str

    def __str__(self):
        return f"{self.path}:{self.line}: [{self.rule}] {self.message}"


class SourceFile:
    """One file; `path` is relative to the root, with forward slashes."""

    def __init__(self, root, path):
        self.path = path
        self.name = path.rsplit("/", 1)[-1]
        self.folders = path.split("/")[:-1]
        self.suffix = pathlib.PurePosixPath(path).suffix
        self._absolute = root / path

    @functools.cached_property
    def data(self):
        return self._absolute.read_bytes()

    @property
    def size_bytes(self):
        return self._absolute.stat().st_size

    @functools.cached_property
    def is_text(self):
        return b"\0" not in self.data[:8192]

    @functools.cached_property
    def lines(self):
        return self.data.decode("utf-8", "replace").split("\n")

    @functools.cached_property
    def code(self):
        """Lines with comments and the contents of strings blanked."""
        return _split_comments("\n".join(self.lines))[0].split("\n")

    @functools.cached_property
    def comments(self):
        """Lines with everything but comments blanked."""
        return _split_comments("\n".join(self.lines))[1].split("\n")

    @property
    def top_folder(self):
        return self.folders[0] if self.folders else ""

    @property
    def is_cpp(self):
        return self.suffix in (".h", ".cc")

    @property
    def is_build(self):
        return self.name in ("BUILD.bazel", "WORKSPACE") or self.suffix == ".bzl"

    @property
    def is_data(self):
        return any(folder in DATA_FOLDERS for folder in self.folders)

    @property
    def is_test(self):
        """Code that only tests and benchmarks link."""
        stem = pathlib.PurePosixPath(self.path).stem
        return (self.top_folder in ("tests", "bench") or
                "testing" in self.folders or
                stem.endswith(("_test", "_fuzz", "_benchmark")))


class SourceTree:
    """All files below `root` that look as if they belong to the project."""

    def __init__(self, root):
        self.root = pathlib.Path(root).resolve()
        self.files = [SourceFile(self.root, path) for path in self._walk()]
        self._by_path = {file.path: file for file in self.files}

    def _walk(self):
        found = []
        for folder, subfolders, names in os.walk(self.root):
            at_root = pathlib.Path(folder) == self.root
            subfolders[:] = sorted(
                name for name in subfolders
                if name not in SKIPPED_FOLDERS and
                not (at_root and name.startswith("bazel-")))
            for name in sorted(names):
                path = pathlib.Path(folder, name)
                if name.endswith(".pyc") or not path.is_file():
                    continue
                if at_root and name.startswith("bazel-"):
                    continue
                found.append(path.relative_to(self.root).as_posix())
        return found

    def get(self, path):
        return self._by_path.get(path)

    def text_files(self):
        return [f for f in self.files if not f.is_data and f.is_text]

    def cpp_files(self):
        return [f for f in self.files if f.is_cpp and not f.is_data]


_TOKEN = re.compile(
    r"""(?P<line_comment>//[^\n]*)
      | (?P<block_comment>/\*.*?\*/)
      | (?P<raw>R"(?P<tag>[^()\\\s]{0,16})\(.*?\)(?P=tag)")
      | (?P<string>"(?:\\.|[^"\\\n])*")
      | (?P<char>(?<![0-9A-Fa-f])'(?:\\.|[^'\\\n])+')""",
    re.VERBOSE | re.DOTALL)


def _blank(text):
    return re.sub(r"[^\n]", " ", text)


def _split_comments(text):
    """Returns (code, comments), both as long as `text`, line by line.

    Include paths stay readable in the code; other strings become "".
    """
    code, comments, at = [], [], 0
    for match in _TOKEN.finditer(text):
        between = text[at:match.start()]
        code.append(between)
        comments.append(_blank(between))
        token = match.group()
        if match.lastgroup in ("line_comment", "block_comment"):
            code.append(_blank(token))
            comments.append(token)
        else:
            line_start = text.rfind("\n", 0, match.start()) + 1
            is_include = re.match(r"\s*#\s*include\b",
                                  text[line_start:match.start()])
            inner = token if is_include else '"' + _blank(token[1:-1]) + '"'
            code.append(inner)
            comments.append(_blank(token))
        at = match.end()
    code.append(text[at:])
    comments.append(_blank(text[at:]))
    return "".join(code), "".join(comments)


_CONTAINER = re.compile(r"\b(namespace|class|struct|union|enum)\b|^extern\b")
_FUNCTION_END = re.compile(
    r"\)\s*(const|noexcept|override|final|&|->.*|requires.*|\s)*$", re.DOTALL)


def _opens_container(header):
    """Is `header {` a namespace, class or enum, and not a function?"""
    header = re.sub(r"operator\s*[^\w\s(]+", "operator", header)
    for pattern, by in ((r"\([^()]*\)", "\x01"), (r"<[^<>(){};]*>", "")):
        before = None
        while before != header:
            before, header = header, re.sub(pattern, by, header)
    header = header.replace("\x01", "()").strip()
    return bool(_CONTAINER.search(header)) and not _FUNCTION_END.search(header)


def function_spans(code_lines):
    """(first line, last line), 1-based, of each outermost block of code.

    A block is what stands between braces and is no namespace, class or enum:
    a function body, but also the initialiser of a table.
    """
    text = _without_preprocessor(code_lines)
    spans, stack, header, line = [], [], "", 1
    for char in text:
        if char == "\n":
            line += 1
        if char == "{":
            inside_code = bool(stack) and stack[-1][0] != "container"
            kind = "code"
            if not inside_code and _opens_container(header):
                kind = "container"
            elif not inside_code and header.rstrip().endswith("="):
                kind = "data"
            stack.append((kind, line))
            header = ""
        elif char == "}":
            header = ""
            if not stack:
                continue
            kind, first = stack.pop()
            outermost = not stack or stack[-1][0] == "container"
            if kind == "code" and outermost:
                spans.append((first, line))
        elif char == ";":
            header = ""
        else:
            header += char
    return spans


def _without_preprocessor(code_lines):
    """The code as one string, preprocessor lines blank."""
    kept, continued = [], False
    for line in code_lines:
        directive = continued or line.lstrip().startswith("#")
        continued = directive and line.rstrip().endswith("\\")
        kept.append("" if directive else line)
    return "\n".join(kept)
