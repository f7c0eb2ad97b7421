#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards what clients are told of a chain: base:allocation and
# qemu:allocation-depth, as nbdinfo shows them, are those of qemu-nbd, which has
# the same files; what one of them calls a hole or another layer would be copied
# wrongly.  And RESIZE: it is offered where it is allowed, and only there.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires qemu-img qemu-io qemu-nbd nbdinfo

peer=

stop_peer()
{
	[ -z "$peer" ] || kill "$peer" 2>/dev/null || :
	[ -z "$peer" ] || wait "$peer" 2>/dev/null || :
	peer=
}

# What a failed test would leave behind.
trap 'stop_peer' HUP INT TERM

# base <- middle <- top, each with data, zeros and nothing of its own.
make_chain()
{
	qemu-img create -q -f qcow2 base.qcow2 24M
	qemu-io -f qcow2 -c "write -q -P 1 0 3M" -c "write -q -z -u 4M 1M" \
	    -c "write -q -P 2 8M 64k" -c "write -q -z -u 9M 1M" base.qcow2
	qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 middle.qcow2 32M
	qemu-io -f qcow2 -c "write -q -P 3 1M 1M" -c "write -q -z -u 8M 64k" \
	    -c "write -q -P 4 26M 1M" middle.qcow2
	qemu-img create -q -f qcow2 -b middle.qcow2 -F qcow2 top.qcow2
	qemu-io -f qcow2 -c "write -q -P 5 1536k 1M" \
	    -c "write -q -z -u 2M 64k" -c "write -q -P 6 31M 1M" \
	    -c "discard -q 12M 1M" top.qcow2
	qemu-img create -q -f raw alone.raw 8M
	qemu-io -f raw -c "write -q -P 7 1M 1M" alone.raw
}

# expect_maps IMAGE FORMAT CONTEXT...
expect_maps()
{
	local image=$1 format=$2 context
	shift 2
	qemu-nbd -t -r -A -f "$format" -k "$tmp/peer.sock" "$image" &
	peer=$!
	start_qnbd -r -f "$format" "$image"
	for context; do
		nbdinfo --map="$context" "$uri" >ours
		for _ in $(seq 100); do
			[ -S peer.sock ] && break
			sleep 0.1
		done
		nbdinfo --map="$context" \
		    "nbd+unix:///?socket=$tmp/peer.sock" >theirs
		diff theirs ours ||
		    fail "$image: $context is not what qemu-nbd says"
	done
	stop_qnbd
	stop_peer
	rm -f peer.sock
}

make_chain
for image in base middle top; do
	expect_maps "$image.qcow2" qcow2 base:allocation qemu:allocation-depth
done
expect_maps alone.raw raw base:allocation qemu:allocation-depth

start_qnbd --allow-resize base.qcow2
nbdinfo --list --json "$uri" >info
grep -q qemu:allocation-depth info || fail "the contexts are not listed"
stop_qnbd

expect_status 64 "$QNBD" serve -r --allow-resize base.qcow2
grep -q "allow-resize is for what can be written" err ||
    fail "-r with --allow-resize: $(cat err)"
