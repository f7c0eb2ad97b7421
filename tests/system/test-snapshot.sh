#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards against snapshots that are not what the disk held, that other programs
# cannot read, that lose what is shared with them, or that leave an image in
# which refcounts or C flags are wrong; and against what cannot be done being
# done by half.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires qemu-img qemu-io nbdcopy python3

# clean FILE: nothing is wrong with it, not even a leak.
clean()
{
	qemu-img check -q "$1" || {
		qemu-img check "$1" | tail -n 20 >&2
		fail "$1 is not clean"
	}
	expect_status 0 "$QNBD" check "$1"
}

# holds FILE RAW [NAME]: the disk, or a snapshot of it, as others read it.
holds()
{
	rm -f read.raw
	if [ $# -eq 3 ]; then
		qemu-img convert -l "snapshot.name=$3" -O raw "$1" read.raw
		cmp read.raw "$2" || fail "$3 of $1 is not $2"
		rm -f read.raw
		nbdcopy -- [ "$QNBD" serve -r --snapshot "$3" "$1" ] read.raw
	else
		qemu-img convert -O raw "$1" read.raw
	fi
	cmp read.raw "$2" || fail "$1 is not $2"
}

snapshot()
{
	expect_status 0 "$QNBD" snapshot "$@"
}

# round NAME OPTIONS: three snapshots, in and out, written to in between.
round()
{
	local image=$1.qcow2

	qemu-img create -q -f qcow2 -o "$2" "$image" 9M
	qemu-io -c 'write -q -P 1 0 3M' -c 'write -q -P 2 4M 100k' \
	    -c 'write -q -z 5M 1M' -c 'write -q -P 3 8M 1M' "$image"
	qemu-img convert -O raw "$image" one.raw
	snapshot create "$image" one
	clean "$image"
	holds "$image" one.raw
	holds "$image" one.raw one

	qemu-io -c 'write -q -P 4 1M 1M' -c 'write -q -P 5 4M 10k' \
	    -c 'discard -q 2M 512k' "$image"
	qemu-img convert -O raw "$image" two.raw
	snapshot create "$image" two
	clean "$image"
	holds "$image" one.raw one
	holds "$image" two.raw two

	# Those of others are as good.
	qemu-img snapshot -c three "$image"
	qemu-io -c 'write -q -P 6 0 9M' "$image"
	snapshot apply "$image" one
	clean "$image"
	holds "$image" one.raw
	qemu-io -c 'write -q -P 7 512k 7M' "$image"
	snapshot delete "$image" one
	clean "$image"
	holds "$image" two.raw two
	snapshot apply "$image" three
	clean "$image"
	holds "$image" two.raw
	qemu-img snapshot -d two "$image"
	snapshot delete "$image" 3
	clean "$image"
	holds "$image" two.raw
	[ "$("$QNBD" snapshot list "$image" | wc -l)" -eq 0 ] ||
	    fail "$image still has snapshots"
}

echo "images of all kinds:"
round v2 compat=0.10
round v3 cluster_size=64k
round small cluster_size=512,refcount_bits=64
round narrow cluster_size=4k,refcount_bits=8
round large cluster_size=2M

echo "compressed clusters, with a backing file:"
qemu-img create -q -f raw base.raw 3M
qemu-io -f raw -c 'write -q -P 9 0 3M' base.raw
qemu-img convert -q -c -O qcow2 -B base.raw -F raw base.raw packed.qcow2
qemu-img create -q -f raw data.raw 3M
qemu-io -f raw -c 'write -q -P 8 1M 1M' data.raw
qemu-img convert -q -c -O qcow2 data.raw packed.qcow2
snapshot create packed.qcow2 packed
clean packed.qcow2
qemu-io -c 'write -q -P 7 1M 512k' packed.qcow2
clean packed.qcow2
holds packed.qcow2 data.raw packed
snapshot apply packed.qcow2 packed
snapshot delete packed.qcow2 packed
clean packed.qcow2
holds packed.qcow2 data.raw

echo "the disk gets the length that it had:"
qemu-img create -q -f qcow2 -o cluster_size=4k length.qcow2 1M
qemu-io -c 'write -q -P 1 0 1M' length.qcow2
snapshot create length.qcow2 short
qemu-img resize -q length.qcow2 9M
qemu-io -c 'write -q -P 2 8M 1M' length.qcow2
snapshot create length.qcow2 long
snapshot apply length.qcow2 short
clean length.qcow2
"$QNBD" info --json length.qcow2 >"$tmp/out"
expect_text "$tmp/out" '"virtual-size": 1048576,'
snapshot apply length.qcow2 long
clean length.qcow2
qemu-io -c 'read -q -P 2 8M 1M' -c 'read -q -P 1 0 1M' length.qcow2
"$QNBD" info --json length.qcow2 >"$tmp/out"
expect_text "$tmp/out" '"virtual-size": 9437184,'

echo "what cannot be, changes nothing:"
qemu-img create -q -f qcow2 -o refcount_bits=1 bit.qcow2 1M
qemu-io -c 'write -q -P 1 0 1M' bit.qcow2
qemu-img convert -O raw bit.qcow2 bit.raw
expect_status 1 "$QNBD" snapshot create bit.qcow2 one
expect_text "$tmp/err" 'cannot make the snapshot "one" of .*refcount_bits'
clean bit.qcow2
holds bit.qcow2 bit.raw
qemu-img create -q -f qcow2 -o refcount_bits=2 bits.qcow2 1M
qemu-io -c 'write -q -P 1 0 1M' bits.qcow2
snapshot create bits.qcow2 one
snapshot create bits.qcow2 two
expect_status 1 "$QNBD" snapshot create bits.qcow2 three
clean bits.qcow2
[ "$("$QNBD" snapshot list bits.qcow2 | wc -l)" -eq 2 ] ||
    fail "not two snapshots"
expect_status 1 "$QNBD" snapshot apply bits.qcow2 one
expect_text "$tmp/err" 'cannot apply .*refcount_bits'
clean bits.qcow2
expect_status 1 "$QNBD" snapshot create bits.qcow2 two
expect_text "$tmp/err" 'there is one of that name$'
expect_status 1 "$QNBD" snapshot create bits.qcow2 ''
expect_text "$tmp/err" 'its name is empty or too long$'
expect_status 1 "$QNBD" snapshot delete bits.qcow2 nine
expect_text "$tmp/err" 'there is none of that name or id$'
clean bits.qcow2
expect_status 1 "$QNBD" serve -r --snapshot nine -u "$tmp/no.sock" bits.qcow2
expect_text "$tmp/err" 'bits.qcow2 has no snapshot "nine"$'
expect_text "$tmp/err" '^  those it has: qnbd snapshot list bits.qcow2$'
expect_status 64 "$QNBD" serve --snapshot one bits.qcow2
expect_status 64 "$QNBD" snapshot
expect_status 64 "$QNBD" snapshot creat a b
expect_text "$tmp/err" 'unknown word creat; did you mean create\?$'
expect_status 64 "$QNBD" snapshot create a
expect_status 64 "$QNBD" snapshot list a b

echo "an encrypted image needs no key:"
printf secret >key
qemu-img create -q -f qcow2 --object secret,id=key,file=key \
    -o encrypt.format=aes,encrypt.key-secret=key secret.qcow2 1M
snapshot create secret.qcow2 one
snapshot apply secret.qcow2 one
snapshot delete secret.qcow2 one
expect_status 0 "$QNBD" check secret.qcow2
expect_status 0 "$QNBD" resize --key-file key secret.qcow2 3M

echo "an image that others use:"
start_qnbd -r v3.qcow2
expect_status 75 "$QNBD" snapshot create v3.qcow2 one
stop_qnbd

echo "the list:"
sorted='import json, sys
list = json.load(sys.stdin)
print(json.dumps(list["snapshots"] if "snapshots" in list else list, \
    sort_keys=True))'
qemu-img info --output=json -f qcow2 bits.qcow2 | python3 -c "$sorted" >theirs
"$QNBD" snapshot list --json bits.qcow2 | python3 -c "$sorted" >ours
diff ours theirs || fail "qemu-img reads another list"
