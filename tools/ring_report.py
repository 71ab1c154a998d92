#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Turns the ring benchmarks' JSON into tables, ratios and plots.

    ./ferry bench --filter ring_ --json ALL.json
    tools/ring_report.py ALL.json [--json OUT.json] [--plots DIR] > REPORT.md

Where two threads run decides more than what they do.  Each benchmark therefore
bounces a cache line between them before and after each repetition: `line_ns`
is the smaller time, `line_ns_max` the larger one.  A repetition counts as

    sibling  if line_ns_max < 60 ns: two threads of one core,
    near     if line_ns_max <= 1.5 times the smallest line_ns >= 60 ns,
    far      if line_ns     >= 1.5 times that,
    mixed    otherwise: the threads moved, or were disturbed.  It is dropped.

Numbers are medians of the repetitions of one placement, with the quartiles.  A
ratio is that of two medians, always so that above 1 the ferrybus lane is the
better one: rate to rate, or the other's time to ours.
"""

import argparse
import collections
import dataclasses
import json
import math
import pathlib
import re
import statistics
import sys

PLACEMENTS = ("near", "far", "sibling")
PLACE_TITLES = {"near": "near cores", "far": "far cores",
                "sibling": "threads of one core"}
SIBLING_NS = 60
NEAR_FACTOR = 1.5
TIE = (0.9, 1.1)
RATE = "items_per_second"
PERCENTILES = ("p50_ns", "p99_ns", "p999_ns")
OURS = "ferrybus_"

# Family: (title, names of the numbers between family and lane, metrics).
FAMILIES = {
    "ring_throughput": ("Throughput", ("payload_bytes",), (RATE,)),
    "ring_round_trip": ("Round trips", ("payload_bytes",), PERCENTILES),
    "ring_channels": ("Channels", ("channels",), (RATE,)),
    "ring_size": ("Ring sizes", ("ring_bytes", "payload_bytes"), (RATE,)),
    "ring_mixed": ("Mixed sizes", (), (RATE,)),
}

METRIC_TITLES = {RATE: "million messages a second",
                 "p50_ns": "median, ns",
                 "p99_ns": "99th percentile, ns",
                 "p999_ns": "99.9th percentile, ns"}

# How much a lane gathers before it shows it to the reader; the first pattern
# that matches.
GRANULARITY = (
    (r"ferrybus_(without_.*_)?one_by_one", "1 packet, full fence"),
    (r"ferrybus_asymmetric_one_by_one", "1 packet, the sleeper pays the fence"),
    (r"ferrybus_no_fence.*", "1 packet, no fence"),
    (r"ferrybus_.*batch_64k", "64 KiB"),
    (r"ferrybus_batch_16k", "16 KiB"),
    (r"ferrybus_.*batch_equal", "16 KiB or 32 packets"),
    (r"ferrybus_batch", "64 KiB or a quarter of the ring"),
    (r"ferrybus_adaptive", "idle peer: at once; busy: 16 KiB"),
    (r"ferrybus_burst_1", "1 packet"),
    (r"ferrybus_burst_32", "32 packets"),
    (r"ferrybus_(spinning|sleeping).*", "1 packet"),
    (r"boost_spsc", "1 packet"),
    (r"boost_spsc_all", "1 packet; the reader takes all there are"),
    (r"boost_bytes", "1 packet (length and bytes)"),
    (r"moodycamel_readerwriter", "1 packet"),
    (r"moodycamel_concurrent", "32 packets"),
    (r"rte_ring_.*", "32 packets (round trips: 1)"),
    (r"dpdk_vmbus", "1 packet, full fence"),
    (r"pipe|unix_socket", "1 packet, a system call"),
    (r"bound_.*", "a bound of the machine, not a queue"),
)

_SUFFIX = re.compile(r"manual_time|real_time|process_time"
                     r"|(repeats|iterations|min_time|threads):[\d.]+")


class ReportError(Exception):
    """What is wrong with the input, in words for the user."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One repetition."""
    family: str
    parameters: tuple
    lane: str
    line_ns: float
    line_ns_max: float
    values: dict  # by metric


@dataclasses.dataclass
class Entry:
    """What all repetitions of one placement say about one metric."""
    family: str
    parameters: tuple
    lane: str
    metric: str
    placement: str
    n: int
    median: float
    q1: float
    q3: float
    ratios: dict = dataclasses.field(default_factory=dict)  # by peer lane

    @property
    def name(self):
        return "/".join([self.family, *map(str, self.parameters), self.lane])

    def to_json(self):
        return {"name": self.name,
                "size": self.parameters[0] if self.parameters else None,
                "lane": self.lane, "metric": self.metric,
                "placement": self.placement, "n": self.n,
                "median": self.median, "q1": self.q1, "q3": self.q3,
                "ratios": self.ratios}


# ---- reading


