#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Installs the library with CMake, then builds and runs what uses it: the
# consumers in cmake/ and pkgconfig/.
#
#     install_test.sh CMAKELISTS
#
# The tree is found through Bazel's link to the root's CMakeLists.txt.  Writes
# only below $TEST_TMPDIR.

set -euo pipefail

root="$(dirname "$(readlink -f "$1")")"
consumers="$root/examples/consumers"
prefix="$TEST_TMPDIR/prefix"

step() { printf '%4d s  %s\n' "$SECONDS" "$*"; }

# A run whose last line is `expected`.
expect() {
  local expected="$1" line
  shift
  line="$("$@" | tail -n 1)"
  if [[ "$line" != "$expected" ]]; then
    echo "$1 said '$line', not '$expected'"
    exit 1
  fi
  step "ran ${1##*/}: $line"
}

# Without optimization: what is tested is what is built and installed.
cmake -S "$root" -B "$TEST_TMPDIR/build" -DCMAKE_CXX_FLAGS=-O0 \
  -DCMAKE_INSTALL_PREFIX="$prefix" -DCMAKE_INSTALL_LIBDIR=lib
step "configured"
cmake --build "$TEST_TMPDIR/build" --parallel 2
step "built"
cmake --install "$TEST_TMPDIR/build" >/dev/null
# From here on only the installed files count.
rm -rf "$TEST_TMPDIR/build"

cmake -S "$consumers/cmake" -B "$TEST_TMPDIR/cmake" \
  -DCMAKE_PREFIX_PATH="$prefix"
cmake --build "$TEST_TMPDIR/cmake"
expect "answer: hello, channel!!" "$TEST_TMPDIR/cmake/channel"

export PKG_CONFIG_PATH="$prefix/lib/pkgconfig"
"$consumers/pkgconfig/build.sh" "$TEST_TMPDIR"
expect "5 packets, 5 completions" "$TEST_TMPDIR/messages"
expect "answer of 8 bytes: question" "$TEST_TMPDIR/question"

# Each installed header finds what it includes.
(cd "$prefix/include" && find ferrybus -name '*.h' -printf '#include "%p"\n') \
  >"$TEST_TMPDIR/headers.cc"
read -r -a flags < <(pkg-config --cflags ferrybus)
c++ -std=c++20 -fsyntax-only "${flags[@]}" "$TEST_TMPDIR/headers.cc"
step "compiled $(wc -l <"$TEST_TMPDIR/headers.cc") installed headers"
