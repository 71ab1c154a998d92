#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The runner as a program: exit codes, and a JUnit file that parses.
set -u
conformance=$1
tiny=$2
xml=$(mktemp)
trap 'rm -f "$xml"' EXIT

expect() {
  wanted=$1
  shift
  "$@"
  status=$?
  [ "$status" = "$wanted" ] && return
  echo "exit code $status, expected $wanted: $*"
  exit 1
}

expect 0 "$conformance" --list
expect 0 "$conformance" --filter=packet --junit="$xml"
expect 0 "$conformance" --adapter=process --filter=OpenIsAnswered
# A program in another language: what it does holds, what it does not fails.
for rule in ContactIsAnswered ContactNamesTheVersionBeforeFive; do
  expect 0 "$conformance" --adapter=process --server="python3 $tiny" \
    --filter="$rule"
done
expect 1 "$conformance" --adapter=process --server="python3 $tiny" \
  --filter=OffersComeWhenAskedFor
expect 0 "$conformance" --no-fork --filter=OpenIsAnswered
expect 1 "$conformance" --fault=leaks-padding --filter=packet --junit="$xml"
expect 2 "$conformance" --filter=no-such-rule
expect 2 "$conformance" --fault=no-such-fault
expect 2 "$conformance" --no-such-option
expect 2 "$conformance" --filter=OpenIsAnswered --junit=/no/such/folder/x.xml

python3 - "$xml" <<'PYTHON'
import sys
import xml.etree.ElementTree
suite = xml.etree.ElementTree.parse(sys.argv[1]).getroot()
cases = suite.findall("testcase")
failed = [case.get("name") for case in cases if case.find("failure") is not None]
assert len(cases) == int(suite.get("tests")), suite.attrib
assert len(failed) == int(suite.get("failures")), suite.attrib
assert "PaddingIsZero" in failed, failed
PYTHON
