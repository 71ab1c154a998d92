#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# What the hypervisor says when it cannot begin.
#
#     errors_test.sh HYPERVISOR

set -euo pipefail

hypervisor="$1"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

# expect TEXT ARGUMENT...: it fails, and its last line has TEXT.
expect() {
  local text="$1" status=0
  shift
  "$hypervisor" "$@" </dev/null >"$work/log" 2>&1 || status=$?
  # A machine without KVM cannot say more than that.
  if [[ ! -w /dev/kvm && "$text" != --* ]]; then text=/dev/kvm; fi
  if [[ "$status" == 0 ]] || ! tail -n 1 "$work/log" | grep -qF -- "$text"; then
    echo "expected an error with '$text', got status $status and:"
    cat "$work/log"
    exit 1
  fi
}

expect "--kernel is missing" --disk="$work/disk"
expect "--disk is missing" --kernel="$work/kernel"

: >"$work/empty"
head -c 1048576 /dev/zero >"$work/zeroes"
truncate -s 128M "$work/large"
expect "missing/kernel: cannot be read" \
  --kernel="$work/missing/kernel" --disk="$work/zeroes"
expect "empty: not a Linux kernel" --kernel="$work/empty" --disk="$work/zeroes"
expect "zeroes: not a Linux bzImage" \
  --kernel="$work/zeroes" --disk="$work/zeroes"
printf 'MZ' >"$work/arm64"
head -c 1048576 /dev/zero >>"$work/arm64"
expect "arm64: not a Linux bzImage" --kernel="$work/arm64" --disk="$work/zeroes"
expect "1 to 64 processors" --kernel="$work/zeroes" --disk="$work/zeroes" \
  --cpus=65
expect "64 MiB to 3 GiB" --kernel="$work/zeroes" --disk="$work/zeroes" \
  --memory-mib=16

# The least that passes for a kernel: then the disk is looked at.
put() {
  printf '%b' "$2" | dd of="$work/kernel" bs=1 seek="$1" conv=notrunc status=none
}
cp "$work/zeroes" "$work/kernel"
put 497 '\001'                         # setup_sects
put 514 'HdrS\017\002'                # protocol 2.15
put 556 '\377\377\377\177'          # initrd_addr_max
put 566 '\001'                         # xloadflags: 64-bit entry
put 568 '\377\007'                    # cmdline_size
put 602 '\020'                         # pref_address: 1 MiB
put 610 '\040'                         # init_size: 2 MiB
expect "missing/disk" --kernel="$work/kernel" --disk="$work/missing/disk"
expect "disk image $work: open" --kernel="$work/kernel" --disk="$work"
expect "positive multiple of 512" --kernel="$work/kernel" --disk="$work/log"
expect "missing/initramfs: cannot be read" --kernel="$work/kernel" \
  --initrd="$work/missing/initramfs" --disk="$work/zeroes"
expect "does not fit into the guest's RAM" --kernel="$work/kernel" \
  --initrd="$work/large" --disk="$work/zeroes" --memory-mib=64
expect "command line is too long" --kernel="$work/kernel" \
  --append="$(head -c 4096 /dev/zero | tr '\0' x)" --disk="$work/zeroes"
put 610 '\0\0\0\020' # 256 MiB
expect "the kernel needs RAM up to" --kernel="$work/kernel" \
  --disk="$work/zeroes" --memory-mib=64
put 566 '\0'
expect "no 64-bit entry" --kernel="$work/kernel" --disk="$work/zeroes"

# A /dev without KVM, where that can be had.
if unshare -rm true 2>/dev/null; then
  without_kvm() {
    unshare -rm sh -c 'mount -t tmpfs none /dev && : >/dev/null && exec "$@"' \
      sh "$hypervisor" --kernel="$work/kernel" --disk="$work/zeroes"
  }
  if without_kvm </dev/null >"$work/log" 2>&1 ||
    ! grep -qF "/dev/kvm: this needs KVM" "$work/log"; then
    echo "expected that KVM is missed, got:"
    cat "$work/log"
    exit 1
  fi
fi
echo ok
