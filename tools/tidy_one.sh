#!/bin/sh
# SPDX-License-Identifier: MIT
# clang-tidy on one file; quiet if there is nothing to say (its standard error
# only counts the warnings that it suppressed).  A file that was clean is not
# looked at again until it, or something that it includes, changes.
#
#   tools/tidy_one.sh SOURCE_INCLUDES GENERATED_INCLUDES GENERATED_ROOT
#                     CLEAN_FOLDER FILE
set -eu
compiler="-xc++ -std=c++20 -fno-exceptions -I$1 -isystem $2 -isystem $3"
# shellcheck disable=SC2086  # options
seen="$({
  cat .clang-tidy "$0"
  clang $compiler -M "$5" | tr ' ' '\n' | grep '^[^\\].*[^:]$' | xargs cat
} | sha256sum | cut -d' ' -f1)"
clean="$4/$(echo "$5" | tr / .)"
if [ -f "$clean" ] && [ "$(cat "$clean")" = "$seen" ]; then exit 0; fi
# shellcheck disable=SC2086
clang-tidy --quiet "$5" -- $compiler 2>/dev/null
echo "$seen" >"$clean"
