#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards against a real client, Linux itself: a guest with Debian's kernel
# attaches a disk over two TCP connections, makes ext4, writes, trims, detaches,
# finds everything when it attaches again, and swaps there.  Then the guest is
# the server's home: on that kernel it must run, by io_uring, and serve from a
# block device, too, where space that is new does not read as zeros; and over
# vsock; and with TLS, which the kernel encrypts.
#
# Packages: e2fsprogs libnbd-bin nbd-client qemu-utils, and those of root.sh.
. "${abs_top_srcdir:-.}/tests/functions.sh"
. "$top/tests/guest/root.sh"
requires qemu-img nbd-client mke2fs e2fsck nbdcopy nbdinfo python3 openssl

# The guest's root: a few programs, the modules, an image for its own server.
make_root()
{
	local tool

	begin_root "$top/tests/guest/init.sh"
	for tool in nbd-client mke2fs e2fsck nbdcopy nbdinfo; do
		add_program "$(command -v "$tool")" "usr/bin/$tool"
	done
	add_program "$QNBD" usr/bin/qnbd
	qemu-img convert -c -f raw -O qcow2 -o cluster_size=16k image.raw \
	    root/image.qcow2
	sha256sum <image.raw | cut -d ' ' -f 1 >root/image.sum
	cp other.raw root/other.raw
	"$top/tests/pki.sh" root/pki
	end_root
}

# port_of LOG: the TCP port of that server.
port_of()
{
	sed -n 's|^nbd://127.0.0.1:\([0-9]*\)/.*|\1|p' "${1%.log}.out" |
	    head -n 1
}

visit()
{
	run_guest -netdev user,id=net \
	    -device virtio-net-pci,netdev=net,romfile= \
	    -drive file=device.raw,format=raw,if=virtio,discard=unmap \
	    -kernel "$cache/vmlinuz" -initrd initrd -append "console=ttyS0 \
	    panic=-1 loglevel=4 random.trust_cpu=on nbd_port=$1 \
	    result_port=$2"
}

python3 -c '
import random
with open("image.raw", "wb") as image:
    image.write(b"some text that can be made short\n" * 60000)
    image.seek(5 << 20)
    image.write(random.Random(1).randbytes(2 << 20))
    image.truncate(16 << 20)
with open("other.raw", "wb") as other:
    other.seek(1 << 20)
    other.write(random.Random(2).randbytes(5000000))
    other.truncate(16 << 20)
'
make_root
qemu-img create -q -f qcow2 disk.qcow2 512M
qemu-img create -q -f qcow2 swap.qcow2 128M
head -c 64M /dev/zero | tr '\0' '\245' >device.raw
truncate -s 32M result.raw
start_qnbd -f raw --listen tcp:127.0.0.1:0 result=result.raw
result_port=$(port_of "$log")
result_pid=$pid
start_qnbd --listen tcp:127.0.0.1:0 disk.qcow2 swap.qcow2
begin=$SECONDS
visit "$(port_of "$log")" "$result_port"
echo "the guest ran for $((SECONDS - begin)) s"
stop_qnbd
# Twice two connections, which the kernel ends without a word.
[ "$(grep -c 'left peer="tcp .* export="disk"' "$log")" -ge 4 ] ||
    fail "the guest did not have two connections"
pid=$result_pid
stop_qnbd

qemu-img check -q -f qcow2 disk.qcow2 || {
	qemu-img check -f qcow2 disk.qcow2 >&2 || :
	fail "qemu-img check is not content with the guest's disk"
}
qemu-img convert -f qcow2 -O raw disk.qcow2 disk.raw
e2fsck -fn disk.raw >e2fsck.txt 2>&1 || {
	cat e2fsck.txt >&2
	fail "e2fsck is not content with the guest's disk"
}
expect_text guest.txt 'engine=io_uring'
qemu-img check -q -f qcow2 result.raw ||
    fail "qemu-img check is not content with what was written in the guest"
qemu-img compare -q -f qcow2 -F raw result.raw other.raw ||
    fail "what was written in the guest is something else"
qemu-img check -q -f qcow2 device.raw ||
    fail "qemu-img check is not content with the guest's block device"
qemu-img compare -q -f qcow2 -F raw device.raw other.raw ||
    fail "what was written to the block device is something else"
