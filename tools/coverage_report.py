#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Which lines and branches the tests ran: one row for each part of the library.

usage: coverage_report.py PROFILES PROGRAM_LIST [--files] [--lines-min=PERCENT]
                          [--branches-min=PERCENT]

PROFILES is the folder of the tests' .profraw files, PROGRAM_LIST a file that
names the programs and libraries that were run.  Tests and what is only for
tests do not count.  With --files each file has a row, those with most missing
first.  Below a minimum the exit code is 1.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

PARTS = ("ringbuffer", "channel", "savestate", "vsp", "vsc")
ONLY_FOR_TESTS = re.compile(
    r"/testing/|_test(_util)?\.|_fuzz(_input)?\.|_benchmark\.|_main\.|/fake_"
    r"|_world\.|/write_\w+_corpus|/golden|simulated_disk|_pattern\."
    r"|\.pb\.|/linux_util_guest")


def tool(name):
    """The newest of Debian's versions of an LLVM tool."""
    found = sorted(pathlib.Path("/usr/bin").glob(f"{name}-*"))
    return str(found[-1]) if found else name


def own_name(path):
    """A file's name from the root of the tree; None: it is not in a part."""
    name = path.split("/ferrybus/")[-1] if "_virtual_includes" in path else path
    # Bazel's name of the folder that it builds in.
    name = name.split("/execroot/ferrybus/")[-1].removeprefix("/proc/self/cwd/")
    if name.split("/")[0] not in PARTS or ONLY_FOR_TESTS.search("/" + name):
        return None
    return name


def export(profiles, programs):
    """What llvm-cov says about each file."""
    with tempfile.TemporaryDirectory() as folder:
        merged = f"{folder}/all.profdata"
        inputs = f"{folder}/inputs"
        pathlib.Path(inputs).write_text(
            "\n".join(str(p) for p in sorted(profiles.glob("*.profraw"))))
        subprocess.run([tool("llvm-profdata"), "merge", "-sparse",
                        "--failure-mode=all", f"--input-files={inputs}",
                        "-o", merged], check=True)
        objects = [f"-object={program}" for program in programs]
        out = subprocess.run(
            [tool("llvm-cov"), "export", "-summary-only",
             f"-instr-profile={merged}", *objects],
            check=True, stdout=subprocess.PIPE)
    return json.loads(out.stdout)["data"][0]["files"]


def percent(covered, count):
    return 100.0 * covered / count if count else 100.0


def row(name, numbers):
    lines, branches = numbers["lines"], numbers["branches"]
    return (f"| {name} | {lines[0]:,} of {lines[1]:,} "
            f"| {percent(*lines):.1f} % | {branches[0]:,} of {branches[1]:,} "
            f"| {percent(*branches):.1f} % |")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("profiles", type=pathlib.Path)
    parser.add_argument("program_list", type=pathlib.Path)
    parser.add_argument("--files", action="store_true")
    parser.add_argument("--lines-min", type=float, default=0)
    parser.add_argument("--branches-min", type=float, default=0)
    arguments = parser.parse_args()

    parts = {part: {"lines": [0, 0], "branches": [0, 0]} for part in PARTS}
    files = {}
    for entry in export(arguments.profiles,
                        arguments.program_list.read_text().split()):
        name = own_name(entry["filename"])
        if name is None:
            continue
        numbers = {what: [entry["summary"][what]["covered"],
                          entry["summary"][what]["count"]]
                   for what in ("lines", "branches")}
        files[name] = numbers
        for what, values in numbers.items():
            total = parts[name.split("/")[0]][what]
            total[0] += values[0]
            total[1] += values[1]

    print("| part | lines | | branches | |\n|---|---:|---:|---:|---:|")
    is_enough = True
    for part, numbers in parts.items():
        print(row(part, numbers))
        is_enough &= percent(*numbers["lines"]) >= arguments.lines_min
        is_enough &= percent(*numbers["branches"]) >= arguments.branches_min
    if arguments.files:
        print("\n| file | lines | | branches | |\n|---|---:|---:|---:|---:|")
        missing = lambda item: item[1]["lines"][1] - item[1]["lines"][0]
        for name, numbers in sorted(files.items(), key=missing, reverse=True):
            print(row(name, numbers))
    return 0 if is_enough else 1


if __name__ == "__main__":
    sys.exit(main())
