# SPDX-License-Identifier: MIT
"""Plots of tools/ring_report.py: SVG files, the same bytes for the same input.

Threads on near cores only.  Text stays text, so that the files are small.
"""

import io
import re

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot  # pylint: disable=wrong-import-position
from matplotlib import ticker  # pylint: disable=wrong-import-position

STYLE = {"svg.hashsalt": "ferrybus", "svg.fonttype": "none",
         "font.family": "sans-serif", "font.size": 10,
         "figure.figsize": (9, 5.5), "axes.grid": True,
         "grid.alpha": 0.3, "legend.fontsize": 8}
PERCENTILE_LINES = {"p50_ns": ("-", "median"), "p99_ns": ("--", "99 %"),
                    "p999_ns": (":", "99.9 %")}
MARKERS = "osD^v<>phXP*"
# Lanes that exist to be compared with one other: in the tables, not drawn.
NOT_DRAWN = re.compile(r"ferrybus_(without|unchecked|processes|batch_16k|"
                       r"no_fence_paced|.*_no_fence$)")


def size_label(size, _position=None):
    for unit, name in ((1 << 20, "Mi"), (1 << 10, "Ki")):
        if size >= unit:
            return f"{size / unit:g} {name}B"
    return f"{size:g} B"


def curves(entries, curve_of):
    """{curve name: entries by the x axis}, in the order of the entries."""
    result = {}
    for entry in entries:
        result.setdefault(curve_of(entry), []).append(entry)
    for some in result.values():
        some.sort(key=lambda entry: entry.parameters[0])
    return result


def draw(axes, entries, number, **style):
    """One curve: medians, with bars from quartile to quartile."""
    ours = entries[0].lane.startswith("ferrybus_")
    # The ten dark colours of the table, then the ten light ones.
    color = matplotlib.colormaps["tab20"]((2 * number + number // 10) % 20)
    axes.errorbar(
        [e.parameters[0] for e in entries], [e.median for e in entries],
        yerr=[[e.median - e.q1 for e in entries],
              [e.q3 - e.median for e in entries]],
        color=color, marker=MARKERS[number % len(MARKERS)],
        markersize=4, capsize=2, linewidth=2 if ours else 1, **style)


def finish(figure, axes, path, sizes):
    """`sizes`: the x axis shows bytes, otherwise counts."""
    ticks = sorted({x for line in axes.get_lines() for x in line.get_xdata()})
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(ticker.FixedLocator(ticks))
    axes.xaxis.set_major_formatter(
        size_label if sizes else ticker.StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    text = io.StringIO()
    figure.savefig(text, format="svg", bbox_inches="tight",
                   metadata={"Date": None})
    pyplot.close(figure)
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def rate_plot(path, entries, title, x_label, sizes=True):
    figure, axes = pyplot.subplots()
    # Parameters behind the first one are sizes, and part of the name.
    by_name = curves(entries, lambda e: ", ".join(
        [e.lane, *map(size_label, e.parameters[1:])]))
    for number, (name, some) in enumerate(by_name.items()):
        draw(axes, some, number, label=name)
    axes.set(title=title, xlabel=x_label, ylabel="messages a second")
    finish(figure, axes, path, sizes)


def round_trip_plot(path, entries):
    lanes = list(dict.fromkeys(entry.lane for entry in entries))
    figure, axes = pyplot.subplots()
    for (lane, metric), some in curves(
            entries, lambda e: (e.lane, e.metric)).items():
        line, text = PERCENTILE_LINES[metric]
        draw(axes, some, lanes.index(lane), linestyle=line,
             label=f"{lane}, {text}")
    axes.set(title="Round trips, near cores", xlabel="payload",
             ylabel="nanoseconds")
    finish(figure, axes, path, sizes=True)


def write_all(folder, entries):
    """Writes a plot for each family that has numbers; returns the paths."""
    paths = []

    def of(family, file_name):
        some = [e for e in entries
                if (e.family, e.placement) == (family, "near")
                and not NOT_DRAWN.match(e.lane)]
        if some:
            paths.append(folder / file_name)
        return some

    with matplotlib.rc_context(STYLE):
        if some := of("ring_throughput", "throughput.svg"):
            rate_plot(paths[-1], some, "Throughput, near cores", "payload")
        if some := of("ring_round_trip", "round_trip.svg"):
            round_trip_plot(paths[-1], some)
        if some := of("ring_channels", "channels.svg"):
            rate_plot(paths[-1], some, "Several channels, near cores",
                      "channels", sizes=False)
        if some := of("ring_size", "ring_sizes.svg"):
            rate_plot(paths[-1], some, "Ring sizes, near cores", "ring")
    return paths
