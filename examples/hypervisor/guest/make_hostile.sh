#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Builds the hostile module (hostile/) for a kit's kernel, and puts it on the
# kit's root disk.
#
#     make_hostile.sh KIT
#
# Downloads the kernel's headers, with apt-get: three packages, unpacked and not
# installed.  Needs gcc-12 and make.  The status is 77 if there are no headers.

set -euo pipefail

kit="$(cd "$1" && pwd)"
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
version="$(cat "$kit/version")"
readonly kit here version

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
mkdir "$work/module"
cd "$work"
packages=("linux-headers-$version")
mapfile -t -O 1 packages < <({
  apt-cache depends "linux-headers-$version" 2>/dev/null || true
} | sed -n 's/.*Depends: \(linux-headers-.*\|linux-kbuild-.*\)/\1/p')
if [[ "${#packages[@]}" != 3 ]] ||
  ! apt-get -q download "${packages[@]}" >/dev/null 2>&1; then
  echo "no headers of Linux $version can be had with apt-get" >&2
  exit 77
fi
for deb in ./*.deb; do dpkg -x "$deb" "$work"; done
headers="$work/usr/src/linux-headers-$version"
sed -i "s,^include /,include $work/," "$headers/Makefile"
cp "$here"/hostile/* module/
make -s -C "$headers" M="$work/module" modules >"$work/log" 2>&1 || {
  cat "$work/log" >&2
  exit 1
}
cp module/ferrybus_hostile.ko "$kit/root/modules/"
