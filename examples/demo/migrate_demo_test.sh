#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Runs `demo --migrate` briefly, between two hosts and on one, and looks at its
# JSON.
#
#     migrate_demo_test.sh DEMO DAEMON COMMAND

set -euo pipefail

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
export FERRYBUS_MIGRATED="$PWD/$2" FERRYBUS_MIGRATE="$PWD/$3"
for where in --link-mbit=1000 --one-host; do
  "$1" --migrate "$where" --moves=4 --vram-mib=32 --steps=2000 \
    --interval=100 --dir="$folder/demo$where" --json="$folder/result"
  for expected in '"lost": 0,' '"duplicated": 0,' '"differing": 0,' \
    '"moves": 4,' '"verified": true'; do
    if ! grep -qF "$expected" "$folder/result"; then
      echo "missing in the result: $expected"
      cat "$folder/result" "$folder"/demo*/host-*/daemon.log
      exit 1
    fi
  done
done
