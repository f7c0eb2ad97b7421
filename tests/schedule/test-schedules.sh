#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards what requests may do to each other: 5,000 random schedules of reads,
# writes, zeros, trims and flushes on two simulated loops, over a few clusters
# of three sizes, 1,000 in encrypted images, 2,350 that compress clusters,
# too, and 1,500 in which clusters keep their place.  schedules.c says which
# races that is about.
#
# QNBD_SEED is the first seed, TEST_ROUNDS multiplies the number of schedules.
# A failure prints its seed; then build/tests/schedule/schedules IMAGE SEED 1,
# and perhaps the last word, with an image made as below, prints what
# happened.
. "${abs_top_srcdir:-.}/tests/functions.sh"

schedules=$(dirname "$QNBD")/tests/schedule/schedules
[ -x "$schedules" ] || fail "there is no $schedules; make check builds it"
draw_seeds 20 15

# try CLUSTER-SIZE DISK-SIZE SCHEDULES [OPTIONS [WORD]]
try()
{
	local image=$1${4:+-$4}.qcow2
	"$QNBD" create --force -o "cluster_size=$1${4:+,$4}" "$image" "$2" \
	    2>/dev/null
	"$schedules" "$image" "$seed" $(($3 * rounds / slower)) "${@:5}" ||
	    fail "clusters of $1, $image ${5:-}"
}

try 512 1M 1000
try 4k 4M 3000
try 64k 16M 1000
try 512 1M 250 encryption=on
try 4k 4M 500 encryption=on
try 64k 16M 250 encryption=on

try 512 1M 500 refcount_bits=16 packed
try 4k 4M 1000 refcount_bits=16 packed
try 64k 16M 50 refcount_bits=16 packed
try 512 1M 150 refcount_bits=1 packed
try 4k 4M 150 refcount_bits=2 packed
try 4k 4M 500 compression_type=zstd packed

try 512 1M 500 refcount_bits=16 staying
try 4k 4M 750 refcount_bits=16 staying
try 4k 4M 250 encryption=on staying
