#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# clang for the layering build.  With layering_check clang reads the module
# maps of all libraries and lists them as dependencies; this Bazel then takes
# those of indirect libraries for undeclared headers.  So they are taken out of
# the dependency file; what layering_check itself finds is an error of clang's.

set -euo pipefail

clang "$@"

dependency_file=""
for argument in "$@"; do
  if [[ "${previous:-}" == -MF ]]; then dependency_file="$argument"; fi
  previous="$argument"
done
if [[ -n "$dependency_file" && -f "$dependency_file" ]]; then
  sed -i -E 's/[^ ]+\.cppmap//g' "$dependency_file"
fi
