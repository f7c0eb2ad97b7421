#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards against a machine that does not come up: its BIOS, its boot loader and
# then its kernel read and write a served disk through qemu's own NBD client,
# and find what they wrote when it boots again.
#
# Packages: dosfstools mtools syslinux e2fsprogs qemu-utils, and those of
# root.sh.
. "${abs_top_srcdir:-.}/tests/functions.sh"
. "$top/tests/guest/root.sh"
requires qemu-img mkfs.vfat mcopy syslinux mke2fs e2fsck nbdcopy

# What the machine does: once each boot a line in a file of its second disk.
cat >init <<'END'
#!/bin/sh
set -eu
export PATH=/bin
trap 'poweroff -f' EXIT
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
while read -r module; do
	insmod "$module"
done </modules
mount -t ext4 /dev/vdb /mnt
cat /proc/sys/kernel/random/boot_id >>/mnt/boots
wc -l </mnt/boots
[ ! -e /mnt/blob ] || sha256sum -c /mnt/blob.sum
dd if=/dev/urandom of=/mnt/blob bs=1M count=8
sha256sum /mnt/blob >/mnt/blob.sum
umount /mnt
echo "GUEST-VERDICT ok"
END
begin_root init
end_root

# A disk as machines had them: a boot loader in the first sector, files in FAT.
truncate -s 96M boot.raw
mkfs.vfat -F 16 boot.raw >/dev/null
cat >syslinux.cfg <<'END'
SERIAL 0
DEFAULT linux
LABEL linux
	LINUX vmlinuz
	INITRD initrd
	APPEND console=ttyS0 panic=-1 loglevel=4 random.trust_cpu=on
END
mcopy -i boot.raw syslinux.cfg "$cache/vmlinuz" initrd ::
syslinux -i boot.raw
qemu-img convert -f raw -O qcow2 boot.raw boot.qcow2
qemu-img create -q -f qcow2 -o cluster_size=4k data.qcow2 64M

start_qnbd -p 0 boot.qcow2 data.qcow2
port=$(sed -n 's|^nbd://127.0.0.1:\([0-9]*\)/.*|\1|p' "${log%.log}.out" |
    head -n 1)
mke2fs -q -t ext4 data.raw 64M
nbdcopy --flush data.raw "nbd://127.0.0.1:$port/data"
for boot in 1 2; do
	begin=$SECONDS
	run_guest \
	    -drive "file=nbd://127.0.0.1:$port/boot,format=raw,if=virtio" \
	    -drive "file=nbd://127.0.0.1:$port/data,format=raw,if=virtio"
	expect_text guest.txt "^$boot\$"
	echo "boot $boot: $((SECONDS - begin)) s"
done
expect_text guest.txt '^/mnt/blob: OK$'
stop_qnbd
for disk in boot data; do
	qemu-img check -q $disk.qcow2 || fail "$disk.qcow2 is damaged"
done
qemu-img compare -q -f raw -F qcow2 boot.raw boot.qcow2 ||
    fail "somebody wrote to the disk it booted from"
qemu-img convert -f qcow2 -O raw data.qcow2 after.raw
e2fsck -fn after.raw >e2fsck.txt 2>&1 || {
	cat e2fsck.txt >&2
	fail "e2fsck is not content with the guest's disk"
}
