#!/bin/sh
# SPDX-License-Identifier: MIT
# clang-tidy on one file; quiet if there is nothing to say (its standard error
# only counts the warnings that it suppressed).
#
#   tools/tidy_one.sh SOURCE_INCLUDES GENERATED_INCLUDES GENERATED_ROOT FILE
set -eu
exec clang-tidy --quiet "$4" -- -xc++ -std=c++20 -fno-exceptions \
  -I"$1" -isystem "$2" -isystem "$3" 2>/dev/null
