#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Spends a time on simulations and fuzzing, and enters what was run in a ledger.

usage: soak.py --minutes M --commit ID --ledger FILE --work FOLDER
               [--simulate PROGRAM] [--engine afl] [--jobs N]
               FUZZ_PROGRAM[=CORPUS]...

Goes on where the ledger ends: simulations with the seed after the last one, the
fuzz programs with the one that had the least of all.  N of them run at a time,
by default as many as there are processors.  What is found is printed,
stays in the work folder, and makes the exit code 1.  --summary FILE only prints
what a ledger adds up to.

Fuzz programs are libFuzzer's, or AFL++'s with --engine afl; the ledger calls
these afl:NAME.
"""

import argparse
import collections
import concurrent.futures
import functools
import os
import pathlib
import re
import subprocess
import sys
import time

# Of the processors' time; the rest is for fuzzing.
SIMULATION_PART = 0.4
FUZZ_SECONDS_MIN = 20
AFL = "afl:"
AFL_ENVIRONMENT = {
    "AFL_NO_UI": "1", "AFL_AUTORESUME": "1", "AFL_NO_AFFINITY": "1",
    # What it would have set on the machine, so that it is faster.
    "AFL_SKIP_CPUFREQ": "1", "AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES": "1"}
COLUMNS = ("commit", "part", "first", "count", "seconds", "found")

Entry = collections.namedtuple("Entry", "commit part first count seconds found")


def read_ledger(path):
    if not path.exists():
        return []
    lines = path.read_text().splitlines()[1:]
    return [Entry(c, p, int(f), int(n), int(s), int(found))
            for c, p, f, n, s, found in (line.split("\t") for line in lines)]


def append(path, entry):
    if not path.exists():
        path.write_text("\t".join(COLUMNS) + "\n")
    with path.open("a") as ledger:
        ledger.write("\t".join(str(value) for value in entry) + "\n")
    print(f"soak: {entry.part}: {entry.count:,} in {entry.seconds} s, "
          f"{entry.found} found", flush=True)


def run(command, log, seconds_max, environment=None):
    """Its exit code and what it printed; a hang is a failure."""
    with log.open("w") as out:
        try:
            code = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT,
                                  env=environment,
                                  timeout=seconds_max).returncode
        except subprocess.TimeoutExpired:
            code = -1
    return code, log.read_text(errors="replace")


def simulate(arguments, entries, seconds):
    first = max([e.first + e.count for e in entries
                 if e.part == "simulation"], default=1)
    started = time.monotonic()
    count = found = 0
    text = ""
    while time.monotonic() - started < seconds:
        # Seeds in portions, so that the time is kept.
        code, text = run([arguments.simulate, f"--from-seed={first + count}",
                          "--runs=500", "--keep-going"],
                         arguments.work / "simulation.log", 3600)
        done = re.search(r"(\d+) seeds, (\d+) failed", text)
        if done is None:
            found += 1
            break
        count += int(done[1])
        found += int(done[2])
        if code != 0:
            break
    if found:
        print(text[-4000:])
    return Entry(arguments.commit, "simulation", first, count,
                 round(time.monotonic() - started), found)


def fuzz(arguments, program, corpus, seconds):
    name = pathlib.Path(program).name
    work = arguments.work / name
    (work / "new").mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    code, text = run(
        [program, f"-max_total_time={seconds}", "-timeout=10",
         # Its books of rare features cost more than a whole machine's run.
         "-entropic=0", "-rss_limit_mb=2048", "-print_final_stats=1",
         f"-artifact_prefix={work}/", f"{work}/new"] + corpus,
        work / "log", seconds * 3 + 120)
    done = re.search(r"stat::number_of_executed_units:\s*(\d+)", text)
    if code != 0:
        print(text[-4000:])
    return Entry(arguments.commit, name, 0, int(done[1]) if done else 0,
                 round(time.monotonic() - started), int(code != 0))


def afl_executions(stats):
    """Of all sessions with this output folder."""
    text = stats.read_text() if stats.exists() else ""
    done = re.search(r"execs_done\s*:\s*(\d+)", text)
    return int(done[1]) if done else 0


def fuzz_afl(arguments, program, corpus, seconds):
    name = pathlib.Path(program).name
    work = arguments.work / "afl" / name
    out = work / "default"
    work.mkdir(parents=True, exist_ok=True)
    before = afl_executions(out / "fuzzer_stats")
    started = time.monotonic()
    code, text = run(
        ["afl-fuzz", "-V", str(seconds), "-t", "10000", "-i", corpus[0],
         "-o", str(work), "--", program],
        work / "log", seconds * 3 + 120, {**os.environ, **AFL_ENVIRONMENT})
    # Those of earlier sessions are in folders of other names.
    found = [each for kind in ("crashes", "hangs")
             for each in (out / kind).glob("id:*")]
    if code != 0 or found:
        print(text[-4000:], *found, sep="\n")
    return Entry(arguments.commit, AFL + name, 0,
                 afl_executions(out / "fuzzer_stats") - before,
                 round(time.monotonic() - started),
                 max(len(found), int(code != 0)))


def summary(entries):
    totals = collections.defaultdict(lambda: [0, 0, 0])
    for entry in entries:
        part = ("simulation" if entry.part == "simulation" else
                "AFL++" if entry.part.startswith(AFL) else "libFuzzer")
        for name in dict.fromkeys((part, entry.part)):
            for i, value in enumerate((entry.count, entry.seconds, entry.found)):
                totals[name][i] += value
    print("| part | runs | hours | found |\n|---|---:|---:|---:|")
    for name, (count, seconds, found) in totals.items():
        print(f"| {name} | {count:,} | {seconds / 3600:.2f} | {found} |")


def tasks(arguments):
    """What is to be run, in this order; each returns its Entry, or None if the
    time is over."""
    entries = read_ledger(arguments.ledger)
    seconds = arguments.minutes * 60
    end = time.monotonic() + seconds
    arguments.work.mkdir(parents=True, exist_ok=True)
    left = seconds * arguments.jobs
    if arguments.simulate:
        part = min(seconds, left * SIMULATION_PART)
        left -= part
        yield functools.partial(simulate, arguments, entries, part)

    prefix, engine = ((AFL, fuzz_afl) if arguments.engine == "afl"
                      else ("", fuzz))
    spent = collections.Counter()
    for entry in entries:
        spent[entry.part] += entry.seconds
    programs = [tuple(each.partition("=")[::2]) for each in arguments.fuzz]
    programs.sort(key=lambda each: spent[prefix + pathlib.Path(each[0]).name])
    each_seconds = max(FUZZ_SECONDS_MIN, int(left / max(1, len(programs))))

    def fuzz_in_time(program, corpus):
        until_end = int(end - time.monotonic())
        if until_end < FUZZ_SECONDS_MIN:
            return None
        return engine(arguments, program, corpus.split(",") if corpus else [],
                      min(each_seconds, until_end))

    for program, corpus in programs:
        yield functools.partial(fuzz_in_time, program, corpus)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--commit")
    parser.add_argument("--ledger", type=pathlib.Path)
    parser.add_argument("--work", type=pathlib.Path)
    parser.add_argument("--simulate")
    parser.add_argument("--engine", choices=("libfuzzer", "afl"),
                        default="libfuzzer")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--summary", type=pathlib.Path)
    parser.add_argument("fuzz", nargs="*")
    arguments = parser.parse_args()
    if arguments.summary:
        summary(read_ledger(arguments.summary))
        return 0

    found = 0
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        runs = [pool.submit(task) for task in tasks(arguments)]
        for run_of in concurrent.futures.as_completed(runs):
            entry = run_of.result()
            if entry:
                append(arguments.ledger, entry)
                found += entry.found
    summary(read_ledger(arguments.ledger))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
