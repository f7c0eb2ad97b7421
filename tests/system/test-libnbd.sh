#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards every command and flag against a client that others wrote: serves the
# exports that test_libnbd.c expects, with each engine, and checks the images
# behind them afterwards.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires qemu-img qemu-io

program=$(dirname "$QNBD")/tests/system/test_libnbd
[ -x "$program" ] || skip "there is no test_libnbd: install check and" \
    "libnbd-dev, run configure again, then make check"

# Sizes as in test_libnbd.h; the odd one has no tool to make it.
odd_bytes=$((1024 * 1024 + 5 * 512 + 24))
qemu-img create -q -f qcow2 -o cluster_size=64k main.qcow2 128M
qemu-img create -q -f qcow2 -o cluster_size=64k odd.qcow2 \
    $((odd_bytes - 24 + 512))
printf %b "$(printf '\\x%02x' $((odd_bytes >> 24)) $((odd_bytes >> 16 & 255)) \
    $((odd_bytes >> 8 & 255)) $((odd_bytes & 255)))" |
    dd of=odd.qcow2 bs=1 seek=28 conv=notrunc status=none
qemu-img create -q -f qcow2 read-only.qcow2 1M
qemu-io -f qcow2 -c 'write -q -P 0x5a 0 1M' read-only.qcow2

# The disk whose end is no sector's end: the cluster is there or not.
expect_clean()
{
	qemu-img check -q -f qcow2 "$1" || {
		qemu-img check -f qcow2 "$1" >&2 || :
		fail "$1: qemu-img check is not content"
	}
}

# run_tests ARG...: for the server
run_tests()
{
	local status=0

	echo "qnbd serve $*"
	start_qnbd -r "$@" read-only.qcow2
	QNBD_READ_ONLY="nbd+unix:///read-only?socket=$sock"
	local read_only=$pid
	start_qnbd "$@" main.qcow2 odd.qcow2
	QNBD_MAIN="nbd+unix:///main?socket=$sock"
	QNBD_ODD="nbd+unix:///odd?socket=$sock"
	QNBD_MAIN_IMAGE=$tmp/main.qcow2
	export QNBD_READ_ONLY QNBD_MAIN QNBD_ODD QNBD_MAIN_IMAGE
	"$program" || status=$?
	stop_qnbd
	pid=$read_only
	stop_qnbd
	expect_clean main.qcow2
	expect_clean odd.qcow2
	[ "$status" -eq 0 ] || fail "libnbd finds fault with qnbd serve $*"
}

run_tests --threads 2
run_tests --threads 1 --io threads
