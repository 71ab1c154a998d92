#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Runs the hypervisor: directly where there is a KVM of the processor's, else in
# a machine that has one (nest.sh).
#
#     run.sh [--two-hosts] KIT DISK REPORT HYPERVISOR [ARGUMENT...]
#
# KIT is from make_kit.sh; the JSON report goes to the file REPORT.  The status
# is the hypervisor's, or 77 if neither way can be gone.  With --two-hosts the
# guest moves to another one (two_hosts.sh).

set -euo pipefail

here="$(dirname "${BASH_SOURCE[0]}")"
through=()
with=()
if [[ "$1" == --two-hosts ]]; then
  through=("$here/two_hosts.sh")
  shift
fi
kit="$1"
disk="$2"
report="$3"
hypervisor="$4"
shift 4

# A KVM without the processor's help (kvm_pvm) cannot run a stock kernel.
if [[ -w /dev/kvm && (-d /sys/module/kvm_intel || -d /sys/module/kvm_amd) ]]; then
  echo "directly on /dev/kvm" >&2
  exec "${through[@]}" "$hypervisor" --kernel="$kit/vmlinuz" \
    --initrd="$kit/initramfs" --disk="$disk" --json="$report" "$@"
fi
if ! command -v qemu-system-x86_64 >/dev/null; then
  echo "there is neither a usable /dev/kvm nor qemu-system-x86_64" >&2
  exit 77
fi
echo "in a nested machine: there is no usable /dev/kvm" >&2
program=("$hypervisor")
if [[ "${#through[@]}" != 0 ]]; then
  for tool in ip openssl; do
    with+=("--with=$(PATH="$PATH:/usr/sbin:/sbin" command -v "$tool")") || {
      echo "two hosts need $tool" >&2
      exit 77
    }
  done
  with+=("--with=$hypervisor")
  program=("${through[0]}" "./$(basename "$hypervisor")")
fi
exec "$here/nest.sh" "$kit" "$disk" "$report" "${with[@]}" "${program[@]}" \
  --kernel=vmlinuz --initrd=initramfs --disk=/dev/vda \
  --json=/nest/out/report "$@"