def positive_number(entry, key):
    value = entry.get(key)
    if (isinstance(value, bool) or not isinstance(value, (int, float)) or
            not math.isfinite(value) or value <= 0):
        raise ReportError(f'"{entry["name"]}": {key} is {value!r}, expected a '
                          "positive number")
    return value


def split_name(name):
    """(family, parameters, lane), or None if it is no benchmark of a ring."""
    parts = name.split("/")
    while _SUFFIX.fullmatch(parts[-1]):
        parts.pop()
    if not parts or parts[0] not in FAMILIES:
        return None
    wanted = FAMILIES[parts[0]][1]
    numbers = parts[1:-1]
    if len(numbers) != len(wanted) or not all(
            re.fullmatch(r"[1-9]\d{0,17}", number) for number in numbers):
        form = "/".join([parts[0], *(f"<{w}>" for w in wanted), "<lane>"])
        raise ReportError(f'"{name}": expected {form}')
    return parts[0], tuple(map(int, numbers)), parts[-1]


def read_run(entry):
    """The Run that a JSON entry stands for, or None."""
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise ReportError(f"a benchmark without a name: {entry!r:.80}")
    if entry.get("run_type") != "iteration" or entry.get("error_occurred"):
        return None
    split = split_name(entry["name"])
    if split is None:
        return None
    values = {metric: positive_number(entry, metric)
              for metric in FAMILIES[split[0]][2]}
    line_ns = positive_number(entry, "line_ns")
    line_ns_max = positive_number(entry, "line_ns_max")
    if line_ns_max < line_ns:
        raise ReportError(f'"{entry["name"]}": line_ns_max {line_ns_max} is '
                          f"below line_ns {line_ns}")
    return Run(*split, line_ns, line_ns_max, values)


def read_runs(text):
    try:
        result = json.loads(text)
    except json.JSONDecodeError as error:
        raise ReportError(f"not JSON: {error}") from error
    entries = result.get("benchmarks") if isinstance(result, dict) else None
    if not isinstance(entries, list):
        raise ReportError('no list "benchmarks": not the output of '
                          "./ferry bench --json")
    runs = [run for run in map(read_run, entries) if run is not None]
    if not runs:
        raise ReportError("no repetition of any benchmark ring_*")
    return runs


# ---- numbers


def smallest_line_ns(runs):
    """Between cores; between threads of one if there is nothing else."""
    all_ns = [run.line_ns for run in runs]
    return min([ns for ns in all_ns if ns >= SIBLING_NS] or all_ns)


def placement_of(run, smallest):
    if run.line_ns_max < SIBLING_NS:
        return "sibling"
    limit = NEAR_FACTOR * smallest
    if SIBLING_NS <= run.line_ns and run.line_ns_max <= limit:
        return "near"
    return "far" if run.line_ns >= limit else "mixed"


def quartiles(values):
    if len(values) == 1:
        return values * 3
    return statistics.quantiles(values, n=4, method="inclusive")


def ratio(ours, theirs):
    if ours.metric == RATE:
        return ours.median / theirs.median
    return theirs.median / ours.median


def add_ratios(entries):
    """Compares each lane of ours with each peer in the same place."""
    places = collections.defaultdict(list)
    for entry in entries:
        places[entry.family, entry.parameters, entry.metric,
               entry.placement].append(entry)
    for place in places.values():
        peers = [e for e in place if not e.lane.startswith(OURS)]
        for entry in place:
            if entry.lane.startswith(OURS):
                entry.ratios = {p.lane: ratio(entry, p) for p in peers}


def summarize(runs):
    """(entries in a fixed order, number of repetitions by placement)."""
    smallest = smallest_line_ns(runs)
    values = collections.defaultdict(list)
    counts = collections.Counter()
    for run in runs:
        placement = placement_of(run, smallest)
        counts[placement] += 1
        if placement == "mixed":
            continue
        for metric, value in run.values.items():
            values[run.family, run.parameters, run.lane, metric,
                   placement].append(value)
    entries = []
    for key, some in values.items():
        q1, median, q3 = quartiles(some)
        entries.append(Entry(*key, len(some), median, q1, q3))
    entries.sort(key=lambda e: (
        list(FAMILIES).index(e.family), PLACEMENTS.index(e.placement),
        FAMILIES[e.family][2].index(e.metric), e.parameters,
        lane_order(e.lane)))
    add_ratios(entries)
    return entries, counts


def entries_of(benchmarks):
    """The entries of a list of benchmarks as Google Benchmark writes it."""
    runs = [run for run in map(read_run, benchmarks) if run is not None]
    return summarize(runs)[0] if runs else []


# ---- Markdown


def lane_order(lane):
    """Ours first, the bounds last."""
    return (not lane.startswith(OURS), lane.startswith("bound_"), lane)


def granularity(lane):
    for pattern, text in GRANULARITY:
        if re.fullmatch(pattern, lane):
            return text
    return "unknown"


def table(header, rows):
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines] + [""]


def size_text(size):
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} B"


