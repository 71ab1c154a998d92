#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks the models in tests/models exhaustively with spin.

    tools/check_models.py [MODEL...]        (all of them by default)

Each model must hold: no assertion fails, nobody is stuck, and its LTL formula
is true.  Then it is checked once for each WEAKEN_... that it knows, and each
must be caught: else the model would not see the fault.  Prints a table, and
for what went wrong the steps that lead there.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

MODELS = pathlib.Path(__file__).resolve().parents[1] / "tests" / "models"
DEPTH = 1_000_000
SECONDS_MAX = 600
# What a verifier says about the fault that it found.
_FAULT = re.compile(r"^pan:\d+: (.*?)(?: \(at depth \d+\))?$", re.M)
_STATES = re.compile(r"^\s*(\d+) states, stored", re.M)


class Run:
    """One model, one weakening or none, one kind of check."""

    def __init__(self, model, weakening, ltl):
        self.model, self.weakening, self.ltl = model, weakening, ltl
        self.states, self.fault, self.trail = 0, None, ""
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            self._check(folder)
        self.seconds = time.monotonic() - started

    def _check(self, folder):
        def run(*command):
            return subprocess.run(
                command, cwd=folder, stdout=subprocess.PIPE, check=False,
                stderr=subprocess.STDOUT, text=True, timeout=SECONDS_MAX)

        define = [f"-D{self.weakening}"] if self.weakening else []
        spin = run("spin", *define, "-a", self.model)
        if not os.path.exists(os.path.join(folder, "pan.c")):
            sys.exit(f"check_models: spin refuses {self.model}:\n"
                     f"{spin.stdout}")
        flags = [] if self.ltl else ["-DSAFETY", "-DNOCLAIM"]
        gcc = run("gcc", "-O1", "-w", "-DCOLLAPSE", *flags, "-o", "pan",
                  "pan.c")
        if gcc.returncode != 0:
            sys.exit(f"check_models: {self.model}:\n{gcc.stdout}")
        pan = run("./pan", f"-m{DEPTH}", *(["-a"] if self.ltl else []))
        self.states = int((_STATES.findall(pan.stdout) or ["0"])[-1])
        fault = _FAULT.search(pan.stdout)
        if fault is not None:
            self.fault = fault.group(1)
            trail = run("spin", *define, "-t", "-p", self.model)
            self.trail = "\n".join(trail.stdout.splitlines()[-60:])
        elif "errors: 0" not in pan.stdout or "max search depth" in pan.stdout:
            self.fault = "the check was not complete"
            self.trail = pan.stdout


def check(model):
    """Prints one line for each run; the number of lines that are wrong."""
    text = model.read_text()
    weakenings = sorted(set(re.findall(r"\bWEAKEN_\w+", text)))
    wrong = 0

    def line(what, run, ok, result):
        print(f"{model.stem:<14}{what:<34}{run.states:>9}{run.seconds:>7.1f} s"
              f"  {result}", flush=True)
        if not ok:
            print(run.trail)
        return not ok

    for ltl in (False, True):
        run = Run(model, None, ltl)
        ok = run.fault is None
        wrong += line("ltl" if ltl else "safety", run, ok,
                      "ok" if ok else f"FAILED: {run.fault}")
    for weakening in weakenings:
        run = Run(model, weakening, False)
        ok = run.fault is not None and "not complete" not in run.fault
        wrong += line(weakening, run, ok,
                      f"caught: {run.fault}" if ok else "NOT CAUGHT")
    return wrong


def main(arguments):
    models = sorted(MODELS.glob("*.pml"))
    if arguments:
        models = [m for m in models if m.stem in arguments]
    if not models:
        sys.exit("check_models: no such model in tests/models")
    print(f"{'model':<14}{'check':<34}{'states':>9}{'time':>9}  result")
    wrong = sum(check(model) for model in models)
    print(f"models: {len(models)} checked, {wrong} results are wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
