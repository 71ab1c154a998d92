#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Runs the demo briefly and looks at its JSON.
#
#     demo_test.sh DEMO ARGUMENT...

set -euo pipefail

result="$(mktemp)"
trap 'rm -f "$result"' EXIT
"$@" --json "$result"
for expected in '"lost": 0,' '"duplicated": 0,' '"verified": true,' \
  '"moves": 8,'; do
  if ! grep -qF "$expected" "$result"; then
    echo "missing in the result: $expected"
    cat "$result"
    exit 1
  fi
done
