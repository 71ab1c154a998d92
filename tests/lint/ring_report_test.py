#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tools/ring_report.py does what it says, on made-up results."""

import contextlib
import importlib.util
import io
import json
import pathlib
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import ring_report  # pylint: disable=wrong-import-position

NEAR = (100.0, 120.0)
FAR = (300.0, 310.0)
MIXED = (100.0, 300.0)


def run(name, line=NEAR, **values):
    """An entry as Google Benchmark writes it."""
    return {"name": name, "run_type": "iteration", "line_ns": line[0],
            "line_ns_max": line[1], **values}


def rate(name, value, line=NEAR):
    return run(name, line, items_per_second=value)


def throughput(lane, *values, payload=64, line=NEAR):
    return [rate(f"ring_throughput/{payload}/{lane}/manual_time", value, line)
            for value in values]


def round_trip(lane, p50, p99, p999, payload=64):
    return run(f"ring_round_trip/{payload}/{lane}/manual_time", p50_ns=p50,
               p99_ns=p99, p999_ns=p999)


EVERY_FAMILY = [
    *(entry for payload in (8, 64, 1024) for entry in
      throughput("ferrybus_batch_64k", 4e6, 5e6, 6e6, payload=payload) +
      throughput("boost_spsc", 2e6, 2.5e6, payload=payload)),
    *(round_trip(lane, 200, 300, 4000, payload) for payload in (8, 64)
      for lane in ("ferrybus_one_by_one", "boost_spsc")),
    *(rate(f"ring_channels/{n}/ferrybus_batch_64k", n * 1e6)
      for n in (1, 16, 256)),
    *(rate(f"ring_size/{size}/{payload}/ferrybus_batch_64k/manual_time", 3e6)
      for size in (65536, 1 << 20) for payload in (64, 1024)),
    rate("ring_mixed/ferrybus_adaptive", 7e6),
]


