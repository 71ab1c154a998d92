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
  if [[ ! -w /dev/kvm ]]; then text=/dev/kvm; fi
  if [[ "$status" == 0 ]] || ! tail -n 1 "$work/log" | grep -qF -- "$text"; then
    echo "expected an error with '$text', got status $status and:"
    cat "$work/log"
    exit 1
  fi
}

: >"$work/empty"
head -c 1048576 /dev/zero >"$work/zeroes"
expect "missing/kernel: cannot be read" \
  --kernel="$work/missing/kernel" --disk="$work/zeroes"
expect "empty: not a Linux kernel" --kernel="$work/empty" --disk="$work/zeroes"
expect "zeroes: not a Linux bzImage" \
  --kernel="$work/zeroes" --disk="$work/zeroes"
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
expect "positive multiple of 512" --kernel="$work/kernel" --disk="$work/log"
echo ok
