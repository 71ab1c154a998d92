#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Runs a hypervisor on a machine whose KVM is missing or not usable: inside
# a virtual machine that QEMU emulates, with processors that have AMD's
# virtualisation.  Slow, and the same everywhere.
#
#     nest.sh KIT DISK OUT [--with=FILE]... PROGRAM [ARGUMENT...]
#
# KIT is from make_kit.sh.  Inside, the kit's files, the program and each FILE
# are in /nest, which is where the program runs; DISK is /dev/vda, and what the
# program writes to /nest/out/report comes back in the file OUT.  The status is
# the program's.  The nest's own kernel is the kit's, or that of the kit that
# FERRYBUS_NEST_KIT names.
#
# At times a nest stands still as a whole, whoever runs in it.  So one whose heart
# does not beat is ended, with the status 75: it may be tried again.

set -euo pipefail

kit="$1"
disk="$2"
out="$3"
shift 3
files=("$kit/vmlinuz" "$kit/initramfs")
while [[ "$1" == --with=* ]]; do
  files+=("${1#*=}")
  shift
done
program="$1"
shift
files+=("$program")

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/root/nest/out"
cp -L "${files[@]}" "$work/root/nest/"
for file in "${files[@]}"; do
  ldd "$file" 2>/dev/null || true
done | { grep -o '/[^ ]*' || true; } | sort -u | while read -r file; do
  mkdir -p "$work/root$(dirname "$file")"
  cp -L "$file" "$work/root$file"
done
{
  echo '#!/bin/sh'
  echo 'while sleep 5; do echo alive >/dev/ttyS1; done &'
  printf './%q' "$(basename "$program")"
  printf ' %q' "$@"
  echo
  echo "status=\$?"
  echo "kill \$!"
  echo "exit \$status"
} >"$work/root/nest/command"
chmod -R u+rwX,+x "$work/root/nest"
(cd "$work/root" && find . | cpio --quiet -o -H newc -R 0:0 | gzip -1) \
  >"$work/added"

# Ends the nest if nothing comes from it for this long, its boot included.
readonly patience_seconds=240
watch_heart() {
  local last=-1 now quiet=0
  until [[ -f "$work/pid" ]]; do sleep 1; done
  while sleep 5; do
    now="$(stat -c %s "$work/out" || echo 0)"
    quiet=$((now == last ? quiet + 5 : 0))
    last="$now"
    if ((quiet >= patience_seconds)); then
      touch "$work/stood_still"
      kill "$(<"$work/pid")"
      sleep 10
      kill -KILL "$(<"$work/pid")"
      return
    fi
  done
}

nest="${FERRYBUS_NEST_KIT:-$kit}"
cat "$nest/nest-initramfs.base" "$work/added" >"$work/initramfs"

# Two processors, as the guest has.  A plain model: what newer ones add, QEMU
# does not emulate well enough for a guest inside a guest.  Its TSC is this
# machine's, so it can be relied on, which the nest's kernel does not know: it
# would give its guests no time page, and each look at the clock would be an
# exit.  Without huge pages: the kernel's search for them locks up at times when
# a guest's memory is searched.
watch_heart </dev/null >/dev/null 2>&1 &
heart=$!
trap 'kill "$heart" 2>/dev/null || true; rm -rf "$work"' EXIT
qemu_status=0
: >"$work/out"
qemu-system-x86_64 -pidfile "$work/pid" -accel tcg,thread=multi \
  -cpu qemu64,+svm,+npt -smp 2 -m 2048 \
  -nodefaults -no-user-config -display none -no-reboot \
  -kernel "$nest/vmlinuz" -initrd "$work/initramfs" \
  -append "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check \
tsc=reliable transparent_hugepage=never" \
  -drive "file=$disk,if=virtio,format=raw,cache=unsafe" \
  -serial stdio -serial "file:$work/out" || qemu_status=$?
tr -d '\r' <"$work/out" | sed '/^end /d; /^alive$/d' >"$out"
status="$(tr -d '\r' <"$work/out" | sed -n 's/^end //p')"
if [[ -n "$status" ]]; then exit "$status"; fi
if [[ -f "$work/stood_still" ]]; then
  echo "nest.sh: the nest stood still" >&2
  exit 75
fi
echo "nest.sh: the nest ended before its work was done ($qemu_status)" >&2
exit 1
