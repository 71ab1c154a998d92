#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Turns the channel and save benchmarks' JSON into tables and plots.

    ./ferry bench --filter 'channel|save' --json ALL.json
    tools/growth_report.py ALL.json [--plots DIR] > REPORT.md

Each number is the median of its benchmark's repetitions, with the smallest and
the largest behind it.
"""

import argparse
import collections
import json
import pathlib
import re
import statistics
import sys

# Benchmark: (title, names of the parts of its name, its counters).
FAMILIES = {
    "channel_request": ("Requests through the whole stack",
                        ("payload bytes", "queue depth", "lane"),
                        ("ns", "ring_ns", "above_ring_ns", "allocations")),
    "channel_open": ("Opening channels", ("channels", "ring"),
                     ("us_per_channel", "heap_bytes_per_channel")),
    "channel_idle": ("One request while other channels are idle",
                     ("channels",), ("cpu_time",)),
    "save_restore": ("Saving and restoring", ("channels", "packets on each"),
                     ("ms", "p99_ms", "save_ms", "restore_ms", "ns_per_packet",
                      "to_protobuf", "to_memcpy", "save_heap",
                      "restore_heap")),
}


def read(benchmarks):
    """{family: {parameters: {counter: [values]}}}."""
    families = collections.defaultdict(dict)
    for run in benchmarks:
        if run.get("run_type") != "iteration":
            continue
        family, *parameters = re.sub("/manual_time$", "",
                                     run["run_name"]).split("/")
        if family not in FAMILIES:
            continue
        row = families[family].setdefault(
            tuple(parameters), collections.defaultdict(list))
        for counter in FAMILIES[family][2]:
            if counter in run:
                row[counter].append(run[counter])
    return families


def cell(values):
    if not values:
        return ""
    texts = [f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
             for value in (statistics.median(values), min(values),
                           max(values))]
    return texts[0] if len(set(texts)) == 1 else \
        f"{texts[0]} ({texts[1]} to {texts[2]})"


def print_tables(families, out):
    for family, (title, names, counters) in FAMILIES.items():
        if family not in families:
            continue
        columns = [*names, *counters]
        print(f"## {title}\n\n| {' | '.join(columns)} |\n"
              f"|{'---|' * len(names)}{'---:|' * len(counters)}", file=out)
        for parameters, row in sorted(families[family].items(),
                                      key=lambda item: _in_order(item[0])):
            cells = [*parameters, *(cell(row[c]) for c in counters)]
            print(f"| {' | '.join(cells)} |", file=out)
        print(file=out)


def _in_order(parameters):
    return [(0, int(p)) if p.isdigit() else (1, p) for p in parameters]


def median_points(family, x_of, counter, keep=lambda parameters: True):
    points = sorted((x_of(p), statistics.median(row[counter]))
                    for p, row in family.items() if keep(p) and row[counter])
    return [x for x, _ in points], [y for _, y in points]


def write_plots(folder, families):
    try:
        import matplotlib  # pylint: disable=import-outside-toplevel
        import ring_plots  # pylint: disable=import-outside-toplevel
    except ImportError as error:
        sys.exit(f"--plots needs matplotlib ({error}): install the Debian "
                 "package python3-matplotlib")
    pyplot = ring_plots.pyplot

    def plot(file_name, title, x_label, y_label, curves):
        curves = [(label, xs, ys) for label, (xs, ys) in curves if xs]
        if not curves:
            return
        figure, axes = pyplot.subplots()
        for label, xs, ys in curves:
            axes.plot(xs, ys, marker="o", markersize=4, label=label)
        axes.set(title=title, xlabel=x_label, ylabel=y_label)
        ring_plots.finish(figure, axes, folder / file_name, sizes=False)
        print(f"wrote {folder / file_name}", file=sys.stderr)

    channels = families.get("channel_open", {})
    idle = families.get("channel_idle", {})
    saves = families.get("save_restore", {})
    with matplotlib.rc_context(ring_plots.STYLE):
        plot("channel_growth.svg", "Cost of a channel", "channels open",
             "microseconds",
             [("open, rings of 4 KiB", median_points(
                 channels, lambda p: int(p[0]), "us_per_channel",
                 lambda p: p[1] == "rings_of_4_kib")),
              ("open, GPADL of 1 MiB", median_points(
                  channels, lambda p: int(p[0]), "us_per_channel",
                  lambda p: p[1] == "gpadl_1_mib")),
              ("one request, others idle", _thousandths(median_points(
                  idle, lambda p: int(p[0]), "cpu_time")))])
        plot("save_growth.svg", "A move of channels with packets in flight",
             "packets in flight", "milliseconds",
             [(label, median_points(
                 saves, lambda p: int(p[0]) * int(p[1]), counter))
              for label, counter in (("save and restore", "ms"),
                                     ("save", "save_ms"),
                                     ("restore", "restore_ms"))])


def _thousandths(points):
    xs, ys = points
    return xs, [y / 1000 for y in ys]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", type=pathlib.Path, metavar="ALL.json")
    parser.add_argument("--plots", type=pathlib.Path, metavar="DIR")
    options = parser.parse_args()
    families = read(json.loads(options.results.read_text())["benchmarks"])
    print_tables(families, sys.stdout)
    if options.plots:
        write_plots(options.plots, families)


if __name__ == "__main__":
    main()