class RingReportTest(unittest.TestCase):

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def report(self, entries, *options):
        """(exit code, standard output, standard error)."""
        path = self.folder / "in.json"
        path.write_text(entries if isinstance(entries, str) else
                        json.dumps({"benchmarks": entries}))
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = ring_report.main([str(path), *options])
        return code, out.getvalue(), err.getvalue()

    def entries(self, entries):
        out = self.folder / "out.json"
        code, _, err = self.report(entries, "--json", str(out))
        self.assertEqual((code, err), (0, ""))
        return json.loads(out.read_text())

    def test_repetitions_are_placed_by_their_cache_line(self):
        # The limit is 150 for both; threads of one core do not set it.
        result = self.entries(
            throughput("a", 1, 2, line=(100, 150)) +
            throughput("a", 3, line=(150.5, 151)) +
            throughput("a", 4, line=(149, 151)) +
            throughput("a", 5, line=(30, 59)) +
            throughput("a", 6, line=(30, 100)))
        self.assertEqual(result["repetitions"],
                         {"near": 2, "far": 1, "sibling": 1, "mixed": 2})
        self.assertEqual([(e["placement"], e["n"], e["median"])
                          for e in result["entries"]],
                         [("near", 2, 1.5), ("far", 1, 3), ("sibling", 1, 5)])

    def test_threads_of_one_core_alone_still_have_a_table(self):
        result = self.entries(throughput("a", 1, line=(30, 31)))
        self.assertEqual(result["repetitions"],
                         {"near": 0, "far": 0, "sibling": 1, "mixed": 0})

    def test_median_and_quartiles(self):
        entry, = self.entries(throughput("a", 50, 10, 30, 20, 40))["entries"]
        self.assertEqual((entry["n"], entry["q1"], entry["median"],
                          entry["q3"]), (5, 20, 30, 40))
        entry, = self.entries(throughput("a", 7))["entries"]
        self.assertEqual((entry["q1"], entry["median"], entry["q3"]),
                         (7, 7, 7))

    def test_ratios_compare_ours_with_peers_in_the_same_place(self):
        result = self.entries(
            throughput("ferrybus_x", 30) + throughput("peer", 10) +
            throughput("ferrybus_y", 5) +
            throughput("ferrybus_x", 8, line=FAR) +
            throughput("peer", 2, line=FAR) +
            throughput("peer", 1000, payload=8) +
            [rate("ring_mixed/peer", 1000)])
        ratios = {(e["name"], e["placement"]): e["ratios"]
                  for e in result["entries"]}
        self.assertEqual(ratios["ring_throughput/64/ferrybus_x", "near"],
                         {"peer": 3})
        self.assertEqual(ratios["ring_throughput/64/ferrybus_y", "near"],
                         {"peer": 0.5})
        self.assertEqual(ratios["ring_throughput/64/ferrybus_x", "far"],
                         {"peer": 4})
        self.assertEqual(ratios["ring_throughput/64/peer", "near"], {})

    def test_a_shorter_round_trip_is_the_better_one(self):
        result = self.entries([round_trip("ferrybus_x", 100, 300, 4000),
                               round_trip("peer", 200, 300, 1000)])
        self.assertEqual([(e["metric"], e["ratios"])
                          for e in result["entries"]
                          if e["lane"] == "ferrybus_x"],
                         [("p50_ns", {"peer": 2}), ("p99_ns", {"peer": 1}),
                          ("p999_ns", {"peer": 0.25})])

    def test_names_of_every_family(self):
        result = self.entries(EVERY_FAMILY)
        found = {(e["name"], e["size"]) for e in result["entries"]}
        for wanted in (("ring_throughput/1024/boost_spsc", 1024),
                       ("ring_round_trip/8/ferrybus_one_by_one", 8),
                       ("ring_channels/256/ferrybus_batch_64k", 256),
                       ("ring_size/65536/1024/ferrybus_batch_64k", 65536),
                       ("ring_mixed/ferrybus_adaptive", None)):
            self.assertIn(wanted, found)

    def test_tables(self):
        _, text, _ = self.report(
            throughput("ferrybus_batch_64k", 4e6, 5e6, 6e6) +
            throughput("even", 4.7e6) + throughput("slow", 1e6) +
            throughput("slow", 2e6, payload=65536) +
            throughput("slow", 2e6, line=MIXED))
        for line in (
                "| payload | ferrybus_batch_64k | even | slow |",
                "| 64 B | 5.00 (4.50..5.50) | 4.70 (4.70..4.70) "
                "| 1.00 (1.00..1.00) |",
                "| 64 KiB | - | - | 2.00 (2.00..2.00) |",
                "| 64 B | ferrybus_batch_64k | tie (1.06) | 5.00 |",
                "| ferrybus_batch_64k | 64 KiB |",
                "| slow | unknown |"):
            self.assertIn(line + "\n", text)
        self.assertIn("7 repetitions: 6 near, 0 far, 0 sibling, 1 mixed "
                      "(dropped)", text)

    def test_only_repetitions_of_rings_count(self):
        aggregate = rate("ring_mixed/a_mean", 1)
        aggregate["run_type"] = "aggregate"
        failed = {"name": "ring_mixed/a", "run_type": "iteration",
                  "error_occurred": True}
        other = {"name": "save/4096", "run_type": "iteration"}
        result = self.entries(
            [aggregate, failed, other, rate("ring_mixed/a", 5)])
        self.assertEqual([e["median"] for e in result["entries"]], [5])

    def test_bad_input_is_refused_with_its_name(self):
        for entries, complaint in (
                ("{", "not JSON"),
                ("[]", 'no list "benchmarks"'),
                ('{"benchmarks": {}}', 'no list "benchmarks"'),
                ([], "no repetition"),
                ([7], "without a name"),
                ([{"name": 7}], "without a name"),
                ([rate("ring_mixed/a", "fast")], "items_per_second"),
                ([rate("ring_mixed/a", True)], "items_per_second"),
                ([rate("ring_mixed/a", 0)], "items_per_second"),
                ([rate("ring_mixed/a", float("inf"))], "items_per_second"),
                ([rate("ring_mixed/a", 1, (None, 1))], "line_ns is None"),
                ([rate("ring_mixed/a", 1, (2, 1))], "below line_ns"),
                ([rate("ring_throughput/a", 1)], "ring_throughput/<payload"),
                ([rate("ring_throughput/x/a", 1)], "ring_throughput/<payload"),
                ([rate("ring_size/4096/a", 1)], "ring_size/<ring_bytes>"),
                ([rate("ring_round_trip/8/a", 1)], "p50_ns is None")):
            with self.subTest(entries=entries):
                code, out, err = self.report(entries)
                self.assertEqual((code, out), (1, ""))
                self.assertIn(complaint, err)
        self.assertEqual(self.report([], "--json", "/nowhere/x")[0], 1)

    def test_same_input_same_plots(self):
        folders = [self.folder / "one", self.folder / "two"]
        for folder in folders:
            code, _, err = self.report(EVERY_FAMILY, "--plots", str(folder))
            if importlib.util.find_spec("matplotlib") is None:
                self.assertEqual(code, 1)
                self.assertIn("python3-matplotlib", err)
                return
            self.assertEqual(code, 0, err)
        for name in ("throughput", "round_trip", "channels", "ring_sizes"):
            one, two = ((folder / f"{name}.svg").read_bytes()
                        for folder in folders)
            self.assertEqual(one, two)
            self.assertIn(b"ferrybus", one)
            self.assertNotIn(b"dc:date", one)
            self.assertLess(len(one), 200_000)


if __name__ == "__main__":
    unittest.main()
