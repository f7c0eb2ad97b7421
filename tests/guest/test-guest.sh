#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards against a real client, Linux itself: a guest with Debian's kernel
# attaches a disk over two TCP connections, makes ext4, writes, trims, detaches,
# and finds everything when it attaches again.  Then the guest is the server's
# home: on that kernel it must run, by io_uring, and serve from a block device,
# too, where space that is new does not read as zeros.
#
# Packages: busybox-static cpio e2fsprogs kmod libnbd-bin nbd-client
# qemu-system-x86 qemu-utils; the kernel's is downloaded, and only unpacked.
PATH=$PATH:/usr/sbin:/sbin
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires qemu-system-x86_64 qemu-img cpio busybox nbd-client mke2fs e2fsck \
    openssl \
    depmod modprobe nbdcopy nbdinfo dpkg-deb apt-get python3

guest_seconds_max=${GUEST_SECONDS_MAX:-300}
# Several builds may share one; "make distclean" removes the build's own.
cache=${QNBD_GUEST_KERNEL:-$(dirname "$QNBD")/tests/guest/kernel}
bash "$top/tests/guest/kernel.sh" "$cache" || {
	status=$?
	[ "$status" -ne 77 ] || exit 77
	fail "the kernel cannot be unpacked: status $status"
}

# add_program PATH [TARGET]: into root/, with the libraries it needs.
add_program()
{
	local library

	install -D "$1" "root/${2:-$1}"
	ldd "$1" 2>/dev/null | grep -o '/[^ ]*' >libraries || :
	while read -r library; do
		[ -e "root/$library" ] ||
		    install -D "$(realpath "$library")" "root/$library"
	done <libraries
}

# The guest's root: a few programs, the modules, an image for its own server.
make_root()
{
	local tool applet

	mkdir -p root/{bin,dev,etc,lib,lib64,mnt,proc,sbin,sys,tmp,usr}
	for tool in nbd-client mke2fs e2fsck nbdcopy nbdinfo; do
		add_program "$(command -v "$tool")" "usr/bin/$tool"
	done
	add_program "$QNBD" usr/bin/qnbd
	add_program "$(command -v busybox)" bin/busybox
	for applet in $(busybox --list); do
		[ -e "root/usr/bin/$applet" ] ||
		    ln -sf busybox "root/bin/$applet"
	done
	rm -f root/bin/busybox
	add_program "$(command -v busybox)" bin/busybox
	install "$top/tests/guest/init.sh" root/init
	cp "$cache/modules" root/modules
	(cd "$cache" && sed 's|^/||' modules | cpio -o -H newc --quiet) |
	    (cd root && cpio -i -d --quiet)
	qemu-img convert -c -f raw -O qcow2 -o cluster_size=16k image.raw \
	    root/image.qcow2
	sha256sum <image.raw | cut -d ' ' -f 1 >root/image.sum
	cp other.raw root/other.raw
	"$top/tests/pki.sh" root/pki
	(cd root && find . | cpio -o -H newc --quiet) >initrd
}

# port_of LOG: the TCP port of that server.
port_of()
{
	sed -n 's|^nbd://127.0.0.1:\([0-9]*\)/.*|\1|p' "${1%.log}.out" |
	    head -n 1
}

run_guest()
{
	local status=0

	timeout "$guest_seconds_max" qemu-system-x86_64 \
	    -accel tcg,thread=multi -cpu max -smp 2 -m 768 \
	    -nodefaults -no-reboot -display none -serial stdio \
	    -netdev user,id=net \
	    -device virtio-net-pci,netdev=net,romfile= \
	    -drive file=device.raw,format=raw,if=virtio,discard=unmap \
	    -kernel "$cache/vmlinuz" -initrd initrd -append "console=ttyS0 \
	    panic=-1 loglevel=4 random.trust_cpu=on nbd_port=$1 \
	    result_port=$2" \
	    </dev/null >serial.txt 2>qemu.txt || status=$?
	if [ "$status" -ne 0 ]; then
		tail -n 40 serial.txt qemu.txt >&2
		fail "the guest ended with status $status"
	fi
	tr -d '\r' <serial.txt >guest.txt
	grep -e '^GUEST' -e '^qnbd: ' guest.txt || :
	grep -qx 'GUEST-VERDICT ok' guest.txt || {
		tail -n 60 guest.txt >&2
		fail "the guest is not content"
	}
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
head -c 64M /dev/zero | tr '\0' '\245' >device.raw
truncate -s 32M result.raw
start_qnbd -f raw --listen tcp:127.0.0.1:0 result=result.raw
result_port=$(port_of "$log")
result_pid=$pid
start_qnbd --listen tcp:127.0.0.1:0 disk.qcow2
begin=$SECONDS
run_guest "$(port_of "$log")" "$result_port"
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
