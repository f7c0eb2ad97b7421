# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2154
#
# Guests: their kernel, the root they begin with, and their end.  A test reads
# functions.sh and then this.
#
#	cache		the directory with the kernel and its modules
#
# Packages: busybox-static cpio kmod qemu-system-x86; the kernel's is
# downloaded, and only unpacked.
PATH=$PATH:/usr/sbin:/sbin
requires qemu-system-x86_64 cpio busybox depmod modprobe dpkg-deb apt-get

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

# begin_root INIT: root/ with busybox, the modules, and INIT as its program.
begin_root()
{
	local applet

	mkdir -p root/{bin,dev,etc,lib,lib64,mnt,proc,sbin,sys,tmp,usr/bin}
	add_program "$(command -v busybox)" bin/busybox
	for applet in $(busybox --list); do
		[ -e "root/bin/$applet" ] || ln -s busybox "root/bin/$applet"
	done
	install "$1" root/init
	cp "$cache/modules" root/modules
	(cd "$cache" && sed 's|^/||' modules | cpio -o -H newc --quiet) |
	    (cd root && cpio -i -d --quiet)
}

# end_root: packs root/ into initrd.
end_root()
{
	(cd root && find . | cpio -o -H newc --quiet) >initrd
}

# run_guest ARG...: QEMU with these, until the guest is content.
run_guest()
{
	local status=0

	timeout "$guest_seconds_max" qemu-system-x86_64 \
	    -accel tcg,thread=multi -cpu max -smp 2 -m 768 \
	    -nodefaults -no-reboot -display none -serial stdio "$@" \
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
