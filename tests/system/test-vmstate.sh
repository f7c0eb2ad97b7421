#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards the state of virtual machines in snapshots: one that QEMU has made must
# be listed, applied and deleted without harm and come out as it is, and QEMU
# must go on from one that was put in.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires qemu-img qemu-io qemu-system-x86_64

clean()
{
	qemu-img check -q "$1" || {
		qemu-img check "$1" | tail -n 20 >&2
		fail "$1 is not clean"
	}
}

# machine COMMANDS ARG...: a machine that does not run, told by its monitor.
machine()
{
	local commands=$1
	shift
	printf '%s\nquit\n' "$commands" | timeout 60 qemu-system-x86_64 \
	    -machine pc,accel=tcg -m 16 -nodefaults -display none -S \
	    -drive if=virtio,file=vm.qcow2,format=qcow2 -monitor stdio \
	    "$@" >monitor.log 2>&1 || {
		cat monitor.log >&2
		fail "the machine ended badly"
	}
}

for options in cluster_size=64k cluster_size=4k,refcount_bits=8 compat=0.10
do
	echo "a machine on an image with $options:"
	rm -f state ./*.raw
	qemu-img create -q -f qcow2 -o "$options" vm.qcow2 3M
	qemu-io -c 'write -q -P 1 0 2M' vm.qcow2
	qemu-img convert -O raw vm.qcow2 one.raw
	machine 'savevm theirs'
	clean vm.qcow2
	expect_status 0 "$QNBD" snapshot list vm.qcow2
	expect_text "$tmp/out" '"theirs" .*, with .* of VM state$'
	size=$("$QNBD" snapshot list --json vm.qcow2 |
	    sed -n 's/.*"vm-state-size": \([0-9]*\).*/\1/p')
	qemu-io -c 'write -q -P 2 0 3M' vm.qcow2

	expect_status 0 "$QNBD" vmstate load --snapshot theirs vm.qcow2 state
	[ "$(stat -c %s state)" -eq "$size" ] || fail "not $size bytes"
	expect_status 1 "$QNBD" vmstate load --snapshot theirs vm.qcow2 state
	expect_text "$tmp/err" 'cannot make state: File exists$'

	expect_status 0 "$QNBD" snapshot apply vm.qcow2 theirs
	clean vm.qcow2
	expect_status 0 "$QNBD" vmstate save --snapshot ours vm.qcow2 state
	clean vm.qcow2
	expect_status 0 "$QNBD" snapshot create vm.qcow2 plain
	expect_status 0 "$QNBD" snapshot delete vm.qcow2 theirs
	clean vm.qcow2
	expect_status 1 "$QNBD" vmstate load --snapshot plain vm.qcow2 none
	expect_text "$tmp/err" 'has no state of a virtual machine$'
	[ ! -e none ] || fail "a file was made for nothing"
	mv state first
	expect_status 0 "$QNBD" vmstate load --snapshot ours vm.qcow2 state
	cmp state first || fail "the state has changed"

	# QEMU goes on from it, and the disk is as it was.
	qemu-io -c 'write -q -P 3 0 3M' vm.qcow2
	machine 'info status' -loadvm ours
	expect_text monitor.log 'VM status: paused'
	clean vm.qcow2
	qemu-img convert -O raw vm.qcow2 now.raw
	cmp one.raw now.raw || fail "the disk is not as it was"
	# What is behind its end does not come to light.
	[ "$options" = compat=0.10 ] || {
		expect_status 0 "$QNBD" resize vm.qcow2 2G
		clean vm.qcow2
		qemu-io -c 'read -q -P 0 3M 2045M' vm.qcow2
	}
	expect_status 0 "$QNBD" snapshot delete vm.qcow2 ours
	clean vm.qcow2
	rm -f first
done

echo "what cannot be:"
expect_status 64 "$QNBD" vmstate save vm.qcow2 state
expect_text "$tmp/err" 'vmstate save needs --snapshot NAME'
expect_status 64 "$QNBD" vmstate lode vm.qcow2 state
: >empty
expect_status 1 "$QNBD" vmstate save --snapshot new vm.qcow2 empty
expect_text "$tmp/err" 'empty is no regular file with anything in it$'
expect_status 1 "$QNBD" vmstate save --snapshot plain vm.qcow2 state
expect_text "$tmp/err" 'there is one of that name$'
clean vm.qcow2
