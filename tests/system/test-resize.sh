#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards against a longer disk that shows what lay beyond its end, in its last
# cluster, in a backing file or in an interrupted shrinking; against a shorter
# one that keeps what nobody can reach, or loses what is before the end; and
# against snapshots that a change of length damages.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires qemu-img qemu-io

clean()
{
	qemu-img check -q "$1" || {
		qemu-img check "$1" | tail -n 20 >&2
		fail "$1 is not clean"
	}
	expect_status 0 "$QNBD" check "$1"
}

resize()
{
	expect_status 0 "$QNBD" resize "$@"
}

# length FILE BYTES
length()
{
	qemu-img info --output=json -f qcow2 "$1" >facts.txt
	expect_text facts.txt "\"virtual-size\": $2,"
}

# round NAME OPTIONS: longer by many L1 entries, shorter, and back.
round()
{
	local image=$1.qcow2

	qemu-img create -q -f qcow2 -o "$2" "$image" 2M
	qemu-io -c 'write -q -P 1 0 2M' "$image"
	resize "$image" 70M
	length "$image" 73400320
	clean "$image"
	qemu-io -c 'read -q -P 1 0 2M' -c 'read -q -P 0 2M 68M' "$image"
	qemu-io -c 'write -q -P 2 60M 10M' -c 'write -q -P 3 1M 20M' "$image"
	expect_status 1 "$QNBD" resize "$image" 3M
	expect_text "$tmp/err" 'it would become shorter'
	expect_text "$tmp/err" '^  if that is meant: --shrink$'
	length "$image" 73400320
	resize --shrink "$image" -68157952
	length "$image" 5242368
	clean "$image"
	qemu-io -c 'read -q -P 1 0 1M' -c 'read -q -P 3 1M 4193792' "$image"
	[ "$(qemu-img map -f qcow2 "$image" | tail -n +2 | wc -l)" -gt 0 ] ||
	    fail "nothing is mapped"
	resize "$image" +68157952
	length "$image" 73400320
	clean "$image"
	qemu-io -c 'read -q -P 3 1M 4193792' \
	    -c 'read -q -P 0 5242368 68157952' "$image"
}

echo "longer and shorter:"
round v2 compat=0.10
round v3 cluster_size=64k
round small cluster_size=512
round large cluster_size=2M

echo "a backing file does not show through:"
qemu-img create -q -f raw base.raw 8M
qemu-io -f raw -c 'write -q -P 9 0 8M' base.raw
for compat in 0.10 1.1; do
	qemu-img create -q -f qcow2 -o compat=$compat -b base.raw -F raw \
	    top.qcow2 2560k
	resize top.qcow2 10M
	clean top.qcow2
	qemu-io -c 'read -q -P 9 0 2560k' -c 'read -q -P 0 2560k 7680k' \
	    top.qcow2
done

echo "snapshots keep their length:"
qemu-img create -q -f qcow2 -o cluster_size=4k snap.qcow2 1M
qemu-io -c 'write -q -P 1 0 1M' snap.qcow2
qemu-img snapshot -c one snap.qcow2
resize snap.qcow2 9M
qemu-io -c 'write -q -P 2 512k 8M' snap.qcow2
resize --shrink snap.qcow2 256k
clean snap.qcow2
qemu-img snapshot -a one snap.qcow2
clean snap.qcow2
length snap.qcow2 1048576
qemu-io -c 'read -q -P 1 0 1M' snap.qcow2
qemu-img create -q -f qcow2 -o compat=0.10 old.qcow2 1M
qemu-img snapshot -c one old.qcow2
expect_status 1 "$QNBD" resize old.qcow2 2M
expect_text "$tmp/err" 'snapshots that do not say how long their disk is'
length old.qcow2 1048576

echo "room set aside:"
for mode in metadata falloc full; do
	for compat in 0.10 1.1; do
		qemu-img create -q -f qcow2 -o compat=$compat room.qcow2 1M
		resize --preallocation $mode room.qcow2 5M
		clean room.qcow2
		qemu-io -c 'read -q -P 0 0 5M' room.qcow2
		qemu-img map -f qcow2 --output=json room.qcow2 >map.txt
		expect_text map.txt '"start": 1048576, "length": 4194304,.*set'
	done
done
used=$(stat -c %b room.qcow2)
[ "$used" -ge 8192 ] || fail "full takes no room: $used blocks"

echo "a raw file:"
truncate -s 1M disk.raw
resize -f raw disk.raw +1M
[ "$(stat -c %s disk.raw)" -eq 2097152 ] || fail "disk.raw is no longer"
expect_status 1 "$QNBD" resize -f raw disk.raw 1M
resize -f raw --shrink disk.raw 1M

echo "what cannot be:"
qemu-img create -q -f qcow2 -o cluster_size=512 tiny.qcow2 1M
expect_status 1 "$QNBD" resize tiny.qcow2 1T
expect_text "$tmp/err" 'its clusters are too small for a disk that long'
length tiny.qcow2 1048576
clean tiny.qcow2
expect_status 1 "$QNBD" resize --shrink tiny.qcow2 -2M
expect_text "$tmp/err" 'tiny.qcow2 has no more than 1048576 bytes'
expect_status 64 "$QNBD" resize tiny.qcow2
expect_status 64 "$QNBD" resize tiny.qcow2 many
expect_text "$tmp/err" 'many is no size'
start_qnbd tiny.qcow2
expect_status 75 "$QNBD" resize tiny.qcow2 2M
stop_qnbd
