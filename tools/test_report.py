#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Turns what `bazel test` recorded into the report of `./ferry test`.

    tools/test_report.py BUILD_EVENTS BAZEL_EXIT_CODE

Prints the log of each failed test, the slowest tests, what did not build, how
many specification rows have a test, and last the line `N passed, N failed`.
It counts GoogleTest cases; a test without them counts as one.  What did not
build counts as one failure each.  Ends with 1 if anything failed.
"""

import dataclasses
import json
import pathlib
import subprocess
import sys
import urllib.parse
import xml.etree.ElementTree as ElementTree

SLOWEST_SHOWN = 5
LOG_LINES_MAX = 200


@dataclasses.dataclass
class TestRun:
    label: str
    passed: bool
    seconds: float
    cached: bool
    log: pathlib.Path | None
    cases_passed: int = 0
    cases_failed: int = 0
    cases_skipped: int = 0


def read_events(path):
    try:
        with open(path, encoding="utf-8") as lines:
            return [json.loads(line) for line in lines if line.strip()]
    except (OSError, json.JSONDecodeError):
        return []  # Bazel ended before it wrote any.


def _path_of(outputs, name):
    for output in outputs:
        if output.get("name") == name and "uri" in output:
            parsed = urllib.parse.urlparse(output["uri"])
            return pathlib.Path(urllib.parse.unquote(parsed.path))
    return None


def count_cases(run, xml_path):
    """Fills in the number of cases from GoogleTest's, or Bazel's, XML."""
    try:
        cases = list(ElementTree.parse(xml_path).iter("testcase"))
    except (OSError, TypeError, ElementTree.ParseError):
        cases = []
    for case in cases:
        if case.get("status") == "notrun":
            continue
        if case.find("failure") is not None or case.find("error") is not None:
            run.cases_failed += 1
        elif case.get("result") == "skipped":
            run.cases_skipped += 1
        else:
            run.cases_passed += 1
    if not run.passed and run.cases_failed == 0:
        # It crashed, ran out of time, or found a leak after the last case.
        run.cases_failed = 1
    if run.passed and not cases:
        run.cases_passed = 1


def collect_runs(events):
    runs = {}
    for event in events:
        identity = event.get("id", {}).get("testResult")
        # Without a result: Bazel was interrupted.
        if identity is None or "testResult" not in event:
            continue
        result = event["testResult"]
        outputs = result.get("testActionOutput", [])
        run = TestRun(
            label=identity["label"],
            passed=result.get("status") == "PASSED",
            seconds=int(result.get("testAttemptDurationMillis", 0)) / 1000,
            cached=bool(result.get("cachedLocally")
                        or result.get("executionInfo", {}).get("cachedRemotely")),
            log=_path_of(outputs, "test.log"))
        count_cases(run, _path_of(outputs, "test.xml"))
        # The last attempt of each shard is the one that counts.
        runs[(run.label, identity.get("run"), identity.get("shard"))] = run
    return list(runs.values())


def not_built(events):
    """Labels of the targets, and patterns, that gave no result."""
    labels = set()
    for event in events:
        identity = event.get("id", {})
        completed = identity.get("targetCompleted")
        if completed and not event.get("completed", {}).get("success"):
            labels.add(completed["label"])
        if "pattern" in identity and "aborted" in event:
            labels.update(identity["pattern"].get("pattern", []))
    return sorted(labels)


def print_log(run):
    print(f"\n==== {run.label}: FAILED")
    try:
        lines = run.log.read_text(errors="replace").splitlines()
    except (OSError, AttributeError):
        print("(no log)")
        return
    # Debian's Bazel starts a log with a line that shows it in a pager.
    lines = [line for line in lines if not line.startswith("exec ${PAGER")]
    if len(lines) > LOG_LINES_MAX:
        print(f"... the last {LOG_LINES_MAX} of {len(lines)} lines of "
              f"{run.log}")
    print("\n".join(lines[-LOG_LINES_MAX:]))


def print_slowest(runs):
    shown = sorted(runs, key=lambda run: -run.seconds)[:SLOWEST_SHOWN]
    if shown:
        print("\nslowest tests:")
    for run in shown:
        note = " (not run again: nothing changed)" if run.cached else ""
        print(f"  {run.seconds:6.1f} s  {run.label}{note}")


def print_specification():
    script = pathlib.Path(__file__).with_name("specification.py")
    print("\nspecification:", flush=True)
    subprocess.run([sys.executable, "-B", script, "--summary"], check=False)


def main(arguments):
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    events, bazel_exit_code = read_events(arguments[0]), int(arguments[1])
    runs = sorted(collect_runs(events), key=lambda run: run.label)
    broken = not_built(events)
    failed_runs = [run for run in runs if run.cases_failed]
    for run in failed_runs:
        print_log(run)
    print_slowest(runs)
    print_specification()
    if failed_runs or broken:
        print("\nfailed:")
    for run in failed_runs:
        print(f"  {run.label} ({run.cases_failed} failed)")
    for label in broken:
        print(f"  {label} (did not build)")
    passed = sum(run.cases_passed for run in runs)
    failed = sum(run.cases_failed for run in runs) + len(broken)
    skipped = sum(run.cases_skipped for run in runs)
    if bazel_exit_code != 0 and failed == 0:
        print(f"\nbazel ended with {bazel_exit_code}: see its messages above")
        failed = 1
    print(f"\n{skipped} skipped" if skipped else "")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
