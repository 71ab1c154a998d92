#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Builds and runs the consumer in bazel/ as its author does: with a Bazel of
# its own, to which this tree is an external repository.
#
#     bazel_test.sh WORKSPACE
#
# The tree is found through Bazel's link to the root's WORKSPACE.  Writes only
# below $TEST_TMPDIR; the server is ended with the test.

set -euo pipefail

cd "$(dirname "$(readlink -f "$1")")/examples/consumers/bazel"

inner() {
  bazel --output_user_root="$TEST_TMPDIR/bazel" --max_idle_secs=30 \
    --host_jvm_args=-Xmx512m "$@"
}
# Bazel takes the right to write from its folders; the outer one clears them.
trap 'inner shutdown; chmod -R u+w "$TEST_TMPDIR/bazel"' EXIT

flags=(--experimental_convenience_symlinks=ignore --jobs=2 --color=no
  --curses=no --noshow_progress --noshow_loading_progress)
# Beside the example: a library with a generated part, and, without building
# it, all that //:ferrybus needs.
inner build "${flags[@]}" //:ring @ferrybus//channel:endpoint_persist
inner build "${flags[@]}" --nobuild @ferrybus//:ferrybus
line="$("$(inner info bazel-bin)/ring")"
echo "$line"
[[ "$line" == "10 packets through the ring" ]]
