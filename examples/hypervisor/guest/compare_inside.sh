#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Boots one guest in turn on this hypervisor and on QEMU with virtio-blk, and
# lets each read its disk: the part of compare.sh that runs next to /dev/kvm.
#
#     compare_inside.sh HYPERVISOR QEMU KERNEL INITRD DISK OUT ROUNDS READS \
#       DISK_CHANNELS [COPY]
#
# READS is what root_init takes; DISK_CHANNELS goes to the hypervisor; OUT gets "NAME ROUND LINE" for each line that
# guest_random_read printed.  COPY: the disk is copied there, into memory, and
# is read by both through the host's cache, else by both past it.

hypervisor="$1" qemu="$2" kernel="$3" initrd="$4" disk="$5" out="$6"
rounds="$7" reads="$8" disk_channels="$9"
shift 9
copy="$1"
append="console=ttyS0 quiet panic=-1 no_timer_check ferrybus.reads=$reads"
# The same for both.
memory=512 processors=2

ferrybus() {
  "$hypervisor" --kernel="$kernel" --initrd="$initrd" --disk="$disk" \
    --memory-mib="$memory" --cpus="$processors" --append="$append" \
    --disk-channels="$disk_channels" --timeout=300
}

# The disk by io_uring, as ours, and on a thread of its own.
virtio() {
  "$qemu" -M q35,accel=kvm -cpu host -m "$memory" -smp "$processors" \
    -nodefaults -no-user-config -display none -no-reboot -L . \
    -L /usr/share/seabios -L /usr/share/qemu \
    -kernel "$kernel" -initrd "$initrd" -append "$append" -serial stdio \
    -blockdev "driver=$driver,filename=$disk,node-name=disk,aio=io_uring,$cache" \
    -object iothread,id=disk-thread \
    -device virtio-blk-pci,drive=disk,iothread=disk-thread
}

driver="file"
cache=cache.direct=on
if [ -n "$copy" ]; then
  cp "$disk" "$copy" || exit 1
  disk="$copy"
  cache=cache.direct=off
elif [ -b "$disk" ]; then
  driver=host_device
fi
: >"$out"
round=0
while [ "$round" -lt "$rounds" ]; do
  round=$((round + 1))
  for name in ferrybus virtio; do
    "$name" </dev/null >"$out.log" 2>&1
    status=$?
    tr -d '\r' <"$out.log" | sed -n "s/^\(FERRYBUS-READS.*\)/$name $round \1/p" \
      >"$out.reads"
    cat "$out.reads"
    cat "$out.reads" >>"$out"
    if [ "$status" != 0 ] || [ ! -s "$out.reads" ]; then
      cat "$out.log"
      echo "round $round: $name ended with $status"
    fi
  done
done
rm -f "$out.log" "$out.reads"
