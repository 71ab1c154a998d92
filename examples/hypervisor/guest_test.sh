#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Boots a stock Debian kernel on our disk, replaces the process behind the disk
# while the guest writes and verifies, and has the guest power itself off.
#
#     guest_test.sh HYPERVISOR GUEST_LOAD RUN MAKE_DISK
#       [HYPERVISOR'S ARGUMENT... | --json FILE | --hostile | --two-hosts]
#
# With --hostile a module in the guest's kernel breaks the rules of VMBus
# meanwhile (guest/hostile), on which nothing of the above may depend;
# guest/make_hostile.sh puts it into the kit.  With --two-hosts it moves to a
# second host, where as many replacements follow.
#
# FERRYBUS_GUEST_KIT is a folder from make_kit.sh.  Without it, or where there
# is neither a KVM of the processor's nor QEMU, the test says so and is
# skipped: it ends with 0, and its JSON (if wanted) has "skipped".
#
# Two things are tried again, once, and only in an emulated machine: a triple
# fault (guest/nest_init), and that the machine around all stands still
# (guest/nest.sh).  The output says so: "AGAIN".

set -euo pipefail

hypervisor="$1"
guest_load="$2"
run="$3"
make_disk="$4"
shift 4
json=""
# Emulated processors on a busy machine stand still for seconds, which is not
# what the guest's kernel shall complain about.
patience="nosoftlockup rcupdate.rcu_cpu_stall_suppress=1"
append="console=ttyS0 quiet panic=-1 no_timer_check ferrybus.load $patience"
# More channels than are fast, so that there are sub-channels.
arguments=(--timeout=600 --disk-channels=2)
hostile=""
two_hosts=()
boots=1
while [[ $# -gt 0 ]]; do
  case "$1" in
    --json)
      json="$2"
      shift
      ;;
    --hostile)
      hostile=1
      append+=" ferrybus.hostile"
      ;;
    --two-hosts)
      two_hosts=(--two-hosts)
      boots=0 # in the report, which is the second host's
      ;;
    *) arguments+=("$1") ;;
  esac
  shift
done
kit="${FERRYBUS_GUEST_KIT:-}"
PATH="$PATH:/usr/sbin:/sbin"

skip() {
  echo "SKIPPED, nothing was tested: $*"
  if [[ -n "$json" ]]; then printf '{"skipped": "%s"}\n' "$*" >"$json"; fi
  if [[ -n "${XML_OUTPUT_FILE:-}" ]]; then  # for tools/test_report.py
    echo '<testsuites><testsuite name="guest_test"><testcase' \
      'name="guest_test" result="skipped"/></testsuite></testsuites>' \
      >"$XML_OUTPUT_FILE"
  fi
  exit 0
}

[[ -f "$kit/vmlinuz" ]] ||
  skip "there is no guest: FERRYBUS_GUEST_KIT names no folder of make_kit.sh" \
    "(./ferry guest-test makes one)"
if [[ -n "$hostile" && ! -f "$kit/root/modules/ferrybus_hostile.ko" ]]; then
  skip "there is no hostile module: the kernel's headers could not be had"
fi
command -v mke2fs >/dev/null || skip "there is no mke2fs (e2fsprogs)"

work="$(mktemp -d "${TEST_TMPDIR:-/var/tmp}/guest.XXXXXX")"
trap 'rm -rf "$work"' EXIT

# run_guest: sets `status`, that of the hypervisor.
run_guest() {
  status=0
  rm -f "$work/report"
  "$make_disk" "$kit" "$work/disk.img" "$guest_load" >/dev/null
  "$run" "${two_hosts[@]}" "$kit" "$work/disk.img" "$work/report" "$hypervisor" \
    --append="$append" "${arguments[@]}" </dev/null >"$work/log" 2>&1 || status=$?
  tr -d '\r' <"$work/log"
}

run_guest
if grep -qF "in a nested machine" "$work/log" &&
  grep -qsF '"end": "triple fault"' "$work/report" "$work/log"; then
  echo "AGAIN: a triple fault in an emulated machine"
  run_guest
elif [[ "$status" == 75 ]]; then
  echo "AGAIN: an emulated machine stood still"
  run_guest
fi
if [[ "$status" == 77 ]]; then skip "$(tail -n 1 "$work/log")"; fi
if [[ -n "$json" && -f "$work/report" ]]; then cp "$work/report" "$json"; fi
if [[ "$status" != 0 ]]; then
  echo "FAILED: the hypervisor ended with $status"
  exit 1
fi
for expected in "\"boots\": $boots," '"io_errors": 0,' '"lost": 0,' \
  '"complaints": [],' '"end": "power off",'; do
  if ! grep -qF "$expected" "$work/report"; then
    echo "FAILED: missing in the report: $expected"
    exit 1
  fi
done
if [[ "${arguments[*]}" != *--cpus* ]] &&
  ! grep -q "channels of the disk: 2" "$work/log"; then
  echo "FAILED: the guest's two processors have not two channels to the disk"
  exit 1
fi
if [[ "${#two_hosts[@]}" != 0 ]] && ! grep -qF '"end": "moved",' "$work/log"; then
  echo "FAILED: the guest did not move"
  exit 1
fi
if [[ -n "$hostile" ]] &&
  ! grep -o "FERRYBUS-HOSTILE posts=[1-9].*" "$work/log"; then
  echo "FAILED: the hostile module did not storm, or did not come to its end"
  exit 1
fi
echo "ok:$(grep -E '"(replacements|moves|snapshots|bytes_verified)"' "$work/report" | tr -d '\n')"
