#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Gathers what a guest is made of, from Debian packages: a stock kernel, its
# modules, an initramfs, and the root file system of the guest's disk.
#
#     make_kit.sh KIT
#
# KIT gets
#   vmlinuz      the kernel of linux-image-cloud-amd64, as it is
#   initramfs    busybox and the modules that find and mount the root disk
#   root/        what is on that disk
#   nest-initramfs.base, for a machine without KVM (see nest.sh)
#
# Needs: apt-get, dpkg, busybox-static, cpio, kmod, xz-utils; hyperv-daemons
# for key-value exchange.  Downloads one package, with apt-get:
# FERRYBUS_GUEST_KERNEL says which, if not the one above; or
# FERRYBUS_KERNEL_DEB names the files of all that the kernel is made of.

set -euo pipefail

kit="$(mkdir -p "$1" && cd "$1" && pwd)"
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
readonly kit here

die() {
  echo "make_kit.sh: $*" >&2
  exit 1
}

for tool in apt-get dpkg cpio modprobe depmod busybox xz; do
  PATH="$PATH:/usr/sbin:/sbin" command -v "$tool" >/dev/null ||
    die "$tool is missing (packages: busybox-static cpio kmod xz-utils)"
done
PATH="$PATH:/usr/sbin:/sbin"

# The kernel's own package: the one that the meta package names today.
kernel_package() {
  if [[ -n "${FERRYBUS_GUEST_KERNEL:-}" ]]; then
    echo "$FERRYBUS_GUEST_KERNEL"
    return
  fi
  { apt-cache depends linux-image-cloud-amd64 2>/dev/null || true; } |
    sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1
}

fetch_kernel() {
  local name deb debs file
  read -r -a debs <<<"${FERRYBUS_KERNEL_DEB:-}"
  if [[ "${#debs[@]}" == 0 ]]; then
    name="$(kernel_package)"
    if [[ -z "$name" && "$(id -u)" == 0 ]]; then
      apt-get -q update >/dev/null
      name="$(kernel_package)"
    fi
    [[ -n "$name" ]] || die "apt knows no linux-image-cloud-amd64"
    (cd "$kit" && apt-get -q download "$name" >/dev/null)
    debs=("$kit/$name"_*.deb)
  fi
  for deb in "${debs[@]}"; do dpkg -x "$deb" "$kit/kernel"; done
  # Where newer releases have it.
  if [[ ! -e "$kit/kernel/lib" ]]; then ln -s usr/lib "$kit/kernel/lib"; fi
  version="$(ls "$kit/kernel/lib/modules")"
  depmod -b "$kit/kernel" "$version"
  for file in "boot/vmlinuz-$version" "lib/modules/$version/vmlinuz"; do
    if [[ -f "$kit/kernel/$file" ]]; then
      cp "$kit/kernel/$file" "$kit/vmlinuz"
    fi
  done
  [[ -f "$kit/vmlinuz" ]] || die "there is no vmlinuz in the package"
}

# modules FOLDER NAME...: copies modules and what they need, and writes
# FOLDER/modules.list: their files in the order to load them.
modules() {
  local folder="$1" file
  shift
  mkdir -p "$folder/modules"
  for name in "$@"; do
    modprobe -d "$kit/kernel" -S "$version" --show-depends "$name" |
      sed -n 's/^insmod \([^ ]*\).*/\1/p'
  done | awk '!seen[$0]++' | while read -r file; do
    cp "$file" "$folder/modules/"
    file="$(basename "$file")"
    # The kernel's loader, and busybox's, want it plain.
    if [[ "$file" == *.xz ]]; then
      xz -d "$folder/modules/$file"
      file="${file%.xz}"
    fi
    echo "$file"
  done >"$folder/modules.list"
}

# programs FOLDER PROGRAM...: copies programs with their shared libraries.
programs() {
  local folder="$1" program file
  shift
  for program in "$@"; do
    mkdir -p "$folder$(dirname "$program")"
    cp -L "$program" "$folder$program"
    { ldd "$program" || true; } | { grep -o '/[^ ]*' || true; } | while read -r file; do
      mkdir -p "$folder$(dirname "$file")"
      cp -L "$file" "$folder$file"
    done
  done
}

base() {
  local folder="$1"
  mkdir -p "$folder"/{bin,dev,proc,sys,run,tmp,disk,etc,var/lib,sbin,usr/sbin}
  cp "$(command -v busybox)" "$folder/bin/busybox"
  ln -sf busybox "$folder/bin/sh"
}

archive() {
  (cd "$1" && find . | cpio --quiet -o -H newc -R 0:0 | gzip -1) >"$2"
}

make_initramfs() {
  local folder="$kit/initramfs.d"
  base "$folder"
  cp "$here/init" "$folder/init"
  modules "$folder" hv_storvsc hv_utils sd_mod virtio_pci virtio_blk
  archive "$folder" "$kit/initramfs"
}

make_root() {
  local folder="$kit/root" daemon
  base "$folder"
  mkdir -p "$folder/var/lib/hyperv" "$folder/data"
  cp "$here/root_init" "$folder/sbin/init"
  cp "$here/root_poweroff" "$folder/sbin/poweroff"
  modules "$folder" hv_sock
  echo "127.0.0.1 ferrybus-guest localhost" >"$folder/etc/hosts"
  echo "hosts: files" >"$folder/etc/nsswitch.conf"
  cp -L /etc/os-release "$folder/etc/"
  daemon="$(command -v hv_kvp_daemon || true)"
  if [[ -n "$daemon" ]]; then programs "$folder" "$daemon"; fi
}

make_nest() {
  local folder="$kit/nest.d"
  base "$folder"
  cp "$here/nest_init" "$folder/init"
  modules "$folder" kvm-amd virtio_pci virtio_blk veth
  archive "$folder" "$kit/nest-initramfs.base"
}

rm -rf "$kit"/{kernel,root,initramfs.d,nest.d}
fetch_kernel
make_initramfs
make_root
make_nest
echo "$version" >"$kit/version"
rm -rf "$kit/kernel" "$kit"/*.deb "$kit"/{initramfs.d,nest.d}
