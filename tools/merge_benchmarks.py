#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Joins the JSON results of several Google Benchmark programs into one.

    tools/merge_benchmarks.py RESULT.json... > ALL.json

The context is that of the first program; files that are not there are
programs whose filter matched nothing.  If ring benchmarks are among them,
"rings" has their medians, quartiles and ratios (tools/ring_report.py).
"""

import json
import pathlib
import sys

import ring_report


def main(paths):
    merged = {"context": {}, "benchmarks": []}
    for path in map(pathlib.Path, paths):
        if not path.exists() or not path.read_text().strip():
            continue
        result = json.loads(path.read_text())
        merged["context"] = merged["context"] or result.get("context", {})
        merged["benchmarks"] += result.get("benchmarks", [])
    rings = ring_report.entries_of(merged["benchmarks"])
    if rings:
        merged["rings"] = [entry.to_json() for entry in rings]
    json.dump(merged, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main(sys.argv[1:])
