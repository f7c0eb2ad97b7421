#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards processes whose files may not become longer than a limit (ulimit -f,
# LimitFSIZE of systemd): they must take it for a full disk, not end by SIGXFSZ,
# and use what there is up to it; a reserve is longer than that.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires qemu-img qemu-io

mib=1024 # of ulimit's units

head -c 20M /dev/urandom > data.raw

echo "a new image of 20 MiB where files may have 21:"
(ulimit -f $((21 * mib)) && "$QNBD" convert -f raw -O qcow2 data.raw new.qcow2)
qemu-img compare -q -f raw -F qcow2 data.raw new.qcow2
qemu-img check -q new.qcow2

echo "and 15:"
(
	ulimit -f $((15 * mib))
	expect_status 1 "$QNBD" convert -f raw -O qcow2 data.raw no.qcow2
)
expect_text "$tmp/err" "No space left on device"
[[ ! -e no.qcow2 ]] || fail "a part of an image was left"

echo "a server goes on after it has met the limit:"
qemu-img create -q -f qcow2 served.qcow2 64M
was=$(ulimit -S -f)
ulimit -S -f $((21 * mib))
start_qnbd served.qcow2
ulimit -S -f "$was"
qemu-io -f raw -c 'write -q -P 1 0 18M' "$uri"
qemu-io -f raw -c 'write -P 2 18M 16M' "$uri" > out 2>&1 || true
expect_text out "No space left on device"
qemu-io -f raw -c 'read -q -P 1 0 18M' -c 'write -q -P 3 0 1M' -c flush "$uri"
stop_qnbd
qemu-io -c 'read -q -P 3 0 1M' -c 'read -q -P 1 1M 17M' served.qcow2
qemu-img check -q served.qcow2
