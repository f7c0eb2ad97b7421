#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards lazy refcounts: the dirty bit must stand before the first allocation
# and be gone after a clean end, a server that was killed must leave an image
# that is repaired when it is opened next, and every flushed byte must be there.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires qemu-img qemu-io nbdcopy

is_dirty()
{
	"$QNBD" info --json lazy.qcow2 | grep -q '"dirty-flag": true'
}

qemu-img create -q -f qcow2 -o lazy_refcounts=on lazy.qcow2 64M

echo "nothing written, nothing marked:"
start_qnbd lazy.qcow2
qemu-io -f raw -c 'read -q 0 1M' -c 'discard -q 0 1M' "$uri"
is_dirty && fail "it is marked, though nothing was allocated"
stop_qnbd
is_dirty && fail "it stays marked"

echo "marked while it is written to, and not after:"
start_qnbd lazy.qcow2
qemu-io -f raw -c 'write -q -P 1 0 3M' "$uri"
is_dirty || fail "it is not marked"
stop_qnbd
is_dirty && fail "it stays marked after a clean end"
qemu-img check -q lazy.qcow2
qemu-io -c 'read -q -P 1 0 3M' lazy.qcow2

echo "killed, and repaired:"
start_qnbd lazy.qcow2
qemu-io -f raw -c 'write -q -P 2 10M 5M' -c 'write -q -P 3 1M 1M' -c flush \
    -c 'discard -q 0 512k' -c 'write -q -P 4 40M 1M' "$uri"
kill -KILL "$pid"
wait_qnbd 137
is_dirty || fail "a killed server left it unmarked"
start_qnbd lazy.qcow2
[ "$(grep -c repaired "$log")" -eq 1 ] || fail "not one line about a repair"
qemu-io -f raw -c 'read -q -P 2 10M 5M' -c 'read -q -P 3 1M 1M' \
    -c 'read -q -P 1 2M 1M' "$uri"
stop_qnbd
is_dirty && fail "it stays marked after the repair"
qemu-img check -q lazy.qcow2
expect_status 0 "$QNBD" check lazy.qcow2
