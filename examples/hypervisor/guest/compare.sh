#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# What a guest gets out of its disk, here and from QEMU's virtio-blk: the same
# kernel, image, program and processors, in turn, in one run.
#
#     compare.sh HYPERVISOR GUEST_RANDOM_READ [OPTION]...
#
#     --rounds=N           boots of each (5)
#     --reads=S:D,D,...    S seconds of 4 KiB random reads with D under way,
#                          for each D (5:1,16)
#     --medium=memory      the image is a file in memory, so that what is
#                          measured is the way to it (the default)
#     --medium=disk        it is where it is; in a nest on an emulated disk
#     --disk-channels=N    of ours (0: as many as the hypervisor has by default)
#     --json FILE          the figures
#
# FERRYBUS_GUEST_KIT is a folder from make_kit.sh.  Where there is no usable
# KVM, both run in the same nest (nest.sh).

set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
hypervisor="$1"
reader="$2"
shift 2
rounds=5
reads=5:1,16
medium=memory
disk_channels=0
json=""
while [[ $# -gt 0 ]]; do
  case "$1" in
    --rounds=*) rounds="${1#*=}" ;;
    --reads=*) reads="${1#*=}" ;;
    --medium=*) medium="${1#*=}" ;;
    --disk-channels=*) disk_channels="${1#*=}" ;;
    --json)
      json="$2"
      shift
      ;;
    *)
      echo "compare.sh: unknown argument $1" >&2
      exit 2
      ;;
  esac
  shift
done
kit="${FERRYBUS_GUEST_KIT:?names no folder of make_kit.sh}"
PATH="$PATH:/usr/sbin:/sbin"
qemu="$(command -v qemu-system-x86_64)" || {
  echo "compare.sh: there is no qemu-system-x86_64 (package qemu-system-x86)" >&2
  exit 1
}

work="$(mktemp -d "${TEST_TMPDIR:-/var/tmp}/guest.XXXXXX")"
trap 'rm -rf "$work"' EXIT
"$here/make_disk.sh" "$kit" "$work/disk.img" "$reader"

copy=()
# A KVM without the processor's help (kvm_pvm) cannot run a stock kernel.
if [[ -w /dev/kvm && (-d /sys/module/kvm_intel || -d /sys/module/kvm_amd) ]]; then
  if [[ "$medium" == memory ]]; then
    copy=("$(mktemp /dev/shm/guest.XXXXXX)")
    trap 'rm -rf "$work" "${copy[@]}"' EXIT
  fi
  "$here/compare_inside.sh" "$hypervisor" "$qemu" "$kit/vmlinuz" \
    "$kit/initramfs" "$work/disk.img" "$work/out" "$rounds" "$reads" \
    "$disk_channels" "${copy[@]}"
else
  if [[ "$medium" == memory ]]; then copy=(/tmp/disk.img); fi
  # And what QEMU needs to boot a kernel.
  with=("$hypervisor" "$qemu" /usr/share/seabios/bios-256k.bin
    /usr/share/qemu/linuxboot_dma.bin /usr/share/qemu/kvmvapic.bin)
  "$here/nest.sh" "$kit" "$work/disk.img" "$work/out" \
    "${with[@]/#/--with=}" "$here/compare_inside.sh" \
    "./$(basename "$hypervisor")" "./$(basename "$qemu")" vmlinuz initramfs \
    /dev/vda /nest/out/report "$rounds" "$reads" "$disk_channels" "${copy[@]}"
fi
python3 -B "$here/compare_report.py" "$work/out" ${json:+"$json"}
