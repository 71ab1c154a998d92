#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What is in the library, for CMake, read from the BUILD.bazel files.

    tools/cmake_sources.py [ROOT]

The BUILD.bazel files are the only lists of sources, headers and protos.  This
evaluates them (they are Python as far as they go here) with functions in the
place of the rules, and prints what //:ferrybus is made of as `set(...)` lines:

    FERRYBUS_SOURCES    .cc files
    FERRYBUS_HEADERS    headers to install: of the public targets, and those
                        that they include
    FERRYBUS_PROTOS     .proto files, to be compiled as ferry_proto does
    FERRYBUS_LIBRARIES  the system's libraries, without the "-l"
    FERRYBUS_BUILD      the BUILD.bazel files read: when one changes, run again

All paths are relative to ROOT.  A library that is public, but that //:ferrybus
does not reach, is an error (but for APART): embedders of one build would miss it.
"""

import dataclasses
import os
import pathlib
import re
import sys

UMBRELLA = "//:ferrybus"
SYSTEM_BUILD = "third_party/system/system.BUILD"
PUBLIC = "//visibility:public"

# Rules that make nothing which is installed.
OTHER_RULES = ("alias", "cc_binary", "cc_library", "cc_test", "config_setting",
               "exports_files", "ferry_binary", "ferry_c_program_test",
               "ferry_fuzz", "ferry_grpc_proto",
               "ferry_program_test", "ferry_test", "filegroup", "genrule",
               "library_files", "licenses", "sh_binary", "sh_test",
               "test_suite")

# Folders whose libraries are for Bazel only: they need gRPC, which the library
# itself does not.
APART = ("savestate/migration/grpc/", "tools/")

_INCLUDE = re.compile(r'^\s*#\s*include\s*"ferrybus/([^"]+)"', re.MULTILINE)


class SourcesError(Exception):
    """The BUILD.bazel files say something that CMake cannot be told."""


@dataclasses.dataclass
class Target:
    label: str
    sources: list
    headers: list
    protos: list
    deps: list
    is_public: bool
    other_arguments: list


def absolute_label(label, package):
    """Bazel's short forms (":a", "//a/b") in full."""
    if label.startswith(":"):
        return f"//{package}{label}"
    if ":" not in label:
        return f"{label}:{label.rsplit('/', 1)[-1]}"
    return label


class Package:
    """One BUILD.bazel file: what its rules leave in `targets`."""

    def __init__(self, root, name, targets):
        self._name = name
        self._targets = targets
        self._default_visibility = []
        self._default_testonly = False
        path = root / name / "BUILD.bazel"
        rules = {rule: lambda *_, **__: None for rule in OTHER_RULES}
        # In the lists of a library, the last two name no file and no target.
        rules.update(load=lambda *_: None, package=self._package,
                     ferry_library=self._library, ferry_proto=self._proto,
                     glob=lambda *_, **__: ["glob()"],
                     select=lambda _: ["select()"])
        try:
            exec(compile(path.read_text(), path, "exec"), rules)
        except NameError as error:
            raise SourcesError(f"{path}: {error}: tell {__file__} what this "
                               "rule makes") from error

    def _package(self, default_visibility=(), default_testonly=False):
        self._default_visibility = default_visibility
        self._default_testonly = default_testonly

    def _library(self, name, srcs=(), hdrs=(), deps=(), visibility=None,
                 testonly=None, **others):
        if self._default_testonly if testonly is None else testonly:
            return
        self._add(name, deps, visibility, others, sources=self._paths(srcs),
                  headers=self._paths(hdrs))

    def _proto(self, name, src, deps=(), visibility=None):
        self._add(name, [*deps, "@system//:protobuf"], visibility, {},
                  protos=self._paths([src]))

    def _paths(self, names):
        prefix = f"{self._name}/" if self._name else ""
        return [prefix + name for name in names]

    def _add(self, name, deps, visibility, others, sources=(), headers=(),
             protos=()):
        label = absolute_label(f":{name}", self._name)
        visibility = visibility or self._default_visibility
        self._targets[label] = Target(
            label, sources, headers, protos,
            [absolute_label(dep, self._name) for dep in deps],
            PUBLIC in visibility, sorted(others))


def package_names(root):
    """Folders with a BUILD.bazel, without those of other workspaces."""
    for folder, subfolders, names in os.walk(root):
        path = pathlib.Path(folder)
        subfolders[:] = sorted(
            name for name in subfolders
            if not name.startswith((".", "bazel-")) and
            not (path / name / "WORKSPACE").exists())
        if "BUILD.bazel" in names:
            name = path.relative_to(root).as_posix()
            yield "" if name == "." else name


def system_libraries(root):
    """What each target of @system links: {"@system//:uring": ["uring"]}."""
    libraries = {}

    def cc_library(name, linkopts=(), **_):
        libraries[f"@system//:{name}"] = [
            option[2:] for option in linkopts if option.startswith("-l")]

    text = (root / SYSTEM_BUILD).read_text()
    exec(text, {"cc_library": cc_library, "licenses": lambda _: None,
                "package": lambda **_: None})
    return libraries


def closure(start, following):
    """`start` and all that `following` leads to, in the order of finding."""
    found, waiting = {}, list(start)
    while waiting:
        item = waiting.pop(0)
        if item not in found:
            found[item] = None
            waiting.extend(following(item))
    return list(found)


def included_by(root):
    """A function: the tree's headers that a header includes."""
    return lambda header: _INCLUDE.findall((root / header).read_text())


def collect(root):
    """The lists, as {name: [value]}."""
    targets, system = {}, system_libraries(root)
    packages = list(package_names(root))
    for name in packages:
        Package(root, name, targets)

    def deps_of(label):
        if label in system:
            return []
        if label not in targets:
            raise SourcesError(f"{label}: {UMBRELLA} needs it, and it is no "
                               "ferry_library or ferry_proto for production")
        return targets[label].deps

    apart = tuple(f"//{folder.rstrip('/')}" for folder in APART)
    labels = closure([UMBRELLA], deps_of)
    ours = [targets[label] for label in labels if label in targets]
    for target in ours:
        if target.other_arguments:
            raise SourcesError(f"{target.label}: {__file__} does not know "
                               f"{', '.join(target.other_arguments)}")
    forgotten = sorted(t.label for t in targets.values()
                       if t.is_public and t.label not in labels and
                       not t.label.startswith(apart))
    if forgotten:
        raise SourcesError(f"public, but not part of {UMBRELLA}: "
                           f"{', '.join(forgotten)}: add it in BUILD.bazel, "
                           "or make it private")
    public = [h for target in ours if target.is_public for h in target.headers]
    return {
        "SOURCES": sorted(s for t in ours for s in t.sources),
        "HEADERS": sorted(closure(public, included_by(root))),
        "PROTOS": sorted(p for t in ours for p in t.protos),
        "LIBRARIES": list(dict.fromkeys(
            name for label in labels for name in system.get(label, []))),
        "BUILD": [SYSTEM_BUILD] + [
            f"{name}/BUILD.bazel".lstrip("/") for name in packages],
    }


def main(arguments):
    own_root = pathlib.Path(__file__).resolve().parents[1]
    root = pathlib.Path(arguments[0]).resolve() if arguments else own_root
    try:
        lists = collect(root)
    except SourcesError as error:
        print(error, file=sys.stderr)
        return 1
    for name, values in lists.items():
        print(f"set(FERRYBUS_{name}")
        for value in values:
            print(f"  {value}")
        print(")")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
