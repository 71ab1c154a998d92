#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Builds the examples with nothing but a C compiler's driver and pkg-config.
#
#     build.sh OUTPUT_FOLDER

set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
read -r -a flags < <(pkg-config --cflags --libs ferrybus)
"${CC:-cc}" -std=c++20 "$here/main.cc" -o "$1/messages" "${flags[@]}"
"${CC:-cc}" -std=c11 -Wall -Wextra -Werror "$here/main.c" -o "$1/question" \
  "${flags[@]}"
