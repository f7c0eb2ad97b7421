#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards the engine on two loops against each other: random requests on four
# connections, for each size of cluster and with a snapshot in the image.  Every
# read is held against a model; in the end the image is clean and equal to it.
# test-matrix.sh does the same to more kinds of images; this one is short enough
# for ThreadSanitizer.
#
# LOAD_SEED and LOAD_OPERATIONS change the load.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires qemu-img qemu-io

random_load=$(dirname "$QNBD")/tests/system/random_load
[ -x "$random_load" ] || skip "there is no random_load: install libnbd-dev," \
    "run configure again, then make check"

operations=${LOAD_OPERATIONS:-2000}
seed=${LOAD_SEED:-$(date +%s%N | cut -c 5-15)}
load_seconds_max=$((60 + operations / 10))
echo "LOAD_SEED=$seed LOAD_OPERATIONS=$operations"

# load IMAGE [ARG...]: with ARGs for qnbd serve
load()
{
	local image=$1
	shift
	qemu-img convert -f qcow2 -O raw "$image" model
	start_qnbd --threads 2 "$@" "$image"
	timeout "$load_seconds_max" "$random_load" "$uri" model "$seed" \
	    "$operations" || fail "$image: random_load, status $?"
	stop_qnbd
	qemu-img check -q -f qcow2 "$image" || {
		qemu-img check -f qcow2 "$image" >&2 || :
		fail "$image: qemu-img check is not content"
	}
	qemu-img compare -q -f raw -F qcow2 model "$image" ||
	    fail "$image differs from the model"
}

for size in 512 4k 64k; do
	qemu-img create -q -f qcow2 -o cluster_size=$size $size.qcow2 64M
	load $size.qcow2
done
# What the first run left, shared with a snapshot, with the other engine.
qemu-img snapshot -c one 64k.qcow2
load 64k.qcow2 --io threads
