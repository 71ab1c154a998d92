#!/bin/sh
# SPDX-License-Identifier: MIT
# Runs a Python program as a Bazel test.  (Bazel's own Python rules look for a
# Python toolchain; the tree needs only the machine's python3.)
#
# The program is taken by its real path, so that it finds the source tree and
# not Bazel's links to the few files that the test names.
set -eu
program="$(readlink -f "$1")"
shift
cd "$(dirname "$program")"
exec python3 -B "$program" "$@"
