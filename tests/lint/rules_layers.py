# SPDX-License-Identifier: MIT
"""Rules about who includes whom."""

import re

from source_tree import PRODUCTION_FOLDERS, Finding

# Each folder may include itself and what is named here (docs/DESIGN.md).
LAYERS = {
    "ringbuffer": {"ringbuffer"},
    "savestate": {"savestate"},
    "channel": {"channel", "savestate", "ringbuffer"},
    "vsp": {"vsp", "channel", "savestate", "ringbuffer"},
    "vsc": {"vsc", "channel", "savestate", "ringbuffer"},
    "kmcl": {"kmcl", "vsp", "vsc", "channel", "savestate", "ringbuffer"},
}

# The ring library has no lock, no clock, no log and no protobuf.
RINGBUFFER_FORBIDDEN = re.compile(
    r"^(mutex|shared_mutex|condition_variable|chrono|ctime|iostream|functional"
    r"|google/protobuf/.*|absl/synchronization/.*|absl/time/.*)$")

_INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def _includes(file):
    for number, line in enumerate(file.code, 1):
        match = _INCLUDE.match(line)
        if match:
            yield number, match.group(1), match.group(2)


def include_form(tree):
    """Project headers are included as "ferrybus/...", and exist."""
    top_folders = {file.top_folder for file in tree.files if file.folders}
    for file in tree.cpp_files():
        for number, quote, path in _includes(file):
            if path.startswith("ferrybus/"):
                source = path.removeprefix("ferrybus/")
                if source.endswith(".pb.h"):
                    source = source.removesuffix(".pb.h")
                    source = source.removesuffix(".grpc") + ".proto"
                if quote == "<":
                    message = f'<{path}>: write "{path}"'
                elif tree.get(source) is None:
                    message = f"{path}: no such file in the tree"
                else:
                    continue
            else:
                beside = "/".join(file.folders + [path])
                ours = (path.split("/")[0] in top_folders or
                        tree.get(beside) is not None or
                        (quote == '"' and "/" not in path))
                if not ours:
                    continue
                message = (f'{path}: write "ferrybus/<folder>/<file>.h", the '
                           "folder named from the top")
            yield Finding("include-form", file.path, number, message)


def layers(tree):
    """A folder includes only the layers below it; production no tests."""
    for file in tree.cpp_files():
        allowed = LAYERS.get(file.top_folder)
        if allowed is None and file.top_folder != "tools":
            continue
        for number, _, path in _includes(file):
            parts = path.split("/")
            if parts[0] != "ferrybus" or len(parts) < 3:
                continue
            folder = parts[1]
            if file.is_test and folder == "tests":
                continue
            if folder == "tests" or (allowed and folder not in allowed):
                yield Finding("layers", file.path, number,
                              f"{file.top_folder} may not include {path}: "
                              "move the code down, or pass an interface in")
            elif "testing" in parts and not file.is_test:
                yield Finding("layers", file.path, number,
                              f"{path} is for tests only")


def ringbuffer_headers(tree):
    """The ring library stays free of locks, clocks, logs and protobuf."""
    for file in tree.cpp_files():
        if file.top_folder != "ringbuffer" or file.is_test:
            continue
        for number, _, path in _includes(file):
            if RINGBUFFER_FORBIDDEN.match(path):
                yield Finding("ringbuffer-headers", file.path, number,
                              f"<{path}> has no place in the ring: pass what "
                              "is needed in as a template argument")


def proto_headers(tree):
    """Only *_persist.cc files see both live types and saved types."""
    for file in tree.cpp_files():
        if (file.top_folder not in PRODUCTION_FOLDERS or
                file.top_folder == "savestate" or file.is_test or
                file.name.endswith("_persist.cc")):
            continue
        for number, _, path in _includes(file):
            if path.endswith(".pb.h"):
                yield Finding("proto-headers", file.path, number,
                              f"{path}: live code does not see saved types; "
                              "convert in a *_persist.cc file")


RULES = [include_form, layers, ringbuffer_headers, proto_headers]
