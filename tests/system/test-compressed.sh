#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards compressed clusters against what others make of them: for clusters of
# every size and both codecs, an image written by image_write_compressed() is
# clean to qemu-img check, equal to its source in qemu-img compare, and no
# longer than what qemu-img convert -c makes of it, plus a hundredth.  Then a
# random load on four connections reads and overwrites it.
#
# LOAD_SEED and LOAD_OPERATIONS change the load.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires qemu-img

compress=$(dirname "$QNBD")/tests/system/compress
random_load=$(dirname "$QNBD")/tests/system/random_load
[ -x "$compress" ] || fail "there is no $compress; make check builds it"

operations=${LOAD_OPERATIONS:-500}
seed=${LOAD_SEED:-$(date +%s%N | cut -c 5-15)}
echo "LOAD_SEED=$seed LOAD_OPERATIONS=$operations"

# make_source FILE SIZE: text, noise, holes and a program; the disk's last
# cluster is cut short.
make_source()
{
	seq 1 300000 >"$1"
	truncate -s 3M "$1"
	head -c 400000 /dev/urandom >>"$1"
	truncate -s 4M "$1"
	head -c 2500000 "$QNBD" >>"$1"
	truncate -s 6M "$1"
	seq 300000 1 1000000 >>"$1"
	truncate -s "$2" "$1"
}

# write CLUSTER-SIZE CODEC
write()
{
	local name=$1-$2 options=cluster_size=$1,compression_type=$2 most
	qemu-img create -q -f qcow2 -o "$options" "$name.qcow2" "$size"
	"$compress" source "$name.qcow2" || fail "$name: not written"
	qemu-img check -q -f qcow2 "$name.qcow2" ||
	    fail "$name: qemu-img check is not content"
	qemu-img compare -q -f raw -F qcow2 source "$name.qcow2" ||
	    fail "$name differs from its source"
	qemu-img convert -c -W -f raw -O qcow2 -o "$options" source theirs
	most=$(($(stat -c %s theirs) * 101 / 100 + $1))
	[ "$(stat -c %s "$name.qcow2")" -le "$most" ] ||
	    fail "$name has $(stat -c %s "$name.qcow2") bytes, that of" \
	    "qemu-img $(stat -c %s theirs)"
	qemu-img check --output=json -f qcow2 "$name.qcow2" |
	    grep -q '"compressed-clusters"' || fail "$name: not compressed"
}

# load NAME
load()
{
	[ -x "$random_load" ] || return 0
	cp source model
	start_qnbd --threads 2 "$1.qcow2"
	timeout 300 "$random_load" "$uri" model "$seed" "$operations" ||
	    fail "$1: random_load, status $?"
	stop_qnbd
	qemu-img check -q -f qcow2 "$1.qcow2" ||
	    fail "$1: after the load qemu-img check is not content"
	qemu-img compare -q -f raw -F qcow2 model "$1.qcow2" ||
	    fail "$1 differs from the model after the load"
}

size=$((8 * 1048576 + 512 * 3))
make_source source $size
for cluster in 512 4096 65536 262144 2097152; do
	for codec in zlib zstd; do
		write $cluster $codec
		load $cluster-$codec
	done
done

# Refcounts so narrow that a cluster takes one stream, or three.
for bits in 1 2; do
	qemu-img create -q -f qcow2 -o refcount_bits=$bits narrow.qcow2 $size
	"$compress" source narrow.qcow2
	qemu-img check -q -f qcow2 narrow.qcow2 ||
	    fail "refcount_bits=$bits: qemu-img check is not content"
	qemu-img compare -q -f raw -F qcow2 source narrow.qcow2 ||
	    fail "refcount_bits=$bits: it differs from its source"
done
