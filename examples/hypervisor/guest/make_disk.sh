#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Makes the image of a guest's root disk.
#
#     make_disk.sh KIT IMAGE [PROGRAM...]
#
# KIT is from make_kit.sh; each PROGRAM, with its shared libraries, is added in
# /bin.

set -euo pipefail

kit="$1"
image="$2"
shift 2
PATH="$PATH:/usr/sbin:/sbin"
readonly disk_mib=256

root="$(mktemp -d)"
trap 'rm -rf "$root"' EXIT
cp -a "$kit/root/." "$root/"
for program in "$@"; do
  cp -L "$program" "$root/bin/"
  chmod 755 "$root/bin/$(basename "$program")"
  { ldd "$program" || true; } | { grep -o '/[^ ]*' || true; } |
    while read -r file; do
      mkdir -p "$root$(dirname "$file")"
      cp -L "$file" "$root$file"
    done
done
rm -f "$image"
mke2fs -q -F -t ext4 -E root_owner=0:0 -d "$root" "$image" "${disk_mib}M"
