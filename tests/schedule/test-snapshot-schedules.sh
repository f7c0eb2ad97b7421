#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards snapshots and lengths against requests and requests against those:
# 3,500 random schedules in which snapshots are made, deleted and applied, and
# the disk becomes longer and shorter, beside clients, on images of several
# kinds; of each kind the last one is shown to qemu-img.  snapshot_schedules.c
# says which races that is about.
#
# QNBD_SEED is the first seed, TEST_ROUNDS multiplies the number of schedules.
# A failure prints its seed; then the command that it is printed with, with that
# seed and 1, and an image made as below, prints what happened.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires qemu-img

build=$(dirname "$QNBD")
schedules=$build/tests/schedule/snapshot_schedules
crash=$build/tests/crash/crash
[ -x "$schedules" ] || fail "there is no $schedules; make check builds it"
draw_seeds 20 15
key='the key of tests'
encryption=

# make NAME SIZE OPTIONS [ARG...]: an empty NAME.qcow2.
make()
{
	"$QNBD" create -o "$3" "${@:4}" "$1.qcow2" "$2" 2>/dev/null
}

# make_full NAME SIZE OPTIONS: the same with a snapshot that has all of it;
# compressed-NAME.qcow2, too.
make_full()
{
	make "$1" "$2" "$3"
	"$crash" "$1.qcow2" prepare
	qemu-img convert -c -f qcow2 -O qcow2 -o "$3" "$1.qcow2" \
	    "compressed-$1.qcow2"
	qemu-img snapshot -c one "$1.qcow2"
	qemu-img snapshot -c one "compressed-$1.qcow2"
}

# try IMAGE SCHEDULES [ARG...]
try()
{
	local count=$(($2 * rounds / slower))
	[ "$count" -gt 0 ] || count=1
	"$schedules" "${@:3}" -o kept.qcow2 "$1.qcow2" "$seed" "$count" \
	    >out || {
		cat out
		fail "$schedules ${*:3} $1.qcow2"
	}
	cat out
	qemu-img check -q --object "secret,id=key,data=$key" --image-opts \
	    "driver=qcow2,file.filename=kept.qcow2$encryption" ||
	    fail "$1: qemu-img finds faults"
}

# What the narrowest refcounts cannot count is refused.
try_narrow()
{
	try "$@"
	grep -q ' operations, 0 refused' out &&
	    fail "$1: a refcount counted too much"
	return 0
}

make 512 256k cluster_size=512
make 4k 4M cluster_size=4k
make 64k 16M cluster_size=64k
make old-512 256k cluster_size=512,compat=0.10
make old-4k 4M cluster_size=4k,compat=0.10
make lazy 4M cluster_size=4k,lazy_refcounts=on
make one 4M cluster_size=4k,refcount_bits=1
make two 256k cluster_size=512,refcount_bits=2
make wide 256k cluster_size=512,refcount_bits=64
make encrypted 4M cluster_size=4k,encryption=on
make_full full-512 128k cluster_size=512
make_full full-4k 2M cluster_size=4k
make_full full-old-512 128k cluster_size=512,compat=0.10
make base 1M cluster_size=4k
"$crash" base.qcow2 prepare
qemu-img convert -f qcow2 -O raw base.qcow2 base.raw
truncate -s 768K base.raw
make over-4k 1M cluster_size=4k -b base.raw -F raw
make over-512 1M cluster_size=512 -b base.qcow2 -F qcow2
make over-old-4k 1M cluster_size=4k,compat=0.10 -b base.raw -F raw

try 512 200
try 4k 200
try 64k 25
try old-512 100
try old-4k 100
try lazy 100
try_narrow one 50
try_narrow two 100
try wide 100
encryption=,encrypt.key-secret=key
try encrypted 50
encryption=
try full-512 150 -f
try full-4k 150 -f
try full-old-512 100 -f
try compressed-full-512 100 -f
try compressed-full-4k 100 -f
try over-4k 100 -b base.raw
try over-512 100 -b base.qcow2
try over-old-4k 100 -b base.raw

# The disk gets other lengths; with snapshots, and without.
make short-over-4k 512k cluster_size=4k -b base.raw -F raw
make short-over-old-512 300k cluster_size=512,compat=0.10 -b base.raw -F raw
cp full-4k.qcow2 alone-full-4k.qcow2
qemu-img snapshot -d one alone-full-4k.qcow2
for kind in -nr -r; do
	for image in 512 4k lazy wide; do
		try $image 75 $kind
	done
	try 64k 25 $kind
	try 4k 50 $kind -c
	try 512 50 $kind -s
	try short-over-4k 75 $kind -b base.raw
	try over-512 50 $kind -b base.qcow2
	try full-4k 50 $kind -f
	try compressed-full-512 50 $kind -f
done
encryption=,encrypt.key-secret=key
try encrypted 50 -nr
try encrypted 50 -r
encryption=
try alone-full-4k 75 -nr -f
try old-512 75 -nr
try short-over-old-512 75 -nr -b base.raw

try 4k 100 -c
try two 50 -c
try 512 100 -s
try full-4k 50 -f -s