def row_title(family, parameters):
    names = FAMILIES[family][1]
    return ", ".join(
        str(value) if name == "channels" else size_text(value)
        for name, value in zip(names, parameters)) or "all"


def row_header(family):
    names = FAMILIES[family][1]
    return ", ".join(name.removesuffix("_bytes") for name in names) or "sizes"


def three_digits(value):
    """Without the exponent that Python's own `g` may take to."""
    digits = max(0, 2 - math.floor(math.log10(value)))
    return f"{value:.{digits}f}"


def cell(entry):
    if entry is None:
        return "-"
    scale = 1e-6 if entry.metric == RATE else 1
    median, q1, q3 = (three_digits(scale * value)
                      for value in (entry.median, entry.q1, entry.q3))
    return f"{median} ({q1}..{q3})"


def ratio_cell(value):
    if value is None:
        return "-"
    if TIE[0] <= value <= TIE[1]:
        return f"tie ({value:.2f})"
    return f"{value:.2f}"


def value_table(family, entries):
    lanes = sorted({e.lane for e in entries}, key=lane_order)
    by_place = {(e.parameters, e.lane): e for e in entries}
    rows = [[row_title(family, parameters)] +
            [cell(by_place.get((parameters, lane))) for lane in lanes]
            for parameters in sorted({e.parameters for e in entries})]
    return table([row_header(family), *lanes], rows)


def ratio_table(family, entries):
    entries = [e for e in entries if e.ratios]
    peers = sorted({peer for e in entries for peer in e.ratios},
                   key=lane_order)
    if not peers:
        return []
    rows = [[row_title(family, e.parameters), e.lane] +
            [ratio_cell(e.ratios.get(peer)) for peer in peers]
            for e in entries]
    return ["Ratios of medians; above 1 the ferrybus lane is better:", "",
            *table([row_header(family), "lane", *peers], rows)]


def family_section(family, entries):
    title, _, metrics = FAMILIES[family]
    lines = []
    for placement in PLACEMENTS:
        for metric in metrics:
            some = [e for e in entries
                    if (e.placement, e.metric) == (placement, metric)]
            if some:
                lines += [f"## {title}, {PLACE_TITLES[placement]}: "
                          f"{METRIC_TITLES[metric]}", "",
                          *value_table(family, some),
                          *ratio_table(family, some)]
    return lines


def granularity_table(entries):
    lanes = sorted({e.lane for e in entries}, key=lane_order)
    return ["## How often a lane publishes", "",
            *table(["lane", "publishes every"],
                   [[lane, granularity(lane)] for lane in lanes])]


def markdown(entries, counts, line_ns):
    placed = ", ".join(f"{counts[p]} {p}" for p in (*PLACEMENTS, "mixed"))
    lines = ["# Ring benchmarks", "",
             f"{sum(counts.values())} repetitions: {placed} (dropped).  The "
             f"fastest cache line between cores took {line_ns:.0f} ns.  Cells are "
             "medians (quartiles); tools/ring_report.py says how they are "
             "made.", ""]
    for family in FAMILIES:
        lines += family_section(family,
                                [e for e in entries if e.family == family])
    return "\n".join(lines + granularity_table(entries))


# ---- the program


def arguments(argv):
    parser = argparse.ArgumentParser(
        description="Tables, ratios and plots of ./ferry bench --json.")
    parser.add_argument("result", type=pathlib.Path,
                        help="JSON file of ./ferry bench")
    parser.add_argument("--json", type=pathlib.Path, metavar="OUT",
                        help="write the numbers as JSON")
    parser.add_argument("--plots", type=pathlib.Path, metavar="DIR",
                        help="write SVG plots")
    return parser.parse_args(argv)


def write_json(path, entries, counts):
    result = {"repetitions": {p: counts[p] for p in (*PLACEMENTS, "mixed")},
              "entries": [entry.to_json() for entry in entries]}
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def write_plots(folder, entries):
    try:
        import ring_plots  # pylint: disable=import-outside-toplevel
    except ImportError as error:
        raise ReportError(
            f"--plots needs matplotlib ({error}): install the Debian package "
            "python3-matplotlib and run this with /usr/bin/python3") from error
    folder.mkdir(parents=True, exist_ok=True)
    for path in ring_plots.write_all(folder, entries):
        print(f"ring_report: wrote {path}", file=sys.stderr)


def main(argv):
    options = arguments(argv)
    try:
        runs = read_runs(options.result.read_text(encoding="utf-8"))
        entries, counts = summarize(runs)
        if options.json:
            write_json(options.json, entries, counts)
        if options.plots:
            write_plots(options.plots, entries)
    except (OSError, UnicodeDecodeError) as error:
        print(f"ring_report: {error}", file=sys.stderr)
        return 1
    except ReportError as error:
        print(f"ring_report: {options.result}: {error}", file=sys.stderr)
        return 1
    print(markdown(entries, counts, smallest_line_ns(runs)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
